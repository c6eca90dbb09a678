//! What a node and a cluster can do, as JSON.

use serde::Serialize;

use super::ids::NodeIdJson;
use super::list::{HasJson, List};
use keyviz_proto as proto;

/// A [`proto::Capabilities`] as JSON.
#[derive(Serialize)]
pub struct CapabilitiesJson<'a> {
    node_id: NodeIdJson,
    cluster_id: &'a str,
    version: &'a str,
    node: &'a [String],
    cluster: &'a [String],
    members: List<'a, proto::MemberCapabilities>,
}

impl<'a> From<&'a proto::Capabilities> for CapabilitiesJson<'a> {
    fn from(said: &'a proto::Capabilities) -> Self {
        CapabilitiesJson {
            node_id: NodeIdJson(said.node_id),
            cluster_id: &said.cluster_id,
            version: &said.version,
            node: &said.node,
            cluster: &said.cluster,
            members: List(&said.members),
        }
    }
}

#[derive(Serialize)]
pub struct MemberCapabilitiesJson<'a> {
    id: NodeIdJson,
    ok: bool,
    error: &'a str,
    version: &'a str,
    can: &'a [String],
}

impl HasJson for proto::MemberCapabilities {
    type Json<'a> = MemberCapabilitiesJson<'a>;

    fn json(&self) -> MemberCapabilitiesJson<'_> {
        MemberCapabilitiesJson {
            id: NodeIdJson(self.id),
            ok: self.ok,
            error: &self.error,
            version: &self.version,
            can: &self.can,
        }
    }
}
