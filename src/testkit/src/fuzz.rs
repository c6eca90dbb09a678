//! Fuzz targets: the decoders of bytes from disks, peers and users, as functions that must not
//! panic on any input. Checksums are corrected first, so that mutated bytes reach the decoder.
//!
//! `cargo test fuzz` mutates valid bytes for a moment, or for `KEYVIZ_FUZZ=60s` per crate; `fuzz/`
//! has the same targets for cargo-fuzz.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

/// One decoder, or several that read the same kind of bytes.
#[derive(Debug)]
pub struct Target {
    /// The name, also in `fuzz/`.
    pub name: &'static str,
    /// Decodes; panics only if the decoder is wrong.
    pub run: fn(&[u8]),
    /// Valid bytes to start from.
    pub corpus: fn() -> Vec<Vec<u8>>,
}

/// Runs the target with this name.
///
/// # Panics
/// If there is none, or it finds a fault.
pub fn run(targets: Vec<Target>, name: &str, data: &[u8]) {
    let target = targets.into_iter().find(|target| target.name == name);
    (target.expect("fuzz/ names targets that exist").run)(data);
}

/// Boundary values for lengths and counts.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xffff, u32::MAX as u64, i64::MAX as u64, u64::MAX];

fn mutate(rng: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = match corpus.len() {
        0 => Vec::new(),
        all if rng.random_ratio(9, 10) => corpus[rng.random_range(0..all)].clone(),
        _ => Vec::new(),
    };
    if bytes.is_empty() {
        bytes.resize(rng.random_range(0..64), 0);
        rng.fill_bytes(&mut bytes);
    }
    for _ in 0..rng.random_range(0..6) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => {
                let edge = EDGES[rng.random_range(0..EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][rng.random_range(0..4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            4 => bytes.insert(at, rng.random()),
            _ => {
                let end = rng.random_range(at..=bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn from_environment<T>(name: &str, default: T, parse: impl Fn(&str) -> Option<T>) -> T {
    match std::env::var(name) {
        Ok(text) => parse(&text).unwrap_or_else(|| panic!("{name}={text:?} does not parse")),
        Err(_) => default,
    }
}

/// Runs each target of a crate on mutated bytes, for `KEYVIZ_FUZZ` in total. Each target has a file
/// with its name in `fuzz/`.
///
/// # Panics
/// If a target panics, or has no file.
pub fn check(targets: Vec<Target>) {
    let parse = |text: &str| humantime::parse_duration(text).ok();
    let lasting = from_environment("KEYVIZ_FUZZ", Duration::from_millis(500), parse);
    let seed = from_environment("KEYVIZ_SEED", rand::random(), |text| text.parse::<u64>().ok());
    println!("fuzz: KEYVIZ_SEED={seed}");
    for target in &targets {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/fuzz_targets");
        let file = format!("{folder}/{}.rs", target.name);
        assert!(std::fs::exists(&file).is_ok_and(|exists| exists), "there is no {file}");
        let mut rng = StdRng::seed_from_u64(seed);
        let corpus = (target.corpus)();
        let until = Instant::now() + lasting / targets.len() as u32;
        let mut runs = 0u64;
        while runs == 0 || Instant::now() < until {
            let bytes = mutate(&mut rng, &corpus);
            let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes)));
            assert!(outcome.is_ok(), "{} panics on {bytes:?}", target.name);
            runs += 1;
        }
        println!("fuzz: {} {runs} runs", target.name);
    }
}
