//! Faults, as the seed decides.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::net::Link;
use super::world::mix;

/// The faults of a run. Hosts are numbered from 1.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Fault {
    /// A host's process dies, and another starts later on what the disk kept.
    Kill { host: u64, keep: u64, down_ms: u64 },
    /// All at once.
    KillAll { keep: u64, down_ms: u64 },
    /// The process stands still, regardless of its timers.
    Pause { host: Whom, stopped_ms: u64 },
    /// No messages to it, from it, or either.
    Partition { host: Whom, inward: bool, outward: bool, cut_ms: u64 },
    /// A leader is cut off for longer than an election and killed before it learns of it.
    KillCutLeader { cut_ms: u64, keep: u64 },
    /// One direction of one pair.
    OneWay { from: u64, to: u64, cut_ms: u64 },
    /// Every link is slow, loses, doubles and reorders.
    Weather { link: Weather, lasting_ms: u64 },
    /// Syncs take up to so long.
    SlowDisk { host: u64, sync_ms: u64, lasting_ms: u64 },
    /// The disk fails a sync: the node must stop by itself, and is started again.
    DiskFails { host: u64, keep: u64, down_ms: u64 },
    /// The wall clock jumps.
    Clock { host: u64, offset_ms: i64 },
    /// A host loses its disk and comes up first, together with one that was down then; at most once
    /// a run.
    Forget { host: u64, behind: u64, how: Forgets, apart_ms: u64, alone_ms: u64 },
    /// A host's folder is copied while it is down, and a second process runs on the copy; at most
    /// once a run, and not where a host forgets.
    CopyFolder { host: u64, copy: Copy },
}

/// How a copy of a folder comes up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Copy {
    /// Messages to the member reach the copy. Otherwise the copy is at an address that no member
    /// knows.
    pub(super) takes_address: bool,
    /// It starts before the original.
    pub(super) first: bool,
    /// Between the two starts.
    pub(super) apart_ms: u64,
    /// How long both run.
    pub(super) lasting_ms: u64,
}

/// How a host forgets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Forgets {
    /// Its folder is emptied.
    All,
    /// Its folder is put back from a copy of so long ago.
    Since { ago_ms: u64 },
    /// The same of the log and the votes alone.
    JournalSince { ago_ms: u64 },
    /// The same of the rows alone, which are made again from the log.
    RowsSince { ago_ms: u64 },
}

/// A host by number, or the one that leads the most groups just then.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Whom {
    Host(u64),
    Leader,
}

/// A [`Link`] that is not cut.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Weather {
    late_ms: u64,
    lost: u64,
    twice: u64,
    overtaking: u64,
}

impl Weather {
    pub(super) fn link(self) -> Link {
        let Weather { late_ms, lost, twice, overtaking } = self;
        Link { cut: false, late_ms, lost, twice, overtaking }
    }
}

/// Decides on faults. The same seed decides on the same ones.
pub(super) struct Schedule {
    rng: StdRng,
    /// Decides on disks that forget, so that the other faults do not depend on it.
    forgets: StdRng,
    /// Decides on copied folders, for the same reason.
    copies: StdRng,
    hosts: u64,
}

impl Schedule {
    pub(super) fn new(seed: u64, hosts: u64) -> Self {
        let rng = |salt: u64| StdRng::seed_from_u64(mix(seed ^ salt));
        Schedule { rng: rng(0xFA17), forgets: rng(0xF0E6), copies: rng(0xC0B1), hosts }
    }

    /// The time to the next fault, and the fault. Faults overlap.
    pub(super) fn next(&mut self) -> (u64, Fault) {
        let hosts = self.hosts;
        let rng = &mut self.rng;
        let quiet_ms = rng.random_range(50..900);
        let host = rng.random_range(1..=hosts);
        let whom = if rng.random_bool(0.5) { Whom::Leader } else { Whom::Host(host) };
        let keep = [0, rng.random_range(0..1_000), 1_000][rng.random_range(0..3)];
        let down_ms = rng.random_range(20..1_200);
        let cut_ms = rng.random_range(100..2_000);
        let fault = match rng.random_range(0..100) {
            0..22 => Fault::Kill { host, keep, down_ms },
            22..30 => Fault::KillAll { keep, down_ms },
            30..42 => Fault::Pause { host: whom, stopped_ms: rng.random_range(100..2_500) },
            42..58 => {
                let (inward, outward) =
                    [(true, true), (true, false), (false, true)][rng.random_range(0..3)];
                Fault::Partition { host: whom, inward, outward, cut_ms }
            }
            58..64 => Fault::KillCutLeader { cut_ms: rng.random_range(400..1_500), keep },
            64..72 => Fault::OneWay { from: host, to: 1 + host % hosts, cut_ms },
            72..84 => {
                let link = Weather {
                    late_ms: rng.random_range(0..150),
                    lost: rng.random_range(0..150),
                    twice: rng.random_range(0..200),
                    overtaking: rng.random_range(0..150),
                };
                Fault::Weather { link, lasting_ms: rng.random_range(300..2_000) }
            }
            84..91 => {
                let sync_ms = rng.random_range(20..250);
                Fault::SlowDisk { host, sync_ms, lasting_ms: rng.random_range(300..2_000) }
            }
            91..95 => Fault::DiskFails { host, keep, down_ms },
            _ => Fault::Clock { host, offset_ms: rng.random_range(-60_000..60_000) },
        };
        let (forgets, copies) = (self.forget(host), self.copy(host));
        (quiet_ms, forgets.or(copies).unwrap_or(fault))
    }

    /// Now and then a host forgets instead.
    fn forget(&mut self, host: u64) -> Option<Fault> {
        let rng = &mut self.forgets;
        if !rng.random_ratio(1, 10) {
            return None;
        }
        let ago_ms = rng.random_range(2_500..5_000);
        let how = match rng.random_range(0..6) {
            0..2 => Forgets::All,
            2..4 => Forgets::Since { ago_ms },
            4 => Forgets::JournalSince { ago_ms },
            _ => Forgets::RowsSince { ago_ms },
        };
        let behind = 1 + host % self.hosts;
        let (apart_ms, alone_ms) = (rng.random_range(500..1_500), rng.random_range(500..2_500));
        Some(Fault::Forget { host, behind, how, apart_ms, alone_ms })
    }

    /// Now and then a folder is copied instead.
    fn copy(&mut self, host: u64) -> Option<Fault> {
        let rng = &mut self.copies;
        let copy = Copy {
            takes_address: rng.random(),
            first: rng.random(),
            apart_ms: rng.random_range(100..2_500),
            lasting_ms: rng.random_range(500..4_000),
        };
        rng.random_ratio(1, 10).then_some(Fault::CopyFolder { host, copy })
    }
}
