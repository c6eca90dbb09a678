//! What a node shows of itself, and what a peer concludes from it. Pure.

use bincode::{Decode, Encode};

use keyviz_proto as proto;
use keyviz_types::{DiskId, NodeId};

/// One start of one node's process on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Made with the folder.
    pub disk: DiskId,
    /// One more at each start; durable before it is shown.
    pub number: u64,
    /// Random at each start, never 0.
    pub nonce: u64,
    /// Grows while the disk takes writes; durable before it is shown.
    pub mark: u64,
}

/// Why a start is not the one that it claims to be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Doubt {
    /// The folder was emptied, or belongs to somebody else.
    #[error(
        "node {node} has disk {shown}, but the cluster knows node {node} with disk {known}: its \
         folder was emptied or replaced, so it has forgotten what it acknowledged. {}",
        Remedy(*.node)
    )]
    OtherDisk {
        /// The member.
        node: NodeId,
        /// Its disk.
        known: DiskId,
        /// The disk that came.
        shown: DiskId,
    },
    /// The folder is an older copy of itself.
    #[error(
        "the disk of node {node} went back to an older state ({what}), so it has forgotten what it \
         acknowledged since. {}",
        Remedy(*.node)
    )]
    WentBack {
        /// The member.
        node: NodeId,
        /// Numbers that show it.
        what: String,
    },
    /// A peer that showed its disk before shows none.
    #[error(
        "node {node} does not show its disk, which the cluster has on record: it runs a version \
         that is too old. Start it with the version of the other nodes"
    )]
    ShowsNone {
        /// The member.
        node: NodeId,
    },
    /// Somebody else answers where the member should.
    #[error(
        "another process answers at the address of node {node} ({address}): this one runs on a \
         copy of its folder, or at an address that the cluster does not know. Stop one of the two; \
         to move a node, stop it first and then run `keyviz cluster add-node {node} NEW_ADDRESS`"
    )]
    Elsewhere {
        /// The member.
        node: NodeId,
        /// Its address.
        address: String,
    },
}

struct Remedy(NodeId);

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "It takes part in nothing. Stop it, start a node with a new id and an empty folder \
             (--join), then run `keyviz cluster replace-node {} --with NEW_ID`",
            self.0
        )
    }
}

/// Compares a start that `node` shows with the last one that was identified and with the disk that
/// the cluster has on record.
///
/// # Errors
/// The start cannot be a later one of the same disk.
pub fn judge(
    node: NodeId,
    known: Option<&Start>,
    recorded: Option<DiskId>,
    shown: &Start,
) -> Result<(), Doubt> {
    let disk = recorded.or(known.map(|known| known.disk));
    if let Some(known) = disk.filter(|disk| *disk != shown.disk) {
        return Err(Doubt::OtherDisk { node, known, shown: shown.disk });
    }
    let Some(known) = known else { return Ok(()) };
    let went_back = |what: String| Err(Doubt::WentBack { node, what });
    if shown.number < known.number {
        let (shown, known) = (shown.number, known.number);
        return went_back(format!("it shows start {shown}, and start {known} was seen"));
    }
    if shown.number == known.number && shown.nonce != known.nonce {
        return went_back(format!("it was started a second time as start {}", shown.number));
    }
    if shown.number > known.number && shown.mark < known.mark {
        let (shown, known) = (shown.mark, known.mark);
        return went_back(format!("it shows mark {shown}, and mark {known} was seen"));
    }
    Ok(())
}

/// A start as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct StoredStart {
    disk: [u8; 16],
    number: u64,
    nonce: u64,
    mark: u64,
}

impl StoredStart {
    pub(super) fn number_and_mark(self) -> (u64, u64) {
        (self.number, self.mark)
    }
}

impl From<Start> for StoredStart {
    fn from(start: Start) -> Self {
        let Start { disk, number, nonce, mark } = start;
        StoredStart { disk: disk.0, number, nonce, mark }
    }
}

impl From<StoredStart> for Start {
    fn from(stored: StoredStart) -> Self {
        let StoredStart { disk, number, nonce, mark } = stored;
        Start { disk: DiskId(disk), number, nonce, mark }
    }
}

impl Start {
    pub(crate) fn to_proto(self) -> proto::RaftStart {
        let disk = bytes::Bytes::copy_from_slice(&self.disk.0);
        proto::RaftStart { disk, number: self.number, nonce: self.nonce, mark: self.mark }
    }

    /// `None`: it is no start.
    pub(crate) fn from_proto(start: &proto::RaftStart) -> Option<Self> {
        let disk = DiskId::from_bytes(&start.disk)?;
        let proto::RaftStart { number, nonce, mark, .. } = *start;
        (number > 0 && nonce > 0).then_some(Start { disk, number, nonce, mark })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId(3);

    fn start(disk: u8, number: u64, nonce: u64, mark: u64) -> Start {
        Start { disk: DiskId([disk; 16]), number, nonce, mark }
    }

    #[test]
    fn no_lost_write_a_start_that_forgot_is_told_from_a_later_one() {
        let known = start(1, 4, 40, 100);
        let judged = |shown| judge(NODE, Some(&known), None, &shown);
        assert_eq!(judged(known), Ok(()), "the same start");
        assert_eq!(judged(start(1, 4, 40, 90)), Ok(()), "a message of the same start that is late");
        assert_eq!(judged(start(1, 5, 50, 100)), Ok(()), "the next start");
        assert_eq!(judged(start(1, 9, 90, 180)), Ok(()), "a later start");
        assert!(matches!(judged(start(2, 9, 90, 180)), Err(Doubt::OtherDisk { .. })));
        assert!(matches!(judged(start(1, 3, 30, 100)), Err(Doubt::WentBack { .. })));
        assert!(matches!(judged(start(1, 4, 41, 100)), Err(Doubt::WentBack { .. })));
        assert!(matches!(judged(start(1, 5, 50, 99)), Err(Doubt::WentBack { .. })));
        assert_eq!(judge(NODE, None, None, &start(7, 1, 1, 0)), Ok(()), "nothing is known");
        let recorded = Some(DiskId([1; 16]));
        assert!(judge(NODE, None, recorded, &start(2, 1, 1, 0)).is_err(), "the catalog knows");
    }

    proptest! {
        /// Of a disk that only ever goes forward, everything that it shows is accepted by whoever
        /// saw any of it before.
        #[test]
        fn a_disk_that_goes_forward_is_never_refused(
            steps in proptest::collection::vec(0_u8..3, 1..40),
        ) {
            let mut shown = vec![start(1, 1, 1, 0)];
            for step in steps {
                let last = *shown.last().expect("it has one");
                shown.push(match step {
                    0 => Start { mark: last.mark + 1, ..last },
                    1 => Start { number: last.number + 1, nonce: last.nonce + 1, ..last },
                    _ => last,
                });
            }
            for (at, later) in shown.iter().enumerate() {
                for earlier in &shown[..=at] {
                    prop_assert_eq!(judge(NODE, Some(earlier), Some(later.disk), later), Ok(()));
                }
            }
        }

        /// A copy that is started again is refused by whoever saw a later start or mark of the
        /// original.
        #[test]
        fn a_copy_is_refused_by_whoever_saw_more(
            marks in 1_u64..50, copied in 0_u64..50, restarted in any::<bool>(),
        ) {
            let copied = copied.min(marks - 1);
            let original = start(1, 1 + u64::from(restarted), 10, marks);
            let copy = start(1, 2, 20, copied);
            prop_assert!(judge(NODE, Some(&original), None, &copy).is_err());
        }
    }
}
