//! Law 11 on a real cluster: the matrix beside a ledger of every operation, and the edges of blocks
//! and fixed axes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use keyviz_client::{Client, Matrix, MatrixQuery, Series};
use serde_json::Value;

use crate::support::{Cluster, eventually, http_answer, http_get, stderr, write_file};

const STEP_MS: u64 = 2_000;
/// How long the load runs: `KEYVIZ_LEDGER_SECONDS` says otherwise.
const SECONDS: u64 = 24;
/// When the hot key begins.
const HOT_FROM: u64 = 9;

/// A write and the time that it took: it was counted at one moment of that.
struct Entry {
    key: String,
    from_ms: u64,
    to_ms: u64,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_millis() as u64
}

/// XorShift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn client(cluster: &Cluster) -> Client {
    Client::new(&cluster.grpc).expect("addresses are given")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("the system has threads")
}

/// Five key families: a hot key that begins at a known second, an append, a moving spot, a scan's
/// keys in order, and uniform ones.
fn key(random: &mut Random, at: u64, second: u64) -> String {
    match random.below(5) {
        0 if second >= HOT_FROM => "hot/key".to_owned(),
        0 | 1 => format!("uniform/{:05}", random.below(20_000)),
        2 => format!("append/{at:08}"),
        3 => format!("moving/{:05}", second * 200 + random.below(400)),
        _ => format!("ordered/{:05}", at % 5_000),
    }
}

/// A load that stays where it is: a third on a hundred hot keys, the rest even.
fn steady_key(random: &mut Random) -> String {
    match random.below(3) {
        0 => format!("hot/{:03}", random.below(100)),
        _ => format!("uniform/{:05}", random.below(20_000)),
    }
}

async fn load(client: &Client, seed: u64, seconds: u64) -> Vec<Entry> {
    load_of(client, seed, seconds, key).await
}

async fn load_of(
    client: &Client,
    seed: u64,
    seconds: u64,
    key: impl Fn(&mut Random, u64, u64) -> String,
) -> Vec<Entry> {
    let (began, mut ledger, mut random) = (Instant::now(), Vec::new(), Random(seed));
    while began.elapsed() < Duration::from_secs(seconds) {
        let at = ledger.len() as u64 * 8 + seed % 8;
        let key = key(&mut random, at, began.elapsed().as_secs());
        let from_ms = now_ms();
        client.put(key.clone(), "v").await.expect("the cluster takes writes");
        ledger.push(Entry { key, from_ms, to_ms: now_ms() });
    }
    ledger
}

/// Fewest and most operations of the ledger in a range and a time.
fn truth(ledger: &[Entry], start: &str, end: Option<&str>, from_ms: u64, to_ms: u64) -> (u64, u64) {
    let inside = |entry: &&Entry| {
        entry.key.as_str() >= start && end.is_none_or(|end| entry.key.as_str() < end)
    };
    let (mut least, mut most) = (0, 0);
    for entry in ledger.iter().filter(inside) {
        least += u64::from(entry.from_ms >= from_ms && entry.to_ms < to_ms);
        most += u64::from(entry.to_ms >= from_ms && entry.from_ms < to_ms);
    }
    (least, most)
}

fn covered(matrix: &Matrix, row: usize, column: usize) -> bool {
    matrix.blocks.iter().any(|block| {
        let (first, columns) = (block.first_row as usize, block.column as usize);
        (first..first + block.row_count as usize).contains(&row)
            && (columns..columns + block.column_count as usize).contains(&column)
    })
}

fn text(key: &Bytes) -> &str {
    std::str::from_utf8(key).expect("keys of the test are text")
}

/// Cells that were compared, and of these those that say block.
fn compare(ledger: &[Entry], matrix: &Matrix) -> (u64, u64) {
    let (mut cells, mut blocks) = (0, 0);
    for (at, row) in matrix.rows.iter().enumerate() {
        for (column, span) in matrix.columns.iter().enumerate() {
            let (start, end) = (text(&row.start), row.end.as_ref().map(text));
            let (least, most) = truth(ledger, start, end, span.start_ms, span.end_ms);
            let value = row.values[column];
            cells += 1;
            assert!(value <= most, "{value} of at most {most} in {start} {end:?} {span:?}");
            if covered(matrix, at, column) {
                blocks += 1;
            } else {
                assert!(value >= least, "{value} of at least {least} in {start} {end:?} {span:?}");
            }
        }
    }
    (cells, blocks)
}

#[test]
fn law_11_measured_never_invented_every_view_equals_the_ledger_or_says_block() {
    let cluster = Cluster::start(3, &["--keyviz-step", "2s", "--groups", "2", "--split-at", "m"]);
    let seconds = std::env::var("KEYVIZ_LEDGER_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds: u64 = seconds.unwrap_or(SECONDS);
    runtime().block_on(async {
        let client = client(&cluster);
        let begin_ms = now_ms();
        let loads = (1..=4).map(|seed| load(&client, seed * 7_919, seconds));
        let loads = futures::future::join_all(loads).await;
        let ledger: Vec<Entry> = loads.into_iter().flatten().collect();
        tokio::time::sleep(Duration::from_millis(2 * STEP_MS)).await;
        let ask = async |query: MatrixQuery| client.matrix(query).await.expect("it answers");
        let time = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
        let window = |from_ms: u64, to_ms: u64| {
            MatrixQuery::new(Series::Writes).between(time(from_ms), time(to_ms))
        };

        // The whole, and random ranges and windows on random budgets.
        let (first_ms, last_ms) = (begin_ms - begin_ms % STEP_MS, now_ms());
        let mut whole = ask(window(first_ms, last_ms)).await;
        // A busy machine flushes and answers late: an answer may have less at first, never more.
        for _ in 0..20 {
            assert!(whole.total <= ledger.len() as u64, "{} of {}", whole.total, ledger.len());
            if whole.total == ledger.len() as u64 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            whole = ask(window(first_ms, last_ms)).await;
        }
        assert_eq!((whole.total, whole.straddling_total), (ledger.len() as u64, 0));
        let (mut cells, mut blocks) = compare(&ledger, &whole);
        let in_blocks: u64 = whole.blocks.iter().map(|block| block.value).sum();
        let mut random = Random(77);
        let columns = (last_ms - first_ms) / STEP_MS;
        for _ in 0..200 {
            let mut key = || ledger[random.below(ledger.len() as u64) as usize].key.clone();
            let mut keys = [key(), key()];
            keys.sort();
            let [start, end] = keys;
            let from_ms = first_ms + random.below(columns) * STEP_MS;
            let to_ms = from_ms + (1 + random.below(8)) * STEP_MS;
            let rows = [16, 64, 256][random.below(3) as usize];
            let query = window(from_ms, to_ms).max_rows(rows);
            let zoomed = ask(if start < end { query.range(start..end) } else { query }).await;
            let more = compare(&ledger, &zoomed);
            (cells, blocks) = (cells + more.0, blocks + more.1);
        }
        println!(
            "{} writes, {cells} cells compared, {blocks} of them under a block; {in_blocks} counts \
             of the whole in blocks, {} rows",
            ledger.len(),
            whole.rows.len()
        );

        // The hot key's first hot column is the right one, in the whole and zoomed.
        let hot = ledger.iter().find(|entry| entry.key == "hot/key").expect("it began");
        let zoomed = ask(window(first_ms, last_ms).range("hot/".."hot0")).await;
        for matrix in [&whole, &zoomed] {
            let own = keyviz_client::row_of(matrix, b"hot/key").expect("its row");
            let at = own.values.iter().position(|value| *value > 0).expect("it is shown");
            let column = &matrix.columns[at];
            let begun = column.end_ms.saturating_sub(hot.from_ms);
            assert!(column.end_ms > hot.from_ms, "hot before it began: {column:?}");
            println!("the hot key shows {begun} ms after it began, in column {at}");
        }
    });
}

#[test]
fn honest_partiality_a_range_that_was_not_resolved_is_never_told_as_nothing() {
    let cluster = Cluster::start(1, &["--groups", "1", "--keyviz-resolution-slots", "1"]);
    for _ in 0..8 {
        assert!(cluster.run(&["put", "user/1", "v"]).status.success());
    }
    let range = ["--start", "user/1", "--end", "user/1\\x00"];
    for series in ["writes", "write-bytes"] {
        let narrow = cluster.heat(0, series, &range);
        let all = if series == "writes" { 8 } else { 8 * 7 };
        assert_eq!((&narrow["total"], &narrow["straddling_total"]), (&0.into(), &all.into()));
        let block = &narrow["blocks"][0];
        assert_eq!((&block["straddling"], &block["start"]), (&true.into(), &"".into()));
        assert_eq!((&block["end"], &block["value"]), (&Value::Null, &all.into()));
    }
    let drawn = cluster.run(&[&["heat"][..], &range].concat());
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    assert!(drawn.contains("total 0 to 8 writes"), "{drawn}");
    assert!(drawn.contains("between 0 and 8 writes") && !drawn.contains("no writes"), "{drawn}");
    let csv = cluster.run(&[&["heat", "--format", "csv"][..], &range].concat());
    let csv = String::from_utf8_lossy(&csv.stdout).into_owned();
    assert!(csv.lines().any(|line| line.starts_with("straddling,,,,,8")), "{csv}");
    let auto = cluster.run(&["routes", "split", "1", "--auto"]);
    assert!(stderr(&auto).contains("try again at "), "{}", stderr(&auto));
}

#[test]
fn order_rows_on_boundaries_of_the_asker_are_theirs_and_bad_ones_are_refused_by_name() {
    let cluster = Cluster::start(1, &["--keyviz-step", "2s", "--groups", "1"]);
    for key in ["a", "f", "z"] {
        assert!(cluster.run(&["put", key, "v"]).status.success());
    }
    let file = write_file(cluster.folder.path(), "axis", "c\nm\n");
    let file = file.to_str().expect("a path is text");
    let heat = || cluster.heat(0, "writes", &["--boundaries", file]);
    let before = heat();
    let starts: Vec<&str> = before["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["start"].as_str())
        .collect();
    assert_eq!(starts, ["", "c", "m"]);
    assert_eq!(before["boundaries"], serde_json::json!(["", "c", "m"]));
    assert!(before["axis_gain"].as_f64().is_some_and(|gain| gain >= 1.0));
    // An axis of an earlier catalog version goes on to work, and its rows name the new routes.
    assert!(cluster.run(&["routes", "split", "1", "h"]).status.success());
    let mut after = Value::Null;
    eventually("the split is shown", || {
        after = heat();
        after["catalog_version"] != before["catalog_version"]
    });
    assert_eq!(after["axis_id"], before["axis_id"]);
    assert_eq!(after["rows"][1]["route_count"], 2, "{}", after["rows"][1]);
    let posted = http_get(&cluster.http[0], "/api/v1/matrix?boundaries=c,m&spread=true");
    let posted: Value = serde_json::from_str(&posted).expect("it is JSON");
    assert_eq!((&posted["axis_id"], &posted["spread"]), (&before["axis_id"], &true.into()));

    let many: Vec<String> = (0..1_025).map(|at| format!("{at:06}")).collect();
    let long = "k".repeat(4_097);
    for (query, said) in [
        ("boundaries=m,c", "boundary 1 is not after"),
        ("boundaries=c,c", "boundary 1 is not after"),
        ("boundaries=c,m&start=d", "boundary 0 is outside"),
        ("boundaries=c,m&end=d", "boundary 1 is outside"),
        (&format!("boundaries={}", many.join(",")), "at most 1024"),
        (&format!("boundaries={long}"), "4097 bytes"),
        ("boundaries=hex:0", "hex"),
        ("spread=x", "true or false"),
    ] {
        let answer = http_answer(&cluster.http[0], &format!("/api/v1/matrix?{query}"));
        let answer = answer.expect("it answers");
        assert!(answer.contains("400") && answer.contains(said), "{query:.60}: {answer}");
    }
    let unsorted = write_file(cluster.folder.path(), "unsorted", "m\nc\n");
    let unsorted = unsorted.to_str().expect("a path is text");
    let refused = cluster.run(&["heat", "--boundaries", unsorted]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("line 2: the key is not after"), "{}", stderr(&refused));
}

#[test]
fn a_route_can_be_halved_after_five_seconds_of_load_at_the_default_step() {
    let cluster = Cluster::start(1, &["--groups", "1"]);
    let ledger = runtime().block_on(async {
        let client = client(&cluster);
        let steady = |random: &mut Random, _, _| steady_key(random);
        let loads = (1..=32).map(|seed| load_of(&client, seed * 104_729, 5, steady));
        futures::future::join_all(loads).await.into_iter().flatten().collect::<Vec<Entry>>()
    });
    let choice = cluster.run(&["routes", "split", "1", "--auto", "--dry-run", "--format", "json"]);
    assert!(choice.status.success(), "{}", stderr(&choice));
    let choice: Value = serde_json::from_slice(&choice.stdout).expect("it is JSON");
    let key = choice["key"].as_str().expect("a key");
    let left = ledger.iter().filter(|entry| entry.key.as_str() < key).count();
    let share = left as f64 / ledger.len() as f64;
    println!("{} writes, {key} halves them {share:.3} to {:.3}", ledger.len(), 1.0 - share);
    // Halves within 10 % of each other; on a slow machine few writes halve less well. Of a load
    // that moves, the first seconds are in a block that no side has, so its halves may be further
    // apart: up to 39 to 61 were seen.
    let off = 0.05 + 1.0 / (ledger.len() as f64).sqrt();
    assert!((0.5 - share).abs() <= off, "{share} of the load is before {key}");
    let listed = cluster.json(&["routes", "list"]);
    assert_eq!(listed["routes"].as_array().map(Vec::len), Some(1), "nothing was split");
    let sums: BTreeMap<&str, u64> =
        ["left", "right"].map(|side| (side, choice[side].as_u64().expect("a number"))).into();
    assert!(sums.values().all(|sum| *sum > 0));
}
