//! The state of a node's control loops, for `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;

/// The state of a node's control loops.
#[derive(Debug, Default)]
pub struct LoopHealth {
    /// Why the node stops.
    failure: OnceLock<String>,
    restarts: Mutex<BTreeMap<&'static str, u64>>,
}

impl LoopHealth {
    /// A loop with this name runs.
    pub fn started(&self, name: &'static str) {
        self.restarts.lock().entry(name).or_default();
    }

    /// A loop was restarted.
    pub fn restarted(&self, name: &'static str) {
        *self.restarts.lock().entry(name).or_default() += 1;
    }

    /// A loop ended, and the node stops for it. The first reason stays.
    pub fn fail(&self, reason: String) {
        let _ = self.failure.set(reason);
    }

    /// Why the node stops; `None`: no loop has ended.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// How often each loop was restarted.
    pub fn restarts(&self) -> BTreeMap<&'static str, u64> {
        self.restarts.lock().clone()
    }
}
