//! The route catalog: listing, splitting and merging routes; cluster status.

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};

use super::client::{Client, Effect};
use super::error::Error;
use super::nodes::connection::MAX_ANSWER_BYTES;
use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;
use keyviz_proto::routes_client::RoutesClient;
use keyviz_security::AuthChannel;

pub use keyviz_proto::{
    Capabilities, ClusterStatus, ListRoutesResponse, MoveRouteResponse, Route, RouteChangeResponse,
    RouteMove,
};

pub(crate) fn stub(channel: AuthChannel) -> RoutesClient<AuthChannel> {
    RoutesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// One answer of all its parts.
async fn joined(
    mut parts: tonic::Streaming<ListRoutesResponse>,
) -> Result<ListRoutesResponse, tonic::Status> {
    let mut list = ListRoutesResponse::default();
    while let Some(part) = parts.message().await? {
        let mut routes = std::mem::take(&mut list.routes);
        routes.extend(part.routes);
        let mut moves = std::mem::take(&mut list.moves);
        moves.extend(part.moves);
        list = ListRoutesResponse { routes, moves, ..part };
    }
    Ok(list)
}

/// How a change of routes is made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChangeOptions {
    /// Refuse the change unless the catalog has this version; 0: any.
    pub expected_version: u64,
    /// The cluster that the version is of; another one refuses the change. `None`: any.
    pub expected_cluster: Option<String>,
    /// The server makes changes with the same id once. `None`: a random id.
    pub request_id: Option<String>,
}

impl ChangeOptions {
    fn id(self) -> String {
        self.request_id.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()))
    }
}

impl Client {
    /// All routes in key order, with the catalog version, as the node asked has applied them.
    ///
    /// # Errors
    /// Where no node answers.
    pub fn routes(&self) -> BoxFuture<'_, Result<ListRoutesResponse, Error>> {
        async move {
            self.call(Effect::Read, |channel| async move {
                let mut stub = stub(channel);
                match stub.stream_routes(proto::ListRoutesRequest::default()).await {
                    Ok(parts) => joined(parts.into_inner()).await,
                    // A node of an earlier version.
                    Err(status) if status.code() == tonic::Code::Unimplemented => {
                        let list = stub.list_routes(proto::ListRoutesRequest::default());
                        Ok(list.await?.into_inner())
                    }
                    Err(status) => Err(status),
                }
            })
            .await
        }
        .boxed()
    }

    /// Splits a route: retires it and creates two in its place, the second of which begins at
    /// `key`. The request carries an id, so that it is made once even if it is sent to several
    /// nodes. Needs the admin token where the cluster has one.
    ///
    /// # Errors
    /// `NOT_FOUND` for a route that does not exist or was retired, `INVALID_ARGUMENT` for a key
    /// that is not inside the route, `ABORTED` where the catalog has another version than expected
    /// ([`Error::current_catalog_version`]).
    pub async fn split_route(
        &self,
        route_id: u64,
        key: impl Into<Bytes>,
        options: ChangeOptions,
    ) -> Result<RouteChangeResponse, Error> {
        let request = &proto::SplitRouteRequest {
            route_id,
            key: key.into(),
            expected_version: options.expected_version,
            cluster_id: options.expected_cluster.clone().unwrap_or_default(),
            request_id: options.id(),
        };
        let change = self.call(Effect::Repeatable, |channel| async move {
            stub(channel).split_route(request.clone()).await
        });
        Ok(change.await?.into_inner())
    }

    /// Merges two neighbouring routes of one group: retires them and creates one in their place. As
    /// [`Client::split_route`] otherwise.
    ///
    /// # Errors
    /// As [`Client::split_route`]; `FAILED_PRECONDITION` where the routes are not neighbours in
    /// this order, or are in different groups.
    pub async fn merge_routes(
        &self,
        left_id: u64,
        right_id: u64,
        options: ChangeOptions,
    ) -> Result<RouteChangeResponse, Error> {
        let request = &proto::MergeRoutesRequest {
            left_id,
            right_id,
            expected_version: options.expected_version,
            cluster_id: options.expected_cluster.clone().unwrap_or_default(),
            request_id: options.id(),
        };
        let change = self.call(Effect::Repeatable, |channel| async move {
            stub(channel).merge_routes(request.clone()).await
        });
        Ok(change.await?.into_inner())
    }

    /// Begins to move a route to another group; returns once that is recorded. `moves` of
    /// [`Client::routes`] shows the progress. As [`Client::split_route`] otherwise.
    ///
    /// # Errors
    /// As [`Client::split_route`]; `NOT_FOUND` for a group that does not exist,
    /// `FAILED_PRECONDITION` where keys of the route are being moved, or a member is of a version
    /// that knows no moves, `RESOURCE_EXHAUSTED` where too many moves are under way.
    pub async fn move_route(
        &self,
        route_id: u64,
        to_group: u64,
        options: ChangeOptions,
    ) -> Result<MoveRouteResponse, Error> {
        let request = &proto::MoveRouteRequest {
            route_id,
            to_group,
            expected_version: options.expected_version,
            cluster_id: options.expected_cluster.clone().unwrap_or_default(),
            request_id: options.id(),
        };
        let begun = self.call(Effect::Repeatable, |channel| async move {
            stub(channel).move_route(request.clone()).await
        });
        Ok(begun.await?.into_inner())
    }

    /// Takes back the move of a route, which it then ends as abandoned.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` where the route is not being moved, or so far that the move can only
    /// be completed.
    pub async fn cancel_move(
        &self,
        route_id: u64,
        expected_cluster: Option<String>,
    ) -> Result<Option<RouteMove>, Error> {
        let cluster_id = expected_cluster.unwrap_or_default();
        let request = &proto::CancelMoveRequest { route_id, cluster_id };
        let cancelled = self.call(Effect::Write, |channel| async move {
            stub(channel).cancel_move(request.clone()).await
        });
        Ok(cancelled.await?.into_inner().r#move)
    }

    /// The moves of routes under way and the newest that ended, as the node asked has applied them.
    ///
    /// # Errors
    /// Where no node answers.
    pub async fn moves(&self) -> Result<Vec<RouteMove>, Error> {
        let request = &proto::RouteHistoryRequest { limit: 1, ..Default::default() };
        let history = self.call(Effect::Read, |channel| async move {
            stub(channel).route_history(request.clone()).await
        });
        Ok(history.await?.into_inner().moves)
    }

    /// What the node asked and all members can do, asked live of every member. Versions that do not
    /// know this call answer `UNIMPLEMENTED`.
    ///
    /// # Errors
    /// Where no node answers.
    pub fn capabilities(&self) -> BoxFuture<'_, Result<Capabilities, Error>> {
        async move {
            let asked = self.call(Effect::Read, |channel| async move {
                let mut stub = ClusterClient::new(channel);
                stub.get_capabilities(proto::GetCapabilitiesRequest {}).await
            });
            Ok(asked.await?.into_inner())
        }
        .boxed()
    }

    /// Members, groups, leaders and lag, asked live of every member.
    ///
    /// # Errors
    /// Where no node answers.
    pub fn cluster_status(&self) -> BoxFuture<'_, Result<ClusterStatus, Error>> {
        async move {
            let status = self.call(Effect::Read, |channel| async move {
                let mut stub =
                    ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                stub.get_status(proto::GetStatusRequest {}).await
            });
            Ok(status.await?.into_inner())
        }
        .boxed()
    }
}
