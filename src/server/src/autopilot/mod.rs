//! The autopilot, and acts that operators ask for.
//!
//! On the leader of the catalog group. Each act is an entry of the journal before its first step is
//! made, and the id of each step's request is made of the entry's number. So whoever leads goes on
//! with the acts of a leader that died, a step that is repeated is made once, and of two nodes that
//! believe to lead each makes the same.
//!
//! ```text
//!   look      health and routes from all members, the last columns of all series
//!   decide    keyviz_core::autopilot, pure
//!   begin     an entry of the journal, as of the revision that was decided on
//!   act       split, move, transfer, merge; also the acts of operators
//!   measure   four columns after the end: what each member served, and what it would be without
//! ```

mod act;
mod look;
mod measure;
mod request;
mod service;
mod steps;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use keyviz_catalog::{ActState, AutopilotMode, EntryId, Journal};
use keyviz_catalog_group::CatalogGroup;
use keyviz_core::autopilot::{Cold, Decision, Mode, Policy};
use keyviz_fanout::Findings;
use keyviz_kv::Coordinator;
use keyviz_types::NodeId;

use crate::grpc::cluster::ClusterService;

/// Whether this node leads is looked at this often, and which acts are under way with it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The shortest and the longest time between two looks at the load.
const TURN_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

/// While it only advises and nobody asks, it looks so seldom.
const UNASKED_EVERY: Duration = Duration::from_secs(60);

/// Acts that began so lately may be due to be measured.
const LATELY_MS: u64 = 1_800_000;

/// Who asks while it only advises waits so long for a look of the present.
const LOOK_WITHIN: Duration = Duration::from_secs(4);

/// What the autopilot was started with.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AutopilotConfig {
    /// The mode, unless another one was set at run time.
    pub mode: Mode,
    /// The limits.
    pub policy: Policy,
}

/// What the autopilot needs.
pub(crate) struct AutopilotParts {
    pub(crate) node: NodeId,
    pub(crate) config: AutopilotConfig,
    pub(crate) catalog: Arc<CatalogGroup>,
    pub(crate) cluster: Arc<ClusterService>,
    pub(crate) findings: Findings,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) stop: CancellationToken,
}

/// The autopilot of a node.
pub struct Autopilot {
    parts: AutopilotParts,
    looked: Mutex<Looked>,
    /// When somebody asked last what it does.
    asked: Mutex<Option<Instant>>,
    counters: AutopilotCounters,
}

/// What this node did as the one that acts, since its start.
#[derive(Default)]
pub(crate) struct AutopilotCounters {
    pub(crate) looks: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) undone: AtomicU64,
}

/// The last look.
#[derive(Clone, Default)]
struct Looked {
    at_ms: u64,
    decision: Decision,
    /// Why there is no decision.
    trouble: Option<String>,
}

/// State of one leader of the catalog group; nothing depends on it.
#[derive(Default)]
struct Memory {
    cold: Cold,
    driving: BTreeMap<EntryId, Driving>,
    turned: Option<Instant>,
    said: Vec<String>,
}

/// The task of an act; aborted when this is dropped.
struct Driving(JoinHandle<()>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Autopilot {
    pub(crate) fn new(parts: AutopilotParts) -> Arc<Self> {
        Arc::new(Autopilot {
            parts,
            looked: Mutex::default(),
            asked: Mutex::default(),
            counters: AutopilotCounters::default(),
        })
    }

    pub(crate) fn counters(&self) -> &AutopilotCounters {
        &self.counters
    }

    /// Runs until stopped. On a node that does not lead the catalog group it only waits.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut memory = Memory::default();
        while tokio::time::timeout(LOOK_EVERY, self.parts.stop.cancelled()).await.is_err() {
            if !self.leads() {
                memory = Memory::default();
                *self.looked.lock() = Looked::default();
                continue;
            }
            self.drive(&mut memory);
            let due = memory.turned.is_none_or(|at| at.elapsed() >= self.turn_every());
            if !due {
                continue;
            }
            memory.turned = Some(Instant::now());
            tokio::select! {
                () = self.turn(&mut memory) => {}
                () = self.parts.stop.cancelled() => return,
            }
        }
    }

    fn leads(&self) -> bool {
        self.parts.catalog.group().is_some_and(|group| group.is_leader())
            && self.parts.catalog.applied().cluster().is_some()
    }

    fn turn_every(&self) -> Duration {
        let step = Duration::from_millis(self.parts.findings.step_ms());
        let every = step.clamp(TURN_EVERY[0], TURN_EVERY[1]);
        let asked = self.asked.lock().is_some_and(|at| at.elapsed() < UNASKED_EVERY);
        // What operators did lately is measured.
        let since_ms = self.parts.findings.now_ms().saturating_sub(LATELY_MS);
        let lately =
            self.journal().entries().next_back().is_some_and(|entry| entry.started_ms >= since_ms);
        let acts = self.mode().0 == Mode::Act || lately;
        if acts || asked { every } else { UNASKED_EVERY }
    }

    /// Notes that somebody asks, and waits for a look of the present.
    async fn asked(&self) {
        *self.asked.lock() = Some(Instant::now());
        let fresh = || {
            let at_ms = self.looked.lock().at_ms;
            at_ms + 2 * TURN_EVERY[1].as_millis() as u64 > self.parts.findings.now_ms()
        };
        let deadline = Instant::now() + LOOK_WITHIN;
        while self.leads() && self.mode().0 != Mode::Off && !fresh() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn journal(&self) -> Arc<Journal> {
        self.parts.catalog.applied().journal()
    }

    /// The mode of the cluster, and whether it was set at run time.
    pub(crate) fn mode(&self) -> (Mode, bool) {
        match self.journal().mode() {
            Some(AutopilotMode::Off) => (Mode::Off, true),
            Some(AutopilotMode::Advise) => (Mode::Advise, true),
            Some(AutopilotMode::Act) => (Mode::Act, true),
            None => (self.parts.config.mode, false),
        }
    }

    /// The hottest node over the mean at the last look; 0: there was none.
    pub(crate) fn imbalance(&self) -> f64 {
        self.looked.lock().decision.imbalance
    }

    /// Starts a task for each act under way that has none.
    fn drive(self: &Arc<Self>, memory: &mut Memory) {
        let journal = self.journal();
        let under_way =
            |id: &EntryId| journal.get(*id).is_some_and(|entry| entry.state == ActState::UnderWay);
        memory.driving.retain(|id, task| under_way(id) && !task.0.is_finished());
        let begun = journal.entries().filter(|entry| entry.begun && under_way(&entry.id));
        for entry in begun {
            memory.driving.entry(entry.id).or_insert_with(|| {
                let (autopilot, entry) = (Arc::clone(self), Arc::clone(entry));
                Driving(tokio::spawn(async move { autopilot.carry_out(&entry).await }))
            });
        }
    }

    /// One look: what was done is measured, and what is to do is begun or advised.
    async fn turn(self: &Arc<Self>, memory: &mut Memory) {
        let (mode, _) = self.mode();
        if mode == Mode::Off {
            *self.looked.lock() = Looked::default();
            memory.cold = Cold::default();
            // Acts of operators are measured whatever the mode.
            if let Err(error) = self.measure().await {
                tracing::debug!("an act was not measured: {error}");
            }
            return;
        }
        self.counters.looks.fetch_add(1, Ordering::Relaxed);
        let looked = match self.look(&mut memory.cold).await {
            Ok((decision, at_ms)) => Looked { at_ms, decision, trouble: None },
            Err(error) => {
                let at_ms = self.parts.findings.now_ms();
                let trouble = Some(format!("It waits: the load could not be read: {error}"));
                Looked { at_ms, trouble, ..Looked::default() }
            }
        };
        *self.looked.lock() = looked.clone();
        let reasons = looked.reasons();
        if reasons != memory.said {
            reasons.iter().for_each(|reason| tracing::debug!("autopilot: {reason}"));
            memory.said = reasons;
        }
        if mode == Mode::Act {
            self.begin(looked.decision).await;
        }
        self.drive(memory);
        if let Err(error) = self.measure().await {
            tracing::debug!("an act was not measured: {error}");
        }
    }
}

impl Looked {
    fn reasons(&self) -> Vec<String> {
        let decided = self.decision.reasons.iter().map(ToString::to_string);
        self.trouble.iter().cloned().chain(decided).collect()
    }
}
