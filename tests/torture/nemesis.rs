//! Faults, done to a cluster one after another.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;

use crate::net::Net;
use crate::schedule::{Fault, Heal};
use crate::support::disk::{SmallDisk, mount};
use crate::support::{Cluster, clock_apart, eventually, faketime, http_answer};
use crate::workload::Workload;

/// Sets the clocks of nodes, with libfaketime: each has one of its own for the whole run, so that
/// what it counted is never ahead of it.
pub struct Clocks {
    rng: StdRng,
    library: PathBuf,
    apart: Duration,
    of: BTreeMap<usize, f64>,
}

impl Clocks {
    /// Any two differ by at most `apart`. `None`: libfaketime is not installed.
    pub fn new(seed: u64, apart: Duration) -> Option<Self> {
        let rng = StdRng::seed_from_u64(seed ^ 0xC10C);
        faketime().map(|library| Clocks { rng, library, apart, of: BTreeMap::new() })
    }

    fn of(&mut self, node: usize) -> Vec<(OsString, OsString)> {
        let half = self.apart.as_secs_f64() / 2.0;
        let drawn = || self.rng.random_range(-half..half);
        clock_apart(&self.library, *self.of.entry(node).or_insert_with(drawn))
    }
}

/// A node that was replaced by another, and what went with it.
pub struct Replaced {
    /// The writes and reads that it had counted by `from`.
    pub counted: [u64; 2],
    /// Between these it counted more, which is gone too.
    pub from: u64,
    pub to: u64,
}

/// The size of each node's disk, and what it keeps free of it.
const DISK_BYTES: u64 = 1 << 30;
pub const FLOOR_BYTES: u64 = 16 << 20;

/// Does faults to a cluster of some members. A member is at first the node of the same number, and
/// another one once it has been replaced.
pub struct Nemesis<'a> {
    pub runtime: &'a Runtime,
    pub cluster: &'a mut Cluster,
    pub net: &'a Net,
    pub workload: &'a Workload,
    /// The node that each member is.
    pub members: Vec<usize>,
    /// When nodes were killed: from just before the signal until the process was gone.
    pub kills: Vec<(u64, u64)>,
    pub replaced: Vec<Replaced>,
    /// `None`: all nodes have the system's clock.
    pub clocks: Option<Clocks>,
    /// Of the nodes that have one of their own; without, disks do not fill up.
    pub disks: BTreeMap<usize, SmallDisk>,
}

impl Nemesis<'_> {
    /// Gives every member a disk, a clock and a process.
    pub fn start(&mut self) {
        for at in 0..self.members.len() {
            self.prepare_disk(self.members[at]);
            self.start_member(at);
        }
        self.cluster.wait_until_serving();
    }

    /// Does one fault, and heals it.
    pub fn inflict(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill { members, down } => {
                members.iter().for_each(|at| self.kill(self.members[*at]));
                std::thread::sleep(*down);
                members.iter().for_each(|at| self.start_member(*at));
            }
            Fault::Restart { member, down } => {
                let node = self.members[*member];
                let code = self.cluster.stop(node);
                assert_eq!(code, Some(0), "SIGTERM ends node {} in good order", node + 1);
                std::thread::sleep(*down);
                self.start_member(*member);
            }
            Fault::Pause { member, stopped } => self.pause(self.members[*member], *stopped),
            Fault::PauseLeader { stopped } => {
                self.pause(self.members[self.leader()], *stopped);
            }
            Fault::Partition { member, inward, outward, cut, heal } => {
                let node = self.members[*member];
                self.cut(node, *inward, *outward);
                std::thread::sleep(*cut);
                self.heal(node, *heal);
            }
            Fault::Delay { member, late, lasting } => {
                let node = self.members[*member];
                for other in self.others(node) {
                    self.net.delay(node, other, *late);
                    self.net.delay(other, node, *late);
                }
                std::thread::sleep(*lasting);
                self.net.heal();
            }
            Fault::Stall { release } => self.stall(release),
            Fault::KillCutLeader { cut } => {
                let leader = self.leader();
                let node = self.members[leader];
                self.cut(node, true, true);
                std::thread::sleep(*cut);
                self.kill(node);
                self.heal(node, Heal::Break);
                self.start_member(leader);
            }
            Fault::FullDisk { members, all_but_votes, full } => {
                self.fill_disks(members, *all_but_votes, *full);
            }
            Fault::Damage { member, damage } => self.damage_and_replace(*member, *damage),
            Fault::Forget { member, how } => self.forget_and_replace(*member, *how),
        }
        let ended = self.cluster.ended();
        assert!(ended.is_empty(), "nodes {ended:?} (from 0) ended by themselves");
    }

    /// Gives a node that was never started a disk of its own, where that can be done.
    pub fn prepare_disk(&mut self, node: usize) {
        if let Some(disk) = SmallDisk::mount(&self.cluster.data(node), DISK_BYTES) {
            self.disks.insert(node, disk);
        }
    }

    /// Starts member `at`, where the clocks can be set with its own.
    pub fn start_member(&mut self, at: usize) {
        let node = self.members[at];
        if let Some(clocks) = &mut self.clocks {
            self.cluster.environment[node] = clocks.of(node);
        }
        self.cluster.spawn(node);
        self.net.set_pid(node, self.cluster.pid(node));
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        let before = self.workload.now();
        self.cluster.kill(node);
        self.kills.push((before, self.workload.now()));
    }

    fn pause(&mut self, node: usize, stopped: Duration) {
        self.cluster.signal(node, "STOP");
        std::thread::sleep(stopped);
        self.cluster.signal(node, "CONT");
    }

    /// Somebody else takes the disks, and gives them back. A node first stops to take writes; with
    /// still less it gives up what it put aside, and then takes nothing but votes and marks.
    fn fill_disks(&mut self, members: &[usize], all_but_votes: bool, full: Duration) {
        let nodes: Vec<usize> = members.iter().map(|at| self.members[*at]).collect();
        let disks: Vec<&SmallDisk> = nodes.iter().filter_map(|node| self.disks.get(node)).collect();
        if disks.len() < nodes.len() {
            println!("{:>9}  skipped: the nodes have no disks of their own", "");
            return;
        }
        self.cluster.wait_until_serving();
        let says = |node: usize, what: &str| {
            let page = http_answer(&self.cluster.http[node], "/metrics").unwrap_or_default();
            page.lines().any(|line| line == what)
        };
        let read_only = |node: &usize| says(*node, "keyviz_disk_full 1");
        let writes = |node: &usize| says(*node, "keyviz_disk_full 0");
        disks.iter().for_each(|disk| leave_free(disk, FLOOR_BYTES / 2));
        eventually("who has no room is read-only", || nodes.iter().all(read_only));
        if all_but_votes {
            // Not in one step: what a node cannot see coming between two looks, it cannot outlive.
            disks.iter().for_each(|disk| leave_free(disk, FLOOR_BYTES / 5));
            let holds = |node: &usize| self.cluster.data(*node).join("BALLAST").exists();
            eventually("the ballast is given up", || !nodes.iter().any(holds));
            disks.iter().for_each(|disk| leave_free(disk, FLOOR_BYTES / 10));
        }
        std::thread::sleep(full);
        eventually("there is still no room", || nodes.iter().all(read_only));
        for disk in disks {
            assert!(resize(disk, DISK_BYTES), "a disk can grow");
        }
        eventually("who has room takes writes again", || nodes.iter().all(writes));
        // A kill before that would cost all that the node had counted.
        let stored = |node: &usize| {
            let log = self.cluster.log(*node);
            let times = |what: &str| log.matches(what).count();
            times("the stored history is dropped") == times("the history is stored again")
        };
        eventually("the history is stored again", || nodes.iter().all(stored));
    }

    fn others(&self, node: usize) -> Vec<usize> {
        self.members.iter().copied().filter(|other| *other != node).collect()
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
        let links = self.members.iter().flat_map(|from| self.members.iter().map(|to| (*from, *to)));
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

    /// The member that leads the most groups, as far as any knows.
    fn leader(&self) -> usize {
        for node in &self.members {
            let asked = self.cluster.run_on(*node, &["cluster", "status", "--format", "json"]);
            let Ok(status) = serde_json::from_slice::<serde_json::Value>(&asked.stdout) else {
                continue;
            };
            let groups = status["groups"].as_array().cloned().unwrap_or_default();
            let leads = |at: &usize| {
                let id = self.members[*at] as u64 + 1;
                groups.iter().filter(|group| group["leader"].as_u64() == Some(id)).count()
            };
            return (0..self.members.len()).max_by_key(leads).expect("there are members");
        }
        0
    }
}

/// Makes a disk so small that this many bytes are free, as if something else had taken the rest.
fn leave_free(disk: &SmallDisk, bytes: u64) {
    eventually("the disk shrinks while it is written", || {
        let space = rustix::fs::statvfs(&disk.0).expect("the disk is mounted");
        let used = (space.f_blocks - space.f_bfree) * space.f_frsize;
        resize(disk, used + bytes)
    });
}

/// Changes the size of a disk. False: more is stored on it.
fn resize(disk: &SmallDisk, bytes: u64) -> bool {
    let done = mount(&format!("remount,size={bytes}"), &disk.0);
    done.is_ok_and(|output| output.status.success())
}
