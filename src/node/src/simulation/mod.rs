//! A whole cluster on one thread, in simulated time, where one seed decides everything: the
//! network, the disks, the clocks, the elections, the faults and the clients.
//!
//! ```text
//!   every millisecond:  due messages are handed over, then each host's runtime runs for that long
//!
//!     clients ──┐                 ┌── host 1: raft groups, catalog, coordinator, sampler ── disk
//!     operator ─┼── net (seeded) ─┼── host 2                                             ── disk
//!     faults ───┘                 └── host 3                                             ── disk
//! ```
//!
//! Real: openraft with its log, votes, snapshots and leases, the log writer's order of work, the
//! state machines, the catalog, the coordinator, sampler and history. Simulated: gRPC, sled,
//! threads, time and randomness. When the faults are over everything heals, and then must hold:
//!
//! * every key's history is linearizable, each key read once more on each host;
//! * all replicas hold the same rows and the catalogs are equal;
//! * no group ever had two leaders in one term;
//! * the matrix counts at least the acknowledged writes, less what kills may cost, and at most
//!   those and the unknown ones, and nothing is unattributed;
//! * nothing panicked, and every process could start on what its disk kept.
//!
//! `KEYVIZ_SIM_SEEDS=1000` runs so many seeds, `KEYVIZ_SIM_SEED=7` runs one and prints its faults.

mod clients;
mod cluster;
mod copies;
mod disk;
mod faults;
mod forgetting;
mod host;
mod inflict;
#[path = "../../../../tests/support/linear.rs"]
#[allow(missing_docs)]
mod linear;
mod net;
mod peers;
mod tests;
mod verdict;
mod world;
