//! The live routes of one catalog version: immutable, shared, and complete.
//!
//! Routes are kept as two parallel arrays. The sampler and the request path share one slice of
//! [`RouteSpec`]s, so publishing a table copies nothing; the origins of routes ([`Origin`]) are
//! plain numbers in a parallel slice. A change makes the next table in one pass over both. A table
//! can only be made by replacing routes with others that cover exactly the same keys, or from a
//! list that covers the key space, so there is none with a gap or an overlap.

use std::sync::Arc;

use super::route::{Delta, DeltaKind, Kin, Origin, Route};
use crate::limits::MAX_ROUTES;
use keyviz_types::{GroupId, KeyRange, LayoutError, RouteId, RouteSpec};

/// All live routes of one catalog version, in key order. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteTable {
    version: u64,
    changed_ms: u64,
    specs: Arc<[RouteSpec]>,
    origins: Arc<[Origin]>,
    /// Positions of all routes, by ascending id.
    by_id: Arc<[u32]>,
}

/// Routes or a change that would leave a gap, an overlap or an id used twice. The table that was
/// there stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// The routes do not cover the key space exactly once.
    #[error(transparent)]
    Cover(#[from] LayoutError),
    /// A route that can hold no key.
    #[error("route {id} holds no key")]
    EmptyRange {
        /// The route.
        id: RouteId,
    },
    /// More routes than allowed.
    #[error("{count} routes exceed the limit of {MAX_ROUTES}")]
    TooMany {
        /// Routes in the table.
        count: usize,
    },
    /// Group 0 is the catalog's own.
    #[error("route {id} is in group 0, which holds no data")]
    CatalogGroup {
        /// The route.
        id: RouteId,
    },
    /// The routes say that they are from another version than the table.
    #[error("the newest route is of version {newest}, so this is not a table of version {version}")]
    WrongVersion {
        /// Version that the table claims.
        version: u64,
        /// Version of its newest route; 0 where there is none.
        newest: u64,
    },
    /// A change is missing.
    #[error("the table has version {have}, the next change makes version {found}")]
    Hole {
        /// Version of the table.
        have: u64,
        /// Version that the change makes.
        found: u64,
    },
    /// A change retires a route that is not there.
    #[error("the change to version {version} retires route {id}, which is not live")]
    NotLive {
        /// Version that the change makes.
        version: u64,
        /// The route.
        id: RouteId,
    },
    /// A change whose new routes do not cover exactly the keys of the retired ones.
    #[error("the routes created in version {version} do not take the place of the retired ones")]
    NotInPlace {
        /// Version that the change makes.
        version: u64,
    },
    /// A change that retires or creates another number of routes than its kind does.
    #[error("the change to version {version} is no {}", kind.name())]
    WrongShape {
        /// Version that the change makes.
        version: u64,
        /// What it says it is.
        kind: DeltaKind,
    },
    /// A change that moves keys to another group.
    #[error("the change to version {version} moves keys to another group")]
    GroupChanged {
        /// Version that the change makes.
        version: u64,
    },
    /// An id that was used before.
    #[error("the change to version {version} uses id {id} again")]
    IdReused {
        /// Version that the change makes.
        version: u64,
        /// The id.
        id: RouteId,
    },
    /// A route that does not bear the version, time or parents of the change that creates it.
    #[error("route {id} does not bear the marks of the change to version {version}")]
    WrongOrigin {
        /// Version that the change makes.
        version: u64,
        /// The route.
        id: RouteId,
    },
    /// A change that says it was made before the one before it.
    #[error("the change to version {version} is earlier than the one before it")]
    TimeBackwards {
        /// Version that the change makes.
        version: u64,
    },
}

impl Default for RouteTable {
    fn default() -> Self {
        RouteTable::empty()
    }
}

impl RouteTable {
    /// The table before bootstrap: version 0, no routes.
    pub fn empty() -> Self {
        RouteTable {
            version: 0,
            changed_ms: 0,
            specs: Arc::from([]),
            origins: Arc::from([]),
            by_id: Arc::from([]),
        }
    }

    /// A table from all routes of `version`, in key order.
    ///
    /// # Errors
    /// They leave a gap or overlap, an id occurs twice, or they are not of that version.
    pub fn from_routes(version: u64, routes: Vec<Route>) -> Result<Self, TableError> {
        RouteTable::from_moved(version, (0, 0), routes)
    }

    /// As [`RouteTable::from_routes`], where the newest move of a route made the version `moved.0`
    /// at the time `moved.1`: routes keep no trace of it.
    ///
    /// # Errors
    /// As [`RouteTable::from_routes`].
    pub(crate) fn from_moved(
        version: u64,
        moved: (u64, u64),
        routes: Vec<Route>,
    ) -> Result<Self, TableError> {
        let (specs, origins): (Vec<_>, Vec<_>) =
            routes.into_iter().map(|route| (route.spec, route.origin)).unzip();
        let newest = origins.iter().map(|origin| origin.created_version).max().unwrap_or(0);
        let newest = newest.max(moved.0);
        if newest != version {
            return Err(TableError::WrongVersion { version, newest });
        }
        if version == 0 {
            return Ok(RouteTable::empty());
        }
        check_specs(&specs)?;
        let changed_ms = origins.iter().map(|origin| origin.created_ms).max().unwrap_or(0);
        let changed_ms = changed_ms.max(moved.1);
        let by_id = positions_by_id(&specs)?;
        Ok(RouteTable { version, changed_ms, specs: specs.into(), origins: origins.into(), by_id })
    }

    /// Catalog version; 0 before bootstrap.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Unix time in milliseconds of the change that made this version.
    pub fn changed_ms(&self) -> u64 {
        self.changed_ms
    }

    /// Number of routes; 0 only before bootstrap.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there is no route, which is so only before bootstrap.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// All routes in key order, as the sampler takes them.
    pub fn specs(&self) -> &Arc<[RouteSpec]> {
        &self.specs
    }

    /// The route at `position` in key order.
    pub fn get(&self, position: usize) -> Option<Route> {
        let spec = self.specs.get(position)?.clone();
        Some(Route { spec, origin: self.origins[position] })
    }

    /// The origin of the route at `position`.
    pub fn origin(&self, position: usize) -> Option<&Origin> {
        self.origins.get(position)
    }

    /// All routes in key order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Route> + '_ {
        self.specs
            .iter()
            .zip(self.origins.iter())
            .map(|(spec, origin)| Route { spec: spec.clone(), origin: *origin })
    }

    /// Position of a live route.
    pub fn position(&self, id: RouteId) -> Option<usize> {
        let found = self.by_id.binary_search_by_key(&id, |&at| self.specs[at as usize].id).ok()?;
        Some(self.by_id[found] as usize)
    }

    /// A live route.
    pub fn by_id(&self, id: RouteId) -> Option<Route> {
        self.get(self.position(id)?)
    }

    /// Position of the route that holds `key`; `None` only before bootstrap.
    pub fn locate(&self, key: &[u8]) -> Option<usize> {
        self.specs.partition_point(|spec| spec.range.start.as_ref() <= key).checked_sub(1)
    }

    /// Positions of the routes that hold keys of `range`.
    pub fn overlapping(&self, range: &KeyRange) -> std::ops::Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let first = self.locate(&range.start).unwrap_or(0);
        let end = match &range.end {
            Some(end) => self.specs.partition_point(|spec| spec.range.start < end),
            None => self.specs.len(),
        };
        first..end
    }

    /// The newest id. A route that is retired leaves at least one newer, so no id that was ever
    /// given out is larger.
    pub(crate) fn newest_id(&self) -> Option<RouteId> {
        self.by_id.last().map(|&at| self.specs[at as usize].id)
    }

    /// The table after one change: one copy of the arrays.
    pub(crate) fn splice(&self, delta: &Delta) -> Result<RouteTable, TableError> {
        let head = Head::of(self);
        head.check_next(delta)?;
        let positions: Vec<usize> = delta
            .retired
            .iter()
            .map(|&id| self.position(id).ok_or(TableError::NotLive { version: delta.version, id }))
            .collect::<Result<_, _>>()?;
        let retired: Vec<&RouteSpec> = positions.iter().map(|&at| &self.specs[at]).collect();
        head.check(delta, &retired)?;
        // Neighbours in key order, as just checked; none at bootstrap, where the table is empty.
        let start = positions.first().copied().unwrap_or(0);
        let end = start + positions.len();
        let created = &delta.created;
        let count = self.len() - positions.len() + created.len();
        if count > MAX_ROUTES {
            return Err(TableError::TooMany { count });
        }
        // Slices and chains of known length are collected straight into the shared array.
        let specs = self.specs[..start].iter().cloned();
        let specs = specs.chain(created.iter().map(|route| route.spec.clone()));
        let specs = specs.chain(self.specs[end..].iter().cloned()).collect();
        let origins = self.origins[..start].iter().copied();
        let origins = origins.chain(created.iter().map(|route| route.origin));
        let origins = origins.chain(self.origins[end..].iter().copied()).collect();
        let by_id = match delta.kind {
            DeltaKind::Move => Arc::clone(&self.by_id),
            _ => self.moved_positions(start..end, created.len()),
        };
        Ok(RouteTable { version: delta.version, changed_ms: delta.time_ms, specs, origins, by_id })
    }

    /// `by_id` after the routes at `replaced` gave way to `created` newer ones.
    fn moved_positions(&self, replaced: std::ops::Range<usize>, created: usize) -> Arc<[u32]> {
        let (start, end) = (replaced.start as u32, replaced.end as u32);
        let created = created as u32;
        let kept = self.by_id.iter().filter(|at| !(start..end).contains(at));
        let moved = kept.map(|&at| if at < end { at } else { at - end + start + created });
        moved.chain(start..start + created).collect::<Vec<_>>().into()
    }

    pub(crate) fn from_checked(
        version: u64,
        changed_ms: u64,
        specs: Vec<RouteSpec>,
        origins: Vec<Origin>,
    ) -> Result<Self, TableError> {
        let by_id = positions_by_id(&specs)?;
        Ok(RouteTable { version, changed_ms, specs: specs.into(), origins: origins.into(), by_id })
    }

    pub(crate) fn origins(&self) -> &[Origin] {
        &self.origins
    }
}

/// The version and time that the next change must follow.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) version: u64,
    pub(crate) changed_ms: u64,
    newest_id: Option<RouteId>,
}

impl Head {
    pub(crate) fn of(table: &RouteTable) -> Self {
        let RouteTable { version, changed_ms, .. } = *table;
        Head { version, changed_ms, newest_id: table.newest_id() }
    }

    /// Checks that `delta` makes the next version.
    pub(crate) fn check_next(&self, delta: &Delta) -> Result<(), TableError> {
        let (have, found) = (self.version, delta.version);
        if have.checked_add(1) == Some(found) {
            Ok(())
        } else {
            Err(TableError::Hole { have, found })
        }
    }

    /// Checks that `delta`, the next, which retires `retired`, may follow, and moves on past it.
    pub(crate) fn check(
        mut self,
        delta: &Delta,
        retired: &[&RouteSpec],
    ) -> Result<Self, TableError> {
        let version = delta.version;
        if delta.time_ms < self.changed_ms {
            return Err(TableError::TimeBackwards { version });
        }
        let shape = (retired.len(), delta.created.len());
        let fits = match delta.kind {
            DeltaKind::Bootstrap => self.version == 0 && shape.0 == 0 && shape.1 > 0,
            DeltaKind::Split => shape == (1, 2),
            DeltaKind::Merge => shape == (2, 1),
            DeltaKind::Move => shape == (1, 1),
        };
        if !fits {
            return Err(TableError::WrongShape { version, kind: delta.kind });
        }
        if delta.kind == DeltaKind::Move {
            check_moved(delta, retired)?;
            return Ok(Head { version, changed_ms: delta.time_ms, ..self });
        }
        self.check_created(delta, retired)?;
        match delta.kind {
            DeltaKind::Bootstrap => check_cover(delta.created.iter().map(|route| &route.spec))?,
            DeltaKind::Split | DeltaKind::Merge | DeltaKind::Move => check_place(delta, retired)?,
        }
        Ok(Head { version, changed_ms: delta.time_ms, ..self })
    }

    fn check_created(&mut self, delta: &Delta, retired: &[&RouteSpec]) -> Result<(), TableError> {
        let version = delta.version;
        let parents = Kin::first_of(retired.iter().map(|spec| spec.id));
        let origin = Origin { parents, created_version: version, created_ms: delta.time_ms };
        for route in &delta.created {
            let id = route.id();
            if self.newest_id.is_some_and(|newest| id <= newest) {
                return Err(TableError::IdReused { version, id });
            }
            self.newest_id = Some(id);
            if route.origin != origin {
                return Err(TableError::WrongOrigin { version, id });
            }
            check_spec(&route.spec)?;
        }
        Ok(())
    }
}

/// Checks that a moved route stays the same but for its group.
fn check_moved(delta: &Delta, retired: &[&RouteSpec]) -> Result<(), TableError> {
    let version = delta.version;
    let same = |(before, after): (&&RouteSpec, &Route)| {
        before.id == after.id()
            && before.range == *after.range()
            && before.group != after.group()
            && after.origin.created_version < version
    };
    if !retired.iter().zip(&delta.created).all(same) {
        return Err(TableError::NotInPlace { version });
    }
    delta.created.iter().try_for_each(|route| check_spec(&route.spec))
}

/// Checks that the created routes of a split or merge lie exactly where the retired ones were.
fn check_place(delta: &Delta, retired: &[&RouteSpec]) -> Result<(), TableError> {
    let version = delta.version;
    let created: Vec<&RouteSpec> = delta.created.iter().map(|route| &route.spec).collect();
    let joined = |specs: &[&RouteSpec]| {
        specs.windows(2).all(|pair| pair[0].range.end.as_ref() == Some(&pair[1].range.start))
    };
    let span = |specs: &[&RouteSpec]| {
        Some((specs.first()?.range.start.clone(), specs.last()?.range.end.clone()))
    };
    if !joined(retired) || !joined(&created) || span(retired) != span(&created) {
        return Err(TableError::NotInPlace { version });
    }
    let group: Option<GroupId> = retired.first().map(|spec| spec.group);
    if retired.iter().chain(&created).any(|spec| Some(spec.group) != group) {
        return Err(TableError::GroupChanged { version });
    }
    Ok(())
}

fn check_spec(spec: &RouteSpec) -> Result<(), TableError> {
    if spec.range.is_empty() {
        return Err(TableError::EmptyRange { id: spec.id });
    }
    if spec.group == GroupId::CATALOG {
        return Err(TableError::CatalogGroup { id: spec.id });
    }
    Ok(())
}

pub(crate) fn check_specs(specs: &[RouteSpec]) -> Result<(), TableError> {
    if specs.len() > MAX_ROUTES {
        return Err(TableError::TooMany { count: specs.len() });
    }
    specs.iter().try_for_each(check_spec)?;
    check_cover(specs.iter())
}

/// Checks that the ranges cover the key space in order, without gap or overlap.
fn check_cover<'a>(specs: impl Iterator<Item = &'a RouteSpec>) -> Result<(), TableError> {
    let mut last: Option<&RouteSpec> = None;
    for spec in specs {
        match last {
            None if !spec.range.start.is_empty() => {
                return Err(LayoutError::NoStart { first: spec.id }.into());
            }
            Some(left) if left.range.end.as_ref() != Some(&spec.range.start) => {
                return Err(LayoutError::NotContiguous { left: left.id, right: spec.id }.into());
            }
            None | Some(_) => last = Some(spec),
        }
    }
    let last = last.ok_or(LayoutError::Empty)?;
    match last.range.end {
        Some(_) => Err(LayoutError::NoEnd { last: last.id }.into()),
        None => Ok(()),
    }
}

fn positions_by_id(specs: &[RouteSpec]) -> Result<Arc<[u32]>, TableError> {
    let mut positions: Vec<u32> = (0..specs.len() as u32).collect();
    positions.sort_unstable_by_key(|&at| specs[at as usize].id);
    let id = |at: u32| specs[at as usize].id;
    match positions.windows(2).find(|pair| id(pair[0]) == id(pair[1])) {
        Some(pair) => Err(LayoutError::Duplicate { id: id(pair[0]) }.into()),
        None => Ok(positions.into()),
    }
}
