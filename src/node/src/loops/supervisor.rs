//! Supervision of the node's control loops.
//!
//! A control loop runs until the node stops. If it ends or panics before, one of two things
//! happens:
//!
//! * A loop without which the node would serve wrong answers, or ignore changes of the cluster,
//!   stops the node: [`Supervisor`] logs its name, `/readyz` says it, and the process exits.
//! * A loop that only improves the cluster, or records what happened, is restarted after a pause
//!   and counted in `keyviz_loop_restarts_total`. The store goes on meanwhile.
//!
//! A loop that acts for the whole cluster on the leader of the catalog group must not stop the
//! node: the next leader would run into the same fault, and the cluster would lose one node after
//! the other.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use keyviz_server::LoopHealth;

/// The pause before a loop is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The control loops of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum ControlLoop {
    /// Reads certificates, token and secret when their files change.
    Credentials,
    /// Transfers the groups of a node whose disk is full.
    DiskSpace,
    /// Keeps the directory in step with the membership of the catalog group.
    Members,
    /// Records the disks of members, and excludes this node if its own was refused.
    Disks,
    /// Identifies peers before Raft messages are exchanged.
    Handshakes,
    /// Publishes applied routes, opens groups placed here and erases the others.
    Placement,
    /// Tells the sampler which groups this node leads; one for each group.
    Leadership,
    /// Asks the others whether this node is still a member.
    Membership,
    /// Moves replicas and leaders; acts on the leader of the catalog group.
    Balancer,
    /// Moves routes to other groups; acts on the leader of the catalog group.
    Mover,
    /// Makes the acts of the journal, and decides on those of the autopilot; acts on the leader of
    /// the catalog group.
    Autopilot,
    /// Compares replicas; acts on the leader of the catalog group.
    Verifier,
    /// Moves counts from the sampler into the history, and the history to disk.
    Flusher,
    /// Sends columns to the members that keep copies of them, and moves copies with the members.
    Copier,
    /// Tells the cluster of another address of this node, and groups of other addresses of members.
    Addresses,
    /// Closes idle connections.
    Connections,
    /// Records changes of the groups' leaders, for heatmaps.
    LeaderLog,
    /// Judges alerts and tells their receiver; acts on the leader of the catalog group.
    Alerts,
    /// Serves gRPC.
    Grpc,
    /// Serves HTTP.
    Http,
}

/// What happens after a loop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// The node stops.
    StopNode,
    /// The loop is restarted and counted.
    Restart,
}

impl ControlLoop {
    /// The name in the log, in `/readyz` and in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ControlLoop::Credentials => "credentials",
            ControlLoop::DiskSpace => "disk space",
            ControlLoop::Members => "members",
            ControlLoop::Disks => "disks",
            ControlLoop::Handshakes => "handshakes",
            ControlLoop::Placement => "placement",
            ControlLoop::Leadership => "leadership",
            ControlLoop::Membership => "membership",
            ControlLoop::Balancer => "balancer",
            ControlLoop::Mover => "mover",
            ControlLoop::Autopilot => "autopilot",
            ControlLoop::Verifier => "verifier",
            ControlLoop::Flusher => "flusher",
            ControlLoop::Copier => "history copies",
            ControlLoop::Addresses => "addresses",
            ControlLoop::Connections => "connections",
            ControlLoop::LeaderLog => "leader log",
            ControlLoop::Alerts => "alerts",
            ControlLoop::Grpc => "gRPC server",
            ControlLoop::Http => "HTTP server",
        }
    }

    /// What happens after it ended.
    pub(crate) fn policy(self) -> Policy {
        match self {
            ControlLoop::Credentials
            | ControlLoop::Members
            | ControlLoop::Disks
            | ControlLoop::Handshakes
            | ControlLoop::Placement
            | ControlLoop::Membership
            | ControlLoop::Grpc
            | ControlLoop::Http => Policy::StopNode,
            ControlLoop::DiskSpace
            | ControlLoop::Leadership
            | ControlLoop::Balancer
            | ControlLoop::Mover
            | ControlLoop::Autopilot
            | ControlLoop::Verifier
            | ControlLoop::Flusher
            | ControlLoop::Copier
            | ControlLoop::Addresses
            | ControlLoop::Connections
            | ControlLoop::LeaderLog
            | ControlLoop::Alerts => Policy::Restart,
        }
    }
}

impl ControlLoop {
    /// Whether the loop may end while the node runs: its group was erased.
    fn may_end(self) -> bool {
        self == ControlLoop::Leadership
    }
}

/// Replaces the future of a control loop, which is given with its name. Tests end loops with it,
/// to see what a node or a program does then; programs run loops as they are.
pub type LoopWrap =
    Arc<dyn Fn(&'static str, BoxFuture<'static, ()>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Starts control loops and watches them.
#[derive(Clone)]
pub(crate) struct Supervisor {
    health: Arc<LoopHealth>,
    failed: watch::Sender<Option<String>>,
    wrap: Option<LoopWrap>,
}

impl Default for Supervisor {
    fn default() -> Self {
        let (failed, _) = watch::channel(None);
        Supervisor { health: Arc::default(), failed, wrap: None }
    }
}

impl Supervisor {
    /// A supervisor that runs what `wrap` makes of each loop.
    pub(crate) fn wrapping(wrap: LoopWrap) -> Self {
        Supervisor { wrap: Some(wrap), ..Supervisor::default() }
    }

    /// Stops the node once `failed` says why, which names a loop of a lower layer.
    pub(crate) fn follow(&self, mut failed: watch::Receiver<Option<String>>) {
        let supervisor = self.clone();
        tokio::spawn(async move {
            // Without a sender that layer was closed.
            if let Ok(reason) = failed.wait_for(Option::is_some).await {
                supervisor.fail(reason.clone().unwrap_or_default());
            }
        });
    }

    /// The state of the loops.
    pub(crate) fn health(&self) -> Arc<LoopHealth> {
        Arc::clone(&self.health)
    }

    /// Why the node stops, once it is known.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Stops the node. The first reason stays.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!("the node stops: {reason}");
        self.health.fail(reason.clone());
        self.failed.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(reason);
            first
        });
    }

    /// Runs a loop until `stop`; `start` is called again if the loop is restarted.
    pub(crate) fn run<F, Fut>(
        &self,
        which: ControlLoop,
        stop: &CancellationToken,
        mut start: F,
    ) -> JoinHandle<()>
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (supervisor, stop) = (self.clone(), stop.clone());
        self.health.started(which.name());
        tokio::spawn(async move {
            loop {
                let running = start().boxed();
                let running = match &supervisor.wrap {
                    Some(wrap) => wrap(which.name(), running),
                    None => running,
                };
                let ended = AssertUnwindSafe(running).catch_unwind().await;
                if stop.is_cancelled() {
                    return;
                }
                let how = match ended {
                    Ok(()) if which.may_end() => return,
                    Ok(()) => "ended".to_owned(),
                    Err(panic) => format!("panicked: {}", message(&*panic)),
                };
                let name = which.name();
                if which.policy() == Policy::StopNode {
                    supervisor.fail(format!("the control loop \"{name}\" {how}"));
                    return;
                }
                tracing::error!("the control loop \"{name}\" {how}; it is restarted");
                supervisor.health.restarted(name);
                if tokio::time::timeout(RESTART_AFTER, stop.cancelled()).await.is_ok() {
                    return;
                }
            }
        })
    }

    /// Runs a loop that is not restarted.
    pub(crate) fn run_once(
        &self,
        which: ControlLoop,
        stop: &CancellationToken,
        running: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        debug_assert_eq!(which.policy(), Policy::StopNode, "{which:?} cannot be restarted");
        let mut running = Some(running);
        self.run(which, stop, move || {
            let running = running.take();
            async move {
                if let Some(running) = running {
                    running.await;
                }
            }
        })
    }
}

impl Supervisor {
    /// Runs a task that ends by itself. If it panics, the node stops.
    pub(crate) fn run_task(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let supervisor = self.clone();
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                supervisor.fail(format!("the task \"{name}\" panicked: {}", message(&*panic)));
            }
        });
    }
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
