//! Plans the rows of a matrix: one key axis for all nodes, from the routes of the catalog and the
//! load that each node counted.
//!
//! Rows follow the routes of the request, usually today's, so the counts of retired routes appear
//! at their descendants. A route has several rows if nodes resolved it finer and the row budget
//! allows it; over the budget, neighbouring cold routes share a row. A row is therefore a part of
//! one route, a route, or several whole routes. See [`super::budget`] for what may be joined.
//!
//! A query may bring its own boundaries. The rows are then the ranges between them, whatever the
//! routes are, and [`RowPlan::gain`] says how much more detail newly planned rows would show.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::axis::RowAxis;
use super::budget::{fit, snapped};
use super::density::{Density, RangeTotal};
use super::totals::NodeTotals;
use super::{DEFAULT_ROWS, MAX_BOUNDARIES, MAX_ROWS};
use keyviz_types::{GroupId, KeyRange, RouteId, RouteSpec};

/// The maximum number of route ids that a row lists by default. The count of its routes is always
/// exact.
pub const DEFAULT_ROW_ROUTE_IDS: usize = 256;

/// What a row is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RowKind {
    /// One route.
    Route(RouteId),
    /// A part of a route.
    SubRange {
        /// The route.
        route: RouteId,
        /// Position among the rows of the route in this plan, from 0.
        index: u32,
    },
    /// Several neighbouring routes or, on boundaries of the query, parts of them.
    Virtual {
        /// The first of them in key order.
        first: RouteId,
        /// A digest of all their ids.
        digest: u64,
    },
}

impl RowKind {
    /// `route:<id>`, `route:<id>#<n>` or `virtual:<first id>-<hash>`.
    pub fn bucket_id(&self) -> String {
        match self {
            RowKind::Route(route) => format!("route:{route}"),
            RowKind::SubRange { route, index } => format!("route:{route}#{index}"),
            RowKind::Virtual { first, digest } => format!("virtual:{first}-{digest:016x}"),
        }
    }
}

/// One planned row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedRow {
    /// Keys.
    pub range: KeyRange,
    /// Whether it is a route, a part of one, or several.
    pub kind: RowKind,
    /// Its routes in key order, at most [`PlanRequest::max_route_ids`] of them.
    pub route_ids: Vec<RouteId>,
    /// Exact number of routes.
    pub route_count: u64,
    /// The group of all its routes; `None` where they have several.
    pub group: Option<GroupId>,
    /// The load that the nodes reported for it.
    pub weight: u64,
}

/// The rows of a matrix, in key order, covering the queried range without gap or overlap.
#[derive(Clone, PartialEq, Debug)]
pub struct RowPlan {
    catalog_version: u64,
    rows: Vec<PlannedRow>,
    cut: u64,
    gain: Option<f64>,
}

/// What to plan rows for, beside the totals.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// All routes of one catalog version, in key order, without gap.
    pub routes: &'a [RouteSpec],
    /// That version.
    pub catalog_version: u64,
    /// The queried keys.
    pub range: &'a KeyRange,
    /// The row budget; 0: [`DEFAULT_ROWS`].
    pub max_rows: usize,
    /// The maximum number of route ids that a row lists.
    pub max_route_ids: usize,
    /// The boundaries that the query brings, checked by [`check_boundaries`]; `None`: plan rows.
    pub boundaries: Option<&'a [Bytes]>,
}

/// Why rows cannot be planned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// More than [`MAX_ROWS`] rows.
    #[error("{rows} rows asked for, at most {MAX_ROWS} are served")]
    TooManyRows {
        /// Asked for.
        rows: usize,
    },
    /// A range that contains no key.
    #[error("the range asked for ends before it starts")]
    EmptyRange,
    /// More than [`MAX_BOUNDARIES`] boundaries.
    #[error("{boundaries} boundaries given, at most {MAX_BOUNDARIES} are taken")]
    TooManyBoundaries {
        /// Given.
        boundaries: usize,
    },
    /// A boundary that is not after the one before it.
    #[error("boundary {index} is not after the one before it; give each key once, ascending")]
    BoundaryOrder {
        /// Its index, from 0.
        index: usize,
    },
    /// A boundary outside the queried range.
    #[error("boundary {index} is outside the key range asked for")]
    BoundaryOutside {
        /// Its index, from 0.
        index: usize,
    },
    /// The routes have a gap or an overlap, or end before the queried range does.
    #[error("the routes do not cover the keys after route {after}")]
    Gap {
        /// The route before the fault.
        after: RouteId,
    },
    /// Nodes reported load, but no route is known yet.
    #[error("there is load in the window but no route is known yet")]
    NoRoutes,
}

impl RowPlan {
    /// Version of the catalog that the routes come from.
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version
    }

    /// The rows in key order; none if the catalog has no routes yet.
    pub fn rows(&self) -> &[PlannedRow] {
        &self.rows
    }

    /// The maximum load of a row that joins several routes or parts.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// For rows on boundaries of the query: the effective number of newly planned rows divided by
    /// that of these rows, at least 1. The effective number is the inverse of Simpson's index
    /// (Measurement of Diversity, 1949): the number of equally loaded rows among which two random
    /// operations share a row as often as among the actual ones. `None`: the rows were planned.
    pub fn gain(&self) -> Option<f64> {
        self.gain
    }

    /// The row axis, which nodes need in round two.
    pub fn axis(&self) -> RowAxis {
        let starts = self.rows.iter().map(|row| row.range.start.clone()).collect();
        let end = self.rows.last().and_then(|row| row.range.end.clone());
        let weights = self.rows.iter().map(|row| row.weight).collect();
        RowAxis::new(starts, end, weights).expect("rows are planned in order and within the limit")
    }
}

/// Plans rows from the routes and the totals of all nodes that answered, which must have passed
/// [`NodeTotals::check`]. The order of `totals` does not matter; totals given twice weigh twice.
///
/// # Errors
/// More rows than allowed, an empty range, invalid boundaries, or routes that do not cover the
/// range.
pub fn plan(request: &PlanRequest<'_>, totals: &[NodeTotals]) -> Result<RowPlan, PlanError> {
    let PlanRequest { routes, catalog_version, range, max_rows, .. } = *request;
    if max_rows > MAX_ROWS {
        return Err(PlanError::TooManyRows { rows: max_rows });
    }
    if range.is_empty() {
        return Err(PlanError::EmptyRange);
    }
    let budget = if max_rows == 0 { DEFAULT_ROWS } else { max_rows };
    let Some(routes) = covering(routes, range)? else {
        let idle = totals.iter().all(|totals| totals.ranges.is_empty());
        let rows = Vec::new();
        return if idle {
            Ok(RowPlan { catalog_version, rows, cut: 0, gain: None })
        } else {
            Err(PlanError::NoRoutes)
        };
    };
    let density = density(routes, range, totals, &[]);
    let atoms = atoms(&density, routes);
    let units: Vec<usize> = (0..atoms.len()).filter(|&atom| atoms[atom].opens_unit).collect();
    let weights: Vec<u64> = atoms.iter().map(|atom| atom.weight).collect();
    let (intervals, cut) = fit(&weights, &units, budget);
    let cuts: Vec<u64> = atoms.iter().map(|atom| density.cuts[atom.cells.0]).collect();
    let (intervals, cut) = snapped(intervals, &weights, &units, &cuts, cut);
    let planned = |&(from, to): &(usize, usize)| {
        let (first, last) = (&atoms[from], &atoms[to - 1]);
        let keys = KeyRange {
            start: density.starts[first.cells.0].clone(),
            end: density.cell_end(last.cells.1 - 1).cloned(),
        };
        Cut {
            keys,
            members: &routes[first.routes.0..last.routes.1],
            weight: sum(&weights[from..to]),
        }
    };
    let fresh: Vec<Cut<'_>> = intervals.iter().map(planned).collect();
    let Some(boundaries) = request.boundaries else {
        return Ok(RowPlan { catalog_version, rows: rows(request, fresh), cut, gain: None });
    };
    let given = given(request, routes, boundaries, totals)?;
    let gain = (effective_rows(&fresh) / effective_rows(&given)).max(1.0);
    Ok(RowPlan { catalog_version, rows: rows(request, given), cut, gain: Some(gain) })
}

/// A key range that becomes a row.
struct Cut<'a> {
    keys: KeyRange,
    members: &'a [RouteSpec],
    weight: u64,
}

fn rows(request: &PlanRequest<'_>, cuts: Vec<Cut<'_>>) -> Vec<PlannedRow> {
    let mut rows: Vec<PlannedRow> = Vec::with_capacity(cuts.len());
    for Cut { keys, members, weight } in cuts {
        rows.push(PlannedRow {
            kind: kind(members, &keys, request.range, rows.last()),
            range: keys,
            route_ids: members.iter().take(request.max_route_ids).map(|route| route.id).collect(),
            route_count: members.len() as u64,
            group: single_group(members),
            weight,
        });
    }
    rows
}

fn sum(weights: &[u64]) -> u64 {
    weights.iter().fold(0, |sum, weight| sum.saturating_add(*weight))
}

/// The effective number of rows: see [`RowPlan::gain`].
fn effective_rows(cuts: &[Cut<'_>]) -> f64 {
    let total: f64 = cuts.iter().map(|cut| cut.weight as f64).sum();
    let meet: f64 = cuts.iter().map(|cut| (cut.weight as f64 / total).powi(2)).sum();
    if total > 0.0 { 1.0 / meet } else { 1.0 }
}

/// The ranges between the boundaries of the query.
fn given<'a>(
    request: &PlanRequest<'_>,
    routes: &'a [RouteSpec],
    boundaries: &[Bytes],
    totals: &[NodeTotals],
) -> Result<Vec<Cut<'a>>, PlanError> {
    let range = request.range;
    check_boundaries(range, boundaries)?;
    let is_inner = |key: &&Bytes| **key > range.start && Some(*key) != range.end.as_ref();
    let inner: Vec<Bytes> = boundaries.iter().filter(is_inner).cloned().collect();
    let density = density(routes, range, totals, &inner);
    let starts = std::iter::once(&range.start).chain(&inner);
    let ends = inner.iter().map(Some).chain([range.end.as_ref()]);
    let mut cell = 0;
    let cut = |(start, end): (&Bytes, Option<&Bytes>)| {
        let before_end = |key: &Bytes| end.is_none_or(|end| key < end);
        let first_cell = cell;
        cell += density.starts[cell..].partition_point(|key| before_end(key));
        let first = routes.partition_point(|route| route.range.start <= *start) - 1;
        let last = routes.partition_point(|route| before_end(&route.range.start));
        Cut {
            keys: KeyRange { start: start.clone(), end: end.cloned() },
            members: &routes[first..last],
            weight: sum(&density.weights[first_cell..cell]),
        }
    };
    Ok(starts.zip(ends).map(cut).collect())
}

/// Checks the boundaries that a query brings for `range`.
///
/// # Errors
/// Too many, not ascending, or outside the range. Its first key and its end may be among them.
pub fn check_boundaries(range: &KeyRange, boundaries: &[Bytes]) -> Result<(), PlanError> {
    if boundaries.len() > MAX_BOUNDARIES {
        return Err(PlanError::TooManyBoundaries { boundaries: boundaries.len() });
    }
    if let Some(index) = boundaries.windows(2).position(|pair| pair[0] >= pair[1]) {
        return Err(PlanError::BoundaryOrder { index: index + 1 });
    }
    let is_outside =
        |key: &Bytes| *key < range.start || range.end.as_ref().is_some_and(|end| key > end);
    match boundaries.iter().position(is_outside) {
        Some(index) => Err(PlanError::BoundaryOutside { index }),
        None => Ok(()),
    }
}

/// The routes that share keys with `range`, after a check that they cover it; `None` without any
/// routes.
fn covering<'a>(
    routes: &'a [RouteSpec],
    range: &KeyRange,
) -> Result<Option<&'a [RouteSpec]>, PlanError> {
    let Some(last) = routes.last() else { return Ok(None) };
    let gap = routes.windows(2).find(|pair| {
        pair[0].range.is_empty() || pair[0].range.end.as_ref() != Some(&pair[1].range.start)
    });
    if let Some(pair) = gap {
        return Err(PlanError::Gap { after: pair[0].id });
    }
    let ends_early = match (&last.range.end, &range.end) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(end), Some(asked)) => end < asked,
    };
    if ends_early || routes[0].range.start > range.start {
        return Err(PlanError::Gap { after: last.id });
    }
    let from = routes.partition_point(|route| route.range.start <= range.start) - 1;
    let to = match &range.end {
        None => routes.len(),
        Some(end) => routes.partition_point(|route| route.range.start < *end),
    };
    Ok(Some(&routes[from..to]))
}

/// The load of all nodes, between the boundaries of the routes, those that nodes learned, and
/// `given`.
fn density(
    routes: &[RouteSpec],
    range: &KeyRange,
    totals: &[NodeTotals],
    given: &[Bytes],
) -> Density {
    let mut base: Vec<Bytes> = routes.iter().map(|route| route.range.start.clone()).collect();
    base[0] = range.start.clone();
    if !given.is_empty() {
        base.extend_from_slice(given);
        base.sort();
        base.dedup();
    }
    let lists: Vec<&[RangeTotal]> = totals.iter().map(|totals| &totals.ranges[..]).collect();
    Density::new(base, range.end.clone(), &lists)
}

/// The unit of row planning: a cell, or the cells of several whole routes whose boundaries no node
/// resolved.
struct Atom {
    cells: (usize, usize),
    routes: (usize, usize),
    weight: u64,
    opens_unit: bool,
}

fn atoms(density: &Density, routes: &[RouteSpec]) -> Vec<Atom> {
    let mut atoms: Vec<Atom> = Vec::with_capacity(density.starts.len());
    let mut route = 0;
    for cell in 0..density.starts.len() {
        let start = &density.starts[cell];
        let opens_route = routes.get(route + 1).is_some_and(|next| next.range.start == *start);
        if opens_route {
            route += 1;
        }
        let weight = density.weights[cell];
        match atoms.last_mut() {
            Some(atom) if opens_route && joins(density, routes, atom, cell, route) => {
                atom.cells.1 = cell + 1;
                atom.routes.1 = route + 1;
                atom.weight = atom.weight.saturating_add(weight);
            }
            _ => atoms.push(Atom {
                cells: (cell, cell + 1),
                routes: (route, route + 1),
                weight,
                opens_unit: opens_route || cell == 0,
            }),
        }
    }
    atoms
}

/// Whether the route that begins at `cell` joins the atom before it: no node resolved the boundary,
/// and both sides are whole routes.
fn joins(density: &Density, routes: &[RouteSpec], atom: &Atom, cell: usize, route: usize) -> bool {
    let ends_route = |cell: usize, route: usize| match routes.get(route + 1) {
        None => cell + 1 == density.starts.len(),
        Some(next) => density.starts.get(cell + 1) == Some(&next.range.start),
    };
    density.unmeasured[cell] && atom.opens_unit && ends_route(cell, route)
}

fn kind(
    members: &[RouteSpec],
    keys: &KeyRange,
    asked: &KeyRange,
    before: Option<&PlannedRow>,
) -> RowKind {
    let first = members[0].id;
    if members.len() > 1 {
        let mut hasher = Xxh3::new();
        members.iter().for_each(|route| hasher.update(&route.id.get().to_le_bytes()));
        return RowKind::Virtual { first, digest: hasher.digest() };
    }
    // A route that the edge of the queried range cuts is still shown as that route.
    let route = &members[0].range;
    let starts = keys.start == route.start || keys.start == asked.start;
    if starts && (keys.end == route.end || keys.end == asked.end) {
        return RowKind::Route(first);
    }
    let index = match before.map(|row| row.kind) {
        Some(RowKind::SubRange { route, index }) if route == first => index + 1,
        _ => 0,
    };
    RowKind::SubRange { route: first, index }
}

fn single_group(members: &[RouteSpec]) -> Option<GroupId> {
    let group = members[0].group;
    members.iter().all(|route| route.group == group).then_some(group)
}
