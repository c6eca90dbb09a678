//! Faults, one after another, as a seed decides.

use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::net::Net;
use crate::support::Cluster;
use crate::workload::Workload;

/// What is done to the cluster. Nodes are numbered from 0.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// kill -9 of one node, or of all at once, and a start some time later.
    Kill { nodes: Vec<usize>, down: Duration },
    /// SIGTERM, and a start some time later.
    Restart { node: usize, down: Duration },
    /// SIGSTOP and SIGCONT.
    Pause { node: usize, stopped: Duration },
    /// The same for the node that leads the most groups just then.
    PauseLeader { stopped: Duration },
    /// No bytes between a node and the others: in both directions, or only in or out.
    Partition { node: usize, inward: bool, outward: bool, cut: Duration, heal: Heal },
    /// All bytes to and from a node arrive late.
    Delay { node: usize, late: Duration, lasting: Duration },
    /// Every link is held, and each is released at a time of its own.
    Stall { release: Vec<Duration> },
    /// The leader is cut off for longer than an election, then killed before it hears of it.
    KillCutLeader { cut: Duration },
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

/// Sets the clocks of nodes at their start, with libfaketime: each up to half a minute off, so that
/// two differ by up to a minute.
pub struct Clocks {
    rng: StdRng,
    library: &'static str,
}

/// What two clocks differ by at most.
pub const MOST_SKEW: Duration = Duration::from_secs(60);

impl Clocks {
    /// `None`: libfaketime is not installed where Debian has it.
    pub fn new(seed: u64) -> Option<Self> {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        let rng = StdRng::seed_from_u64(seed ^ 0xC10C);
        std::path::Path::new(library).exists().then_some(Clocks { rng, library })
    }

    fn next(&mut self) -> Vec<(OsString, OsString)> {
        let half = MOST_SKEW.as_secs_f64() / 2.0;
        vec![
            ("LD_PRELOAD".into(), self.library.into()),
            ("FAKETIME".into(), format!("{:+.3}s", self.rng.random_range(-half..half)).into()),
            // Only what the clock on the wall says: intervals are measured as they are.
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
            ("NO_FAKE_STAT".into(), "1".into()),
        ]
    }
}

/// Decides on faults. The same seed decides on the same ones.
pub struct Schedule {
    rng: StdRng,
    nodes: usize,
    /// Faults that last longer, pauses of half a minute among them.
    long: bool,
}

impl Schedule {
    pub fn new(seed: u64, nodes: usize, long: bool) -> Self {
        Schedule { rng: StdRng::seed_from_u64(seed), nodes, long }
    }

    /// The quiet time before the next fault, and the fault.
    pub fn next(&mut self) -> (Duration, Fault) {
        let (quiet, most) = if self.long { (300..2_500, 6_000) } else { (100..700, 3_500) };
        let quiet = self.between(quiet);
        let node = self.rng.random_range(0..self.nodes);
        let fault = match self.rng.random_range(0..100) {
            0..18 => Fault::Kill { nodes: vec![node], down: self.between(100..most / 2) },
            18..26 => {
                let mut nodes: Vec<usize> = (0..self.nodes).collect();
                nodes.shuffle(&mut self.rng);
                Fault::Kill { nodes, down: self.between(100..1_000) }
            }
            26..32 => Fault::Restart { node, down: self.between(100..1_500) },
            32..40 => Fault::Pause { node, stopped: self.between(300..most) },
            40..54 => Fault::PauseLeader { stopped: self.pause(most) },
            54..76 => {
                let (inward, outward) =
                    [(true, true), (true, false), (false, true)][self.rng.random_range(0..3)];
                let heal = if self.rng.random_bool(0.6) { Heal::Release } else { Heal::Break };
                Fault::Partition { node, inward, outward, cut: self.between(500..most), heal }
            }
            76..84 => {
                let late = self.between(20..700);
                Fault::Delay { node, late, lasting: self.between(1_000..most) }
            }
            84..92 => {
                let links = self.nodes * self.nodes;
                Fault::Stall { release: (0..links).map(|_| self.between(100..most)).collect() }
            }
            _ => Fault::KillCutLeader { cut: self.between(1_500..most) },
        };
        (quiet, fault)
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

/// Does faults to a cluster.
pub struct Nemesis<'a> {
    pub cluster: &'a mut Cluster,
    pub net: &'a Net,
    pub workload: &'a Workload,
    /// When nodes were killed: from just before the signal until the process was gone.
    pub kills: Vec<(u64, u64)>,
    /// `None`: all nodes have the system's clock.
    pub clocks: Option<Clocks>,
}

impl Nemesis<'_> {
    /// Does one fault, and heals it.
    pub fn inflict(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill { nodes, down } => {
                nodes.iter().for_each(|node| self.kill(*node));
                std::thread::sleep(*down);
                nodes.iter().for_each(|node| self.start(*node));
            }
            Fault::Restart { node, down } => {
                let code = self.cluster.stop(*node);
                assert_eq!(code, Some(0), "SIGTERM ends node {} in good order", node + 1);
                std::thread::sleep(*down);
                self.start(*node);
            }
            Fault::Pause { node, stopped } => self.pause(*node, *stopped),
            Fault::PauseLeader { stopped } => self.pause(self.leader(), *stopped),
            Fault::Partition { node, inward, outward, cut, heal } => {
                self.cut(*node, *inward, *outward);
                std::thread::sleep(*cut);
                self.heal(*node, *heal);
            }
            Fault::Delay { node, late, lasting } => {
                for other in self.others(*node) {
                    self.net.delay(*node, other, *late);
                    self.net.delay(other, *node, *late);
                }
                std::thread::sleep(*lasting);
                self.net.heal();
            }
            Fault::Stall { release } => self.stall(release),
            Fault::KillCutLeader { cut } => {
                let leader = self.leader();
                self.cut(leader, true, true);
                std::thread::sleep(*cut);
                self.kill(leader);
                self.heal(leader, Heal::Break);
                self.start(leader);
            }
        }
        let ended = self.cluster.ended();
        assert!(ended.is_empty(), "nodes {ended:?} (from 0) ended by themselves");
    }

    /// Starts node `node`, where the clocks can be set with another clock than before.
    pub fn start(&mut self, node: usize) {
        if let Some(clocks) = &mut self.clocks {
            self.cluster.environment[node] = clocks.next();
        }
        self.cluster.spawn(node);
        self.net.set_pid(node, self.cluster.pid(node));
    }

    fn kill(&mut self, node: usize) {
        let before = self.workload.now();
        self.cluster.kill(node);
        self.kills.push((before, self.workload.now()));
    }

    fn pause(&mut self, node: usize, stopped: Duration) {
        self.cluster.signal(node, "STOP");
        std::thread::sleep(stopped);
        self.cluster.signal(node, "CONT");
    }

    fn others(&self, node: usize) -> Vec<usize> {
        (0..self.cluster.len()).filter(|other| *other != node).collect()
    }

    fn cut(&self, node: usize, inward: bool, outward: bool) {
        for other in self.others(node) {
            if inward {
                self.net.hold(other, node);
            }
            if outward {
                self.net.hold(node, other);
            }
        }
    }

    fn heal(&self, node: usize, heal: Heal) {
        if heal == Heal::Break {
            self.others(node).into_iter().for_each(|other| self.net.break_between(node, other));
        }
        self.net.heal();
    }

    fn stall(&self, release: &[Duration]) {
        let nodes = self.cluster.len();
        let links = (0..nodes * nodes).map(|link| (link / nodes, link % nodes));
        let mut due: Vec<_> = release.iter().zip(links).collect();
        due.iter().for_each(|(_, (from, to))| self.net.hold(*from, *to));
        due.sort();
        let mut slept = Duration::ZERO;
        for (at, (from, to)) in due {
            std::thread::sleep(at.saturating_sub(slept));
            slept = *at;
            self.net.release(from, to);
        }
    }

    /// The node that leads the most groups, as far as any node knows.
    fn leader(&self) -> usize {
        let nodes = self.cluster.len();
        for node in 0..nodes {
            let asked = self.cluster.run_on(node, &["cluster", "status", "--format", "json"]);
            let Ok(status) = serde_json::from_slice::<serde_json::Value>(&asked.stdout) else {
                continue;
            };
            let groups = status["groups"].as_array().cloned().unwrap_or_default();
            let leads = |node: usize| {
                let id = node as u64 + 1;
                groups.iter().filter(|group| group["leader"].as_u64() == Some(id)).count()
            };
            return (0..nodes).max_by_key(|node| leads(*node)).expect("there are nodes");
        }
        0
    }
}
