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
//! sampler has not told apart yet. Keys that were acted on are left alone for the cool-down,
//! whoever acted, so no key goes back and forth.

mod balance;
mod cold;
mod cold_merges;
mod cost;
mod input;
mod journal;
mod layout;
mod obstacles;
mod outcome;
mod policy;
mod reason;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

pub use cold::Cold;
pub use cost::{BYTES_OF_ONE, Present, RangeCost, present};
pub use input::{Decision, Health, Input, Planned};
pub use journal::{By, Past, State};
pub use layout::imbalance;
pub use outcome::{Measured, Outcome, outcome};
pub use policy::{Merge, Mode, Policy, PolicyError};
pub use reason::Reason;

use crate::insight::{Act, Forecast, Load, Topology};
use input::Allowance;
use journal::Cooling;
use layout::Layout;

/// What to do about the load, if anything.
pub fn decide(input: &Input<'_>) -> Decision {
    let present = input.present();
    let mut layout = Layout::new(input.topology, &present);
    for past in input.journal.iter().filter(|past| past.state == State::UnderWay) {
        layout = layout.with(&past.act);
    }
    let nodes = layout.nodes();
    let mut decision = Decision { imbalance: imbalance(&nodes), nodes, ..Decision::default() };
    decision.reasons = obstacles::obstacles(input, &present);
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
        let acts = cold_merges::merges(input, &cooling, allowance.moves > 0).into_iter();
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
