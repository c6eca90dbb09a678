//! Reads what `keyviz load --record FILE` wrote as histories of keys.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use serde_json::Value as Json;

use super::linear::{Event, Op, Outcome, Value};

/// The histories in a record, and what was left out of them.
#[derive(Default, Debug)]
pub struct Record {
    pub histories: BTreeMap<String, Vec<Event>>,
    /// Operations that say nothing of a key's value: scans, and what certainly did not happen.
    pub left_out: usize,
}

/// A line that is not an operation.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    pub line: usize,
    pub what: String,
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Reads a record. Values stand for themselves by their digests.
pub fn read(lines: impl BufRead) -> Result<Record, BadLine> {
    let mut record = Record::default();
    for (at, line) in lines.lines().enumerate() {
        let bad = |what: String| BadLine { line: at + 1, what };
        let line = line.map_err(|error| bad(error.to_string()))?;
        match event(&line).map_err(bad)? {
            Some((key, event)) => record.histories.entry(key).or_default().push(event),
            None => record.left_out += 1,
        }
    }
    record.histories.values_mut().for_each(begin_with_what_was_there);
    Ok(record)
}

fn event(line: &str) -> Result<Option<(String, Event)>, String> {
    let json: Json = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text =
        |name: &str| json[name].as_str().ok_or_else(|| format!("{name} is missing or is no text"));
    let number = |name: &str| {
        json[name].as_u64().ok_or_else(|| format!("{name} is missing or is no number"))
    };
    let digest = match &json["digest"] {
        Json::Null => None,
        Json::String(digits) => {
            let value = Value::from_str_radix(digits, 16);
            Some(value.map_err(|_| format!("the digest {digits:?} is not hexadecimal"))?)
        }
        other => return Err(format!("the digest {other} is not text")),
    };
    let known = match text("outcome")? {
        "ok" => true,
        "unknown" => false,
        "failed" => return Ok(None),
        other => return Err(format!("the outcome {other:?} is none of ok, failed, unknown")),
    };
    let (op, outcome) = match (text("op")?, known) {
        ("read", true) => (Op::Get, Outcome::Found(digest)),
        ("read" | "scan", _) => return Ok(None),
        ("write", _) => {
            let value = digest.ok_or("a write without the digest of its value")?;
            (Op::Put(value), if known { Outcome::Done } else { Outcome::Unknown })
        }
        ("delete", _) => (Op::Delete, if known { Outcome::Done } else { Outcome::Unknown }),
        (other, _) => return Err(format!("the operation {other:?} is not known")),
    };
    let client = usize::try_from(number("client")?).map_err(|error| error.to_string())?;
    let (start, end) = (number("start_us")?, number("end_us")?);
    Ok(Some((text("key")?.to_owned(), Event { client, op, outcome, start, end })))
}

/// A value that is read and never written was there before the record began, if it is one alone: a
/// second one has no explanation, and the check will say so.
fn begin_with_what_was_there(history: &mut Vec<Event>) {
    let written: BTreeSet<Value> = history
        .iter()
        .filter_map(|event| match event.op {
            Op::Put(value) => Some(value),
            _ => None,
        })
        .collect();
    let strange = history.iter().find_map(|event| match event.outcome {
        Outcome::Found(Some(value)) if !written.contains(&value) => Some(value),
        _ => None,
    });
    if let Some(value) = strange {
        let put = Op::Put(value);
        let before =
            Event { client: usize::MAX, op: put, outcome: Outcome::Done, start: 0, end: 0 };
        history.insert(0, before);
    }
}
