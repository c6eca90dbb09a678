//! `keyviz export`: what it writes adds up to the matrix, in every format, and with a node killed.
//! Real processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Value, json};

use crate::support::{Cluster, KEYVIZ, eventually, stderr};

const FLAGS: &[&str] = &["--groups", "3", "--keyviz-step", "1s", "--split-at"];

/// More routes than a page has, over the keys of the load.
fn splits() -> String {
    (1..150).map(|route| format!("key/{:08}", route * 20)).collect::<Vec<_>>().join(",")
}

/// The series as columns of an export and as series of the matrix.
const SERIES: [(&str, &str); 4] = [
    ("reads", "reads"),
    ("writes", "writes"),
    ("read_bytes", "read-bytes"),
    ("write_bytes", "write-bytes"),
];

/// The columns with numbers.
const NUMBERS: [&str; 13] = [
    "node",
    "group",
    "term",
    "route_id",
    "column_start_ms",
    "column_ms",
    "reads",
    "writes",
    "read_bytes",
    "write_bytes",
    "hot_lower",
    "hot_upper",
    "hot_bytes",
];

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    since.as_millis() as u64
}

fn load(cluster: &Cluster, seconds: u64) {
    let loaded = Command::new(KEYVIZ)
        .args(["load", "--pattern", "zipf", "--keys", "3000", "--read-ratio", "0.4"])
        .args(["--clients", "4", "--seed", "5", "--rate", "300"])
        .args(["--duration", &format!("{seconds}s"), "--format", "json"])
        .args(["--node", &cluster.grpc.join(",")])
        .stderr(Stdio::null())
        .output()
        .expect("the binary starts");
    assert!(loaded.status.success(), "{}", stderr(&loaded));
}

/// Waits until nothing of a time changes any more, and copies have it.
fn settled(cluster: &Cluster, window: (u64, u64)) {
    eventually("the window is copied", || {
        (0..3).all(|at| {
            let held = cluster.metric(at, "keyviz_copies_held");
            let lag = cluster.metric(at, "keyviz_copies_lag_seconds");
            let held = held.is_some_and(|held| held >= 2.0) && lag.is_some_and(|lag| lag < 4.0);
            held && now_ms() > window.1 + 6_000
        })
    });
}

fn totals(cluster: &Cluster, window: (u64, u64)) -> [u64; 4] {
    let (from, to) = (window.0.to_string(), window.1.to_string());
    SERIES.map(|(_, series)| {
        let matrix =
            cluster.json_on(0, &["heat", "--series", series, "--from", &from, "--to", &to]);
        matrix["total"].as_u64().expect("a matrix has a total")
    })
}

fn export(cluster: &Cluster, window: (u64, u64), more: &[&str]) -> Output {
    let (from, to) = (window.0.to_string(), window.1.to_string());
    let arguments = [&["export", "--from", &from, "--to", &to], more].concat();
    cluster.run_on(0, &arguments)
}

/// The rows of an export, in any format, as JSON without what is absent.
fn rows(cluster: &Cluster, window: (u64, u64), format: &str, more: &[&str]) -> Vec<Value> {
    let file = cluster.folder.path().join(format!("export-{}.{format}", now_ms()));
    let path = file.to_str().expect("a temporary path is text");
    let output = export(cluster, window, &[&["--format", format, "--out", path], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = || std::fs::read_to_string(&file).expect("the file is there");
    let rows: Vec<Value> = match format {
        "csv" => csv_rows(&text()),
        "json" => {
            let line = |line: &str| serde_json::from_str(line).expect("each line is an object");
            text().lines().map(line).collect()
        }
        _ => parquet_rows(&file),
    };
    rows.into_iter().map(without_absent).collect()
}

/// An empty text and an absent one look alike in CSV.
fn without_absent(mut row: Value) -> Value {
    let fields = row.as_object_mut().expect("a row is an object");
    fields.retain(|_, value| !value.is_null() && value != "");
    row
}

fn csv_rows(text: &str) -> Vec<Value> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().expect("a header").clone();
    let field = |(name, value): (&str, &str)| {
        let value = match value {
            "" => Value::Null,
            "true" | "false" if name == "partial" || name == "conflict" => json!(value == "true"),
            number if NUMBERS.contains(&name) => json!(number.parse::<u64>().expect("a number")),
            text => json!(text),
        };
        (name.to_owned(), value)
    };
    let row = |record: Result<csv::StringRecord, _>| {
        let record = record.expect("it is CSV");
        Value::Object(names.iter().zip(record.iter()).map(field).collect())
    };
    reader.records().map(row).collect()
}

fn parquet_rows(file: &Path) -> Vec<Value> {
    let file = File::open(file).expect("the file is there");
    let reader = SerializedFileReader::new(file).expect("it is Parquet");
    let field = |(name, field): (&String, &Field)| {
        let value = match field {
            Field::Null => Value::Null,
            Field::Bool(flag) => json!(flag),
            Field::ULong(number) => json!(number),
            Field::Str(text) => json!(text),
            other => panic!("{name} is {other:?}"),
        };
        (name.clone(), value)
    };
    let row = |row: parquet::record::Row| Value::Object(row.get_column_iter().map(field).collect());
    let rows = reader.get_row_iter(None).expect("it has rows");
    rows.map(|found| row(found.expect("it is a row"))).collect()
}

/// The sums over cells and blocks.
fn sums(rows: &[Value]) -> [u64; 4] {
    let counted = |row: &&Value| row["kind"] == "cell" || row["kind"] == "block";
    SERIES.map(|(series, _)| {
        rows.iter().filter(counted).map(|row| row[series].as_u64().expect("a count")).sum()
    })
}

fn of_kind<'a>(rows: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    rows.iter().filter(move |row| row["kind"] == kind)
}

/// What a Parquet file adds up to in DuckDB; `None`: it is not installed.
fn duckdb_sums(file: &Path) -> Option<[u64; 4]> {
    let python = std::env::var("KEYVIZ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import duckdb"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 with duckdb is not installed");
        return None;
    }
    let program = "import duckdb, sys\n\
        query = \"select sum(reads), sum(writes), sum(read_bytes), sum(write_bytes) from \
        read_parquet(?) where kind in ('cell', 'block')\"\n\
        print(*duckdb.execute(query, [sys.argv[1]]).fetchone())";
    let output = Command::new(&python).args(["-c", program]).arg(file).output();
    let output = output.expect("python starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("numbers");
    let mut numbers = text.split_whitespace().map(|n| n.parse().expect("a number"));
    Some(SERIES.map(|_| numbers.next().expect("four sums")))
}

/// A row of each place, and of each counter in it.
fn each_place_once(rows: &[Value], dedup: bool) {
    let mut places = BTreeSet::new();
    for row in rows.iter().filter(|row| row["kind"] == "cell" || row["kind"] == "block") {
        let place = ["start", "end", "column_start_ms", "column_ms"].map(|name| row[name].clone());
        let by = ["node", "group", "term", "role"].map(|name| row[name].clone());
        assert_eq!(row.get("node").is_none(), dedup, "{row}");
        let by = if dedup { "".to_owned() } else { json!(by).to_string() };
        assert!(places.insert((json!(place).to_string(), by)), "{row} is there twice");
    }
}

#[test]
fn conservation_exports_add_up_to_the_matrix_in_every_format_and_with_a_node_killed() {
    let mut cluster = Cluster::start(3, &[FLAGS, &[&splits()]].concat());
    let begun_ms = now_ms() / 1_000 * 1_000;
    load(&cluster, 4);
    let routes = cluster.json(&["routes", "list"]);
    let second = routes["routes"][1]["route_id"].as_u64().expect("an id").to_string();
    let split = cluster.run(&["routes", "split", &second, "key/00000030"]);
    assert!(split.status.success(), "{}", stderr(&split));
    load(&cluster, 4);
    let window = (begun_ms, now_ms() / 1_000 * 1_000 + 1_000);
    settled(&cluster, window);
    let truth = totals(&cluster, window);
    assert!(truth.iter().all(|total| *total > 0), "{truth:?}");

    let mut before = BTreeMap::new();
    for dedup in [true, false] {
        let more: &[&str] = if dedup { &["--dedup"] } else { &[] };
        let csv = rows(&cluster, window, "csv", more);
        assert_eq!(sums(&csv), truth, "csv, dedup {dedup}");
        assert_eq!(csv, rows(&cluster, window, "json", more), "json, dedup {dedup}");
        assert_eq!(csv, rows(&cluster, window, "parquet", more), "Parquet, dedup {dedup}");
        each_place_once(&csv, dedup);
        let end = csv.last().expect("a last row");
        assert_eq!((&end["kind"], &end["partial"]), (&json!("end"), &json!(false)));
        let hot = of_kind(&csv, "hot_key").next().expect("hot keys");
        assert!(hot["hot_lower"].as_u64() <= hot["hot_upper"].as_u64(), "{hot}");
        assert_eq!(of_kind(&csv, "gap").count(), 0);
        before.insert(dedup, csv);
    }
    let writes = before[&false].iter().filter(|row| row["role"] == "leader-write");
    assert!(writes.clone().count() > 0 && writes.clone().all(|row| row["term"].is_u64()));
    let nodes: BTreeSet<u64> =
        before[&false].iter().filter_map(|row| row["node"].as_u64()).collect();
    assert_eq!(nodes, BTreeSet::from([1, 2, 3]), "each node counts");

    let file = cluster.folder.path().join("duck.parquet");
    let path = file.to_str().expect("a temporary path is text");
    let made = export(&cluster, window, &["--format", "parquet", "--out", path, "--dedup"]);
    assert!(made.status.success(), "{}", stderr(&made));
    if let Some(sums) = duckdb_sums(&file) {
        assert_eq!(sums, truth, "in DuckDB");
    }

    cluster.kill(2);
    for (dedup, before) in &before {
        let more: &[&str] = if *dedup { &["--dedup"] } else { &[] };
        for format in ["csv", "json", "parquet"] {
            let after = rows(&cluster, window, format, more);
            assert_eq!(sums(&after), truth, "{format}, dedup {dedup}");
            let counted = |rows: &[Value]| -> Vec<Value> {
                rows.iter().filter(|row| row["kind"] == "cell").cloned().collect()
            };
            assert_eq!(counted(&after), counted(before), "{format}, dedup {dedup}");
        }
    }
}

#[test]
fn honest_partiality_an_export_without_a_node_that_has_no_copies_says_so() {
    let flags = [FLAGS, &["key/00001000", "--keyviz-history-copies", "1"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let begun_ms = now_ms() / 1_000 * 1_000;
    load(&cluster, 3);
    let window = (begun_ms, now_ms() / 1_000 * 1_000);
    eventually("the window is over", || now_ms() > window.1 + 2_000);
    cluster.kill(2);
    let made = export(&cluster, window, &["--format", "json", "--dedup"]);
    assert_eq!(made.status.code(), Some(6), "{}", stderr(&made));
    assert!(stderr(&made).contains("counts may be missing"), "{}", stderr(&made));
    let text = String::from_utf8(made.stdout).expect("it is text");
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let gap = of_kind(&rows, "gap").next().expect("a gap");
    assert_eq!(gap["column_start_ms"], window.0, "{gap}");
    assert_eq!(gap["column_ms"], window.1 - window.0, "{gap}");
    let end = rows.last().expect("a last row");
    assert_eq!((&end["kind"], &end["partial"]), (&json!("end"), &json!(true)));
}

#[test]
fn bad_input_of_an_export_is_refused_in_words_and_leaves_no_file() {
    let cluster = Cluster::start(1, &["--keyviz-step", "1s"]);
    let folder = cluster.folder.path();
    let taken = folder.join("taken.csv");
    std::fs::write(&taken, "mine").expect("the folder is ours");
    let (taken, new) = (taken.to_str().expect("text"), folder.join("new.csv"));
    let new = new.to_str().expect("text");
    let missing = folder.join("no/such/folder.csv");
    let missing = missing.to_str().expect("text");
    let late = (now_ms() + 3_600_000).to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--from", "5000", "--to", "4000", "--out", new], 2, "must end after it begins"),
        (&["--from", "5000", "--to", "5000", "--out", new], 2, "must end after it begins"),
        (&["--from", &late, "--out", new], 2, "in the future"),
        (&["--from", "yesterday", "--out", new], 2, "yesterday"),
        (&["--format", "xml", "--out", new], 2, "parquet"),
        (&["--start", "b", "--end", "a", "--out", new], 2, "ends before it begins"),
        (&["--hot-keys", "1001", "--out", new], 2, "1001"),
        (&["--last", "5m", "--out", taken], 1, "taken.csv exists"),
        (&["--last", "5m", "--out", missing], 1, "cannot write"),
        (&["--last", "5m", "--from", "5", "--out", new], 2, "cannot be used with"),
    ];
    for (arguments, code, words) in cases {
        let output = cluster.run(&[&["export"], *arguments].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert!(!Path::new(new).exists(), "nothing was made");
    assert_eq!(std::fs::read_to_string(taken).expect("it is there"), "mine");
    // Before all history there is nothing, and nothing is missing.
    let past = export(&cluster, (1_000_000, 9_000_000), &["--format", "json"]);
    assert!(past.status.success(), "{}", stderr(&past));
    let text = String::from_utf8(past.stdout).expect("it is text");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("\"kind\":\"end\""), "{text}");
    // Nobody is there.
    let nobody = Command::new(KEYVIZ)
        .args(["export", "--node", "127.0.0.1:1", "--timeout", "1s", "--out", new])
        .output()
        .expect("the binary starts");
    assert_eq!(nobody.status.code(), Some(4), "{}", stderr(&nobody));
    let left = std::fs::read_dir(folder)
        .expect("it is ours")
        .map(|file| file.expect("it is readable").file_name().to_string_lossy().into_owned());
    assert!(left.into_iter().all(|name| !name.ends_with(".partial") && name != "new.csv"));
}
