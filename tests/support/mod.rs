//! Real processes of the `keyviz` binary on loopback, for tests that treat it as its users do.
//!
//! Test binaries that need less declare only the files that they use, under the same module name.

pub mod certs;
mod clock;
mod cluster;
mod commands;
pub mod disk;
mod processes;

use std::path::{Path, PathBuf};

use serde_json::Value;

use commands::parse;

pub use clock::{clock_apart, faketime};
pub use cluster::{Cluster, KEYVIZ, PATIENCE, eventually, free_addresses, http_answer, is_ready};
pub use processes::{signal, signal_pid, stderr};

impl Cluster {
    /// Starts a new node that joins through node `through`, and waits until it serves. Returns its
    /// index.
    pub fn join(&mut self, through: usize) -> usize {
        let index = self.enlist(through);
        self.spawn(index);
        eventually("the new node says that it is ready", || is_ready(&self.http[index]));
        index
    }

    /// The JSON that a command prints, run against any node.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--format", "json"]].concat();
        parse(&arguments, self.run(&arguments))
    }

    /// A value of `/metrics` at node `index`; `sample` is its name with its labels.
    pub fn metric(&self, index: usize, sample: &str) -> Option<f64> {
        let page = http_get(&self.http[index], "/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    }
}

/// The body of an answer, whose status must be 200.
pub fn http_get(address: &str, path: &str) -> String {
    let answer = http_answer(address, path).expect("the node answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    body.to_owned()
}

/// The status line and the headers of an answer.
pub fn http_head(address: &str, path: &str) -> String {
    let answer = http_answer(address, path).expect("the node answers");
    answer.split_once("\r\n\r\n").expect("an answer has a head").0.to_owned()
}

/// Writes a file and returns its path.
pub fn write_file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("the temporary folder takes a file");
    path
}
