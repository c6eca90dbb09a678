//! `TopRanges`, `GetLoads` and `GetNodeLoads`.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use keyviz_core::Series;
use keyviz_fanout::{
    Grouping, LoadCounts, LoadEntry, LoadOf, Loads, LoadsError, LoadsPart, LoadsRequest,
    LoadsSummary, Rank, Rates, Top, TopAnswer, TopError, TopRange, TopRequest,
};
use keyviz_proto as proto;
use keyviz_proto::load::Of;
use keyviz_types::GroupId;

use super::cut;
use super::keyviz::{Scope, matrix_status};
use super::routes::RoutesService;
use crate::metrics::{RequestKind, Requests};
use keyviz_peer::matrix_wire::status_to_wire;

/// Parts that wait to be sent.
const QUEUED: usize = 4;

/// Loads as a stream.
pub(crate) type LoadsStream = Pin<Box<dyn Stream<Item = Result<proto::Loads, Status>> + Send>>;

pub(crate) struct LoadsService {
    pub(crate) loads: Loads,
    pub(crate) top: Top,
    pub(crate) routes: Arc<RoutesService>,
    pub(crate) requests: Arc<Requests>,
}

impl LoadsService {
    /// The hottest ranges of the cluster.
    pub(crate) async fn top(
        &self,
        request: proto::TopRangesRequest,
    ) -> Result<proto::TopRanges, Status> {
        let work = async {
            let request = TopRequest {
                rank: rank(request.rank)?,
                from_ms: request.from_ms,
                to_ms: request.to_ms,
                start: request.start,
                end: request.end,
                limit: request.limit,
                routes: request.routes,
            };
            let answer = self.top.answer(&request).await.map_err(top_status)?;
            Ok(self.top_to_wire(request.rank, answer))
        };
        self.requests.observe(RequestKind::TopRanges, work).await
    }

    fn top_to_wire(&self, rank: Rank, answer: TopAnswer) -> proto::TopRanges {
        let range = |top: TopRange| proto::TopRange {
            start: top.range.start,
            end: top.range.end,
            label: top.label,
            route_ids: top.route_ids.iter().map(|id| id.get()).collect(),
            route_count: top.route_count,
            group_id: top.group.map(|group| group.0),
            leader: top.group.and_then(|group| self.routes.leader_of(group)).map(|node| node.0),
            rates: Some(rates_to_wire(top.rates)),
            before: Some(rates_to_wire(top.before)),
            share: top.share,
            trend: top.trend,
            since_ms: top.since_ms,
            since_earlier: top.since_earlier,
            together: top.together,
        };
        proto::TopRanges {
            rank: rank_to_wire(rank).into(),
            from_ms: answer.window.from_ms,
            to_ms: answer.window.to_ms,
            before_from_ms: answer.before_from_ms,
            ranges: answer.ranges.into_iter().map(range).collect(),
            total: Some(rates_to_wire(answer.total)),
            before: Some(rates_to_wire(answer.before)),
            omitted: answer.omitted,
            catalog_version: answer.catalog_version,
            partial: answer.partial,
            nodes: answer.nodes.into_iter().map(status_to_wire).collect(),
            responded: answer.responded,
            expected: answer.expected,
        }
    }

    /// The loads of the cluster or of this node. A bad question is refused before the stream.
    pub(crate) fn loads(
        self: &Arc<Self>,
        scope: Scope,
        request: proto::GetLoadsRequest,
    ) -> Result<LoadsStream, Status> {
        let running = self.requests.begin(RequestKind::Loads);
        let request = loads_request(request)?;
        self.loads.check(&request).map_err(loads_status)?;
        let (parts, taken) = mpsc::channel(QUEUED);
        let service = Arc::clone(self);
        tokio::spawn(async move {
            let leader_of = |group: GroupId| service.routes.leader_of(group);
            let this_node = scope == Scope::Node;
            let answer = service.loads.answer(&request, this_node, &leader_of, &parts).await;
            if let Err(error) = answer {
                // A client that has gone away needs no reason.
                let _ = parts.send(Err(error)).await;
            }
        });
        let service = Arc::clone(self);
        let stream = ReceiverStream::new(taken).flat_map(move |part| {
            let _running = &running;
            let messages = match part {
                Ok(part) => service.messages(part).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(loads_status(error))],
            };
            futures::stream::iter(messages)
        });
        Ok(stream.boxed())
    }

    /// The whole answer at once, for JSON.
    pub(crate) async fn all_loads(
        self: &Arc<Self>,
        scope: Scope,
        request: proto::GetLoadsRequest,
    ) -> Result<proto::Loads, Status> {
        let mut parts = self.loads(scope, request)?;
        let mut whole = proto::Loads::default();
        while let Some(part) = parts.next().await {
            let part = part?;
            whole.loads.extend(part.loads);
            whole.shared.extend(part.shared);
            whole.summary = part.summary.or(whole.summary);
        }
        Ok(whole)
    }

    fn messages(&self, part: LoadsPart) -> Vec<proto::Loads> {
        let loads = part.loads.into_iter().map(|entry| self.load_to_wire(entry)).collect();
        let shared = part.shared.into_iter().map(|(range, counts)| proto::SharedLoad {
            start: range.start,
            end: range.end,
            counts: Some(counts_to_wire(counts)),
        });
        let mut messages: Vec<proto::Loads> = cut::by_bytes(loads)
            .into_iter()
            .map(|loads| proto::Loads { loads, ..Default::default() })
            .collect();
        messages.extend(
            cut::by_bytes(shared.collect())
                .into_iter()
                .map(|shared| proto::Loads { shared, ..Default::default() }),
        );
        if let Some(summary) = part.summary {
            let summary = Some(self.summary_to_wire(summary));
            messages.push(proto::Loads { summary, ..Default::default() });
        }
        messages
    }

    fn load_to_wire(&self, entry: LoadEntry) -> proto::Load {
        let of = match entry.of {
            LoadOf::Route(id) => Of::RouteId(id.get()),
            LoadOf::Group(group) => Of::GroupId(group.0),
            LoadOf::Node(node) => Of::NodeId(node.0),
            LoadOf::Prefix(prefix) => Of::Prefix(prefix),
        };
        let counts = Some(counts_to_wire(entry.counts));
        let load = proto::Load { of: Some(of), counts, ..Default::default() };
        match entry.route {
            None => load,
            Some((range, group)) => proto::Load {
                start: Some(range.start),
                end: range.end,
                in_group: Some(group.0),
                leader: self.routes.leader_of(group).map(|leader| leader.0),
                ..load
            },
        }
    }

    fn summary_to_wire(&self, summary: LoadsSummary) -> proto::LoadsSummary {
        proto::LoadsSummary {
            from_ms: summary.from_ms,
            to_ms: summary.to_ms,
            total: Some(counts_to_wire(summary.total)),
            straddling: Some(counts_to_wire(summary.straddling)),
            unattributed: Some(counts_to_wire(summary.unattributed)),
            catalog_version: summary.catalog_version,
            cluster_id: self.routes.cluster_id(),
            partial: summary.partial,
            nodes: summary.nodes.into_iter().map(status_to_wire).collect(),
            responded: summary.responded,
            expected: summary.expected,
        }
    }
}

fn counts_to_wire(
    LoadCounts([reads, writes, read_bytes, write_bytes]): LoadCounts,
) -> proto::Counts {
    proto::Counts { reads, writes, read_bytes, write_bytes }
}

fn rates_to_wire(rates: Rates) -> proto::Rates {
    let [reads, writes, read_bytes, write_bytes] = rates.0;
    proto::Rates { reads, writes, read_bytes, write_bytes, cost: rates.cost() }
}

fn rank(rank: i32) -> Result<Rank, Status> {
    match proto::Rank::try_from(rank) {
        Ok(proto::Rank::Unspecified | proto::Rank::Cost) => Ok(Rank::Cost),
        Ok(proto::Rank::Reads) => Ok(Rank::Of(Series::Reads)),
        Ok(proto::Rank::Writes) => Ok(Rank::Of(Series::Writes)),
        Ok(proto::Rank::ReadBytes) => Ok(Rank::Of(Series::ReadBytes)),
        Ok(proto::Rank::WriteBytes) => Ok(Rank::Of(Series::WriteBytes)),
        Err(_) => Err(Status::invalid_argument(format!(
            "rank {rank} does not exist; 1 is cost, 2 reads, 3 writes, 4 read bytes, 5 write bytes"
        ))),
    }
}

fn rank_to_wire(rank: Rank) -> proto::Rank {
    match rank {
        Rank::Cost => proto::Rank::Cost,
        Rank::Of(Series::Reads) => proto::Rank::Reads,
        Rank::Of(Series::Writes) => proto::Rank::Writes,
        Rank::Of(Series::ReadBytes) => proto::Rank::ReadBytes,
        Rank::Of(Series::WriteBytes) => proto::Rank::WriteBytes,
    }
}

fn loads_request(request: proto::GetLoadsRequest) -> Result<LoadsRequest, Status> {
    use proto::LoadGrouping as By;

    let by = match By::try_from(request.by) {
        Ok(By::Unspecified | By::Route) => Grouping::Route,
        Ok(By::Group) => Grouping::Group,
        Ok(By::Leader) => Grouping::Leader,
        Ok(By::Node) => Grouping::Node,
        Ok(By::Prefix) => Grouping::Prefix,
        Err(_) => {
            return Err(Status::invalid_argument(format!(
                "grouping {} does not exist; 1 is by route, 2 by group, 3 by leader, 4 by node, 5 \
                 by prefix",
                request.by
            )));
        }
    };
    Ok(LoadsRequest {
        by,
        from_ms: request.from_ms,
        to_ms: request.to_ms,
        start: request.start,
        end: request.end,
        ids: request.ids,
        prefix_depth: request.prefix_depth,
        delimiter: request.delimiter,
        prefixes: request.prefixes,
    })
}

fn loads_status(error: LoadsError) -> Status {
    match error {
        LoadsError::Matrix(error) => matrix_status(error),
        error => Status::invalid_argument(error.to_string()),
    }
}

fn top_status(error: TopError) -> Status {
    match error {
        TopError::Matrix(error) => matrix_status(error),
        error => Status::invalid_argument(error.to_string()),
    }
}
