//! The record that says which node a folder belongs to, as a fuzz target.

use super::identity;
use crate::fuzzing::Target;

pub(crate) fn targets() -> Vec<Target> {
    let run = |data: &[u8]| drop(identity::decode(data));
    vec![Target { name: "node_identity", run, corpus: || vec![vec![1, 7, 0], vec![1, 7, 1, 2, 3]] }]
}
