//! Commands in the log and replies of peers, as fuzz targets.

use bytes::Bytes;

use super::command::{KvCommand, KvWrite};
use super::machine::{decode_cas, decode_count};
use keyviz_testkit::fuzz::Target;

/// The decoders of this crate.
pub fn targets() -> Vec<Target> {
    vec![Target { name: "kv_command", run, corpus }]
}

/// A command that decodes is the one its own bytes stand for.
fn run(data: &[u8]) {
    if let Ok(command) = KvCommand::decode(data) {
        assert_eq!(KvCommand::decode(&command.encode()), Ok(command));
    }
    let _ = decode_cas(&Bytes::copy_from_slice(data));
    let _ = decode_count(data);
}

fn corpus() -> Vec<Vec<u8>> {
    let (key, value) = (&b"key"[..], &b"value"[..]);
    let commands = [
        KvCommand::Put { key, value },
        KvCommand::Delete { key },
        KvCommand::DeleteRange { start: key, end: Some(b"z") },
        KvCommand::Batch(vec![KvWrite::Put { key, value }, KvWrite::Delete { key: b"x" }]),
        KvCommand::CompareAndSwap { key, expected: None, value: Some(value) },
    ];
    commands.iter().map(|command| command.encode().to_vec()).collect()
}

#[cfg(test)]
#[test]
fn fuzz_no_decoder_panics_whatever_it_is_given() {
    keyviz_testkit::fuzz::check(targets());
}
