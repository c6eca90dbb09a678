//! The sources of the metrics.

use std::sync::Arc;
use std::time::SystemTime;

use keyviz_catalog::AppliedCatalog;
use keyviz_fanout::Fanout;
use keyviz_kv::Coordinator;
use keyviz_raft::{Groups, Storage};
use keyviz_security::Security;

use super::requests::Requests;
use crate::alerts::AlertService;
use crate::autopilot::Autopilot;
use crate::gate::Gate;
use crate::loops::LoopHealth;
use crate::verify::Verification;

/// The sources of the numbers.
pub(crate) struct MetricsParts {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) groups: Groups,
    pub(crate) fanout: Arc<Fanout>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) catalog: AppliedCatalog,
    pub(crate) storage: Storage,
    pub(crate) verification: Arc<Verification>,
    pub(crate) loops: Arc<LoopHealth>,
    /// Lines of the log that could not be written so far.
    pub(crate) lost_log_lines: fn() -> u64,
    pub(crate) dropped_spans: fn() -> u64,
    pub(crate) security: Security,
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) autopilot: Arc<Autopilot>,
    pub(crate) started: SystemTime,
    pub(crate) alerts: Arc<AlertService>,
}
