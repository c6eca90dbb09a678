//! The `Kv` service.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::kv::{CasOutcome, Consistency, Coordinator, InvalidRequest, KvWrite, Row};
use crate::proto;
use crate::proto::batch_operation::Operation;

use super::status::{invalid, kv_status};

pub(super) struct KvService {
    pub(super) coordinator: Arc<Coordinator>,
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
        self.coordinator.put(&put.key, &put.value).await.map_err(kv_status)?;
        Ok(Response::new(proto::PutResponse {}))
    }

    async fn get(
        &self,
        request: Request<proto::GetRequest>,
    ) -> Result<Response<proto::GetResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let get = request.into_inner();
        let consistency = Consistency::try_from(get.consistency).map_err(invalid)?;
        let value = self.coordinator.get(get.key, consistency).await.map_err(kv_status)?;
        Ok(Response::new(proto::GetResponse { value }))
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let key = request.into_inner().key;
        let existed = self.coordinator.delete(&key).await.map_err(kv_status)?;
        Ok(Response::new(proto::DeleteResponse { existed }))
    }

    async fn delete_range(
        &self,
        request: Request<proto::DeleteRangeRequest>,
    ) -> Result<Response<proto::DeleteRangeResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let range = request.into_inner();
        let deleted = self
            .coordinator
            .delete_range(&range.start, range.end.as_deref())
            .await
            .map_err(kv_status)?;
        Ok(Response::new(proto::DeleteRangeResponse { deleted }))
    }

    async fn scan(
        &self,
        request: Request<proto::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let scan = request.into_inner();
        let consistency = Consistency::try_from(scan.consistency).map_err(invalid)?;
        let rows = self
            .coordinator
            .scan(scan.start, scan.end, scan.limit, consistency, scan.keys_only)
            .map_err(kv_status)?;
        let in_flight = self.coordinator.enter();
        let pages = rows.map(move |page| {
            let _ = &in_flight;
            page.map(scan_response).map_err(kv_status)
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn batch(
        &self,
        request: Request<proto::BatchRequest>,
    ) -> Result<Response<proto::BatchResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let batch = request.into_inner();
        let writes = batch
            .operations
            .iter()
            .enumerate()
            .map(|(index, operation)| batch_write(index, operation))
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        self.coordinator.batch(writes).await.map_err(kv_status)?;
        Ok(Response::new(proto::BatchResponse {}))
    }

    async fn compare_and_swap(
        &self,
        request: Request<proto::CompareAndSwapRequest>,
    ) -> Result<Response<proto::CompareAndSwapResponse>, Status> {
        let _in_flight = self.coordinator.enter();
        let cas = request.into_inner();
        let outcome = self
            .coordinator
            .compare_and_swap(&cas.key, cas.expected.as_deref(), cas.value.as_deref())
            .await
            .map_err(kv_status)?;
        Ok(Response::new(match outcome {
            CasOutcome::Swapped => proto::CompareAndSwapResponse { swapped: true, actual: None },
            CasOutcome::Mismatch(actual) => {
                proto::CompareAndSwapResponse { swapped: false, actual }
            }
        }))
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
