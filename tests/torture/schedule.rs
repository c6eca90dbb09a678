//! Which faults, and when: a seed decides.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::damage::Damage;
use crate::forgetting::Forgets;

/// What is done to the cluster. Members are numbered from 0.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// kill -9 of one node, or of all at once, and a start some time later.
    Kill { members: Vec<usize>, down: Duration },
    /// SIGTERM, and a start some time later.
    Restart { member: usize, down: Duration },
    /// SIGSTOP and SIGCONT.
    Pause { member: usize, stopped: Duration },
    /// The same for the node that leads the most groups just then.
    PauseLeader { stopped: Duration },
    /// No bytes between a node and the others: in both directions, or only in or out.
    Partition { member: usize, inward: bool, outward: bool, cut: Duration, heal: Heal },
    /// All bytes to and from a node arrive late.
    Delay { member: usize, late: Duration, lasting: Duration },
    /// Every link is held, and each is released at a time of its own.
    Stall { release: Vec<Duration> },
    /// The leader is cut off for longer than an election, then killed before it hears of it.
    KillCutLeader { cut: Duration },
    /// Some members' disks have no room for writes, or for nothing but votes, and get it back.
    FullDisk { members: Vec<usize>, all_but_votes: bool, full: Duration },
    /// kill -9, damage to the database's file, and another node in place of the damaged one.
    Damage { member: usize, damage: Damage },
    /// kill -9, the folder emptied or put back from a copy, and another node in its place.
    Forget { member: usize, how: Forgets },
}

/// What becomes of the bytes that a cut held.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Heal {
    /// They arrive after all.
    Release,
    /// They are lost with their connections.
    Break,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Decides on faults. The same seed decides on the same ones.
pub struct Schedule {
    rng: StdRng,
    members: usize,
    /// Faults so far.
    made: usize,
    /// Faults that last longer, pauses of half a minute among them.
    long: bool,
}

impl Schedule {
    pub fn new(seed: u64, members: usize, long: bool) -> Self {
        Schedule { rng: StdRng::seed_from_u64(seed), members, made: 0, long }
    }

    /// The quiet time before the next fault, and the fault.
    pub fn next(&mut self) -> (Duration, Fault) {
        let (quiet, most) = if self.long { (300..2_500, 6_000) } else { (100..700, 3_500) };
        let quiet = self.between(quiet);
        let member = self.rng.random_range(0..self.members);
        let dice = self.rng.random_range(0..100);
        self.made += 1;
        // What is rare comes once early, so that a brief run has it too.
        let fault = match (self.made, dice) {
            (3, _) => self.full_disk(member, most),
            (6, _) => Fault::Damage { member, damage: self.damage() },
            (8, _) => Fault::Forget { member, how: Forgets::Since },
            (9, _) => Fault::Forget { member, how: Forgets::All },
            (_, 0..17) => Fault::Kill { members: vec![member], down: self.between(100..most / 2) },
            (_, 17..25) => {
                let members = self.all();
                Fault::Kill { members, down: self.between(100..1_000) }
            }
            (_, 25..31) => Fault::Restart { member, down: self.between(100..1_500) },
            (_, 31..38) => Fault::Pause { member, stopped: self.between(300..most) },
            (_, 38..51) => Fault::PauseLeader { stopped: self.pause(most) },
            (_, 51..70) => {
                let (inward, outward) =
                    [(true, true), (true, false), (false, true)][self.rng.random_range(0..3)];
                let heal = if self.rng.random_bool(0.6) { Heal::Release } else { Heal::Break };
                Fault::Partition { member, inward, outward, cut: self.between(500..most), heal }
            }
            (_, 70..77) => {
                let late = self.between(20..700);
                Fault::Delay { member, late, lasting: self.between(1_000..most) }
            }
            (_, 77..85) => {
                let links = self.members * self.members;
                Fault::Stall { release: (0..links).map(|_| self.between(100..most)).collect() }
            }
            (_, 85..92) => Fault::KillCutLeader { cut: self.between(1_500..most) },
            (_, 92..96) => self.full_disk(member, most),
            (_, 96..98) => {
                let how = if self.rng.random_bool(0.5) { Forgets::All } else { Forgets::Since };
                Fault::Forget { member, how }
            }
            _ => Fault::Damage { member, damage: self.damage() },
        };
        (quiet, fault)
    }

    /// All members in some order.
    fn all(&mut self) -> Vec<usize> {
        let mut members: Vec<usize> = (0..self.members).collect();
        members.shuffle(&mut self.rng);
        members
    }

    /// Of one member, of two or of all.
    fn full_disk(&mut self, member: usize, most: u64) -> Fault {
        let mut members = self.all();
        match self.rng.random_range(0..10) {
            0..5 => members = vec![member],
            5..7 => members.truncate(2),
            _ => {}
        }
        let all_but_votes = self.rng.random_bool(0.5);
        Fault::FullDisk { members, all_but_votes, full: self.between(500..most) }
    }

    fn damage(&mut self) -> Damage {
        match self.rng.random_bool(0.5) {
            true => Damage::Cut { at: self.rng.random_range(0..500) },
            false => Damage::Flip { at: self.rng.random_range(0..1_000) },
        }
    }

    fn pause(&mut self, most: u64) -> Duration {
        if self.long && self.rng.random_ratio(1, 8) {
            return Duration::from_secs(30);
        }
        self.between(1_500..most)
    }

    fn between(&mut self, ms: Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(ms))
    }
}
