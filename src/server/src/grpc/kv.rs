//! The `Kv` service.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};

use keyviz_kv::{CasOutcome, Consistency, Coordinator, InvalidRequest, KvWrite, RangeDeleted, Row};
use keyviz_proto as proto;
use keyviz_proto::batch_operation::Operation;

use crate::metrics::{RequestKind, Requests};
use keyviz_peer::status::{invalid, kv_status};
use keyviz_proto::metadata::LEADER_METADATA;

pub(crate) struct KvService {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) requests: Arc<Requests>,
}

impl KvService {
    /// The answer to a request for `key`, with the leader of its group if that is another node.
    fn answer<T>(&self, key: &[u8], message: T) -> Response<T> {
        let mut response = Response::new(message);
        let leader = self.coordinator.led_elsewhere(key);
        // An address that is not valid metadata is left out.
        if let Some(leader) = leader.and_then(|leader| leader.address.try_into().ok()) {
            response.metadata_mut().insert(LEADER_METADATA, leader);
        }
        response
    }
}

type ScanStream = Pin<Box<dyn Stream<Item = Result<proto::ScanResponse, Status>> + Send>>;

#[tonic::async_trait]
impl proto::kv_server::Kv for KvService {
    type ScanStream = ScanStream;

    async fn put(
        &self,
        request: Request<proto::PutRequest>,
    ) -> Result<Response<proto::PutResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let put = request.into_inner();
        let work = async {
            let _admitted =
                self.coordinator.admit(put.key.len() + put.value.len()).map_err(kv_status)?;
            self.coordinator.put(&put.key, &put.value).await.map_err(kv_status)?;
            Ok(self.answer(&put.key, proto::PutResponse {}))
        };
        self.requests.observe(RequestKind::Put, work).await
    }

    async fn get(
        &self,
        request: Request<proto::GetRequest>,
    ) -> Result<Response<proto::GetResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let get = request.into_inner();
        let work = async {
            let _admitted = self.coordinator.admit(get.key.len()).map_err(kv_status)?;
            let consistency = Consistency::try_from(get.consistency).map_err(invalid)?;
            let key = get.key.clone();
            let value = self.coordinator.get(get.key, consistency).await.map_err(kv_status)?;
            // Held until the client has taken it.
            let bytes = value.as_ref().map_or(0, Bytes::len);
            let held = Arc::new(self.coordinator.admit_answer(bytes).map_err(kv_status)?);
            let answer = proto::GetResponse { value };
            let mut answer = match consistency {
                // Every replica can serve it.
                Consistency::Stale => Response::new(answer),
                Consistency::Linearizable | Consistency::Lease => self.answer(&key, answer),
            };
            answer.extensions_mut().insert(held);
            Ok(answer)
        };
        self.requests.observe(RequestKind::Get, work).await
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let key = request.into_inner().key;
        let work = async {
            let _admitted = self.coordinator.admit(key.len()).map_err(kv_status)?;
            let existed = self.coordinator.delete(&key).await.map_err(kv_status)?;
            Ok(self.answer(&key, proto::DeleteResponse { existed }))
        };
        self.requests.observe(RequestKind::Delete, work).await
    }

    async fn delete_range(
        &self,
        request: Request<proto::DeleteRangeRequest>,
    ) -> Result<Response<proto::DeleteRangeResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let range = request.into_inner();
        let work = async {
            let _admitted = self.coordinator.admit(range.start.len()).map_err(kv_status)?;
            let (start, end) = (&range.start, range.end.as_deref());
            let done = self.coordinator.delete_range(start, end, range.max_keys).await;
            let RangeDeleted { deleted, next } = done.map_err(kv_status)?;
            Ok(self.answer(start, proto::DeleteRangeResponse { deleted, next }))
        };
        self.requests.observe(RequestKind::DeleteRange, work).await
    }

    async fn scan(
        &self,
        request: Request<proto::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let scan = request.into_inner();
        let mut running = Requests::begin(&self.requests, RequestKind::Scan);
        let start_key = scan.start.clone();
        let begin = || {
            let consistency = Consistency::try_from(scan.consistency).map_err(invalid)?;
            let admitted = self.coordinator.admit_scan().map_err(kv_status)?;
            let rows = self
                .coordinator
                .scan(scan.start.clone(), scan.end.clone(), scan.limit, consistency, scan.keys_only)
                .map_err(kv_status)?;
            Ok::<_, Status>((rows, admitted))
        };
        let (rows, admitted) = begin().inspect_err(|refused| running.outcome = refused.code())?;
        let in_flight = (self.coordinator.enter(), admitted);
        let pages = rows.map(|page| page.map(scan_response).map_err(kv_status));
        // A client that disconnects before the end has cancelled the scan.
        let start = (Box::pin(pages), running, in_flight);
        let pages = futures::stream::unfold(start, |(mut pages, mut running, held)| async move {
            let page = pages.next().await;
            match &page {
                Some(Err(status)) => running.outcome = status.code(),
                Some(Ok(_)) => {}
                None if running.outcome == Code::Cancelled => running.outcome = Code::Ok,
                None => {}
            }
            page.map(|page| (page, (pages, running, held)))
        });
        let pages: Self::ScanStream = Box::pin(pages);
        Ok(self.answer(&start_key, pages))
    }

    async fn batch(
        &self,
        request: Request<proto::BatchRequest>,
    ) -> Result<Response<proto::BatchResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let batch = request.into_inner();
        let work = async {
            let _admitted =
                self.coordinator.admit(prost::Message::encoded_len(&batch)).map_err(kv_status)?;
            let writes = batch
                .operations
                .iter()
                .enumerate()
                .map(|(index, operation)| batch_write(index, operation))
                .collect::<Result<Vec<_>, _>>()
                .map_err(invalid)?;
            // All of its keys are in one group.
            let key = writes.first().map(|write| write.key().to_vec()).unwrap_or_default();
            self.coordinator.batch(writes).await.map_err(kv_status)?;
            Ok(self.answer(&key, proto::BatchResponse {}))
        };
        self.requests.observe(RequestKind::Batch, work).await
    }

    async fn compare_and_swap(
        &self,
        request: Request<proto::CompareAndSwapRequest>,
    ) -> Result<Response<proto::CompareAndSwapResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let cas = request.into_inner();
        let work = async {
            let _admitted = self
                .coordinator
                .admit(cas.key.len() + cas.value.as_ref().map_or(0, |value| value.len()))
                .map_err(kv_status)?;
            let outcome = self
                .coordinator
                .compare_and_swap(&cas.key, cas.expected.as_deref(), cas.value.as_deref())
                .await
                .map_err(kv_status)?;
            let answer = match outcome {
                CasOutcome::Swapped => {
                    proto::CompareAndSwapResponse { swapped: true, actual: None }
                }
                CasOutcome::Mismatch(actual) => {
                    proto::CompareAndSwapResponse { swapped: false, actual }
                }
            };
            Ok(self.answer(&cas.key, answer))
        };
        self.requests.observe(RequestKind::CompareAndSwap, work).await
    }
}

fn scan_response(rows: Vec<Row>) -> proto::ScanResponse {
    let rows =
        rows.into_iter().map(|row| proto::KeyValue { key: row.key, value: row.value }).collect();
    proto::ScanResponse { rows }
}

fn batch_write(
    index: usize,
    operation: &proto::BatchOperation,
) -> Result<KvWrite<'_>, InvalidRequest> {
    match &operation.operation {
        Some(Operation::Put(put)) => Ok(KvWrite::Put { key: &put.key, value: &put.value }),
        Some(Operation::Delete(delete)) => Ok(KvWrite::Delete { key: &delete.key }),
        None => Err(InvalidRequest::UnknownOperation { index }),
    }
}
