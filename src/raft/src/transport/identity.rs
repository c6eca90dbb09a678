//! The identities of this node and of its peers.

use arc_swap::ArcSwap;
use tonic::Status;

use crate::handshake::Roster;
use crate::types::RaftNodeId;
use keyviz_proto as proto;
use keyviz_proto::raft_transport_client::RaftTransportClient;
use keyviz_security::AuthChannel;
use keyviz_types as ids;

/// The identities of this node and of its peers.
pub(crate) struct Identity {
    pub(super) node: RaftNodeId,
    pub(super) cluster_id: ArcSwap<String>,
    /// `None`: this node shows no disk, as in tests of this layer alone.
    pub(super) roster: Option<Roster>,
}

impl Identity {
    pub(crate) fn hello(&self, to: RaftNodeId) -> proto::RaftHello {
        let cluster_id = self.cluster_id.load().as_ref().clone();
        let start = self.roster.as_ref().map(|roster| roster.own().to_proto());
        let to_nonce = self.roster.as_ref().map_or(0, |roster| roster.nonce_of(ids::NodeId(to)));
        proto::RaftHello { cluster_id, from: self.node, to, start, to_nonce }
    }

    pub(crate) fn roster(&self) -> Option<&Roster> {
        self.roster.as_ref()
    }

    /// Fails while this node does not take part.
    pub(crate) fn may_take_part(&self) -> Result<(), Status> {
        self.roster.as_ref().map_or(Ok(()), Roster::may_take_part)
    }

    /// Identifies a peer at the other end of a channel. `fresh`: also where it was before.
    pub(crate) async fn identify(
        &self,
        node: RaftNodeId,
        channel: AuthChannel,
        fresh: bool,
    ) -> Result<(), Status> {
        let Some(roster) = &self.roster else { return Ok(()) };
        let request = self.identify_request(node, false);
        let ask = async {
            let mut client = RaftTransportClient::new(channel);
            Ok(client.identify(request).await?.into_inner())
        };
        let cluster = self.cluster_id.load_full();
        roster.identify(ids::NodeId(node), &cluster, fresh, ask).await.map(drop)
    }

    pub(super) fn identify_request(
        &self,
        to: RaftNodeId,
        identify_me: bool,
    ) -> proto::RaftIdentifyRequest {
        // With nonce 0, for any process at that address.
        let hello = proto::RaftHello { to_nonce: 0, ..self.hello(to) };
        let history = self.roster.as_ref().map(Roster::history_to_proto).unwrap_or_default();
        proto::RaftIdentifyRequest { hello: Some(hello), history, identify_me }
    }
}
