//! Hosts, network and clients together, and what is done to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::clients::{CLIENTS, Workload};
use super::copies::{EndedCopy, FolderCopy};
use super::disk::Copied;
use super::faults::{Forgets, Schedule};
use super::host::{Founding, Host};
use super::net::{Delivery, Journal, Net, Trace};
use super::verdict::{self, Kill};
use super::world::{Bug, Scope, mix};
use keyviz_catalog::{ClusterId, plan_bootstrap};
use keyviz_raft::Member;
use keyviz_types::{GroupId, NodeId};

pub(super) const HOSTS: u64 = 3;
pub(super) const GROUPS: usize = 2;

/// How long faults go on, and how long the cluster may take to come to rest afterwards.
const FAULTS_MS: u64 = 6_000;
pub(super) const FORMING_MS: u64 = 10_000;
const SETTLING_MS: u64 = 20_000;

/// The first word of a note on a disk.
const DISK: u64 = 0xD15C;

/// Disks are copied this often, and so many copies are kept.
const COPY_EVERY_MS: u64 = 250;
const COPIES: usize = 24;

/// A seed's run that found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Passed {
    pub(super) trace: Trace,
    pub(super) faults: u64,
    pub(super) kills: u64,
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) unknown: u64,
    pub(super) changes: u64,
    pub(super) moved: u64,
    pub(super) abandoned: u64,
    pub(super) forgot: u64,
    pub(super) clones: u64,
}

/// Runs one seed, with a fault of the program put in or not.
pub(super) fn run(seed: u64, bug: Option<Bug>, tell: bool) -> Result<Passed, String> {
    let scope = Scope::enter(bug);
    let mut cluster = Cluster::new(seed, tell);
    let ran = cluster.run(seed);
    let panics = scope.panics();
    if !panics.is_empty() {
        return Err(format!("{} panics, the first: {}", panics.len(), panics[0]));
    }
    ran
}

/// The same, with every event of it.
pub(super) fn run_with_journal(seed: u64) -> (Result<Passed, String>, Journal) {
    let scope = Scope::enter(None);
    let mut cluster = Cluster::new(seed, false);
    cluster.net.keep_journal();
    let ran = cluster.run(seed);
    let journal = cluster.net.journal();
    drop((cluster, scope));
    (ran, journal)
}

pub(super) struct Cluster {
    pub(super) net: Net,
    pub(super) hosts: Vec<Host>,
    pub(super) workload: Workload,
    pub(super) clients: Option<Runtime>,
    /// What is to be done later, by when.
    pub(super) due: BTreeMap<(u64, u64), Later>,
    pub(super) number: u64,
    pub(super) kills: Vec<Kill>,
    pub(super) pauses: Vec<(u64, u64, u64)>,
    /// Who led which group in which term.
    pub(super) leaders: BTreeMap<(GroupId, u64), u64>,
    /// Copies of the hosts' disks, oldest first, with the time of each.
    pub(super) copies: VecDeque<(u64, Vec<(Copied, Copied)>)>,
    /// The host that forgot. It must take part in nothing.
    pub(super) out: Option<u64>,
    /// The host whose rows went back. It makes them again from its log, or says that it cannot.
    pub(super) rows_went_back: Option<u64>,
    /// A host is about to forget or did, or its folder was copied, so that no other does.
    pub(super) forgets: bool,
    /// A second process on a copy of a host's folder.
    pub(super) copy: Option<FolderCopy>,
    /// The copies that ran, by the host that each stood for.
    pub(super) copies_ended: Vec<EndedCopy>,
    pub(super) tell: bool,
}

pub(super) enum Later {
    Forget { host: u64, behind: u64, how: Forgets, alone_ms: u64 },
    Start(u64),
    CopyStarts,
    CopyEnds,
    Resume(u64),
    KillCut { host: u64, keep: u64 },
    DiskHeals(u64),
    NetHeals,
}

impl Cluster {
    pub(super) fn new(seed: u64, tell: bool) -> Self {
        let net = Net::new(seed);
        let ids: Vec<NodeId> = (1..=HOSTS).map(NodeId).collect();
        let member = |id: u64| (id, Member::grpc(format!("host-{id}:1")));
        let mut cluster_id = [7; 16];
        cluster_id[..8].copy_from_slice(&seed.to_be_bytes());
        let founding = Founding {
            members: (1..=HOSTS).map(member).collect(),
            plan: plan_bootstrap(&ids, GROUPS, 3, &[b"m".to_vec()]).expect("a sound plan"),
            cluster_id: ClusterId(cluster_id),
        };
        let host = |id| Host::new(id, net.clone(), founding.clone(), mix(seed ^ mix(id)));
        let clients = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread starts");
        Cluster {
            hosts: (1..=HOSTS).map(host).collect(),
            workload: Workload::new(net.clone(), HOSTS),
            net,
            clients: Some(clients),
            due: BTreeMap::new(),
            number: 0,
            kills: Vec::new(),
            pauses: Vec::new(),
            leaders: BTreeMap::new(),
            copies: VecDeque::new(),
            out: None,
            rows_went_back: None,
            forgets: false,
            copy: None,
            copies_ended: Vec::new(),
            tell,
        }
    }

    fn run(&mut self, seed: u64) -> Result<Passed, String> {
        self.hosts.iter_mut().for_each(Host::start);
        self.until(FORMING_MS, "the cluster forms", Cluster::is_formed)?;
        let mut clients: Vec<JoinHandle<()>> =
            (0..CLIENTS).map(|id| self.spawn(self.workload.clone().client(id, seed))).collect();
        clients.push(self.spawn(self.workload.clone().operator(seed)));
        let faults = self.faults(seed)?;
        self.heal();
        for _ in 0..500 {
            self.tick()?;
        }
        self.judge_copies();
        // Rows that could not be made again from the log: the groups stay closed there.
        let lacks = |host: u64| {
            let parts = self.hosts[host as usize - 1].parts();
            parts.is_some_and(|parts| parts.groups.list().len() <= GROUPS)
        };
        if self.rows_went_back.is_some_and(lacks) {
            self.out = self.rows_went_back.take();
        }
        self.workload.stop();
        self.until(SETTLING_MS, "the clients end", |_| {
            clients.iter().all(JoinHandle::is_finished)
        })?;
        self.until(SETTLING_MS, "all moves come to their end", verdict::nothing_moves)?;
        self.until(SETTLING_MS, "all replicas come to the same end", verdict::is_settled)?;
        let out = self.out;
        for host in (1..=HOSTS).filter(|host| out != Some(*host)) {
            let reading = self.spawn(self.workload.clone().read_all(host));
            self.until(SETTLING_MS, "every key can be read", |_| reading.is_finished())?;
            let runtime = self.clients.as_ref().expect("kept until the end");
            let read = runtime.block_on(reading).map_err(|error| error.to_string())?;
            read.map_err(|key| format!("{key} cannot be read at host {host} after all healed"))?;
        }
        self.until(SETTLING_MS, "all replicas come to the same end", verdict::is_settled)?;
        // It hears of it from the first member that it speaks to.
        let out = |cluster: &Cluster| verdict::check_who_takes_part(cluster).is_ok();
        self.until(SETTLING_MS, "who forgot takes part in nothing", out)?;
        verdict::check(self)?;
        let tally = self.workload.tally();
        let (moved, abandoned) = verdict::moves(self);
        Ok(Passed {
            trace: self.net.trace(),
            faults,
            kills: self.kills.len() as u64,
            writes: tally.write_acks.len() as u64,
            reads: tally.read_acks.len() as u64,
            unknown: tally.unknown_writes,
            changes: tally.changes,
            moved,
            abandoned,
            forgot: (self.out.is_some() && self.copies_ended.is_empty()).into(),
            clones: self.copies_ended.len() as u64,
        })
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.clients.as_ref().expect("kept until the end").spawn(work)
    }

    /// Lets time pass until something holds.
    pub(super) fn until(
        &mut self,
        within_ms: u64,
        what: &str,
        holds: impl Fn(&Cluster) -> bool,
    ) -> Result<(), String> {
        for passed in 0..within_ms {
            if passed.is_multiple_of(20) && holds(self) {
                return Ok(());
            }
            self.tick()?;
        }
        Err(format!("in vain within {within_ms} ms: {what}\n{}", verdict::describe(self)))
    }

    pub(super) fn is_formed(&self) -> bool {
        self.hosts.iter().all(|host| {
            host.parts().is_some_and(|parts| {
                !parts.changes.applied().table().is_empty()
                    && (0..=GROUPS as u64).all(|group| {
                        let group = parts.groups.get(GroupId(group));
                        group.is_some_and(|group| group.leader().is_some())
                    })
            })
        })
    }

    /// The hosts that take part.
    pub(super) fn taking_part(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| self.out != Some(host.id))
    }

    /// Groups, the catalog's among them.
    pub(super) fn groups(&self) -> usize {
        GROUPS + 1
    }

    /// The host that forgot, if one did.
    pub(super) fn out(&self) -> Option<&Host> {
        self.out.map(|out| &self.hosts[out as usize - 1])
    }

    pub(super) fn host(&mut self, id: u64) -> &mut Host {
        &mut self.hosts[id as usize - 1]
    }

    /// One millisecond.
    pub(super) fn tick(&mut self) -> Result<(), String> {
        for delivery in self.net.tick() {
            self.deliver(delivery);
        }
        let now_ms = self.net.now_ms();
        let later = self.due.split_off(&(now_ms + 1, 0));
        for (_, what) in std::mem::replace(&mut self.due, later) {
            self.do_later(what);
        }
        self.hosts.iter_mut().for_each(Host::tick);
        self.tick_copy();
        for host in &self.hosts {
            let (written, unsynced) = host.disk.extent();
            self.net.note(&[DISK, host.id, written, unsynced]);
        }
        let clients = self.clients.as_ref().expect("kept until the end");
        clients.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        if now_ms.is_multiple_of(COPY_EVERY_MS) {
            let copy = |host: &Host| (host.disk.journal.copied(), host.disk.rows.copied());
            self.copies.push_back((now_ms, self.hosts.iter().map(copy).collect()));
            while self.copies.len() > COPIES {
                self.copies.pop_front();
            }
        }
        if let Some(host) = self.rows_went_back
            && self.hosts[host as usize - 1].failed().is_some()
        {
            (self.out, self.rows_went_back) = (Some(host), None);
        }
        if let Some(reason) = self.taking_part().find_map(Host::failed) {
            return Err(format!("a process cannot start on what its disk kept: {reason}"));
        }
        self.watch_leaders()
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Request { to, run, refuse } => {
                if to == 0 {
                    return;
                }
                let host = self.at_address(to);
                if !host.is_up() || host.parts().is_none() {
                    refuse();
                } else if host.paused {
                    // It lies in the socket until the process goes on.
                    host.waiting.push(run);
                } else {
                    host.run(run);
                }
            }
            Delivery::Reply { to, resolve } => {
                if to.host == 0 || self.in_slot(to.host).is_some_and(|at| at.endpoint() == to) {
                    resolve();
                }
            }
        }
    }

    /// In one term of a group at most one node leads, for ever.
    fn watch_leaders(&mut self) -> Result<(), String> {
        let copy = self.copy.iter().map(|copy| &copy.host);
        for host in self.hosts.iter().chain(copy) {
            let Some(parts) = host.parts() else { continue };
            for group in parts.groups.list() {
                let Some(term) = group.leadership().borrow().leading else { continue };
                let slot = host.endpoint().host;
                let leader = *self.leaders.entry((group.id(), term.0)).or_insert(slot);
                if leader != slot {
                    let group = group.id();
                    return Err(format!(
                        "group {group} has two leaders in term {term}: {leader} and {slot}"
                    ));
                }
            }
        }
        self.check_copy()
    }

    fn faults(&mut self, seed: u64) -> Result<u64, String> {
        let mut schedule = Schedule::new(seed, HOSTS);
        let end_ms = self.net.now_ms() + FAULTS_MS;
        let mut faults = 0;
        loop {
            let (quiet_ms, fault) = schedule.next();
            for _ in 0..quiet_ms {
                self.tick()?;
            }
            if self.net.now_ms() >= end_ms {
                return Ok(faults);
            }
            if self.tell {
                println!("{:>6} ms  {fault:?}", self.net.now_ms());
            }
            self.inflict(fault);
            faults += 1;
        }
    }

    pub(super) fn later(&mut self, in_ms: u64, what: Later) {
        self.number += 1;
        self.due.insert((self.net.now_ms() + in_ms, self.number), what);
    }

    fn do_later(&mut self, what: Later) {
        match what {
            Later::Forget { host, behind, how, alone_ms } => {
                self.forget(host, behind, how, alone_ms);
            }
            Later::Start(host) => self.start(host),
            Later::CopyStarts => self.start_copy(),
            Later::CopyEnds => self.end_copy(),
            Later::Resume(host) => self.host(host).resume(),
            Later::KillCut { host, keep } => self.kill(host, keep, 30),
            Later::DiskHeals(host) => self.host(host).sync_ms.store(3, Ordering::Relaxed),
            Later::NetHeals => self.net.heal(),
        }
    }

    pub(super) fn start(&mut self, host: u64) {
        if !self.host(host).is_up() {
            self.host(host).start();
        }
    }

    pub(super) fn kill(&mut self, host: u64, keep: u64, down_ms: u64) {
        if self.host(host).is_up() {
            let at_ms = self.net.now_ms();
            let paused = self.pauses.iter().filter(|(paused, ..)| *paused == host);
            let stopped_ms = paused.map(|(_, from, to)| {
                to.min(&at_ms).saturating_sub(*from.max(&at_ms.saturating_sub(8_000)))
            });
            let stopped_ms = stopped_ms.sum();
            self.kills.push(Kill { at_ms, stopped_ms });
            self.host(host).kill(keep);
        }
        self.later(down_ms.max(1), Later::Start(host));
    }

    fn heal(&mut self) {
        self.due.clear();
        self.end_copy();
        self.due.clear();
        self.net.heal();
        for id in 1..=HOSTS {
            self.host(id).resume();
            self.host(id).sync_ms.store(3, Ordering::Relaxed);
            if self.host(id).storage_failed() {
                self.kill(id, 1_000, 1);
            }
            self.start(id);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Hosts first: what their tasks drop speaks to nobody.
        self.hosts.iter_mut().for_each(|host| host.kill(1_000));
        drop(self.clients.take());
    }
}
