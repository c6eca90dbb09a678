//! Every call of the gRPC and HTTP APIs, with the role that it needs and whether it is audited.
//!
//! A call that is not listed needs a node's credential (gRPC) or the admin token (HTTP): what is
//! added without a thought is closed, and a test fails until it is placed.

use tonic::codegen::http::Method;

/// What a call needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// A token for the data, where there is a store token.
    Store,
    /// Any token, where there is a store token: keys of the store are boundaries of routes.
    Known,
    /// The token of a viewer, or of a role above it.
    Viewer,
    /// The token of an operator or an admin.
    Operator,
    /// The admin token.
    Admin,
    /// The admin token, or to be a node.
    AdminOrNode,
    /// To be a node.
    Node,
}

/// One call and its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    /// gRPC: the path; HTTP: the method, a blank and the path.
    pub(crate) name: &'static str,
    /// What it needs.
    pub(crate) need: Need,
    /// It changes the cluster or reads all of its data: the log says who made it.
    pub(crate) audited: bool,
}

const fn call(name: &'static str, need: Need) -> Call {
    Call { name, need, audited: false }
}

const fn audited(name: &'static str, need: Need) -> Call {
    Call { name, need, audited: true }
}

/// The calls of clients. Those of the store come first, as there are most of them.
pub(crate) const GRPC: &[Call] = &[
    call("/keyviz.v1.Kv/Put", Need::Store),
    call("/keyviz.v1.Kv/Get", Need::Store),
    call("/keyviz.v1.Kv/Delete", Need::Store),
    call("/keyviz.v1.Kv/DeleteRange", Need::Store),
    call("/keyviz.v1.Kv/Scan", Need::Store),
    call("/keyviz.v1.Kv/Batch", Need::Store),
    call("/keyviz.v1.Kv/CompareAndSwap", Need::Store),
    call("/keyviz.v1.Routes/ListRoutes", Need::Known),
    call("/keyviz.v1.Routes/StreamRoutes", Need::Known),
    call("/keyviz.v1.Routes/WatchRoutes", Need::Known),
    call("/keyviz.v1.Routes/RouteHistory", Need::Known),
    audited("/keyviz.v1.Routes/SplitRoute", Need::Operator),
    audited("/keyviz.v1.Routes/MergeRoutes", Need::Operator),
    audited("/keyviz.v1.Routes/MoveRoute", Need::Operator),
    audited("/keyviz.v1.Routes/CancelMove", Need::Operator),
    call("/keyviz.v1.KeyViz/GetMatrix", Need::Viewer),
    call("/keyviz.v1.KeyViz/GetNodeMatrix", Need::Viewer),
    call("/keyviz.v1.KeyViz/StreamMatrix", Need::Viewer),
    call("/keyviz.v1.KeyViz/StreamNodeMatrix", Need::Viewer),
    call("/keyviz.v1.KeyViz/StreamColumns", Need::Viewer),
    call("/keyviz.v1.KeyViz/GetHotKeys", Need::Viewer),
    call("/keyviz.v1.KeyViz/GetNodeHotKeys", Need::Viewer),
    call("/keyviz.v1.KeyViz/GetFindings", Need::Viewer),
    call("/keyviz.v1.KeyViz/StreamFindings", Need::Viewer),
    call("/keyviz.v1.KeyViz/TopRanges", Need::Viewer),
    call("/keyviz.v1.KeyViz/GetLoads", Need::Viewer),
    call("/keyviz.v1.KeyViz/GetNodeLoads", Need::Viewer),
    call("/keyviz.v1.Cluster/GetStatus", Need::Known),
    call("/keyviz.v1.Cluster/GetCapabilities", Need::Known),
    audited("/keyviz.v1.Cluster/AddNode", Need::AdminOrNode),
    audited("/keyviz.v1.Cluster/RemoveNode", Need::Admin),
    audited("/keyviz.v1.Cluster/TransferLeader", Need::Operator),
    call("/keyviz.v1.Cluster/Verify", Need::Operator),
    call("/keyviz.v1.Cluster/GetAutopilot", Need::Viewer),
    call("/keyviz.v1.Cluster/AutopilotLog", Need::Viewer),
    call("/keyviz.v1.Cluster/PreviewAct", Need::Viewer),
    audited("/keyviz.v1.Cluster/SetAutopilot", Need::Operator),
    audited("/keyviz.v1.Cluster/DoAct", Need::Operator),
    audited("/keyviz.v1.Backup/DumpGroup", Need::Admin),
    audited("/keyviz.v1.Backup/DumpHistory", Need::Admin),
];

/// Services of which every call has the same need: those between nodes, health and reflection.
pub(crate) const SERVICES: &[(&str, Need)] = &[
    ("keyviz.v1.RaftTransport", Need::Node),
    ("keyviz.v1.KvPeer", Need::Node),
    ("keyviz.v1.KeyVizPeer", Need::Node),
    ("keyviz.v1.ClusterPeer", Need::Node),
    ("grpc.health.v1.Health", Need::Nothing),
    ("grpc.reflection.v1.ServerReflection", Need::Nothing),
    ("grpc.reflection.v1alpha.ServerReflection", Need::Nothing),
];

/// The calls of the JSON API. A `POST` that only asks has its question in the body.
pub(crate) const HTTP: &[Call] = &[
    call("GET /api/v1/matrix", Need::Viewer),
    call("POST /api/v1/matrix", Need::Viewer),
    call("GET /api/v1/hotkeys", Need::Viewer),
    call("GET /api/v1/stream", Need::Viewer),
    call("POST /api/v1/stream", Need::Viewer),
    call("GET /api/v1/findings", Need::Viewer),
    call("POST /api/v1/findings", Need::Viewer),
    call("GET /api/v1/findings/stream", Need::Viewer),
    call("GET /api/v1/autopilot", Need::Viewer),
    call("GET /api/v1/autopilot/log", Need::Viewer),
    call("POST /api/v1/acts/preview", Need::Viewer),
    audited("POST /api/v1/autopilot", Need::Operator),
    audited("POST /api/v1/acts", Need::Operator),
    call("GET /api/v1/top", Need::Viewer),
    call("GET /api/v1/loads", Need::Viewer),
    call("POST /api/v1/loads", Need::Viewer),
    call("GET /api/v1/alerts", Need::Viewer),
    call("GET /api/v1/alerts/stream", Need::Viewer),
    call("GET /api/v1/routes", Need::Viewer),
    call("GET /api/v1/cluster", Need::Viewer),
    audited("POST /api/v1/routes/split", Need::Operator),
    audited("POST /api/v1/routes/merge", Need::Operator),
];

/// A gRPC call by its path, `/package.Service/Method`.
pub(crate) fn of_grpc(path: &str) -> Call {
    if let Some(placed) = GRPC.iter().find(|call| call.name == path) {
        return *placed;
    }
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let placed =
        service.and_then(|(service, _)| SERVICES.iter().find(|(name, _)| *name == service));
    call("", placed.map_or(Need::Node, |(_, need)| *need))
}

/// A call of the JSON API.
pub(crate) fn of_http(method: &Method, path: &str) -> Call {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let placed = HTTP.iter().find(|call| call.name.split_once(' ') == Some((method, path)));
    placed.copied().unwrap_or(call("", Need::Admin))
}
