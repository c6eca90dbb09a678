//! Resolution: which routes get a slot of their own, which share one, and which get several.
//!
//! A plan is a list of [`Span`]s that cover the routes in key order. It decides how finely
//! operations are counted, never whether: every key has exactly one slot under every plan.
//!
//! A new plan is made when routes change, from the old one with as little change as possible
//! ([`carried`]), and from what was learned since ([`relearned`]), at a column boundary or within a
//! column if it pays. [`spans`] decides which routes share a row, [`cuts`] how hot routes are cut.
//! Both change a row only if it is far from its target, so rows do not flicker under a constant
//! load.
//!
//! Plans nest: a boundary stays until the slots run out, and then whole neighbours are joined. A
//! slot of one column therefore lies inside a slot of another or contains it, and a row that is a
//! union of slots in both has a measured count in both.

mod cuts;
pub(in crate::sampler) mod load;
pub(in crate::sampler) mod samples;
mod spans;

use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

use super::config::SamplerConfig;
use cuts::Piece;
use keyviz_types::RouteSpec;
use load::DecayedLoad;
use samples::Sample;
use spans::{Budget, RowPacking};

/// Neighbouring routes that are resolved together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// Positions of the routes in the table; never empty. With more than one route it is an
    /// aggregate.
    pub(crate) routes: Range<usize>,
    /// The starts of the sub-ranges after the first, ascending, inside the route; empty in an
    /// aggregate.
    pub(crate) cuts: Vec<Bytes>,
}

/// How a table is resolved.
pub(crate) struct Plan {
    pub(crate) routes: Arc<[RouteSpec]>,
    pub(crate) spans: Vec<Span>,
}

impl Plan {
    /// The plan of no routes.
    pub(crate) fn empty() -> Self {
        Plan { routes: Arc::new([]), spans: Vec::new() }
    }

    fn rows(&self) -> Vec<Range<usize>> {
        self.spans.iter().map(|span| span.routes.clone()).collect()
    }

    fn cuts(&self) -> impl Iterator<Item = &Bytes> {
        self.spans.iter().flat_map(|span| &span.cuts)
    }
}

/// The plan for new routes: the old one, carried over.
pub(crate) fn carried(
    old: &Plan,
    routes: Arc<[RouteSpec]>,
    load: &DecayedLoad,
    config: &SamplerConfig,
) -> Plan {
    let budget = Budget::new(config, routes.len());
    let rows = if budget.all_alone() {
        alone(routes.len())
    } else {
        let starts: Vec<_> = routes.iter().map(|route| &route.range.start).collect();
        let packing = RowPacking::new(&routes, &load.onto(&starts), budget);
        match old.routes.is_empty() {
            true => packing.fresh(budget),
            false => packing.fit(spans::carried(&old.routes, &old.rows(), &routes), budget),
        }
    };
    let pieces = pieces(&routes, &rows, old.cuts(), load);
    with_cuts(routes, rows, pieces, config)
}

/// The plan that follows from the load of the old plan's rows and from sampled keys, which are
/// sorted.
pub(crate) fn relearned(
    old: &Plan,
    load: &DecayedLoad,
    samples: &[Sample],
    config: &SamplerConfig,
) -> Plan {
    let routes = Arc::clone(&old.routes);
    let budget = Budget::new(config, routes.len());
    let rows = if budget.all_alone() {
        alone(routes.len())
    } else {
        let packing = RowPacking::new(&routes, &estimated(old, load, samples), budget);
        packing.fit(packing.relieve(old.rows(), budget), budget)
    };
    let room = room(&routes, &rows, config);
    let total = load.rows().iter().fold(0u64, |total, &ops| total.saturating_add(ops));
    let quantum = cuts::quantum(total, room, samples.len());
    let pieces = cuts::refine(pieces(&routes, &rows, old.cuts(), load), samples, quantum);
    with_cuts(routes, rows, pieces, config)
}

/// Re-planning within a column pays if at least one part in this many of the load gets finer slots.
const PAYS: u64 = 32;

/// Whether the `next` plan cuts slots with enough of the load; see [`PAYS`].
pub(crate) fn pays(old: &Plan, next: &Plan, load: &DecayedLoad) -> bool {
    let starts: Vec<&Bytes> = old
        .spans
        .iter()
        .flat_map(|span| {
            let start = &old.routes[span.routes.start].range.start;
            std::iter::once(start).chain(&span.cuts)
        })
        .collect();
    let mut cut = vec![false; starts.len()];
    for key in next.cuts() {
        if let Err(after) = starts.binary_search(&key) {
            cut[after.saturating_sub(1)] = true;
        }
    }
    let (mut total, mut finer) = (0u128, 0u128);
    for (&ops, cut) in load.onto(&starts).iter().zip(cut) {
        total += u128::from(ops);
        finer += if cut { u128::from(ops) } else { 0 };
    }
    finer > 0 && finer * u128::from(PAYS) >= total
}

fn alone(routes: usize) -> Vec<Range<usize>> {
    (0..routes).map(|route| route..route + 1).collect()
}

/// The slots that remain when every row has what it needs without cuts.
fn room(routes: &[RouteSpec], rows: &[Range<usize>], config: &SamplerConfig) -> usize {
    let slots: usize = rows.iter().map(|row| group_count(&routes[row.clone()])).sum();
    config.resolution_slots.saturating_sub(slots)
}

fn group_count(members: &[RouteSpec]) -> usize {
    if let [_] = members {
        return 1;
    }
    let mut groups: Vec<_> = members.iter().map(|route| route.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.len()
}

/// The load of each route. A route alone in its row has the load of the row. In an aggregate only
/// samples distinguish the routes: each gets the load that its samples prove (two standard
/// deviations and two samples less than they suggest), and the rest is divided evenly.
fn estimated(plan: &Plan, load: &DecayedLoad, samples: &[Sample]) -> Vec<u64> {
    let mut estimates = vec![0; plan.routes.len()];
    let mut of_row = load.rows().iter();
    let mut sample = samples.iter().peekable();
    for span in &plan.spans {
        let load: u64 = of_row.by_ref().take(span.cuts.len() + 1).sum();
        let members = span.routes.len();
        let mut seen = vec![0u64; members];
        for (route, seen) in span.routes.clone().zip(&mut seen) {
            let inside =
                |s: &&Sample| plan.routes[route].range.end.as_ref().is_none_or(|e| s.key < e);
            while sample.next_if(|s| inside(s)).is_some() {
                *seen += 1;
            }
        }
        let all = seen.iter().sum::<u64>().max(1);
        let proven = |seen: u64| seen.saturating_sub(2 * seen.isqrt() + 2);
        let own =
            |seen: u64| (u128::from(load) * u128::from(proven(seen)) / u128::from(all)) as u64;
        let rest = load - seen.iter().map(|&seen| own(seen)).sum::<u64>();
        for (route, seen) in span.routes.clone().zip(seen) {
            estimates[route] = own(seen) + rest / members as u64;
        }
    }
    estimates
}

/// The pieces of the routes that are alone in their row, cut at those of `cuts` that lie inside
/// them.
fn pieces<'a>(
    routes: &[RouteSpec],
    rows: &[Range<usize>],
    cuts: impl Iterator<Item = &'a Bytes>,
    load: &DecayedLoad,
) -> Vec<Piece> {
    let mut cuts = cuts.peekable();
    let mut starts = Vec::with_capacity(rows.len());
    // For each start, its route if that is alone in its row.
    let mut owners = Vec::with_capacity(rows.len());
    for row in rows {
        let owner = (row.len() == 1).then_some(row.start);
        let start = &routes[row.start].range.start;
        let end = &routes[row.end - 1].range.end;
        starts.push(start);
        owners.push(owner);
        while let Some(cut) = cuts.next_if(|cut| end.as_ref().is_none_or(|end| *cut < end)) {
            if owner.is_some() && cut > start {
                starts.push(cut);
                owners.push(owner);
            }
        }
    }
    let load = load.onto(&starts);
    let piece = |n: usize| {
        let (start, end) = (starts[n].clone(), starts.get(n + 1).map(|end| (*end).clone()));
        owners[n].map(|route| Piece { route, start, end, load: load[n] })
    };
    (0..starts.len()).filter_map(piece).collect()
}

/// Joins pieces until the slots suffice, and makes the plan.
fn with_cuts(
    routes: Arc<[RouteSpec]>,
    rows: Vec<Range<usize>>,
    pieces: Vec<Piece>,
    config: &SamplerConfig,
) -> Plan {
    let alone = rows.iter().filter(|row| row.len() == 1).count();
    let limit = alone + room(&routes, &rows, config);
    let mut pieces = cuts::fit(pieces, limit).into_iter().peekable();
    let spans = rows
        .into_iter()
        .map(|row| {
            let mut cuts = Vec::new();
            if row.len() == 1 {
                // The first piece begins where the route does.
                pieces.next_if(|piece| piece.route == row.start);
                while let Some(piece) = pieces.next_if(|piece| piece.route == row.start) {
                    cuts.push(piece.start);
                }
            }
            Span { routes: row, cuts }
        })
        .collect();
    Plan { routes, spans }
}

#[cfg(test)]
#[path = "resolution_tests.rs"]
mod tests;
