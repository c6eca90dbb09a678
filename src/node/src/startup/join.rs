//! How a node asks a member to take it in.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;
use keyviz_security::{self as security, AuthChannel, Security};
use keyviz_types::NodeId;

use super::founding::PAUSE;
use crate::config::{NodeConfig, Origin};
use crate::error::NodeError;
use crate::folder::identity::Identity;

/// How long joining may take: the catalog's leader brings the new node up to date meanwhile.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

/// A member that takes no connection for so long does not answer.
const JOIN_CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Asks a member to take this node in, until it does or time is up.
pub(crate) async fn join(
    through: &str,
    config: &NodeConfig,
    identity: &Identity,
    advertise: &str,
    security: &Security,
) -> Result<(), NodeError> {
    let deadline = tokio::time::Instant::now() + JOIN_WITHIN;
    let (id, seconds) = (config.id, JOIN_WITHIN.as_secs());
    tracing::info!("node {id} asks {through} to add it to the cluster, for up to {seconds} s");
    let mut told = String::new();
    let http = config.http.map_or_else(String::new, |address| address.to_string());
    let failed =
        |reason: String| NodeError::Join { id: config.id, through: through.to_owned(), reason };
    loop {
        let add = proto::AddNodeRequest {
            id: config.id.0,
            address: advertise.to_owned(),
            http: http.clone(),
            disk: Bytes::copy_from_slice(&identity.disk.0),
        };
        let makes_way = matches!(config.origin, Origin::Replace(_));
        let asked = async {
            if makes_way {
                make_way(&mut client_at(through, security).await?, config.id, advertise).await?;
            }
            ask_to_add(through, add, security).await
        };
        let (again, reason) = match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(refusal)) => refusal,
            Err(_) => (false, format!("no answer within {} s", JOIN_WITHIN.as_secs())),
        };
        if !again || tokio::time::Instant::now() + PAUSE >= deadline {
            return Err(failed(reason));
        }
        if reason != told {
            tracing::warn!("{through} did not add node {id} yet, which asks again: {reason}");
            told = reason;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks the node at an address to add this one, or to learn where it is now. Else why not, and
/// whether asking again may help.
pub(crate) async fn ask_to_add(
    through: &str,
    add: proto::AddNodeRequest,
    security: &Security,
) -> Result<(), (bool, String)> {
    let added = client_at(through, security).await?.add_node(add).await;
    let refused = |status| (may_join_yet(&status), keyviz_proto::failure::describe(&status));
    added.map(drop).map_err(refused)
}

/// A connection to a member, as a node that is none yet.
async fn client_at(
    through: &str,
    security: &Security,
) -> Result<ClusterClient<AuthChannel>, (bool, String)> {
    let broken = |error: tonic::transport::Error| (true, keyviz_proto::failure::innermost(&error));
    let endpoint = Endpoint::from_shared(format!("http://{through}")).map_err(broken)?;
    let endpoint = endpoint.connect_timeout(JOIN_CONNECT_WITHIN);
    let tls = security.client_tls();
    let channel = security::connect(endpoint, tls.as_ref()).await.map_err(broken)?;
    Ok(ClusterClient::new(AuthChannel::new(channel, security.as_joiner())))
}

/// Has the member leave that has this node's address, and fails until it is gone. Nobody can reach
/// it there: this node listens.
async fn make_way(
    client: &mut proto::cluster_client::ClusterClient<AuthChannel>,
    own: NodeId,
    advertise: &str,
) -> Result<(), (bool, String)> {
    let words = |status: Status| (may_join_yet(&status), keyviz_proto::failure::describe(&status));
    let status = client.get_status(proto::GetStatusRequest {}).await.map_err(words)?.into_inner();
    let mut members = status.members.iter();
    let lost = members.find(|member| member.address == advertise && member.id != own.0);
    let Some(lost) = lost else { return Ok(()) };
    let id = lost.id;
    let left = client.remove_node(proto::RemoveNodeRequest { id }).await.map_err(words)?;
    if !left.into_inner().gone {
        return Err((true, format!("node {id}, which had this node's address, is leaving")));
    }
    tracing::warn!("node {own} takes the place of node {id}, which had its address");
    Ok(())
}

/// Whether a member that did not take this node in may do so yet. Asking again does no harm.
fn may_join_yet(status: &Status) -> bool {
    // Of a connection that breaks, almost any code is made; of a port that speaks TLS only, this
    // one.
    let broke = status.source().is_some() && status.code() != Code::PermissionDenied;
    let passes =
        [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Aborted];
    broke || passes.contains(&status.code())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_node_asks_again_to_join_unless_it_was_refused() {
        let broken = |code| {
            let mut status = Status::new(code, "reset");
            status.set_source(Arc::new(std::io::Error::other("reset")));
            status
        };
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown] {
            assert!(may_join_yet(&Status::new(code, "no")), "{code:?}");
            assert!(may_join_yet(&broken(code)), "{code:?}");
        }
        assert!(may_join_yet(&broken(Code::Internal)));
        for code in [Code::InvalidArgument, Code::FailedPrecondition, Code::Unauthenticated] {
            assert!(!may_join_yet(&Status::new(code, "no")), "{code:?}");
        }
        assert!(!may_join_yet(&broken(Code::PermissionDenied)), "its port speaks TLS");
    }
}
