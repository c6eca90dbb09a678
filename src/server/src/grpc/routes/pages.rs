//! Routes and their history in answers of bounded size.
//!
//! A page is of one catalog version. Its token names the version and the first key of the next
//! page, bound to the cluster and the range by a checksum: one that was made up is refused, and one
//! of routes that have changed is `ABORTED`, because pages of two versions would not cover the
//! keys.

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use prost::Message as _;
use tonic::Status;

use keyviz_catalog::{Delta, Retired, RouteTable};
use keyviz_proto as proto;
use keyviz_types::KeyRange;

use super::{RouteStream, RoutesService, delta_to_wire, retired_to_wire};
use crate::grpc::cut::{self, MESSAGE_BYTES};
use crate::grpc::move_wire;

/// Most routes of a page.
const MAX_PAGE: u32 = 10_000;

/// Most changes and most retired routes in one answer.
const MAX_HISTORY: usize = 1_024;

/// Version of the bootstrap, which is not among the retained changes.
const BOOTSTRAP_VERSION: u64 = 1;

/// The form of a token.
const TOKEN_FORM: u8 = 1;

/// The range of a request.
pub(super) fn range_of(start: &Bytes, end: &Option<Bytes>) -> Result<KeyRange, Status> {
    let range = KeyRange { start: start.clone(), end: end.clone() };
    for key in std::iter::once(&range.start).chain(&range.end) {
        if key.len() > keyviz_types::MAX_KEY_BYTES {
            return Err(Status::invalid_argument(format!(
                "a bound of the key range has {} bytes; keys have at most {}",
                key.len(),
                keyviz_types::MAX_KEY_BYTES
            )));
        }
    }
    if range.is_empty() {
        return Err(Status::invalid_argument("the end of the key range is not after its start"));
    }
    Ok(range)
}

/// Where a page begins.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Token {
    version: u64,
    /// First key of its first route.
    key: Bytes,
}

impl Token {
    fn encode(&self, cluster: &str, range: &KeyRange) -> Bytes {
        let mut token = vec![TOKEN_FORM];
        token.extend(self.version.to_be_bytes());
        token.extend(self.checksum(cluster, range).to_be_bytes());
        token.extend(&self.key);
        token.into()
    }

    fn decode(token: &Bytes, cluster: &str, range: &KeyRange) -> Option<Self> {
        let mut rest = token.clone();
        if rest.len() < 1 + 8 + 8 || rest.get_u8() != TOKEN_FORM {
            return None;
        }
        let (version, checksum) = (rest.get_u64(), rest.get_u64());
        let token = Token { version, key: rest };
        (token.checksum(cluster, range) == checksum && range.contains(&token.key)).then_some(token)
    }

    /// FNV-1a over all that the token is bound to, each with its length.
    fn checksum(&self, cluster: &str, range: &KeyRange) -> u64 {
        let version = self.version.to_be_bytes();
        let end = range.end.as_deref().unwrap_or_default();
        let has_end = [u8::from(range.end.is_some())];
        let parts: [&[u8]; 6] =
            [&version, &self.key, cluster.as_bytes(), &range.start, end, &has_end];
        let lengths = parts.map(|part| (part.len() as u64).to_be_bytes());
        let bytes = lengths.iter().zip(parts).flat_map(|(length, part)| length.iter().chain(part));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

impl RoutesService {
    /// Routes of a range: all of them, or a page.
    pub(crate) fn list(
        &self,
        request: &proto::ListRoutesRequest,
    ) -> Result<proto::ListRoutesResponse, Status> {
        let (table, range, rows) = self.asked(request)?;
        let paged = request.page_size > 0 || !request.page_token.is_empty();
        let mut answer = self.empty(&table);
        // With the first page, as they are of the moment.
        if request.page_token.is_empty() {
            answer.moves = move_wire::under_way(&self.catalog.applied().moves());
        }
        let most = match request.page_size {
            0 if !paged => usize::MAX,
            0 => MAX_PAGE as usize,
            asked => asked as usize,
        };
        let mut bytes = 0;
        for position in rows {
            let Some(route) = table.get(position) else { break };
            let wire = self.route_to_wire(&route);
            bytes += wire.encoded_len();
            let full =
                answer.routes.len() == most || bytes > MESSAGE_BYTES && !answer.routes.is_empty();
            if paged && full {
                let key = route.range().start.clone().max(range.start.clone());
                let token = Token { version: table.version(), key };
                answer.next_page_token = token.encode(&answer.cluster_id, &range);
                break;
            }
            answer.routes.push(wire);
        }
        Ok(answer)
    }

    /// The same of one version in messages of bounded size.
    pub(super) fn stream(&self, request: &proto::ListRoutesRequest) -> Result<RouteStream, Status> {
        let (table, _, rows) = self.asked(request)?;
        let routes = rows.filter_map(|position| table.get(position));
        let routes = routes.map(|route| self.route_to_wire(&route)).collect();
        let mut messages: Vec<proto::ListRoutesResponse> = cut::by_bytes(routes)
            .into_iter()
            .map(|routes| proto::ListRoutesResponse { routes, ..self.empty(&table) })
            .collect();
        if messages.is_empty() {
            messages.push(self.empty(&table));
        }
        messages[0].moves = move_wire::under_way(&self.catalog.applied().moves());
        Ok(futures::stream::iter(messages.into_iter().map(Ok)).boxed())
    }

    fn empty(&self, table: &RouteTable) -> proto::ListRoutesResponse {
        proto::ListRoutesResponse {
            catalog_version: table.version(),
            cluster_id: self.cluster_id(),
            ..Default::default()
        }
    }

    /// The routes that a request asks for, by their places in the table.
    fn asked(
        &self,
        request: &proto::ListRoutesRequest,
    ) -> Result<(RouteTable, KeyRange, Range<usize>), Status> {
        self.check_member()?;
        if request.page_size > MAX_PAGE {
            return Err(Status::invalid_argument(format!(
                "page_size is {}; a page has at most {MAX_PAGE} routes",
                request.page_size
            )));
        }
        let range = range_of(&request.start, &request.end)?;
        // The published table rather than the applied one, which may not be written yet: a watch
        // after the listed version must not be ahead of the node.
        let table = self.catalog.applied().hub().table();
        let mut rows = table.overlapping(&range);
        if !request.page_token.is_empty() {
            let token = Token::decode(&request.page_token, &self.cluster_id(), &range);
            let token = token.ok_or_else(|| {
                Status::invalid_argument(
                    "the page token is none of this cluster for this key range; list from the \
                     first page",
                )
            })?;
            if token.version != table.version() {
                return Err(Status::aborted(format!(
                    "the page token is of catalog version {}, and the current one is {}; list from \
                     the first page",
                    token.version,
                    table.version()
                )));
            }
            rows.start = table.locate(&token.key).unwrap_or(rows.end).max(rows.start);
        }
        Ok((table, range, rows))
    }

    pub(super) fn history(
        &self,
        asked: &proto::RouteHistoryRequest,
    ) -> proto::RouteHistoryResponse {
        let most = match asked.limit as usize {
            0 => MAX_HISTORY,
            limit => limit.min(MAX_HISTORY),
        };
        let after = asked.after_version;
        let before = if asked.before_version == 0 { u64::MAX } else { asked.before_version };
        self.catalog.applied().with(|catalog| {
            let wanted = |version: u64| version > after && version < before;
            let changes: Vec<_> = catalog.log().filter(|delta| wanted(delta.version)).collect();
            let retired: Vec<_> =
                catalog.lineage().filter(|old| wanted(old.retired_version)).collect();
            let first =
                oldest_listed(changes.iter().map(|delta| &***delta), retired.iter().copied(), most);
            let skip = changes.partition_point(|delta| delta.version < first);
            let skip_retired = retired.partition_point(|old| old.retired_version < first);
            // The retained changes begin after the requested version.
            let hole = changes
                .first()
                .is_some_and(|first| first.version > after.max(BOOTSTRAP_VERSION) + 1);
            let more = skip > 0 || skip_retired > 0;
            proto::RouteHistoryResponse {
                catalog_version: catalog.version(),
                changes: changes[skip..].iter().map(|delta| delta_to_wire(delta)).collect(),
                retired: retired[skip_retired..].iter().map(|old| retired_to_wire(old)).collect(),
                truncated: hole || more,
                cluster_id: self.cluster_id(),
                moves: move_wire::all(catalog.moves()),
                next_before_version: if more { first } else { 0 },
            }
        })
    }
}

/// The first version of which everything is listed: the newest, of which at most `most` changes and
/// `most` retired routes, and [`MESSAGE_BYTES`], fit; one version at least.
fn oldest_listed<'a>(
    changes: impl DoubleEndedIterator<Item = &'a Delta>,
    retired: impl DoubleEndedIterator<Item = &'a Retired>,
    most: usize,
) -> u64 {
    let (mut changes, mut retired) = (changes.rev().peekable(), retired.rev().peekable());
    let (mut listed, mut listed_retired, mut bytes, mut first) = (0, 0, 0, 0);
    loop {
        let newest = changes.peek().map(|delta| delta.version);
        let version = newest.max(retired.peek().map(|old| old.retired_version));
        let Some(version) = version else { return 0 };
        while let Some(delta) = changes.next_if(|delta| delta.version == version) {
            (listed, bytes) = (listed + 1, bytes + delta_to_wire(delta).encoded_len());
        }
        while let Some(old) = retired.next_if(|old| old.retired_version == version) {
            (listed_retired, bytes) =
                (listed_retired + 1, bytes + retired_to_wire(old).encoded_len());
        }
        let over = listed > most || listed_retired > most || bytes > MESSAGE_BYTES;
        if over && first > 0 {
            return first;
        }
        first = version;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_one_cluster_and_one_range_and_cannot_be_made_up() {
        let range = |start: &'static str| KeyRange { start: start.into(), end: Some("m".into()) };
        let token = Token { version: 7, key: "b/1".into() };
        let coded = token.encode("cluster", &range("a"));
        assert_eq!(Token::decode(&coded, "cluster", &range("a")), Some(token));
        assert_eq!(Token::decode(&coded, "another", &range("a")), None);
        assert_eq!(Token::decode(&coded, "cluster", &range("b")), None);
        for at in 0..coded.len() {
            let mut other = coded.to_vec();
            other[at] ^= 1;
            assert_eq!(Token::decode(&other.into(), "cluster", &range("a")), None, "byte {at}");
            assert_eq!(Token::decode(&coded.slice(..at), "cluster", &range("a")), None);
        }
    }
}
