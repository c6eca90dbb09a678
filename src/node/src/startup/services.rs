//! The loops of the services.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use keyviz_server::Services;

use crate::loops::supervisor::{ControlLoop, Supervisor};

/// Runs the loops of the services until `stop`.
pub(crate) fn run_services(
    supervisor: &Supervisor,
    services: &Arc<Services>,
    stop: &CancellationToken,
) {
    supervisor.run(ControlLoop::Autopilot, stop, {
        let services = Arc::clone(services);
        move || Arc::clone(&services).run_autopilot()
    });
    supervisor.run(ControlLoop::LeaderLog, stop, {
        let services = Arc::clone(services);
        move || Arc::clone(&services).watch_leaders()
    });
    supervisor.run(ControlLoop::Alerts, stop, {
        let services = Arc::clone(services);
        move || Arc::clone(&services).judge_alerts()
    });
}
