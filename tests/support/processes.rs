//! What tests do to the processes of a cluster, and nodes that join it.

use std::process::{Child, Command, ExitStatus, Output};

use super::cluster::{Cluster, free_addresses};

impl Cluster {
    /// Adds a node that will join through node `through` when it is started. Returns its index.
    pub fn enlist(&mut self, through: usize) -> usize {
        let through = self.grpc[through].clone();
        self.enlist_through(through)
    }

    /// The same, through this address.
    pub fn enlist_through(&mut self, through: String) -> usize {
        let index = self.len();
        let addresses = free_addresses(2);
        self.grpc.push(addresses[0].clone());
        self.advertised.push(addresses[0].clone());
        self.http.push(addresses[1].clone());
        self.joined.insert(index, through);
        self.environment.push(Vec::new());
        self.nodes.push(None);
        index
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self, index: usize) -> Option<i32> {
        let mut child = self.nodes[index].take().expect("the node runs");
        signal(&child, "TERM");
        child.wait().expect("the process is ours").code()
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].as_ref().expect("the node runs").id()
    }

    /// Sends a signal to node `index` by name.
    pub fn signal(&self, index: usize, name: &str) {
        signal(self.nodes[index].as_ref().expect("the node runs"), name);
    }

    /// The status of node `index` if its process ended by itself.
    pub fn exited(&mut self, index: usize) -> Option<ExitStatus> {
        let child = self.nodes[index].as_mut().expect("the node was started");
        let status = child.try_wait().expect("the process is ours")?;
        self.nodes[index] = None;
        Some(status)
    }

    /// Nodes whose process ended without being asked to.
    pub fn ended(&mut self) -> Vec<usize> {
        let ended = |node: &mut Option<Child>| {
            node.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
        };
        (0..self.len()).filter(|index| ended(&mut self.nodes[*index])).collect()
    }
}

/// Sends a signal by name.
pub fn signal(child: &Child, name: &str) {
    signal_pid(child.id(), name);
}

/// Sends a signal by name to a process that this test started.
pub fn signal_pid(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()
        .expect("kill is part of every system this runs on");
    assert!(sent.success(), "the process is ours");
}

/// The standard error of a command.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
