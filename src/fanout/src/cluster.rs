//! The two rounds and their deadline.
//!
//! ```text
//!  0                            half                          deadline
//!  |-- round one, all members --|                                 |
//!  |   answered: ----------------> plan --> round two ----------> | merge what is there
//!  |   late:     - - - - - - - - - - - - -> round two, if the     |
//!                                           totals come at last
//! ```
//!
//! Round one ends when all members have answered, or at half of the deadline, so that a silent
//! member leaves the others half of the time. The rows are planned without late members; if their
//! counts arrive, they are exact nevertheless.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Shared};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use keyviz_core::matrix::{Merge, SourceCounts};
use keyviz_core::query::{
    ColumnPlan, DEFAULT_ROW_ROUTE_IDS, DEFAULT_ROWS, NodeTotals, PlanRequest, RowPlan, plan,
    plan_columns,
};
use keyviz_core::wire::{CheckedColumns, ContributionError};
use keyviz_core::{KeyRange, NodeId, Query, RouteSpec, Window};
use keyviz_directory::MembershipState;

use super::copies::{self, Absent, Proxy, proxies};
use super::local::LocalMatrix;
use super::member::{Member, Planned};
use super::parts::FanoutParts;
use super::request::{Axis, MAX_EVENTS, MatrixAnswer, MatrixError, MatrixRequest};
use super::shared::{Joinable, Ticket};
use super::work::{ComputeSlot, off_the_runtime, off_the_runtime_behind_the_store};

/// Time limit of a member for both rounds.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(2);

/// The node begins its own part of a round this much later than it asks the others, so that the
/// requests are sent before its cores are busy.
const HEAD_START: Duration = Duration::from_micros(300);

pub(super) type Answer = Result<Arc<MatrixAnswer>, MatrixError>;

/// Answers matrix queries, for the cluster or for this node.
pub struct Fanout {
    parts: Arc<FanoutParts>,
    joinable: Joinable<MatrixRequest, Answer>,
    counters: FanoutCounters,
}

/// Counters of queries since the start of the node.
#[derive(Default, Debug)]
pub struct FanoutCounters {
    /// Matrices that were merged.
    pub queries: AtomicU64,
    /// Queries that shared the matrix of an identical query.
    pub shared: AtomicU64,
    /// Queries that were refused because too many were in progress.
    pub refused: AtomicU64,
    /// Members that contributed to a matrix.
    pub answered: AtomicU64,
    /// Members that did not, or not in time.
    pub failed: AtomicU64,
}

impl Fanout {
    /// A fan-out of these parts.
    pub fn new(parts: FanoutParts) -> Arc<Self> {
        let (parts, joinable) = (Arc::new(parts), Joinable::default());
        Arc::new(Fanout { parts, joinable, counters: FanoutCounters::default() })
    }

    /// The node's own source.
    pub fn local(&self) -> &Arc<LocalMatrix> {
        &self.parts.local
    }

    /// What came of the queries so far.
    pub fn counters(&self) -> &FanoutCounters {
        &self.counters
    }

    fn count(&self, members: &[Member]) {
        // Relaxed: each number is read by itself.
        self.counters.queries.fetch_add(1, Ordering::Relaxed);
        for member in members {
            let ok = member.status().ok;
            let counter = if ok { &self.counters.answered } else { &self.counters.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One matrix from all members, shared with identical concurrent queries. Dropping the last
    /// waiting future ends the work at all members.
    ///
    /// # Errors
    /// If the query is refused or this node cannot answer. A member that cannot answer has a status
    /// in the matrix.
    pub async fn cluster(self: &Arc<Self>, request: &MatrixRequest) -> Answer {
        match self.parts.directory.membership_state() {
            MembershipState::Member | MembershipState::Asking => {}
            MembershipState::Removed => return Err(MatrixError::Removed { node: self.parts.node }),
            MembershipState::Refused => {
                let reason = self.parts.directory.refusal().as_str().to_owned();
                return Err(MatrixError::Refused { reason });
            }
        }
        let fanout = Arc::clone(self);
        let (answer, joined): (Shared<BoxFuture<'static, Answer>>, bool) =
            self.joinable.join(request, |ticket| {
                let request = request.clone();
                async move {
                    let members = fanout.members();
                    fanout.answer(&request, members, Some(ticket)).await
                }
            });
        if joined {
            self.counters.shared.fetch_add(1, Ordering::Relaxed);
        }
        answer.await
    }

    pub(super) fn members(&self) -> BTreeMap<NodeId, String> {
        let members = self.parts.directory.members();
        let mut addresses: BTreeMap<NodeId, String> =
            members.iter().map(|(id, member)| (*id, member.address.clone())).collect();
        addresses.entry(self.parts.node).or_default();
        addresses
    }

    /// The matrix of this node alone.
    ///
    /// # Errors
    /// As [`Fanout::cluster`].
    pub async fn node(&self, request: &MatrixRequest) -> Answer {
        self.answer(request, self.this_node(), None).await
    }

    pub(super) fn this_node(&self) -> BTreeMap<NodeId, String> {
        let node = self.parts.node;
        let address = self.parts.directory.address(node).map_or_else(String::new, |at| at.address);
        BTreeMap::from([(node, address)])
    }

    pub(super) fn parts(&self) -> &FanoutParts {
        &self.parts
    }

    async fn answer(
        &self,
        request: &MatrixRequest,
        addresses: BTreeMap<NodeId, String>,
        ticket: Option<Ticket>,
    ) -> Answer {
        let parts = &self.parts;
        if !parts.local.enabled() {
            return Err(MatrixError::Disabled);
        }
        // An invalid query is refused before it waits.
        request.query(parts.local.clock().now_ms())?;
        let began = Instant::now();
        let deadline = began + parts.deadline;
        // Later there is no time left to ask anybody.
        let _place = self.place(began + parts.deadline / 2).await?;
        let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;

        let query = Arc::new(request.first_query(parts.local.clock().now_ms())?);
        let asked: BTreeSet<NodeId> = addresses.keys().copied().collect();
        let head_start = if addresses.len() > 1 { HEAD_START } else { Duration::ZERO };
        let mut asks: FuturesUnordered<BoxFuture<'static, Member>> = addresses
            .into_iter()
            .map(|(node, address)| {
                let member = Member::new(Arc::clone(parts), node, address, deadline);
                let member = member.with_head_start(head_start);
                member.round_one(Arc::clone(&query)).boxed()
            })
            .collect();
        let mut members = Vec::with_capacity(asks.len());
        while let Ok(Some(member)) = timeout_at(half, asks.next()).await {
            members.push(member);
        }

        // Asked of this node alone, it answers for nobody else.
        let proxies = match ticket {
            Some(_) => proxies_of(&members, &asked, query.window),
            None => Vec::new(),
        };
        let quarter = half + deadline.saturating_duration_since(half) / 2;
        let in_names = self.proxy_totals(&proxies, &query, quarter).await;

        // Writes acknowledged to later queries may not be counted in this answer.
        if let Some(ticket) = ticket {
            self.joinable.close(ticket);
        }
        // Without an end the window ends now, not when the query arrived.
        let now_ms = parts.local.clock().now_ms();
        let (query, reach_ms) = request.query_up_to(now_ms, newest_ms(&members))?;
        let query = Arc::new(query);
        let oldest_ms = oldest_ms(&members, &proxies).unwrap_or(now_ms);
        let columns = self.plan_columns(request, &query, oldest_ms, reach_ms)?;
        let totals = members.iter_mut().filter_map(Member::take_totals);
        let rows = self.plan_rows(request, &query, totals.chain(in_names).collect()).await?;
        let planned = Planned {
            query: Arc::clone(&query),
            rows: Arc::new(rows.axis()),
            columns: Arc::new(columns),
            asked_from_ms: request.from_ms,
        };

        let in_time = members.into_iter().map(|member| futures::future::ready(member).boxed());
        let round_two = in_time.chain(asks).map(|member| {
            let planned = planned.clone();
            member.then(|member| member.round_two(planned))
        });
        let mut round_two: FuturesUnordered<_> = round_two.collect();
        let mut in_names: FuturesUnordered<_> = proxies
            .into_iter()
            .map(|proxy| self.proxy_columns(proxy, &planned, deadline))
            .collect();
        let mut merge = Merge::new(rows, ColumnPlan::clone(&planned.columns));
        let mut members: Vec<Member> = Vec::new();
        let mut answered_for = BTreeMap::new();
        loop {
            // Answers are merged as they arrive, which halves their memory.
            tokio::select! {
                Some((mut member, parts)) = round_two.next() => {
                    let refused;
                    (merge, refused) = merged(merge, parts).await?;
                    if let Some(error) = refused {
                        member.fail(error);
                    }
                    members.push(member);
                }
                Some((of, answers)) = in_names.next() => {
                    let mut holders = Vec::new();
                    for (offer, parts) in answers {
                        let refused;
                        (merge, refused) = merged(merge, parts).await?;
                        if refused.is_none() {
                            holders.push(offer);
                        }
                    }
                    answered_for.insert(of, holders);
                }
                else => break,
            }
        }
        drop((round_two, in_names));
        for member in &mut members {
            if let Some(holders) = answered_for.get(&member.node()) {
                copies::tell(member.status_mut(), holders);
            }
        }
        self.count(&members);
        self.finish(request, planned, merge, members).await
    }

    pub(super) async fn place(&self, until: Instant) -> Result<ComputeSlot, MatrixError> {
        let place = match timeout_at(until, self.parts.local.work().query()).await {
            Ok(place) => place,
            Err(_) => Err(self.parts.local.work().busy()),
        };
        place.map_err(|busy| {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            MatrixError::Busy(busy)
        })
    }

    async fn finish(
        &self,
        request: &MatrixRequest,
        planned: Planned,
        merge: Merge,
        members: Vec<Member>,
    ) -> Answer {
        let (catalog, axis, spread) = (self.parts.catalog.clone(), request.axis, request.spread);
        let (by_route, with_sources) = (request.by_route, request.sources);
        let mut statuses: Vec<_> = members.into_iter().map(Member::into_status).collect();
        let now_ms = self.parts.local.clock().now_ms();
        if let Some(end_ms) = planned.columns.columns().last().map(|last| last.end_ms)
            && planned.query.window.to_ms > now_ms
        {
            for status in &mut statuses {
                status.beyond_end = status.newest_ms.is_some_and(|newest_ms| newest_ms > end_ms);
            }
        }
        let answer = off_the_runtime_behind_the_store(move |wanted| {
            if !wanted() {
                return None;
            }
            let query = planned.query;
            let sources = if with_sources { merge.sources() } else { SourceCounts::default() };
            let mut matrix = merge.finish(&query, statuses);
            if spread {
                matrix.spread();
            }
            // The columns are whole steps, so the first may begin before the window asked for.
            let Window { mut from_ms, to_ms } = query.window;
            if let Some(first) = matrix.columns.first() {
                from_ms = from_ms.min(first.start_ms);
            }
            let events =
                catalog.with(|catalog| catalog.events(from_ms, to_ms, &query.range, MAX_EVENTS));
            Some(MatrixAnswer { matrix, events, axis, spread, by_route, sources })
        });
        Ok(Arc::new(answer.await?))
    }

    /// Columns of the window, from the oldest column of any member: a window that begins in 1970
    /// must not make every column a year wide.
    fn plan_columns(
        &self,
        request: &MatrixRequest,
        query: &Query,
        oldest_ms: u64,
        reach_ms: u64,
    ) -> Result<ColumnPlan, MatrixError> {
        let from_ms = if request.from_ms.is_some() {
            query.window.from_ms.max(oldest_ms.min(query.window.to_ms.saturating_sub(1)))
        } else {
            query.window.from_ms
        };
        let window = Window { from_ms, ..query.window };
        let step_ms = self.parts.local.history().config().step_ms;
        plan_columns(window, step_ms, request.max_columns as usize, reach_ms)
            .map_err(|error| MatrixError::Internal { reason: error.to_string() })
    }

    async fn plan_rows(
        &self,
        request: &MatrixRequest,
        query: &Arc<Query>,
        totals: Vec<NodeTotals>,
    ) -> Result<RowPlan, MatrixError> {
        let epoch = self.parts.local.sampler().epoch_full();
        if epoch.routes().is_empty() {
            return Err(MatrixError::NotReady);
        }
        let (query, max_rows) = (Arc::clone(query), request.max_rows as usize);
        let (axis, catalog) = (request.axis, self.parts.catalog.clone());
        let (boundaries, by_route) = (Arc::clone(&request.boundaries), request.by_route);
        off_the_runtime(move |wanted| {
            if !wanted() {
                return None;
            }
            let past = (axis == Axis::Then)
                .then(|| catalog.with(|catalog| catalog.routes_at(query.window.from_ms)));
            let (routes, catalog_version): (&[RouteSpec], u64) = match &past {
                Some(past) => (&past.routes, past.version),
                None => (epoch.routes(), epoch.catalog_version()),
            };
            let boundaries: Arc<[Bytes]> = match by_route {
                true => route_starts(routes, &query.range, max_rows).into(),
                false => boundaries,
            };
            let request = PlanRequest {
                routes,
                catalog_version,
                range: &query.range,
                max_rows,
                max_route_ids: DEFAULT_ROW_ROUTE_IDS,
                boundaries: (by_route || !boundaries.is_empty()).then_some(&boundaries),
            };
            Some(plan(&request, &totals))
        })
        .await?
        .map_err(|error| MatrixError::Internal { reason: error.to_string() })
    }
}

/// The keys between the first routes of a range, at most `max_rows` of them; 0: the default. The
/// last row is all the others.
fn route_starts(routes: &[RouteSpec], range: &KeyRange, max_rows: usize) -> Vec<Bytes> {
    let rows = if max_rows == 0 { DEFAULT_ROWS } else { max_rows };
    let inside =
        |start: &&Bytes| **start > range.start && range.end.as_ref().is_none_or(|end| *start < end);
    let starts = routes.iter().map(|route| &route.range.start).filter(inside);
    starts.take(rows - 1).cloned().collect()
}

/// Who is asked in the names of the members that did not answer round one, or lack the past.
fn proxies_of(members: &[Member], asked: &BTreeSet<NodeId>, window: Window) -> Vec<Proxy> {
    let mut absent: Absent = asked.iter().map(|node| (*node, u64::MAX)).collect();
    let mut offers = Vec::new();
    for member in members {
        let Some(totals) = member.totals() else { continue };
        offers.push((member.node(), member.copies().to_vec()));
        if totals.forgotten_before_ms > window.from_ms {
            absent.insert(member.node(), totals.forgotten_before_ms);
        } else {
            absent.remove(&member.node());
        }
    }
    proxies(&offers, asked, &absent, window)
}

/// Start of the oldest column that anybody holds for any node that is asked.
fn oldest_ms(members: &[Member], proxies: &[Proxy]) -> Option<u64> {
    let own = members.iter().filter_map(Member::totals).map(|totals| totals.oldest_ms);
    let offers = proxies.iter().flat_map(|proxy| proxy.asked.iter().chain(&proxy.spare));
    own.chain(offers.map(|(_, held)| held.oldest_ms)).min()
}

/// End of the newest column that any member holds; 0 where none says.
fn newest_ms(members: &[Member]) -> u64 {
    let newest = members.iter().filter_map(Member::totals).map(|totals| totals.newest_ms);
    newest.max().unwrap_or(0)
}

/// Takes an answer into the merge, off the runtime; why it does not fit.
async fn merged(
    mut merge: Merge,
    parts: Vec<CheckedColumns>,
) -> Result<(Merge, Option<ContributionError>), MatrixError> {
    if parts.is_empty() {
        return Ok((merge, None));
    }
    let merged = off_the_runtime_behind_the_store(move |wanted| {
        for part in parts {
            if !wanted() {
                return None;
            }
            if let Err(error) = merge.add_checked(part) {
                return Some((merge, Some(error)));
            }
        }
        Some((merge, None))
    });
    Ok(merged.await?)
}
