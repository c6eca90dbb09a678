//! `grpc.health.v1.Health`: the state of `/readyz`, for gRPC probes and load balancers.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::grpc::cluster::ClusterService;

/// The interval between checks of readiness.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The services that the report has a state for; the empty name is the server as a whole.
const SERVICES: [&str; 5] =
    ["", "keyviz.v1.Kv", "keyviz.v1.Routes", "keyviz.v1.Cluster", "keyviz.v1.KeyViz"];

/// Reports whether the node is ready until it stops, and that it is not from then on.
pub(crate) async fn follow(
    cluster: Arc<ClusterService>,
    reporter: HealthReporter,
    stop: CancellationToken,
) {
    let mut told = None;
    loop {
        let ready = !stop.is_cancelled() && cluster.readiness().is_ok();
        if told != Some(ready) {
            told = Some(ready);
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in SERVICES {
                reporter.set_service_status(service, status).await;
            }
        }
        if stop.is_cancelled() {
            return;
        }
        // Woken by the stop as well.
        let _ = tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await;
    }
}
