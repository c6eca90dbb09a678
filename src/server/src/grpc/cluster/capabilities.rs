//! `GetCapabilities`: what this node can do, and what all members can.

use std::collections::BTreeSet;

use futures::future::join_all;

use keyviz_fanout::HotKeysMode;
use keyviz_peer::snapshot::STATUS_DEADLINE;
use keyviz_proto as proto;

use super::ClusterService;

/// What every node of this version can do. Names stay; new ones are added.
const ALWAYS: [&str; 14] = [
    "audit_log",
    "autopilot",
    "blocks",
    "fixed_axes",
    "get_loads",
    "matrix_stream",
    "roles",
    "route_history_pages",
    "route_moves",
    "route_pages",
    "route_stream",
    "route_watch_leaders",
    "route_watch_ranges",
    "top_ranges",
];

/// What needs the visualizer.
const VISUAL: [&str; 2] = ["findings", "heatmap"];

/// What a member says of itself in its status.
fn said(status: &proto::PeerStatusResponse) -> Vec<String> {
    match status.can.is_empty() {
        false => status.can.clone(),
        // A version that does not tell: moves are all that it may say.
        true if status.moves_routes => vec!["route_moves".to_owned()],
        true => Vec::new(),
    }
}

impl ClusterService {
    /// What this node can do, in alphabetical order.
    pub(crate) fn can(&self) -> Vec<String> {
        let local = &self.handoffs.local;
        let mut can: BTreeSet<&str> = ALWAYS.into_iter().collect();
        if local.enabled() {
            can.extend(VISUAL);
            match local.hot_keys_mode() {
                HotKeysMode::Off => {}
                HotKeysMode::Hashed => {
                    can.insert("hot_keys_hashed");
                }
                HotKeysMode::On => {
                    can.insert("hot_keys");
                }
            }
        }
        can.into_iter().map(str::to_owned).collect()
    }

    /// The same of every member, asked live.
    pub(crate) async fn capabilities(&self) -> proto::Capabilities {
        let own = self.can();
        let nodes: Vec<_> = self.directory.members().keys().copied().collect();
        let asked = nodes.into_iter().map(|node| async move {
            let status = match node == self.node {
                true => Ok(self.node_status()),
                false => self.peers.node_status(node, STATUS_DEADLINE).await,
            };
            let member = proto::MemberCapabilities { id: node.0, ..Default::default() };
            match status {
                Ok(status) => proto::MemberCapabilities {
                    ok: true,
                    can: said(&status),
                    version: status.version,
                    ..member
                },
                Err(error) => proto::MemberCapabilities { error: error.to_string(), ..member },
            }
        });
        let members = join_all(asked).await;
        let by_all = |name: &&String| {
            members.iter().filter(|member| member.ok).all(|member| member.can.contains(name))
        };
        proto::Capabilities {
            node_id: self.node.0,
            cluster_id: self.directory.cluster_id().as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: own.iter().filter(by_all).cloned().collect(),
            node: own,
            members,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_an_earlier_version_can_what_it_says() {
        let status = proto::PeerStatusResponse { moves_routes: true, ..Default::default() };
        assert_eq!(said(&status), ["route_moves"]);
        assert!(said(&proto::PeerStatusResponse::default()).is_empty());
        let told = proto::PeerStatusResponse { can: vec!["x".to_owned()], ..status };
        assert_eq!(said(&told), ["x"]);
        assert!(ALWAYS.is_sorted());
    }
}
