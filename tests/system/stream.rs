//! The stream of columns of a real cluster, over HTTP: what is told adds up, from any cursor on.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Cluster, PATIENCE};
use serde_json::Value;

/// Asks for the stream; the status line and a reader of what follows.
fn open(address: &str, parameters: &str, headers: &str) -> (String, BufReader<TcpStream>) {
    let mut socket = TcpStream::connect(address).expect("the node listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
    write!(socket, "GET /api/v1/stream{parameters} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n")
        .expect("the request is sent");
    let mut reader = BufReader::new(socket);
    let mut status = String::new();
    reader.read_line(&mut status).expect("a status line");
    (status, reader)
}

/// The next event: its cursor and its matrix. `None` at the end of the stream.
fn next(reader: &mut BufReader<TcpStream>) -> Option<(u64, Value)> {
    let mut cursor = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(id) = line.strip_prefix("id: ") {
            cursor = id.trim().parse().expect("the id is a cursor");
        } else if let Some(data) = line.strip_prefix("data: ") {
            return Some((cursor, serde_json::from_str(data).expect("a matrix as JSON")));
        }
    }
}

/// The closed columns of an update: when each starts, and its sum.
fn closed(matrix: &Value) -> BTreeMap<u64, u64> {
    let columns = matrix["columns"].as_array().expect("columns");
    let rows = matrix["rows"].as_array().expect("rows");
    let mut sums = BTreeMap::new();
    for (at, column) in columns.iter().enumerate().filter(|(_, column)| column["open"] == false) {
        let start = column["start_ms"].as_u64().expect("a time");
        let values = rows.iter().filter_map(|row| row["values"][at].as_u64());
        let blocks = matrix["blocks"].as_array().expect("blocks").iter();
        let blocks = blocks.filter(|block| block["column"] == at && block["straddling"] == false);
        sums.insert(start, values.chain(blocks.filter_map(|b| b["value"].as_u64())).sum());
    }
    sums
}

#[test]
fn conservation_streams_tell_each_write_once_and_resume_on_another_node() {
    const WRITES: u64 = 40;
    let mut cluster = Cluster::start(3, &["--keyviz-step", "1s", "--groups", "2"]);
    let (status, mut first) = open(&cluster.http[0], "?series=writes", "");
    assert!(status.contains("200"), "{status}");
    let (begin, _) = next(&mut first).expect("an update at once");
    for at in 0..WRITES {
        let key = format!("key/{at}");
        assert!(cluster.run(&["put", &key, "v"]).status.success());
    }

    // What closed after the first cursor, as it closes. The open column of an update is told again.
    // A column that a busy member was late for is told again, and replaces what was told.
    let (mut told, mut middle) = (BTreeMap::new(), begin);
    while told.values().sum::<u64>() < WRITES {
        let (cursor, matrix) = next(&mut first).expect("the stream goes on");
        told.extend(closed(&matrix));
        middle = cursor;
    }
    assert_eq!(told.values().sum::<u64>(), WRITES, "{told:?}");

    // The same from the cursor on, at another node, in one update.
    let (_, mut resumed) = open(&cluster.http[1], "", &format!("last-event-id: {begin}\r\n"));
    let (cursor, matrix) = next(&mut resumed).expect("an update at once");
    assert!(cursor >= middle);
    assert_eq!(closed(&matrix).values().sum::<u64>(), WRITES);
    assert_eq!(matrix["responded"], 3);

    for (parameters, named) in [("?series=x", "series=x"), ("?after_ms=-1", "after_ms=-1")] {
        let (status, mut reader) = open(&cluster.http[0], parameters, "connection: close\r\n");
        assert!(status.contains("400"), "{status}");
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("the reason");
        assert!(said.contains(named), "{said}");
    }

    // A stop ends the stream and is not held up by it.
    assert_eq!(cluster.stop(0), Some(0));
    while next(&mut first).is_some() {}

    // While a member is missing, the cursor of those who listen waits for it. Who comes now begins
    // later than that, and is told of the seconds as they pass all the same.
    let missing = |matrix: &Value| matrix["responded"] == 2;
    while !missing(&next(&mut resumed).expect("the stream goes on").1) {}
    std::thread::sleep(Duration::from_secs(3));
    let (_, mut late) = open(&cluster.http[1], "", "");
    let began = Instant::now();
    for _ in 0..4 {
        assert!(missing(&next(&mut late).expect("the stream goes on").1));
    }
    assert!(began.elapsed() < PATIENCE / 2, "it did not wait for the member");
}
