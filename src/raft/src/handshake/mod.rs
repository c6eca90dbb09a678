//! Who a peer is: a node id **and** the disk that it promised on.
//!
//! Raft counts on a voter to remember what it acknowledged. A voter that comes back with an empty
//! folder, with an older copy of its folder, or as a second process on a copy of it, has forgotten;
//! counting it can undo an acknowledged write. So nodes identify each other before they exchange a
//! Raft message, and a node that has forgotten takes part in nothing.
//!
//! A node shows a [`Start`]: its disk id, the number of the start, a random nonce, and a *mark*
//! that grows at most once a second while the disk takes writes; and with it the starts before
//! ([`PastStart`]). All of it is durable before it is shown. Every node keeps, durably, the last
//! start that it identified of each peer ([`Roster`]), and [`judge`] compares: a disk that is
//! another one, or whose history lacks the start or a mark that was seen, has lost what it had.
//!
//! ```text
//!   node A                                   node B
//!   Identify(A's start) ───────────────────> judge A: answer with a verdict
//!   judge B, store it <───────────────────── B's start
//!   Append, Vote, ... (names B's nonce) ───> known nonce of A? else B identifies A at A's address
//! ```
//!
//! * **Why it is sound.** A stored start was durable on its own disk before anybody saw it, so a
//!   disk that shows less has lost durable writes; a sound disk is never refused. Starts are stored
//!   per node, so any number of peers may restart at once.
//! * **Why the address.** A copy of a folder on a second machine shows the right disk with a larger
//!   number. A start counts only once it answers at the member's address, where the copy is not.
//! * **What is not found out.** A disk that goes back by less than about two seconds, or to a state
//!   later than everything that the reachable peers ever heard of it. In both cases no reachable
//!   node knows better; `docs/operations.md` says what follows for restoring disks.
//!
//! A refused node remembers that it was refused. Nothing here is written for a request: an idle
//! node writes nothing, a busy one a record a second.

mod identify;
mod record;
mod roster;
mod rounds;
mod silence;
mod start;

pub use identify::VouchError;
pub(crate) use identify::identity_to_proto;
pub use record::{Heard, heard_of};
pub(crate) use roster::Admit;
pub use roster::{Checks, Participation, Roster};
pub use rounds::HandshakeLoop;
pub use start::{Doubt, PastStart, Start, judge};
