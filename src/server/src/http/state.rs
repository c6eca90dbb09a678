//! State of the HTTP edge.

use std::sync::Arc;

use super::host::Names;
use crate::alerts::AlertService;
use crate::autopilot::Autopilot;
use crate::gate::Gate;
use crate::grpc::cluster::ClusterService;
use crate::grpc::findings::FindingsService;
use crate::grpc::keyviz::KeyVizService;
use crate::grpc::loads::LoadsService;
use crate::grpc::routes::RoutesService;
use crate::metrics::Metrics;

/// What the HTTP edge answers from.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) keyviz: Arc<KeyVizService>,
    pub(crate) findings: Arc<FindingsService>,
    pub(crate) loads: Arc<LoadsService>,
    pub(crate) alerts: Arc<AlertService>,
    pub(crate) routes: Arc<RoutesService>,
    pub(crate) cluster: Arc<ClusterService>,
    pub(crate) autopilot: Arc<Autopilot>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) names: Arc<Names>,
}
