//! Which holder of a node's columns is believed.
//!
//! The columns of a node that has left are kept by another one, or by several, and for a while it
//! may still answer itself. Each folds old columns by its own budget, so one may hold an hour by
//! the minute and another as one column. What they say of the same time is the same counts: exactly
//! one of them may count. Columns that a block of any holder reaches over hang together; for each
//! such stretch the holder counts that has counted most in it, of equal ones the one whose blocks
//! are shorter, and then the one of the smaller id.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::part::{Part, PartKey};
use keyviz_types::NodeId;

/// The parts that count, in order.
pub(crate) fn chosen(parts: &BTreeMap<PartKey, Part>) -> Vec<(&PartKey, &Part)> {
    let mut chosen = Vec::with_capacity(parts.len());
    let mut stretch: Vec<(&PartKey, &Part)> = Vec::new();
    let mut end = 0;
    for (key, part) in parts {
        let goes_on = stretch.last().is_some_and(|(last, _)| {
            (last.node, last.incarnation) == (key.node, key.incarnation) && key.column < end
        });
        if !goes_on {
            choose(&mut stretch, &mut chosen);
            end = 0;
        }
        end = end.max(key.column + part.columns);
        stretch.push((key, part));
    }
    choose(&mut stretch, &mut chosen);
    chosen
}

/// Moves the parts of one holder of a stretch to those chosen.
fn choose<'a>(
    stretch: &mut Vec<(&'a PartKey, &'a Part)>,
    chosen: &mut Vec<(&'a PartKey, &'a Part)>,
) {
    let Some((first, _)) = stretch.first() else { return };
    if stretch.iter().all(|(key, _)| key.held_by == first.held_by) {
        chosen.append(stretch);
        return;
    }
    let mut holders: BTreeMap<NodeId, Said> = BTreeMap::new();
    for (key, part) in stretch.iter() {
        let said = holders.entry(key.held_by).or_default();
        said.total += part.total;
        said.unattributed += u128::from(part.unattributed);
        said.partial |= part.partial;
        said.columns = said.columns.max(part.columns);
    }
    let best = holders.iter().max_by_key(|(node, said)| {
        let complete = (said.total, said.unattributed, !said.partial);
        (complete, Reverse(said.columns), Reverse(**node))
    });
    let best = best.map(|(node, _)| *node);
    chosen.extend(stretch.drain(..).filter(|(key, _)| Some(key.held_by) == best));
}

/// What a holder says of a stretch.
#[derive(Default)]
struct Said {
    total: u128,
    unattributed: u128,
    partial: bool,
    columns: u32,
}
