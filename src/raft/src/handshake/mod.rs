//! The identity of a peer: a node id **and** the disk on which it made its promises.
//!
//! Raft relies on a voter to remember what it acknowledged. A voter that restarts with an empty
//! folder, with an older copy of its folder, or as a second process on a copy of it, has lost
//! acknowledgements; counting its vote can undo an acknowledged write. Nodes therefore identify
//! each other before they exchange Raft messages, and a node that has lost acknowledgements is
//! excluded.
//!
//! A node presents a [`Start`]: its disk id, the number of the start, a random nonce, and a *mark*
//! that increases at most once a second while the disk accepts writes; and with it the earlier
//! starts ([`PastStart`]). All of it is durable before it is presented. Every node durably stores
//! the last start that it identified of each peer ([`Roster`]), and [`judge`] compares: a different
//! disk, or one whose history lacks the stored start or the stored mark, has lost data.
//!
//! ```text
//!   node A                                   node B
//!   Identify(A's start) ───────────────────> judge A: answer with a verdict
//!   judge B, store it <───────────────────── B's start
//!   Append, Vote, ... (names B's nonce) ───> known nonce of A? else B identifies A at A's address
//! ```
//!
//! * **Why it is sound.** A stored start was durable on its own disk before any node saw it, so a
//!   disk that presents less has lost durable writes, and an intact disk is never refused. Starts
//!   are stored per node, so any number of peers may restart at once.
//! * **Why the address.** A copy of a folder on a second machine presents the right disk with a
//!   larger number. A start counts only once it answers at the member's address, where the copy is
//!   not.
//! * **What is not detected.** A disk that goes back by less than about two seconds, or to a state
//!   later than everything that the reachable peers have heard of it. In both cases no reachable
//!   node knows better; `docs/operations.md` describes what follows for restoring disks.
//!
//! A refused node remembers that it was refused. No request causes a write: an idle node writes
//! nothing, and a busy one writes one record per second.

mod identify;
mod record;
mod roster;
mod rounds;
mod silence;
mod start;

pub use identify::VouchError;
pub(crate) use identify::identity_to_proto;
pub use record::{Heard, StoppedNode, heard_of};
pub(crate) use roster::Admit;
pub use roster::{Checks, Participation, Roster};
pub use rounds::HandshakeLoop;
pub use start::{Doubt, PastStart, Start, judge};
