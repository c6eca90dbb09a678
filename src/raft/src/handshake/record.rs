//! The stored record of a node's own mark and of its peers.
//!
//! ```text
//! handshake: byte 0     format, 1
//!            bytes 1..  bincode 2 (standard configuration) of `Record`
//! ```

use std::collections::BTreeMap;
use std::io;

use bincode::{Decode, Encode};

use super::start::{Doubt, PastStart, Start, StoredStart, judge};
use crate::records::{RecordError, decode_record, encode_record};
use crate::storage::Storage;
use keyviz_types::{DiskId, NodeId};

/// The name of the record.
pub(super) const RECORD: &str = "handshake";
/// The name of the record of why the node was refused.
pub(super) const REFUSED: &str = "refused";

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

/// What the record of a stopped node says of its own starts and of those of its peers.
#[derive(Clone, Debug, Default)]
pub struct StoppedNode {
    starts: Vec<PastStart>,
    peers: BTreeMap<u64, Start>,
    /// Why its cluster refused it for good.
    pub refused: Option<String>,
}

impl StoppedNode {
    /// Reads the records of its folder. A folder of a version without them tells nothing.
    ///
    /// # Errors
    /// One cannot be read, or does not decode.
    pub fn of(storage: &Storage) -> io::Result<Self> {
        let record = match storage.get_record(RECORD)? {
            Some(bytes) => decode(&bytes)
                .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what.to_string()))?,
            None => Record::default(),
        };
        let refused = storage.get_record(REFUSED)?;
        let refused = refused.map(|reason| String::from_utf8_lossy(&reason).into_owned());
        let peers = record.peers.into_iter().map(|(node, start)| (node, start.into())).collect();
        Ok(StoppedNode { starts: record.starts, peers, refused })
    }

    /// Whether the folder of `other`, with this disk, has all that this node knew of it.
    ///
    /// # Errors
    /// It went back to an older state, or is on another disk.
    pub fn knew(&self, node: NodeId, disk: DiskId, other: &StoppedNode) -> Result<(), Doubt> {
        let (Some(known), Some((last, before))) =
            (self.peers.get(&node.0), other.starts.split_last())
        else {
            return Ok(());
        };
        let PastStart { number, nonce, mark } = *last;
        if nonce == known.nonce && disk == known.disk && mark < known.mark {
            let what = format!("it made mark {mark}, and mark {} was seen", known.mark);
            return Err(Doubt::WentBack { node, what });
        }
        // A folder that was not started since shows the start that was seen, or a later one.
        judge(node, Some(known), None, &Start { disk, number, nonce, mark }, before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lost_write_a_stopped_node_that_went_back_is_known_from_the_others_record() {
        let disk = DiskId([7; 16]);
        let start = |number, mark| PastStart { number, nonce: 10 + number, mark };
        let of =
            |starts: &[PastStart]| StoppedNode { starts: starts.to_vec(), ..Default::default() };
        let known = Start { disk, number: 3, nonce: 13, mark: 20 };
        let other = StoppedNode { peers: [(2, known)].into(), ..StoppedNode::default() };
        let judged = |starts: &[PastStart], disk| other.knew(NodeId(2), disk, &of(starts));
        assert_eq!(judged(&[start(3, 20)], disk), Ok(()), "as it was seen");
        assert_eq!(judged(&[start(3, 25), start(4, 30)], disk), Ok(()), "it went on");
        let back = |starts: &[PastStart]| {
            matches!(judged(starts, disk), Err(Doubt::WentBack { node: NodeId(2), .. }))
        };
        assert!(back(&[start(3, 19)]), "the same start, older");
        assert!(back(&[start(2, 9)]), "a start before");
        assert!(back(&[start(3, 19), start(4, 30)]), "it started again from the older state");
        let moved = judged(&[start(3, 20)], DiskId([8; 16]));
        assert!(matches!(moved, Err(Doubt::OtherDisk { .. })), "{moved:?}");
        assert_eq!(other.knew(NodeId(1), disk, &of(&[])), Ok(()), "nothing is known of it");
    }

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
