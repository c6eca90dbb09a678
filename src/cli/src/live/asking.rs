//! The questions of a live heatmap, and its stream of columns.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Told;
use crate::CliError;
use crate::client::{Client, Effect, MAX_ANSWER_BYTES};
use crate::heat::{MAX_ROWS, Query};
use crate::heatmap::Drawing;
use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;
use keyviz_proto::key_viz_client::KeyVizClient;
use keyviz_proto::routes_client::RoutesClient;

/// A matrix and the data shown beside it.
pub(super) struct Whole {
    pub(super) matrix: proto::Matrix,
    pub(super) leaders: HashMap<u64, u64>,
    /// First keys of all routes, if they changed.
    pub(super) bounds: Option<Vec<Bytes>>,
}

pub(super) async fn ask(
    query: &Query,
    client: &Client,
    drawing: &Drawing,
    version: u64,
) -> Result<Whole, CliError> {
    let matrix = query.ask(client, Some(drawing)).await?;
    // Leaders and route boundaries are optional details.
    let status = client.call(Effect::Read, |channel| async move {
        ClusterClient::new(channel).get_status(proto::GetStatusRequest {}).await
    });
    let groups = status.await.map(|answer| answer.into_inner().groups).unwrap_or_default();
    let bounds = match matrix.catalog_version == version {
        true => None,
        false => bounds(client).await,
    };
    let leaders = groups.iter().filter_map(|group| Some((group.group_id, group.leader?))).collect();
    Ok(Whole { matrix, leaders, bounds })
}

async fn bounds(client: &Client) -> Option<Vec<Bytes>> {
    let list = client.call(Effect::Read, |channel| async move {
        let mut client = RoutesClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        client.list_routes(proto::ListRoutesRequest::default()).await
    });
    let routes = list.await.ok()?.into_inner().routes;
    Some(routes.into_iter().map(|route| route.start).collect())
}

/// Reads the stream of columns until it ends.
pub(super) async fn follow(query: Query, client: Client, question: u64, tell: mpsc::Sender<Told>) {
    let request = proto::StreamColumnsRequest {
        series: query.series.into(),
        start: query.start,
        end: query.end,
        // A node of an earlier version plans its own rows: as fine as possible, so that each lies
        // within a displayed row.
        max_rows: MAX_ROWS as u32,
        role: query.role.into(),
        after_ms: None,
        boundaries: query.boundaries,
        spread: query.spread,
    };
    let request = &request;
    let opened = client.call(Effect::Read, |channel| async move {
        let mut client = KeyVizClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        client.stream_columns(request.clone()).await
    });
    let why = match opened.await {
        Err(error) => error.to_string(),
        Ok(answer) => {
            let mut updates = answer.into_inner();
            loop {
                match updates.message().await {
                    Ok(Some(update)) => {
                        let columns = Told::Columns(question, Box::new(update));
                        if tell.send(columns).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break "the node ended the stream".into(),
                    Err(status) => break status.message().to_owned(),
                }
            }
        }
    };
    let _ = tell.send(Told::StreamOver(question, why)).await;
}
