//! Fuzz target: the record that identifies the node of a folder.

use super::folder::identity;
use keyviz_testkit::fuzz::Target;

/// The decoders of this crate.
pub fn targets() -> Vec<Target> {
    let run = |data: &[u8]| drop(identity::decode(data));
    vec![Target { name: "node_identity", run, corpus: || vec![vec![1, 7, 0], vec![1, 7, 1, 2, 3]] }]
}

#[cfg(test)]
#[test]
fn fuzz_no_decoder_panics_whatever_it_is_given() {
    keyviz_testkit::fuzz::check(targets());
}
