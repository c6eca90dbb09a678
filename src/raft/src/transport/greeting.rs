//! Whether the sender of a message is a member that this node has identified.

use tonic::Status;

use super::service::Service;
use crate::handshake::{Admit, Doubt};
use crate::wire;
use keyviz_proto as proto;

impl Service {
    /// Whether a message with this greeting is taken. An unknown sender is identified at its own
    /// address first.
    pub(crate) async fn check(&self, hello: Option<&proto::RaftHello>) -> Result<(), Status> {
        let hello = hello.ok_or(wire::Invalid("it does not say who sends it"))?;
        self.check_cluster(hello)?;
        let peers = self.groups.peers();
        let Some(roster) = peers.roster() else { return Ok(()) };
        let Admit::Unidentified(from) = roster.admit(hello)? else { return Ok(()) };
        let Some(address) = roster.address(from) else {
            // This node has not received the members yet: it is about to be told.
            roster.trust(hello);
            return Ok(());
        };
        peers.identify(from, &address, true, false).await?;
        match roster.admit(hello)? {
            Admit::Yes => Ok(()),
            Admit::Unidentified(node) => {
                let doubt = Doubt::Elsewhere { node, address }.to_string();
                Err(Status::failed_precondition(doubt))
            }
        }
    }

    /// The same for one message of many that come in order: a sender that is not known yet is
    /// identified meanwhile, and has to send again.
    pub(super) fn check_now(&self, hello: &proto::RaftHello) -> Result<(), Status> {
        self.check_cluster(hello)?;
        let Some(roster) = self.groups.peers().roster() else { return Ok(()) };
        match roster.admit(hello)? {
            Admit::Yes => Ok(()),
            Admit::Unidentified(_) => {
                let (service, hello) = (self.clone(), hello.clone());
                tokio::spawn(async move { service.check(Some(&hello)).await });
                Err(Status::unavailable("the sender is being identified"))
            }
        }
    }

    fn check_cluster(&self, hello: &proto::RaftHello) -> Result<(), Status> {
        if hello.to != self.groups.node() {
            return Err(Status::failed_precondition(format!(
                "this is node {}, not node {}",
                self.groups.node(),
                hello.to
            )));
        }
        let own = self.groups.peers().cluster_id();
        if !own.is_empty() && !hello.cluster_id.is_empty() && *own != hello.cluster_id {
            return Err(Status::failed_precondition(format!(
                "this node belongs to cluster {own}, node {} to cluster {}",
                hello.from, hello.cluster_id
            )));
        }
        Ok(())
    }
}
