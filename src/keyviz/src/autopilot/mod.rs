//! What to change about the layout so that no node has much more to do than the others.
//!
//! [`decide`] is a pure function of the load, where it is served, what was done before and a
//! [`Policy`]. It returns acts with a forecast each, or the reasons why there are none.
//!
//! ```text
//! Load ──> Present: cost a second by key range (operations and bytes)
//!            │  on routes, groups and leaders, with the acts under way done
//!          Layout: cost a second by node
//!            │  hottest over the mean above the level: transfers, moves, splits with moves are
//!            │  tried on the layout; the cheapest of those that cool most is taken, and again
//!            │  nothing to balance: cold neighbours are merged, step by step
//!          Decision: acts, reasons
//! ```
//!
//! The load of a range does not depend on where it is served, so an act shows in the next decision
//! at once, and no act is repeated because its effect is not measured yet. What was counted as one
//! range is never divided: a key that is hot by itself is left alone, and so is a range that the
//! sampler has not told apart yet. Keys that were acted on are left alone for the cool-down, whoever
//! acted, so no key goes back and forth.

mod balance;
mod cold;
mod cost;
mod journal;
mod layout;
mod outcome;
mod policy;
mod reason;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use cold::Cold;
pub use cost::{BYTES_OF_ONE, Present, RangeCost, present};
pub use journal::{By, Past, State};
pub use layout::imbalance;
pub use outcome::{Measured, Outcome, outcome};
pub use policy::{Merge, Mode, Policy, PolicyError};
pub use reason::Reason;

use crate::insight::{Act, Forecast, Load, Topology};
use journal::Cooling;
use keyviz_types::{GroupId, NodeId};
use layout::Layout;

/// Columns without which nothing is known.
const LEAST_COLUMNS: usize = 2;

/// What may keep the autopilot from acting.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Health {
    /// Members that do not answer, or are not ready.
    pub missing: Vec<NodeId>,
    /// Groups without a leader.
    pub leaderless: Vec<GroupId>,
    /// Groups of which a replica is behind.
    pub lagging: Vec<GroupId>,
    /// Members with little space on their disk.
    pub scarce: Vec<NodeId>,
    /// Replicas are being moved, or leaders spread after that.
    pub replicas_move: bool,
    /// A member did not answer for the load.
    pub partial: bool,
    /// Moves of routes under way that are not in the journal.
    pub other_moves: u32,
}

/// What is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Counts of some columns.
    pub load: &'a Load,
    /// Members, groups, leaders and routes.
    pub topology: &'a Topology,
    /// What may keep it from acting.
    pub health: &'a Health,
    /// Oldest first.
    pub journal: &'a [Past],
    /// Routes without load.
    pub cold: &'a Cold,
    /// The limits.
    pub policy: &'a Policy,
    /// The present.
    pub now_ms: u64,
}

/// An act and what it would bring.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// What to do.
    pub act: Act,
    /// Why, in a sentence.
    pub why: String,
    /// Cost a second by node and group, replayed.
    pub forecast: Forecast,
    /// The entry of the journal that it takes back.
    pub undoes: Option<u64>,
}

/// What to do.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Decision {
    /// In this order.
    pub acts: Vec<Planned>,
    /// Why nothing (more) is done.
    pub reasons: Vec<Reason>,
    /// Cost a second by node, with the acts under way done.
    pub nodes: BTreeMap<NodeId, f64>,
    /// The hottest of them over the mean.
    pub imbalance: f64,
}

/// What to do about the load, if anything.
pub fn decide(input: &Input<'_>) -> Decision {
    let present = input.present();
    let mut layout = Layout::new(input.topology, &present);
    for past in input.journal.iter().filter(|past| past.state == State::UnderWay) {
        layout = layout.with(&past.act);
    }
    let nodes = layout.nodes();
    let mut decision = Decision { imbalance: imbalance(&nodes), nodes, ..Decision::default() };
    decision.reasons = reason::obstacles(input, &present);
    if !decision.reasons.is_empty() {
        return decision;
    }
    let mut cooling = Cooling::new(input.journal, input.topology, input.policy, input.now_ms);
    let mut allowance = Allowance::new(input);
    undo(input, &layout, &cooling, &mut allowance, &mut decision);
    for planned in &decision.acts {
        cooling.add(&planned.act);
        layout = layout.with(&planned.act);
    }
    let quiet = present.cost() < input.policy.least_load;
    if quiet {
        let (load, least) = (present.cost(), input.policy.least_load);
        decision.reasons.push(Reason::Quiet { load, least });
    } else {
        balance::balance(input, layout, &mut cooling, &mut allowance, &mut decision);
    }
    let even = decision.acts.is_empty()
        && (decision.imbalance <= input.policy.act_above
            || decision.reasons.iter().any(Reason::is_final));
    if (quiet || even) && allowance.acts > 0 {
        let layout = Layout::new(input.topology, &present);
        // What is brought together for a merge must not make a node hot.
        let harmless = |forecast: &Forecast| {
            quiet || forecast.imbalance.after <= forecast.imbalance.before.max(input.policy.until)
        };
        let acts = cold::merges(input, &cooling, allowance.moves > 0).into_iter();
        let mut tried = acts.map(|act| (layout.forecast(&act), act));
        let found = tried.find(|(forecast, _)| harmless(forecast));
        decision.acts.extend(found.map(|(forecast, act)| Planned {
            why: "The routes have long had little load.".to_owned(),
            forecast,
            act,
            undoes: None,
        }));
    }
    decision
}

/// What an act would bring at present, replayed.
pub fn forecast(load: &Load, topology: &Topology, act: &Act, now_ms: u64) -> Forecast {
    Layout::new(topology, &present(load, now_ms)).forecast(act)
}

/// What may be begun still.
struct Allowance {
    acts: u32,
    moves: u32,
}

impl Allowance {
    fn new(input: &Input<'_>) -> Self {
        let own = || input.journal.iter().filter(|past| past.by == By::Autopilot);
        let recent = own().filter(|past| past.started_ms.saturating_add(60_000) > input.now_ms);
        let moving =
            input.journal.iter().filter(|past| past.state == State::UnderWay && moves(&past.act));
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let under_way = count(moving.count()).saturating_add(input.health.other_moves);
        Allowance {
            acts: input.policy.acts_per_minute.saturating_sub(count(recent.count())),
            moves: input.policy.moves.saturating_sub(under_way),
        }
    }

    fn permits(&self, act: &Act) -> bool {
        self.acts > 0 && (self.moves > 0 || !moves(act))
    }

    fn take(&mut self, act: &Act) {
        self.acts = self.acts.saturating_sub(1);
        self.moves = self.moves.saturating_sub(u32::from(moves(act)));
    }
}

fn moves(act: &Act) -> bool {
    matches!(act, Act::SplitAndMove { .. } | Act::Move { .. })
}

/// Takes back what has turned out to be worse than nothing, if it is so still.
fn undo(
    input: &Input<'_>,
    layout: &Layout<'_>,
    cooling: &Cooling<'_>,
    allowance: &mut Allowance,
    decision: &mut Decision,
) {
    let worse = |past: &&Past| {
        past.by == By::Autopilot && past.state == State::Done && past.worse && !past.undone
    };
    for past in input.journal.iter().filter(worse) {
        let Some(act) = past.reverse() else { continue };
        let forecast = layout.forecast(&act);
        let helps = forecast.imbalance.after < forecast.imbalance.before - balance::LEAST_GAIN;
        if !helps || !cooling.allows(&act) || !allowance.permits(&act) {
            continue;
        }
        allowance.take(&act);
        let why = format!("Act {} made the load more uneven than it would be without.", past.id);
        decision.acts.push(Planned { act, why, forecast, undoes: Some(past.id) });
        return;
    }
}
