//! The rows of a matrix: one key axis for all nodes, planned from the catalog's routes and what
//! each node carried.
//!
//! Today's routes are the axis, so that what retired routes counted lands on their descendants.
//! Where nodes measured finer, and the budget of rows allows, a route has several rows; over the
//! budget neighbouring cold routes share one. A row is therefore a part of one route, a route, or
//! several whole routes. See [`super::budget`] for what may be joined.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::axis::RowAxis;
use super::budget::fit;
use super::density::{Density, RangeTotal};
use super::totals::NodeTotals;
use super::{DEFAULT_ROWS, MAX_ROWS};
use keyviz_types::{GroupId, KeyRange, RouteId, RouteSpec};

/// Most route ids that a row names when no other number is given; its count is always exact.
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
    /// Several neighbouring routes.
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
    /// What it is.
    pub kind: RowKind,
    /// The routes in key order, at most as many as asked for.
    pub route_ids: Vec<RouteId>,
    /// Exact number of routes.
    pub route_count: u64,
    /// The group of all its routes; `None` where they have several.
    pub group: Option<GroupId>,
    /// What the nodes say they carried in it.
    pub weight: u64,
}

/// The rows of an answer, in key order, covering the range asked for without gap or overlap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowPlan {
    catalog_version: u64,
    rows: Vec<PlannedRow>,
    cut: u64,
}

/// What to plan rows for.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// All routes of the newest catalog that the asker knows, in key order, without gap.
    pub routes: &'a [RouteSpec],
    /// Version of that catalog.
    pub catalog_version: u64,
    /// Keys asked for.
    pub range: &'a KeyRange,
    /// Most rows; 0: [`DEFAULT_ROWS`].
    pub max_rows: usize,
    /// Most route ids that a row names.
    pub max_route_ids: usize,
}

/// Rows that cannot be planned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// More rows asked for than are served.
    #[error("{rows} rows asked for, at most {MAX_ROWS} are served")]
    TooManyRows {
        /// Asked for.
        rows: usize,
    },
    /// A range that holds no key.
    #[error("the range asked for ends before it starts")]
    EmptyRange,
    /// The routes have a gap or an overlap, or end before the range asked for does.
    #[error("the routes do not cover the keys after route {after}")]
    Gap {
        /// The route before the fault.
        after: RouteId,
    },
    /// Nodes carried load, but the asker knows no route yet.
    #[error("there is load in the window but no route is known yet")]
    NoRoutes,
}

impl RowPlan {
    /// Version of the catalog whose routes the rows are.
    pub fn catalog_version(&self) -> u64 {
        self.catalog_version
    }

    /// The rows in key order; none before there is a catalog.
    pub fn rows(&self) -> &[PlannedRow] {
        &self.rows
    }

    /// No row of several routes or parts carries more than this.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// What nodes need of it for round two.
    pub fn axis(&self) -> RowAxis {
        let starts = self.rows.iter().map(|row| row.range.start.clone()).collect();
        let end = self.rows.last().and_then(|row| row.range.end.clone());
        let weights = self.rows.iter().map(|row| row.weight).collect();
        RowAxis::new(starts, end, weights).expect("rows are planned in order and within the limit")
    }
}

/// Plans rows from the routes and the (checked) totals of all nodes that answered; the order of
/// `totals` does not matter, and one node's totals given twice only weigh twice.
pub fn plan(request: &PlanRequest<'_>, totals: &[NodeTotals]) -> Result<RowPlan, PlanError> {
    let PlanRequest { routes, catalog_version, range, max_rows, max_route_ids } = *request;
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
            Ok(RowPlan { catalog_version, rows, cut: 0 })
        } else {
            Err(PlanError::NoRoutes)
        };
    };
    let density = density(routes, range, totals);
    let atoms = atoms(&density, routes);
    let units: Vec<usize> = (0..atoms.len()).filter(|&atom| atoms[atom].opens_unit).collect();
    let weights: Vec<u64> = atoms.iter().map(|atom| atom.weight).collect();
    let (intervals, cut) = fit(&weights, &units, budget);
    let mut rows: Vec<PlannedRow> = Vec::with_capacity(intervals.len());
    for (from, to) in intervals {
        let (first, last) = (&atoms[from], &atoms[to - 1]);
        let keys = KeyRange {
            start: density.starts[first.cells.0].clone(),
            end: density.cell_end(last.cells.1 - 1).cloned(),
        };
        let members = &routes[first.routes.0..last.routes.1];
        rows.push(PlannedRow {
            kind: kind(members, &keys, range, rows.last()),
            range: keys,
            route_ids: members.iter().take(max_route_ids).map(|route| route.id).collect(),
            route_count: members.len() as u64,
            group: single_group(members),
            weight: weights[from..to].iter().fold(0, |sum, weight| sum.saturating_add(*weight)),
        });
    }
    Ok(RowPlan { catalog_version, rows, cut })
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

/// The load of all nodes over the boundaries of the routes and those that nodes learned.
fn density(routes: &[RouteSpec], range: &KeyRange, totals: &[NodeTotals]) -> Density {
    let mut base: Vec<Bytes> = routes.iter().map(|route| route.range.start.clone()).collect();
    base[0] = range.start.clone();
    let lists: Vec<&[RangeTotal]> = totals.iter().map(|totals| &totals.ranges[..]).collect();
    Density::new(base, range.end.clone(), &lists)
}

/// What rows are made of: a cell, or the cells of several routes of which no node knows the
/// boundaries.
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

/// Whether the route that cell `cell` opens joins the atom before it: nobody measured the boundary,
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
    // A route that the edge of the range asked for cuts is still shown as that route.
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
