//! What is found in a recorded trace: `KEYVIZ_TRACE=FILE.csv.gz cargo test -p keyviz-core --lib
//! insight::trace -- --ignored --nocapture`. The lines of the file are `t_s,op,key,value_bytes`; it
//! is replayed at an even rate, in parts.

use std::collections::BTreeMap;
use std::io::Read as _;

use bytes::Bytes;

use crate::insight::{Able, GroupPlace, Input, Load, LoadRow, NamedKey, Topology, analyze};
use crate::query::{ColumnSet, ColumnSpan};
use crate::sampler::Series;
use keyviz_types::{GroupId, KeyRange, NodeId, RouteId, RouteSpec};

const PARTS: usize = 4;
const COLUMNS: usize = 60;
const ROWS: usize = 128;
const STEP_MS: u64 = 2_000;
const START_MS: u64 = 1_800_000_000_000;

struct Op {
    read: bool,
    key: Bytes,
    bytes: u64,
}

fn operations(text: &str) -> Vec<Op> {
    let line = |line: &str| {
        let mut cells = line.split(',').skip(1);
        let read = cells.next()? == "read";
        let key = Bytes::copy_from_slice(cells.next()?.as_bytes());
        Some(Op { read, key, bytes: cells.next()?.trim().parse().ok()? })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Three nodes and four groups, each with a quarter of the trace's keys.
fn topology(keys: &[&Bytes]) -> Topology {
    let start = |at: usize| if at == 0 { Bytes::new() } else { keys[keys.len() * at / 4].clone() };
    let place = |at: u64| GroupPlace {
        group: GroupId(at + 1),
        leader: Some(NodeId(at % 3 + 1)),
        replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
    };
    let route = |at: usize| RouteSpec {
        id: RouteId::new(at as u64 + 1).expect("not 0"),
        range: KeyRange { start: start(at), end: (at < 3).then(|| start(at + 1)) },
        group: GroupId(at as u64 + 1),
    };
    Topology {
        nodes: (1..4).map(NodeId).collect(),
        groups: (0..4).map(place).collect(),
        routes: (0..4).map(route).collect(),
    }
}

#[test]
#[ignore = "prints what is found in the trace that KEYVIZ_TRACE names"]
fn findings_of_a_trace() {
    let path = std::env::var_os("KEYVIZ_TRACE").expect("KEYVIZ_TRACE names a file");
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("it can be opened");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip of text");
    let all = operations(&text);
    let mut counts: BTreeMap<&Bytes, u64> = BTreeMap::new();
    all.iter().for_each(|op| *counts.entry(&op.key).or_default() += 1);
    let keys: Vec<&Bytes> = counts.keys().copied().collect();
    let topology = topology(&keys);
    println!("{} operations on {} keys", all.len(), keys.len());
    for (part, operations) in all.chunks(all.len().div_ceil(PARTS)).enumerate() {
        // Rows of about the same load, never across routes.
        let mut of_keys: BTreeMap<&Bytes, u64> = BTreeMap::new();
        operations.iter().for_each(|op| *of_keys.entry(&op.key).or_default() += 1);
        let (mut starts, mut sum) = (vec![Bytes::new()], 0);
        for (key, count) in &of_keys {
            let begins = topology.routes.iter().any(|route| {
                route.range.start > starts[starts.len() - 1] && route.range.start <= **key
            });
            if begins || sum > operations.len() as u64 / ROWS as u64 {
                starts.push((*key).clone());
                sum = 0;
            }
            sum += count;
        }
        let ends = starts[1..].iter().cloned().map(Some).chain([None]);
        let mut rows: Vec<LoadRow> = starts
            .iter()
            .zip(ends)
            .map(|(start, end)| {
                let mut row = LoadRow::new(KeyRange { start: start.clone(), end });
                row.lists_mut().into_iter().for_each(|list| *list = vec![0; COLUMNS]);
                row
            })
            .collect();
        let mut named: BTreeMap<(&Bytes, bool), Vec<u64>> = BTreeMap::new();
        for (at, op) in operations.iter().enumerate() {
            let column = at * COLUMNS / operations.len();
            let row = starts.partition_point(|start| *start <= op.key) - 1;
            let row = &mut rows[row];
            let (count, bytes) = match op.read {
                true => (&mut row.reads, &mut row.read_bytes),
                false => (&mut row.writes, &mut row.write_bytes),
            };
            (count[column], bytes[column]) = (count[column] + 1, bytes[column] + op.bytes);
            let of_key = named.entry((&op.key, op.read)).or_insert_with(|| vec![0; COLUMNS]);
            of_key[column] += 1;
        }
        let key = |((key, read), values): ((&Bytes, bool), Vec<u64>)| {
            let (sum, series) =
                (values.iter().sum(), if read { Series::Reads } else { Series::Writes });
            NamedKey { key: key.clone(), series, lower: sum, upper: sum, values }
        };
        let hot_keys: Vec<NamedKey> = named.into_iter().map(key).collect();
        let column = |at: usize| {
            let start_ms = START_MS + STEP_MS * at as u64;
            ColumnSpan { start_ms, end_ms: start_ms + STEP_MS, open: false }
        };
        let columns = (0..COLUMNS).map(column).collect();
        let load = Load { columns, partial: ColumnSet::new(), rows };
        let found = analyze(&Input {
            load: &load,
            before: None,
            hot_keys: &hot_keys,
            topology: &topology,
            able: Able::ALL,
            now_ms: START_MS + STEP_MS * COLUMNS as u64,
        });
        for finding in found.expect("it is a load") {
            let (kind, share) = (finding.kind.name(), finding.share * 100.0);
            let since = (finding.since.at_ms - START_MS) / STEP_MS;
            println!(
                "| {} | {kind} | {share:.0}% | column {since} | {} {} |",
                part + 1,
                finding.summary,
                finding.advice
            );
        }
    }
}
