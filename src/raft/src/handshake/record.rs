//! The stored record of a node's own mark and of its peers.
//!
//! ```text
//! handshake: byte 0     format, 1
//!            bytes 1..  bincode 2 (standard configuration) of `Record`
//! ```

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use super::start::{PastStart, Start, StoredStart};
use crate::records::{RecordError, decode_record, encode_record};

/// The name of the record.
pub(super) const RECORD: &str = "handshake";

const FORMAT: u8 = 1;

/// Starts that a disk remembers.
pub(super) const STARTS: usize = 64;

#[derive(Default, Encode, Decode)]
pub(super) struct Record {
    /// The last mark of this node.
    pub(super) mark: u64,
    /// The last starts of this node, the current one last; at most [`STARTS`].
    pub(super) starts: Vec<PastStart>,
    pub(super) peers: BTreeMap<u64, StoredStart>,
}

pub(super) fn encode(record: &Record) -> Vec<u8> {
    encode_record(FORMAT, record)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    decode_record(FORMAT, bytes)
}

/// The marks in a record, of its own node and of others, for simulations that compare all nodes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Heard {
    /// The node's own mark.
    pub mark: u64,
    /// By peer: the last start that was identified.
    pub peers: BTreeMap<u64, Start>,
}

/// Reads the record `handshake` of a node.
///
/// # Errors
/// It does not decode.
pub fn heard_of(record: &[u8]) -> Result<Heard, RecordError> {
    let Record { mark, peers, .. } = decode(record)?;
    let peers = peers.into_iter().map(|(node, start)| (node, start.into()));
    Ok(Heard { mark, peers: peers.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_a_damaged_one_is_a_reason_not_a_panic() {
        let bytes = encode(&Record { mark: 7, ..Record::default() });
        assert_eq!(heard_of(&bytes).map(|heard| heard.mark), Ok(7));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
        assert!(decode(&[9, 0]).is_err(), "a later format");
    }
}
