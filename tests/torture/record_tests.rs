//! Records of `keyviz load`, as the checker reads them.

use std::io::Cursor;

use super::linear::{self, Event, Op, Outcome};
use super::record::{self, BadLine};
use super::support::{Cluster, stderr};

const LINES: &str = include_str!("record.jsonl");

#[test]
fn a_record_is_read_as_the_histories_of_its_keys() {
    let read = record::read(Cursor::new(LINES)).expect("sound lines");
    assert_eq!(read.left_out, 2, "what failed, and the scan");
    let event = |client, op, outcome, start, end| Event { client, op, outcome, start, end };
    let expected = [
        event(0, Op::Put(10), Outcome::Done, 1, 3),
        event(1, Op::Get, Outcome::Found(Some(10)), 4, 5),
        event(1, Op::Delete, Outcome::Done, 6, 7),
        event(1, Op::Get, Outcome::Found(None), 8, 9),
    ];
    assert_eq!(read.histories["a"], expected);
    assert_eq!(read.histories["b"], [event(0, Op::Put(12), Outcome::Unknown, 8, 9)]);
    assert!(read.histories.values().all(|history| linear::check(history).is_ok()));
}

#[test]
fn a_record_with_a_stale_read_is_refused() {
    let lines = LINES.replacen(
        "\"op\":\"delete\",\"key\":\"a\",\"digest\":null",
        "\"op\":\"write\",\"key\":\"a\",\"digest\":\"0d\"",
        1,
    );
    let read = record::read(Cursor::new(lines)).expect("sound lines");
    assert!(linear::check(&read.histories["a"]).is_err(), "the last read finds nothing");
}

#[test]
fn one_value_of_before_the_record_is_taken_and_two_are_not() {
    let read = |digest: &str, at: u64| {
        format!(
            "{{\"client\":0,\"op\":\"read\",\"key\":\"k\",\"digest\":\"{digest}\",\
             \"start_us\":{at},\"end_us\":{},\"outcome\":\"ok\"}}\n",
            at + 1
        )
    };
    let check = |lines: String| {
        let read = record::read(Cursor::new(lines)).expect("sound lines");
        linear::check(&read.histories["k"])
    };
    assert!(check(read("1", 1) + &read("1", 3)).is_ok());
    assert!(check(read("1", 1) + &read("2", 3)).is_err());
}

#[test]
fn a_line_that_is_no_operation_is_named() {
    let bad = |lines: &str| record::read(Cursor::new(lines.to_owned())).expect_err("a bad line");
    assert_eq!(bad("{}"), BadLine { line: 1, what: "outcome is missing or is no text".into() });
    let torn = format!("{LINES}{{\"client\":0,");
    assert_eq!(bad(&torn).line, 8);
    assert!(bad(&LINES.replace("\"scan\"", "\"fly\"")).what.contains("fly"));
}

#[test]
fn what_the_load_generator_records_is_linearizable() {
    let cluster = Cluster::start(3, &["--groups", "2"]);
    let file = cluster.folder.path().join("history.jsonl");
    let name = file.to_str().expect("a temporary path is text");
    let arguments =
        ["load", "--operations", "600", "--keys", "8", "--read-ratio", "0.5", "--record", name];
    let loaded = cluster.run(&arguments);
    assert!(loaded.status.success(), "{}", stderr(&loaded));
    let lines = std::fs::File::open(&file).expect("the record is there");
    let read = record::read(std::io::BufReader::new(lines)).expect("sound lines");
    let events: usize = read.histories.values().map(Vec::len).sum();
    assert!(events + read.left_out >= 600, "{events} operations");
    for (key, history) in &read.histories {
        assert_eq!(linear::check(history), Ok(()), "key {key}");
    }
}
