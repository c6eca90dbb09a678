//! Commands of the `keyviz` binary, run against the nodes of a cluster.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::cluster::{Cluster, KEYVIZ};

impl Cluster {
    /// Runs a command against node `index` only.
    pub fn run_on(&self, index: usize, arguments: &[&str]) -> Output {
        run(&self.grpc[index], arguments)
    }

    /// Runs a command that may use any node.
    pub fn run(&self, arguments: &[&str]) -> Output {
        run(&self.grpc.join(","), arguments)
    }

    /// The JSON that a command prints on node `index`.
    pub fn json_on(&self, index: usize, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--format", "json"]].concat();
        parse(&arguments, self.run_on(index, &arguments))
    }

    /// The matrix of one series at node `index`.
    pub fn heat(&self, index: usize, series: &str, more: &[&str]) -> Value {
        let arguments = [&["heat", "--last", "1h", "--series", series], more].concat();
        self.json_on(index, &arguments)
    }

    /// The total of one series at node `index`.
    pub fn total(&self, index: usize, series: &str, more: &[&str]) -> u64 {
        self.heat(index, series, more)["total"].as_u64().expect("a matrix has a total")
    }
}

fn run(nodes: &str, arguments: &[&str]) -> Output {
    Command::new(KEYVIZ)
        .args(arguments)
        .args(["--node", nodes])
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// The JSON that a command printed, which must have succeeded.
pub(super) fn parse(arguments: &[&str], output: Output) -> Value {
    assert!(
        output.status.success(),
        "{arguments:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("--format json prints JSON")
}
