//! Alerts: rules about the load of keys, judged by the leader of the catalog group.
//!
//! Every closed column is judged once. The leader reads it from matrices, as clients do, tells the
//! receiver what fires and what is resolved, and tells all members what it has judged and told
//! (`alerts::state`). Another leader goes on from there: it tells what the one before had not told.
//! A leader that dies between an answer of the receiver and telling the members of it makes the
//! next one tell the receiver again, with the same `startsAt` and fingerprint.
//!
//! A receiver that hangs or fails is asked again, later each time; judging does not wait for it.

mod notify;
mod read;
pub(crate) mod rules;
mod state;
mod webhook;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use keyviz_catalog_group::CatalogGroup;
use keyviz_directory::Directory;
use keyviz_fanout::Fanout;
use keyviz_peer::client::PeerClient;
use keyviz_proto as proto;
use keyviz_types::{NodeId, RouteId};

pub use rules::{DEFAULT_RULES, MAX_RULES_BYTES, Rule, RulesError, parse_rules};
use state::{Alert, AlertKey, Alerts};
pub use webhook::{Webhook, WebhookError};

/// How often it is seen whether a column has closed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Columns of the past that are judged at most, after a time without a leader.
const MAX_BEHIND: u64 = 240;
/// Alerts that are kept; of more, those that ended first are forgotten.
const MAX_ALERTS: usize = 1_024;
/// Changes that a slow stream may be behind.
const STREAM_BEHIND: usize = 64;

/// What is judged, and who is told.
#[derive(Clone, Debug, Default)]
pub struct AlertOptions {
    /// The rules; none: nothing is judged.
    pub rules: Vec<Rule>,
    /// Who is told; `None`: metrics and the API alone.
    pub webhook: Option<Webhook>,
}

/// What became of telling the receiver.
#[derive(Default)]
pub(crate) struct AlertCounters {
    pub(crate) sent: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) forgotten: AtomicU64,
}

/// Alerts of the cluster, as this node knows them.
pub(crate) struct AlertService {
    pub(crate) node: NodeId,
    pub(crate) rules: Vec<Rule>,
    webhook: Option<Webhook>,
    fanout: Arc<Fanout>,
    catalog: Arc<CatalogGroup>,
    directory: Arc<Directory>,
    peers: Arc<PeerClient>,
    state: Mutex<Alerts>,
    leads: AtomicBool,
    to_tell: Notify,
    changes: broadcast::Sender<()>,
    pub(crate) counters: AlertCounters,
}

impl AlertService {
    pub(crate) fn new(
        node: NodeId,
        options: AlertOptions,
        fanout: Arc<Fanout>,
        catalog: Arc<CatalogGroup>,
        directory: Arc<Directory>,
        peers: Arc<PeerClient>,
    ) -> Self {
        let AlertOptions { rules, webhook } = options;
        let (changes, _) = broadcast::channel(STREAM_BEHIND);
        AlertService {
            node,
            rules,
            webhook,
            fanout,
            catalog,
            directory,
            peers,
            state: Mutex::default(),
            leads: AtomicBool::new(false),
            to_tell: Notify::new(),
            changes,
            counters: AlertCounters::default(),
        }
    }

    /// Judges and tells until stopped. Without rules it only waits.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        if self.rules.is_empty() {
            return stop.cancelled().await;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.judge_columns() => {}
            () = self.tell_receiver() => {}
        }
    }

    async fn judge_columns(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let step_ms = self.fanout.local().history().config().step_ms;
            let closed_ms = self.fanout.local().clock().now_ms() / step_ms * step_ms;
            let leads = self.catalog.confirm_leading().await.is_ok();
            // Relaxed: read by the teller alone, which asks again.
            let led = self.leads.swap(leads, Ordering::Relaxed);
            if leads && !led {
                self.to_tell.notify_one();
            }
            let judged_ms = self.state.lock().judged_ms;
            if !leads || closed_ms <= judged_ms {
                continue;
            }
            let after_ms = match judged_ms {
                // The first columns of all: the past is not alerted on.
                0 => closed_ms - step_ms,
                judged_ms => judged_ms.max(closed_ms.saturating_sub(MAX_BEHIND * step_ms)),
            };
            match self.judge(after_ms, closed_ms, step_ms).await {
                Ok(()) => {
                    self.told_members().await;
                    self.to_tell.notify_one();
                }
                // The columns are judged with the next look.
                Err(error) => tracing::debug!(%error, "alerts could not be judged"),
            }
        }
    }

    /// Judges the columns in `after_ms..closed_ms`.
    async fn judge(
        &self,
        after_ms: u64,
        closed_ms: u64,
        step_ms: u64,
    ) -> Result<(), keyviz_fanout::MatrixError> {
        let firing: BTreeSet<AlertKey> = {
            let state = self.state.lock();
            let firing = state.alerts.iter().filter(|(_, alert)| alert.ends_ms.is_none());
            firing.map(|((key, _), _)| key.clone()).collect()
        };
        let window = read::Window { after_ms, closed_ms, step_ms };
        let mut judged = Vec::new();
        for rule in &self.rules {
            let columns = read::rule_columns(&self.fanout, rule, window, &firing).await?;
            judged.extend(columns.into_iter().map(|(key, columns)| (rule, key, columns)));
        }
        let epoch = self.fanout.local().sampler().epoch_full();
        let routes: BTreeSet<RouteId> = epoch.routes().iter().map(|route| route.id).collect();
        let mut state = self.state.lock();
        let before = state.shape();
        state.judged_ms = state.judged_ms.max(after_ms);
        for (rule, key, columns) in &judged {
            state.judge(key, rule.for_columns, columns);
        }
        state.end_unless(closed_ms, |key| {
            let ruled = self.rules.iter().any(|rule| rule.name == key.rule);
            ruled && key.route.is_none_or(|route| routes.contains(&route))
        });
        state.judged_ms = closed_ms;
        if self.webhook.is_none() {
            told_all(&mut state);
        }
        self.bound(&mut state);
        let changed = state.shape() != before;
        drop(state);
        if changed {
            // Nobody may be listening.
            let _ = self.changes.send(());
        }
        Ok(())
    }

    fn bound(&self, state: &mut Alerts) {
        while state.alerts.len() > MAX_ALERTS {
            let ended = state.alerts.iter().filter_map(|(key, alert)| Some((alert.ends_ms?, key)));
            let Some(first) = ended.min().map(|(_, key)| key.clone()) else { return };
            state.alerts.remove(&first);
            self.counters.forgotten.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells all members what was judged and told.
    async fn told_members(&self) {
        let note = to_wire(&self.state.lock(), self.directory.cluster_id().as_str());
        let members = self.directory.members();
        let others = members.keys().copied().filter(|node| *node != self.node);
        let calls = others.map(|node| {
            let note = note.clone();
            async move {
                if let Err(error) = self.peers.note_alerts(node, note).await {
                    tracing::debug!(%node, %error, "a member was not told of alerts");
                }
            }
        });
        join_all(calls).await;
    }

    /// Takes what the leader has judged and told.
    pub(crate) fn note(&self, note: proto::NoteAlertsRequest) {
        let noted = from_wire(note);
        let mut state = self.state.lock();
        if noted.judged_ms >= state.judged_ms && *state != noted {
            *state = noted;
            drop(state);
            let _ = self.changes.send(());
        }
    }

    /// What is known now.
    pub(crate) fn known(&self) -> proto::NoteAlertsRequest {
        to_wire(&self.state.lock(), self.directory.cluster_id().as_str())
    }

    /// Wakes at each change.
    pub(crate) fn changes(&self) -> broadcast::Receiver<()> {
        self.changes.subscribe()
    }
}

/// Without a receiver, metrics and the API say it all.
fn told_all(state: &mut Alerts) {
    state.alerts.retain(|_, alert| {
        alert.firing_told = true;
        alert.ends_ms.is_none()
    });
}

fn to_wire(state: &Alerts, cluster_id: &str) -> proto::NoteAlertsRequest {
    let alert = |((key, starts_ms), alert): (&(AlertKey, u64), &Alert)| proto::NotedAlert {
        rule: key.rule.clone(),
        route_id: key.route.map(RouteId::get),
        starts_ms: *starts_ms,
        ends_ms: alert.ends_ms,
        rate: alert.rate,
        firing_told: alert.firing_told,
    };
    proto::NoteAlertsRequest {
        cluster_id: cluster_id.to_owned(),
        judged_ms: state.judged_ms,
        alerts: state.alerts.iter().map(alert).collect(),
    }
}

fn from_wire(note: proto::NoteAlertsRequest) -> Alerts {
    let alert = |noted: proto::NotedAlert| {
        let route = noted.route_id.and_then(RouteId::new);
        let key = (AlertKey { rule: noted.rule, route }, noted.starts_ms);
        let (ends_ms, rate, firing_told) = (noted.ends_ms, noted.rate, noted.firing_told);
        (key, Alert { ends_ms, rate, firing_told })
    };
    let alerts = note.alerts.into_iter().take(MAX_ALERTS).map(alert).collect();
    Alerts { judged_ms: note.judged_ms, alerts }
}
