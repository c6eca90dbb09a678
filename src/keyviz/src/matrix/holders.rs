//! Selects one holder of each node's columns.
//!
//! Another node, or several, may keep the columns of a former member, and for a while it may still
//! answer itself. Each holder folds old columns within its own budget, so one may have an hour by
//! the minute and another as one column. All of them report the same counts, so exactly one may be
//! used. Columns that any holder's blocks connect form a stretch. For each stretch the holder with
//! the most counts is used; of equal ones, the one with the shorter blocks, and then the smaller
//! id.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::part::{Part, PartKey};
use keyviz_types::NodeId;

/// The parts to use, in order.
pub(crate) fn chosen(parts: &BTreeMap<PartKey, Part>) -> Vec<(&PartKey, &Part)> {
    let mut chosen = Vec::with_capacity(parts.len());
    let mut stretch: Vec<(&PartKey, &Part)> = Vec::new();
    let mut end = 0;
    for (key, part) in parts {
        let continues = stretch.last().is_some_and(|(last, _)| {
            (last.node, last.incarnation) == (key.node, key.incarnation) && key.column < end
        });
        if !continues {
            choose(&mut stretch, &mut chosen);
            end = 0;
        }
        end = end.max(key.column + part.columns);
        stretch.push((key, part));
    }
    choose(&mut stretch, &mut chosen);
    chosen
}

/// Moves the parts of the best holder of a stretch to those chosen.
fn choose<'a>(
    stretch: &mut Vec<(&'a PartKey, &'a Part)>,
    chosen: &mut Vec<(&'a PartKey, &'a Part)>,
) {
    let Some((first, _)) = stretch.first() else { return };
    if stretch.iter().all(|(key, _)| key.held_by == first.held_by) {
        chosen.append(stretch);
        return;
    }
    let mut holders: BTreeMap<NodeId, HolderSum> = BTreeMap::new();
    for (key, part) in stretch.iter() {
        let sum = holders.entry(key.held_by).or_default();
        sum.total += part.total;
        sum.unattributed += u128::from(part.unattributed);
        sum.partial |= part.partial;
        sum.columns = sum.columns.max(part.columns);
    }
    let best = holders.iter().max_by_key(|(node, sum)| {
        let complete = (sum.total, sum.unattributed, !sum.partial);
        (complete, Reverse(sum.columns), Reverse(**node))
    });
    let best = best.map(|(node, _)| *node);
    chosen.extend(stretch.drain(..).filter(|(key, _)| Some(key.held_by) == best));
}

/// The sums of what a holder reports for a stretch.
#[derive(Default)]
struct HolderSum {
    total: u128,
    unattributed: u128,
    partial: bool,
    columns: u32,
}
