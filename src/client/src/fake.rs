//! A cluster for tests of clients: real gRPC on loopback, one map behind all nodes, and faults on
//! request.
//!
//! The tests of this crate and of the command each use part of it.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use crate::Address;
use keyviz_proto as proto;
use keyviz_proto::kv_server::{Kv, KvServer};
use keyviz_proto::metadata::{
    DELETED_METADATA, LEADER_METADATA, NEXT_METADATA, NOT_APPLIED_METADATA as NOT_APPLIED,
    REQUEST_ID,
};
use keyviz_proto::routes_server::{Routes, RoutesServer};

/// A fault of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// UNAVAILABLE, without stating what happened.
    Unavailable,
    /// UNAVAILABLE, and it certainly did not happen.
    NotApplied,
    /// It happens, and the answer is UNKNOWN.
    AppliedButUnknown,
    /// It is acknowledged and does not happen.
    Lost,
    /// INVALID_ARGUMENT.
    Refused,
    /// No answer for a long time, and nothing happens.
    Silent,
    /// A scan breaks after its first page.
    ScanCut,
    /// A scan is refused after its first page.
    ScanRefused,
    /// Ranges that begin at `m` or after it are not deleted; until another fault is set.
    RangeCut,
}

/// The state behind all nodes.
#[derive(Debug, Default)]
pub struct Store {
    pub map: Mutex<BTreeMap<Bytes, Bytes>>,
    /// Every write and delete in the order in which it was applied.
    pub log: Mutex<Vec<(Bytes, Option<Bytes>)>>,
    pub gets: AtomicU64,
    /// First keys of the routes; all are in group 1.
    pub routes: Mutex<Vec<Bytes>>,
    /// The address that nodes name as the leader, where it is not their own.
    pub leader: Mutex<Option<String>>,
    /// The request id of every write, in order.
    pub request_ids: Mutex<Vec<String>>,
    /// Splits requested. The catalog is at version 1.
    pub splits_seen: AtomicU64,
    /// The authorization of every write, in order.
    pub tokens: Mutex<Vec<String>>,
}

/// One node.
#[derive(Debug)]
pub struct FakeNode {
    pub address: Address,
    pub socket: SocketAddr,
    fault: Arc<Mutex<(Fault, u64)>>,
    pub writes_seen: Arc<AtomicU64>,
    /// Its own runtime, so that shutting it down closes all connections.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl FakeNode {
    /// Makes the next `times` calls fail in this way.
    pub fn fail(&self, fault: Fault, times: u64) {
        *self.fault.lock() = (fault, times);
    }

    /// Stops the node and closes all its connections.
    pub async fn kill(self) {
        let socket = self.socket;
        drop(self);
        while tokio::net::TcpStream::connect(socket).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Starts a node on a free port.
pub async fn start(store: Arc<Store>) -> FakeNode {
    start_at(store, "127.0.0.1:0".parse().expect("it is an address")).await
}

/// Starts a node on this port.
pub async fn start_at(store: Arc<Store>, socket_to_bind: SocketAddr) -> FakeNode {
    let (fault, writes_seen) = (Arc::default(), Arc::default());
    let service = FakeKv {
        own: String::new(),
        store,
        fault: Arc::clone(&fault),
        writes_seen: Arc::clone(&writes_seen),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a test can have a runtime");
    let (bound, socket) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::bind(socket_to_bind).await;
        let listener = listener.expect("loopback has the port");
        let address = listener.local_addr();
        let own = address.as_ref().map(ToString::to_string).unwrap_or_default();
        bound.send(address).expect("the test waits for it");
        let routes = FakeRoutes { store: Arc::clone(&service.store) };
        let serving = Server::builder()
            .add_service(KvServer::new(FakeKv { own, ..service }))
            .add_service(RoutesServer::new(routes))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let _ = serving.await;
    });
    let socket = socket.await.expect("the server is bound").expect("it has an address");
    FakeNode { address: socket.into(), socket, fault, writes_seen, runtime: Some(runtime) }
}

#[derive(Debug)]
struct FakeKv {
    /// Its address.
    own: String,
    store: Arc<Store>,
    fault: Arc<Mutex<(Fault, u64)>>,
    writes_seen: Arc<AtomicU64>,
}

impl FakeKv {
    fn take_fault(&self) -> Fault {
        let mut fault = self.fault.lock();
        if fault.1 == 0 {
            return Fault::None;
        }
        fault.1 -= 1;
        fault.0
    }

    /// Applies a fault; `Ok(true)` if the operation should take effect.
    async fn before(&self, fault: Fault) -> Result<bool, Status> {
        match fault {
            Fault::None
            | Fault::AppliedButUnknown
            | Fault::ScanCut
            | Fault::ScanRefused
            | Fault::RangeCut => Ok(true),
            Fault::Lost => Ok(false),
            Fault::Unavailable => Err(Status::unavailable("no leader")),
            Fault::NotApplied => {
                let mut metadata = MetadataMap::new();
                metadata.insert(NOT_APPLIED, "true".parse().expect("it is ASCII"));
                Err(Status::with_metadata(Code::Unavailable, "no leader", metadata))
            }
            Fault::Refused => Err(Status::invalid_argument("no such thing")),
            Fault::Silent => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Err(Status::internal("nobody waits that long"))
            }
        }
    }

    async fn change(&self, key: Bytes, value: Option<Bytes>) -> Result<bool, Status> {
        self.writes_seen.fetch_add(1, Ordering::Relaxed);
        let fault = self.take_fault();
        let mut existed = false;
        if self.before(fault).await? {
            let mut map = self.store.map.lock();
            existed = match &value {
                Some(value) => map.insert(key.clone(), value.clone()).is_some(),
                None => map.remove(&key).is_some(),
            };
            self.store.log.lock().push((key, value));
        }
        match fault {
            Fault::AppliedButUnknown => Err(Status::unknown("leadership was lost")),
            _ => Ok(existed),
        }
    }
}

type Pages = Pin<Box<dyn Stream<Item = Result<proto::ScanResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for FakeKv {
    type ScanStream = Pages;

    async fn put(
        &self,
        request: Request<proto::PutRequest>,
    ) -> Result<Response<proto::PutResponse>, Status> {
        let said = |name: &str| {
            let value = request.metadata().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        self.store.request_ids.lock().push(said(REQUEST_ID));
        self.store.tokens.lock().push(said("authorization"));
        let request = request.into_inner();
        self.change(request.key, Some(request.value)).await?;
        let mut response = Response::new(proto::PutResponse {});
        let leader = self.store.leader.lock().clone().filter(|leader| *leader != self.own);
        if let Some(leader) = leader {
            response.metadata_mut().insert(LEADER_METADATA, leader.parse().expect("it is ASCII"));
        }
        Ok(response)
    }

    async fn get(
        &self,
        request: Request<proto::GetRequest>,
    ) -> Result<Response<proto::GetResponse>, Status> {
        self.store.gets.fetch_add(1, Ordering::Relaxed);
        self.before(self.take_fault()).await?;
        let value = self.store.map.lock().get(&request.into_inner().key).cloned();
        Ok(Response::new(proto::GetResponse { value }))
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        let existed = self.change(request.into_inner().key, None).await?;
        Ok(Response::new(proto::DeleteResponse { existed }))
    }

    async fn scan(&self, request: Request<proto::ScanRequest>) -> Result<Response<Pages>, Status> {
        let fault = self.take_fault();
        self.before(fault).await?;
        let request = request.into_inner();
        let map = self.store.map.lock();
        let limit = if request.limit == 0 { u64::MAX } else { request.limit };
        let rows = map
            .range(request.start.clone()..)
            .take_while(|(key, _)| request.end.as_ref().is_none_or(|end| *key < end))
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(|(key, value)| proto::KeyValue { key: key.clone(), value: value.clone() });
        let rows: Vec<_> = rows.collect();
        let pages = rows.chunks(10).map(|rows| Ok(proto::ScanResponse { rows: rows.to_vec() }));
        let pages: Vec<_> = match fault {
            Fault::ScanCut => pages.take(1).chain([Err(Status::unavailable("cut"))]).collect(),
            Fault::ScanRefused => {
                pages.take(1).chain([Err(Status::permission_denied("no"))]).collect()
            }
            _ => pages.collect(),
        };
        Ok(Response::new(Box::pin(futures::stream::iter(pages))))
    }

    async fn delete_range(
        &self,
        request: Request<proto::DeleteRangeRequest>,
    ) -> Result<Response<proto::DeleteRangeResponse>, Status> {
        let proto::DeleteRangeRequest { start, end, max_keys } = request.into_inner();
        let cut = self.fault.lock().0 == Fault::RangeCut;
        if cut && start >= "m" {
            return Err(Status::unavailable("no leader"));
        }
        let mut map = self.store.map.lock();
        let inside = |key: &&Bytes| **key >= start && end.as_ref().is_none_or(|end| *key < end);
        let keys: Vec<Bytes> = map.keys().filter(inside).cloned().collect();
        let most = usize::try_from(max_keys).unwrap_or(usize::MAX);
        let most = if most == 0 { usize::MAX } else { most };
        let mut deleted = 0;
        for key in keys.iter().take(most) {
            if cut && *key >= "m" {
                let mut status = Status::unavailable("no leader");
                status.metadata_mut().insert(DELETED_METADATA, deleted.into());
                let next = MetadataValue::from_bytes(b"m");
                status.metadata_mut().insert_bin(NEXT_METADATA, next);
                return Err(status);
            }
            map.remove(key);
            deleted += 1;
        }
        let next = keys.get(most).cloned();
        Ok(Response::new(proto::DeleteRangeResponse { deleted, next }))
    }

    async fn batch(
        &self,
        _: Request<proto::BatchRequest>,
    ) -> Result<Response<proto::BatchResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn compare_and_swap(
        &self,
        _: Request<proto::CompareAndSwapRequest>,
    ) -> Result<Response<proto::CompareAndSwapResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }
}

#[derive(Debug)]
struct FakeRoutes {
    store: Arc<Store>,
}

type Watched =
    Pin<Box<dyn Stream<Item = Result<proto::WatchRoutesResponse, Status>> + Send + 'static>>;
type Listed =
    Pin<Box<dyn Stream<Item = Result<proto::ListRoutesResponse, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl Routes for FakeRoutes {
    type WatchRoutesStream = Watched;
    type StreamRoutesStream = Listed;

    async fn stream_routes(
        &self,
        _: Request<proto::ListRoutesRequest>,
    ) -> Result<Response<Listed>, Status> {
        Err(Status::unimplemented("as of an earlier version"))
    }

    async fn list_routes(
        &self,
        _: Request<proto::ListRoutesRequest>,
    ) -> Result<Response<proto::ListRoutesResponse>, Status> {
        let starts = self.store.routes.lock().clone();
        let ends = starts.iter().skip(1).cloned().map(Some).chain([None]);
        let routes = starts.iter().cloned().zip(ends).zip(1..).map(|((start, end), route_id)| {
            proto::Route { route_id, start, end, group_id: 1, ..Default::default() }
        });
        Ok(Response::new(proto::ListRoutesResponse {
            catalog_version: 1,
            routes: routes.collect(),
            ..Default::default()
        }))
    }

    async fn split_route(
        &self,
        request: Request<proto::SplitRouteRequest>,
    ) -> Result<Response<proto::RouteChangeResponse>, Status> {
        self.store.splits_seen.fetch_add(1, Ordering::Relaxed);
        if request.get_ref().expected_version > 1 {
            let mut metadata = MetadataMap::new();
            metadata.insert(NOT_APPLIED, "true".parse().expect("it is ASCII"));
            metadata.insert("keyviz-catalog-version", 1.into());
            return Err(Status::with_metadata(Code::Aborted, "another version", metadata));
        }
        Ok(Response::new(proto::RouteChangeResponse { catalog_version: 2, ..Default::default() }))
    }

    async fn merge_routes(
        &self,
        _: Request<proto::MergeRoutesRequest>,
    ) -> Result<Response<proto::RouteChangeResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn move_route(
        &self,
        _: Request<proto::MoveRouteRequest>,
    ) -> Result<Response<proto::MoveRouteResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn cancel_move(
        &self,
        _: Request<proto::CancelMoveRequest>,
    ) -> Result<Response<proto::CancelMoveResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn watch_routes(
        &self,
        _: Request<proto::WatchRoutesRequest>,
    ) -> Result<Response<Watched>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn route_history(
        &self,
        _: Request<proto::RouteHistoryRequest>,
    ) -> Result<Response<proto::RouteHistoryResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }
}
