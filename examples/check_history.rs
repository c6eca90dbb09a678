//! Checks that a recorded workload is linearizable, key by key:
//!
//! ```text
//! keyviz load --record history.jsonl --keys 50 --read-ratio 0.5 --duration 30s
//! cargo run --release --example check_history history.jsonl
//! ```
//!
//! The clocks of several loads must not be mixed: times are those of one process. Few keys make a
//! record worth checking; a key with many thousand operations at a time takes long.

#[path = "../tests/support/linear.rs"]
#[expect(dead_code, reason = "a record has no compare-and-swap, nor what a delete found")]
mod linear;
#[path = "../tests/support/record.rs"]
mod record;

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: check_history FILE, a file that `keyviz load --record FILE` wrote");
        return ExitCode::from(2);
    };
    let record = match File::open(&path) {
        Ok(file) => record::read(BufReader::new(file)).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let record = match record {
        Ok(record) => record,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let operations: usize = record.histories.values().map(Vec::len).sum();
    let mut refused = 0;
    for (key, history) in &record.histories {
        if let Err(refusal) = linear::check(history) {
            println!("key {key}: {refusal}");
            refused += 1;
        }
    }
    let (keys, left_out) = (record.histories.len(), record.left_out);
    println!("{operations} operations on {keys} keys, {left_out} left out: {refused} keys refused");
    if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
