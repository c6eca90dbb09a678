//! The catalog as a state machine: commands in, changes and records out.
//!
//! [`Catalog::apply`] is total and deterministic: the same commands in the same order make the same
//! catalog on every replica, and a command that cannot be applied is refused with a typed reason
//! and changes nothing. Two numbers carry the guarantees. `version` grows by one with every change,
//! so a watcher can detect a gap. Route ids are given out in order and never again, so that an id
//! in a year-old column still names one range in one span of time.
//!
//! Time comes with the command, from the clock of the leader that proposed it. Leaders change and
//! clocks disagree, so a change bears the later of its own time and the time of the change before
//! it: history never runs backwards, and no change is refused for a slow clock.

use std::sync::Arc;

use bytes::Bytes;

use super::command::CatalogCommand;
use super::error::{CatalogError, check_boundary};
use super::records::{self, RecordChange};
use crate::journal::entry::Journal;
use crate::limits::{MAX_BOUNDARY_BYTES, MAX_REQUEST_ID_BYTES, MAX_ROUTES, MAX_TIME_MS, Retention};
use crate::members::cluster::{ClusterId, ClusterRecord, GroupPlacement, check_placement};
use crate::members::disks::{DiskCommand, DiskError, Disks};
use crate::members::placement::{PlaceCommand, PlaceError, Placement};
use crate::members::plan::group_of_route;
use crate::moves::record::RouteMoves;
use crate::routes::lineage::Lineage;
use crate::routes::log::{Changes, ChangesError, DeltaLog};
use crate::routes::requests::{Requests, Served};
use crate::routes::route::{Delta, DeltaKind, Kin, Origin, Retired, Route};
use crate::routes::table::RouteTable;
use keyviz_types::{GroupId, KeyRange, RouteId, RouteSpec};

/// Live routes that a refusal names in place of a retired one.
pub const MAX_SUCCESSORS: usize = 8;

/// A command that was carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The change.
    pub delta: Arc<Delta>,
    /// The same request made the change before; now nothing happened.
    pub replayed: bool,
    /// Records to write, atomically with the applied log position. Empty for a replay.
    pub records: Vec<RecordChange>,
}

/// Routes, their history, and the cluster that they are in.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(crate) retention: Retention,
    pub(crate) cluster: Option<Arc<ClusterRecord>>,
    pub(crate) placement: Arc<Placement>,
    pub(crate) disks: Arc<Disks>,
    pub(crate) moves: Arc<RouteMoves>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) table: RouteTable,
    /// Sum of the lengths of all start keys.
    pub(crate) boundary_bytes: usize,
    pub(crate) log: DeltaLog,
    pub(crate) requests: Requests,
    pub(crate) lineage: Lineage,
}

/// Identifies a split or merge among retries.
#[derive(Clone, Copy)]
enum Change<'a> {
    Split { route_id: RouteId, key: &'a [u8] },
    Merge { left_id: RouteId, right_id: RouteId },
}

impl Change<'_> {
    fn made(&self, delta: &Delta) -> bool {
        match *self {
            Change::Split { route_id, key } => {
                delta.kind == DeltaKind::Split
                    && delta.retired == [route_id]
                    && delta.created.last().is_some_and(|right| right.range().start == key)
            }
            Change::Merge { left_id, right_id } => {
                delta.kind == DeltaKind::Merge && delta.retired == [left_id, right_id]
            }
        }
    }
}

struct ChangeRequest<'a> {
    change: Change<'a>,
    expected_version: u64,
    request_id: &'a str,
    time_ms: u64,
}

impl Default for Catalog {
    fn default() -> Self {
        Catalog::new(Retention::DEFAULT)
    }
}

impl Catalog {
    /// A catalog before bootstrap. `retention` must be the same on every replica.
    pub fn new(retention: Retention) -> Self {
        Catalog {
            retention,
            cluster: None,
            placement: Arc::default(),
            disks: Arc::default(),
            moves: Arc::default(),
            journal: Arc::default(),
            table: RouteTable::empty(),
            boundary_bytes: 0,
            log: DeltaLog::default(),
            requests: Requests::default(),
            lineage: Lineage::default(),
        }
    }

    /// Catalog version; 0 before bootstrap.
    pub fn version(&self) -> u64 {
        self.table.version()
    }

    /// What bootstrap fixed; `None` before it.
    pub fn cluster(&self) -> Option<&Arc<ClusterRecord>> {
        self.cluster.as_ref()
    }

    /// Who holds which group; nobody before bootstrap.
    pub fn placement(&self) -> &Arc<Placement> {
        &self.placement
    }

    /// The disk of each member, as far as they are recorded.
    pub fn disks(&self) -> &Arc<Disks> {
        &self.disks
    }

    /// Records the disk of a member, or refuses and changes nothing; the record to write.
    ///
    /// # Errors
    /// Every reason that it can be refused for.
    pub fn record_disk(&mut self, command: &DiskCommand) -> Result<RecordChange, DiskError> {
        if self.cluster.is_none() {
            return Err(DiskError::NotBootstrapped);
        }
        self.disks = Arc::new(self.disks.after(command, &self.placement)?);
        Ok(records::put_disks(&self.disks))
    }

    /// Changes the placement, or refuses and changes nothing; the record to write.
    ///
    /// # Errors
    /// Every reason that a change can be refused for.
    pub fn place(&mut self, command: &PlaceCommand) -> Result<RecordChange, PlaceError> {
        if self.cluster.is_none() {
            return Err(PlaceError::NotBootstrapped);
        }
        self.placement = Arc::new(self.placement.after(command)?);
        Ok(records::put_placement(&self.placement))
    }

    /// The live routes.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// A route that was split or merged away, while its ancestry is remembered.
    pub fn retired(&self, id: RouteId) -> Option<&Retired> {
        self.lineage.get(id)
    }

    /// All remembered retired routes in order of retirement, siblings in key order.
    pub fn lineage(&self) -> impl Iterator<Item = &Retired> {
        self.lineage.iter()
    }

    /// Remembered routes that were retired at `time_ms` or later, in order of retirement.
    pub fn retired_from(&self, time_ms: u64) -> impl Iterator<Item = &Retired> {
        self.lineage.retired_from(time_ms)
    }

    /// The retained changes, oldest first, without a hole; the newest made this version.
    pub fn log(&self) -> impl ExactSizeIterator<Item = &Arc<Delta>> {
        self.log.iter()
    }

    /// The changes after `cursor`, or the whole table where they are not retained (always so for
    /// cursor 0).
    ///
    /// # Errors
    /// The cursor is ahead of the catalog, or the retained changes have a gap.
    pub fn changes_since(&self, cursor: u64) -> Result<Changes, ChangesError> {
        let version = self.version();
        if cursor > version {
            return Err(ChangesError::CursorAhead { cursor, version });
        }
        if cursor == version {
            return Ok(Changes::Deltas(Vec::new()));
        }
        if cursor == 0 || !self.log.reaches(cursor) {
            return Ok(Changes::Snapshot(self.table.clone()));
        }
        self.log.since(cursor, version).map(Changes::Deltas)
    }

    /// Applies a command, or refuses it and changes nothing.
    ///
    /// # Errors
    /// Every reason that a command can be refused for.
    pub fn apply(&mut self, command: CatalogCommand) -> Result<Applied, CatalogError> {
        match command {
            CatalogCommand::Bootstrap { cluster_id, groups, split_keys, time_ms } => {
                self.bootstrap(cluster_id, groups, &split_keys, time_ms)
            }
            CatalogCommand::Split { route_id, key, expected_version, request_id, time_ms } => {
                let change = Change::Split { route_id, key: &key };
                self.change(ChangeRequest {
                    change,
                    expected_version,
                    request_id: &request_id,
                    time_ms,
                })
            }
            CatalogCommand::Merge { left_id, right_id, expected_version, request_id, time_ms } => {
                let change = Change::Merge { left_id, right_id };
                self.change(ChangeRequest {
                    change,
                    expected_version,
                    request_id: &request_id,
                    time_ms,
                })
            }
        }
    }

    fn bootstrap(
        &mut self,
        cluster_id: ClusterId,
        groups: Vec<GroupPlacement>,
        split_keys: &[Vec<u8>],
        time_ms: u64,
    ) -> Result<Applied, CatalogError> {
        if let Some(cluster) = &self.cluster {
            return Err(CatalogError::AlreadyBootstrapped { cluster_id: cluster.cluster_id });
        }
        check_time(time_ms)?;
        check_placement(&groups)?;
        check_split_keys(split_keys)?;
        let delta = Delta {
            version: 1,
            kind: DeltaKind::Bootstrap,
            time_ms,
            retired: Vec::new(),
            created: first_routes(split_keys, groups.len(), time_ms),
        };
        let cluster = ClusterRecord { cluster_id, created_ms: time_ms, groups };
        let mut records = vec![records::put_cluster(&cluster)];
        self.placement = Arc::new(Placement::of(&cluster));
        self.cluster = Some(Arc::new(cluster));
        let delta = Arc::new(delta);
        self.advance(&delta, &mut records);
        Ok(Applied { delta, replayed: false, records })
    }

    fn change(&mut self, request: ChangeRequest<'_>) -> Result<Applied, CatalogError> {
        if self.cluster.is_none() {
            return Err(CatalogError::NotBootstrapped);
        }
        if request.request_id.len() > MAX_REQUEST_ID_BYTES {
            return Err(CatalogError::RequestIdTooLong { len: request.request_id.len() as u64 });
        }
        // Before every other check: what a retry names is retired by its first delivery.
        if let Some(delta) = self.requests.find(request.request_id) {
            if !request.change.made(delta) {
                return Err(CatalogError::RequestIdReused { version: delta.version });
            }
            return Ok(Applied { delta: delta.clone(), replayed: true, records: Vec::new() });
        }
        let current = self.version();
        if request.expected_version != 0 && request.expected_version != current {
            let expected = request.expected_version;
            return Err(CatalogError::WrongVersion { expected, current });
        }
        check_time(request.time_ms)?;
        let delta = match request.change {
            Change::Split { route_id, key } => {
                self.check_held(route_id)?;
                self.split(route_id, key, request.time_ms)?
            }
            Change::Merge { left_id, right_id } => {
                self.check_held(left_id)?;
                self.check_held(right_id)?;
                self.merge(left_id, right_id, request.time_ms)?
            }
        };
        let delta = Arc::new(delta);
        let mut applied = self.commit(Arc::clone(&delta), request.request_id);
        self.enter_change(&delta, request.request_id, &mut applied.records);
        Ok(applied)
    }

    /// A live route, or the reason why there is none of that id.
    pub(crate) fn live(&self, route_id: RouteId) -> Result<&RouteSpec, CatalogError> {
        if let Some(at) = self.table.position(route_id) {
            return Ok(&self.table.specs()[at]);
        }
        if self.table.newest_id().is_none_or(|newest| route_id > newest) {
            return Err(CatalogError::UnknownRoute { route_id });
        }
        let range = self.lineage.get(route_id).map(|retired| retired.route.range());
        let heirs = range.map_or(0..0, |range| self.table.overlapping(range));
        let more = heirs.len().saturating_sub(MAX_SUCCESSORS) as u64;
        let specs = &self.table.specs()[heirs];
        let successors = specs.iter().take(MAX_SUCCESSORS).map(|spec| spec.id).collect();
        Err(CatalogError::RetiredRoute { route_id, successors, more })
    }

    /// The change that puts routes over `ranges` in the place of `retired`.
    pub(crate) fn replace(
        &self,
        kind: DeltaKind,
        retired: &[&RouteSpec],
        ranges: Vec<KeyRange>,
        time_ms: u64,
    ) -> Result<Delta, CatalogError> {
        let version = self.version().checked_add(1).ok_or(CatalogError::Exhausted)?;
        let time_ms = time_ms.max(self.table.changed_ms());
        let parents = Kin::first_of(retired.iter().map(|spec| spec.id));
        let origin = Origin { parents, created_version: version, created_ms: time_ms };
        let group = retired.first().map_or(GroupId(1), |spec| spec.group);
        let mut newest = self.table.newest_id();
        let created = ranges.into_iter().map(|range| {
            let id = next_id(newest)?;
            newest = Some(id);
            Ok(Route { spec: RouteSpec { id, range, group }, origin })
        });
        let created = created.collect::<Result<_, CatalogError>>()?;
        let retired = retired.iter().map(|spec| spec.id).collect();
        Ok(Delta { version, kind, time_ms, retired, created })
    }

    pub(crate) fn commit(&mut self, delta: Arc<Delta>, request_id: &str) -> Applied {
        let mut records = Vec::new();
        // A route that moves goes on under its id.
        if delta.kind != DeltaKind::Move {
            self.retire(&delta, &mut records);
        }
        self.advance(&delta, &mut records);
        records.push(records::put_delta(&delta));
        let unretained = self.log.push(delta.clone(), self.retention.deltas);
        records.extend(unretained.into_iter().map(records::delete_delta));
        if !request_id.is_empty() {
            let served = Served { request_id: request_id.to_owned(), delta: delta.clone() };
            records.push(records::put_request(&served));
            let forgotten = self.requests.push(served, self.retention.requests);
            records.extend(forgotten.into_iter().map(records::delete_request));
        }
        Applied { delta, replayed: false, records }
    }

    /// Moves the routes that `delta` retires from the live ones to the lineage.
    fn retire(&mut self, delta: &Delta, records: &mut Vec<RecordChange>) {
        let children = Kin::first_of(delta.created.iter().map(Route::id));
        for &id in &delta.retired {
            let Some(route) = self.table.by_id(id) else { continue };
            records.push(records::delete_route(id));
            let retired = Retired {
                route,
                retired_version: delta.version,
                retired_ms: delta.time_ms,
                children,
            };
            records.push(records::put_retired(&retired));
            let forgotten = self.lineage.push(retired, &self.retention);
            records.extend(forgotten.into_iter().map(records::delete_retired));
        }
    }

    /// Replaces the table by the next one.
    fn advance(&mut self, delta: &Delta, records: &mut Vec<RecordChange>) {
        let removed: usize = delta
            .retired
            .iter()
            .filter_map(|&id| self.table.position(id))
            .map(|at| self.table.specs()[at].range.start.len())
            .sum();
        let added: usize = delta.created.iter().map(|route| route.range().start.len()).sum();
        let next = self.table.advance([delta]);
        self.table = next.expect("the change was made from routes of this table");
        self.boundary_bytes = self.boundary_bytes + added - removed;
        records.extend(delta.created.iter().map(records::put_route));
        records.push(records::put_meta(&self.table));
    }
}

fn next_id(newest: Option<RouteId>) -> Result<RouteId, CatalogError> {
    let Some(newest) = newest else { return Ok(RouteId::FIRST) };
    newest.get().checked_add(1).and_then(RouteId::new).ok_or(CatalogError::Exhausted)
}

pub(crate) fn check_time(time_ms: u64) -> Result<(), CatalogError> {
    if time_ms > MAX_TIME_MS { Err(CatalogError::TimeOutOfRange { time_ms }) } else { Ok(()) }
}

fn check_split_keys(split_keys: &[Vec<u8>]) -> Result<(), CatalogError> {
    if split_keys.len() >= MAX_ROUTES {
        return Err(CatalogError::TooManyRoutes);
    }
    split_keys.iter().try_for_each(|key| check_boundary(key))?;
    if let Some(at) = split_keys.windows(2).position(|pair| pair[0] >= pair[1]) {
        return Err(CatalogError::SplitKeysOrder { index: at as u64 + 1 });
    }
    if split_keys.iter().map(Vec::len).sum::<usize>() > MAX_BOUNDARY_BYTES {
        return Err(CatalogError::TooManyBoundaryBytes);
    }
    Ok(())
}

fn first_routes(split_keys: &[Vec<u8>], groups: usize, time_ms: u64) -> Vec<Route> {
    let keys: Vec<Bytes> = split_keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
    let starts = std::iter::once(Bytes::new()).chain(keys.iter().cloned());
    let ends = keys.iter().cloned().map(Some).chain([None]);
    let origin = Origin { parents: Kin::NONE, created_version: 1, created_ms: time_ms };
    let ids = (RouteId::FIRST.get()..).filter_map(RouteId::new);
    starts
        .zip(ends)
        .zip(ids)
        .enumerate()
        .map(|(index, ((start, end), id))| {
            let range = KeyRange { start, end };
            Route { spec: RouteSpec { id, range, group: group_of_route(index, groups) }, origin }
        })
        .collect()
}
