//! What a node presents about its start, and what a peer concludes from it. Pure.

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

/// An earlier start of the same disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PastStart {
    /// Its number.
    pub number: u64,
    /// Its nonce.
    pub nonce: u64,
    /// The last mark that it made.
    pub mark: u64,
}

/// Why a start is not the one that it claims to be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Doubt {
    /// The folder was emptied, or belongs to another node.
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
    /// A peer that showed its disk before no longer does.
    #[error(
        "node {node} does not show its disk, which the cluster has on record: it runs a version \
         that is too old. Start it with the version of the other nodes"
    )]
    ShowsNone {
        /// The member.
        node: NodeId,
    },
    /// Another process answers at the member's address.
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

/// Compares a start that `node` shows, and the starts before it, with the last one that was
/// identified and with the disk that the cluster has on record. A later start of the same disk
/// knows of the one that was identified, and of every mark that it made. A number or a mark alone
/// would not do: a disk that went back can start again, and make marks, until it has caught up.
///
/// # Errors
/// The start cannot be a later one of the same disk.
pub fn judge(
    node: NodeId,
    known: Option<&Start>,
    recorded: Option<DiskId>,
    shown: &Start,
    history: &[PastStart],
) -> Result<(), Doubt> {
    let disk = recorded.or(known.map(|known| known.disk));
    if let Some(known) = disk.filter(|disk| *disk != shown.disk) {
        return Err(Doubt::OtherDisk { node, known, shown: shown.disk });
    }
    let Some(known) = known else { return Ok(()) };
    if shown.nonce == known.nonce {
        return Ok(());
    }
    let went_back = |what: String| Err(Doubt::WentBack { node, what });
    if shown.number <= known.number {
        let (shown, known) = (shown.number, known.number);
        return went_back(format!("it shows start {shown}, and another start {known} was seen"));
    }
    match history.iter().find(|past| past.number == known.number) {
        Some(past) if past.nonce != known.nonce => {
            went_back(format!("it made start {} a second time", known.number))
        }
        Some(past) if past.mark < known.mark => {
            let (number, made, seen) = (known.number, past.mark, known.mark);
            went_back(format!(
                "it knows of mark {made} of start {number}, and mark {seen} was seen"
            ))
        }
        Some(_) => Ok(()),
        None if history.first().is_some_and(|oldest| oldest.number > known.number) => {
            // It was not seen for more starts than a disk remembers.
            Ok(())
        }
        None => went_back(format!("it knows nothing of start {}, which was seen", known.number)),
    }
}

/// A start as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct StoredStart {
    disk: [u8; 16],
    number: u64,
    nonce: u64,
    mark: u64,
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

impl PastStart {
    pub(crate) fn to_proto(self) -> proto::RaftPastStart {
        proto::RaftPastStart { number: self.number, nonce: self.nonce, mark: self.mark }
    }

    pub(crate) fn from_proto(past: &proto::RaftPastStart) -> Self {
        PastStart { number: past.number, nonce: past.nonce, mark: past.mark }
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

    /// A disk as a process uses it.
    #[derive(Clone)]
    struct Disk {
        past: Vec<PastStart>,
        now: Start,
    }

    impl Disk {
        fn new() -> Self {
            let now = Start { disk: DiskId([1; 16]), number: 1, nonce: 1, mark: 0 };
            Disk { past: Vec::new(), now }
        }

        fn mark(&mut self) {
            self.now.mark += 1;
        }

        fn restart(&mut self, nonce: u64) {
            let Start { number, nonce: past, mark, .. } = self.now;
            self.past.push(PastStart { number, nonce: past, mark });
            self.now = Start { number: number + 1, nonce, ..self.now };
        }

        fn judged_by(&self, seen: &Start) -> Result<(), Doubt> {
            judge(NODE, Some(seen), None, &self.now, &self.past)
        }
    }

    #[test]
    fn no_lost_write_a_disk_that_forgot_is_told_from_one_that_went_on() {
        let mut disk = Disk::new();
        disk.mark();
        let copied = disk.clone();
        assert_eq!(disk.judged_by(&copied.now), Ok(()), "the same start");
        disk.mark();
        assert_eq!(copied.judged_by(&disk.now), Ok(()), "a message of the same start that is late");
        let seen = disk.now;
        disk.restart(2);
        assert_eq!(disk.judged_by(&seen), Ok(()), "the next start");
        disk.restart(3);
        assert_eq!(disk.judged_by(&seen), Ok(()), "a later start");
        let other = Start { disk: DiskId([2; 16]), ..disk.now };
        let judged = judge(NODE, Some(&seen), None, &other, &disk.past);
        assert!(matches!(judged, Err(Doubt::OtherDisk { .. })));
        let recorded = Some(DiskId([1; 16]));
        assert!(judge(NODE, None, recorded, &other, &[]).is_err(), "the catalog knows");
        assert_eq!(judge(NODE, None, None, &other, &[]), Ok(()), "nothing is known");
        // However often a copy starts, and whatever marks it makes.
        let mut copied = copied;
        for nonce in 10..20 {
            copied.restart(nonce);
            copied.mark();
            copied.mark();
            assert!(matches!(copied.judged_by(&seen), Err(Doubt::WentBack { .. })), "{nonce}");
            assert!(matches!(copied.judged_by(&disk.now), Err(Doubt::WentBack { .. })), "{nonce}");
        }
    }

    proptest! {
        /// Every start of a disk that never goes back is accepted by all nodes that identified an
        /// earlier one. A restarted copy is refused by every node that has seen more than the copy
        /// has.
        #[test]
        fn a_disk_that_goes_forward_is_accepted_and_a_copy_is_not(
            steps in proptest::collection::vec(any::<bool>(), 1..40),
            copied_at in 0_usize..40,
            again in proptest::collection::vec(any::<bool>(), 0..20),
        ) {
            let mut disk = Disk::new();
            let mut states = vec![disk.clone()];
            for (nonce, restarts) in (2..).zip(steps) {
                if restarts { disk.restart(nonce) } else { disk.mark() }
                states.push(disk.clone());
            }
            for (at, later) in states.iter().enumerate() {
                for earlier in &states[..=at] {
                    prop_assert_eq!(later.judged_by(&earlier.now), Ok(()));
                }
            }
            let copied_at = copied_at.min(states.len() - 1);
            let mut copy = states[copied_at].clone();
            copy.restart(1_000);
            for (nonce, restarts) in (1_001..).zip(again) {
                if restarts { copy.restart(nonce) } else { copy.mark() }
            }
            for seen in &states[copied_at + 1..] {
                prop_assert!(copy.judged_by(&seen.now).is_err());
            }
        }
    }
}
