//! `GetHotKeys` and `GetNodeHotKeys`.

use tonic::Status;

use keyviz_fanout::HotKeysError;
use keyviz_proto as proto;

use super::keyviz::{KeyVizService, Scope, matrix_status};
use crate::metrics::RequestKind;
use keyviz_peer::hot_keys_wire::{answer_to_wire, request_from_wire};

impl KeyVizService {
    /// The hot keys of the cluster or of this node.
    pub(crate) async fn hot_keys(
        &self,
        scope: Scope,
        request: proto::GetHotKeysRequest,
    ) -> Result<proto::HotKeys, Status> {
        let work = async {
            let by_node = request.by_node;
            let request = request_from_wire(request)?;
            let answer = match scope {
                Scope::Cluster => self.fanout.cluster_hot_keys(&request).await,
                Scope::Node => self.fanout.node_hot_keys(&request).await,
            };
            Ok(answer_to_wire(answer.map_err(hot_keys_status)?, by_node))
        };
        self.requests.observe(RequestKind::HotKeys, work).await
    }
}

pub(crate) fn hot_keys_status(error: HotKeysError) -> Status {
    let message = error.to_string();
    match error {
        HotKeysError::Matrix(error) => matrix_status(error),
        HotKeysError::Off => Status::unavailable(message),
        HotKeysError::Bytes
        | HotKeysError::TooManyKeys { .. }
        | HotKeysError::TooManyPoints { .. } => Status::invalid_argument(message),
    }
}
