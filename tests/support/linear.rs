//! Whether a history of operations on one key is linearizable.
//!
//! A search after Wing and Gong (1993) with Lowe's memory of visited configurations (2017): take
//! any operation that began before every other one that is left had ended, apply it to the state,
//! go on, and turn back where what it answered does not fit. A configuration (which operations are
//! taken, and the state) that failed once is never searched again. Linearizability is local, so
//! each key is checked by itself.
//!
//! An operation of unknown outcome may take effect at any time after it began, or never.

use std::collections::HashSet;
use std::fmt;

/// A value. The tests make every written value unique.
pub type Value = u64;

/// What a client asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Get,
    Put(Value),
    Delete,
    Cas { expected: Option<Value>, new: Option<Value> },
}

/// What it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A put was acknowledged, or a delete that does not say what it found.
    Done,
    /// What a get found, or a compare-and-swap that did not swap.
    Found(Option<Value>),
    /// A delete was acknowledged, and whether the key was there.
    Deleted {
        existed: bool,
    },
    Swapped,
    /// Nobody knows. Reads without an answer are left out of a history.
    Unknown,
}

/// One operation. Times are of one clock, in any unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub client: usize,
    pub op: Op,
    pub outcome: Outcome,
    pub start: u64,
    pub end: u64,
}

impl Event {
    /// The latest time at which it can have taken effect.
    fn effective_end(&self) -> u64 {
        if self.outcome == Outcome::Unknown { u64::MAX } else { self.end }
    }

    /// Whether it leaves the same state whatever was there, and answers nothing that would tell.
    fn overwrites(&self) -> bool {
        match self.op {
            Op::Put(_) => true,
            Op::Delete => !matches!(self.outcome, Outcome::Deleted { .. }),
            Op::Get | Op::Cas { .. } => false,
        }
    }

    /// The state after it, where the state before it and what it answered fit together.
    fn apply(&self, state: Option<Value>) -> Option<Option<Value>> {
        let unknown = self.outcome == Outcome::Unknown;
        match (self.op, self.outcome) {
            (Op::Get, Outcome::Found(found)) => (found == state).then_some(state),
            (Op::Put(value), Outcome::Done | Outcome::Unknown) => Some(Some(value)),
            (Op::Delete, Outcome::Deleted { existed }) => {
                (existed == state.is_some()).then_some(None)
            }
            (Op::Delete, Outcome::Done | Outcome::Unknown) => Some(None),
            (Op::Cas { expected, new }, Outcome::Swapped | Outcome::Unknown) => {
                // One of unknown outcome that would not have swapped has no effect to place.
                (expected == state && !(unknown && expected == new)).then_some(new)
            }
            (Op::Cas { expected, .. }, Outcome::Found(found)) => {
                (found == state && found != expected).then_some(state)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { client, op, outcome, start, end } = self;
        write!(f, "{start:>13} to {end:>13} client {client:>2} {op:?} -> {outcome:?}")
    }
}

/// Why a history is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No order explains it. The longest explanation stops before these operations: one of them
    /// cannot have answered what it did.
    NotLinearizable { explained: usize, stuck: Vec<Event> },
    /// The search was given up: too many operations of unknown outcome.
    Undecided { configurations: usize },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotLinearizable { explained, stuck } => {
                writeln!(
                    f,
                    "not linearizable: {explained} operations have an order, then none of"
                )?;
                stuck.iter().try_for_each(|event| writeln!(f, "  {event}"))
            }
            Refusal::Undecided { configurations } => {
                write!(f, "not decided after {configurations} configurations")
            }
        }
    }
}

/// Configurations searched before the search is given up.
const MOST_CONFIGURATIONS: usize = 1_000_000;

/// Checks the history of one key, which was absent before it.
pub fn check(history: &[Event]) -> Result<(), Refusal> {
    let mut events = history.to_vec();
    events.sort_by_key(|event| event.start);
    // Mostly what nobody saw never happened. An order without it is an order of all, and sooner
    // found.
    let seen: Vec<Event> = events.iter().copied().filter(|event| is_seen(event, &events)).collect();
    if seen.len() < events.len() && Search::new(&seen).run().is_ok() {
        return Ok(());
    }
    Search::new(&events).run()
}

/// Whether an operation has a known outcome, or another one met its value.
fn is_seen(event: &Event, events: &[Event]) -> bool {
    if event.outcome != Outcome::Unknown {
        return true;
    }
    let written = match event.op {
        Op::Put(value) | Op::Cas { new: Some(value), .. } => value,
        Op::Get | Op::Delete | Op::Cas { new: None, .. } => return false,
    };
    events.iter().any(|other| match (other.op, other.outcome) {
        (_, Outcome::Found(found)) => found == Some(written),
        (Op::Cas { expected, .. }, Outcome::Swapped) => expected == Some(written),
        _ => false,
    })
}

/// Which operations are taken: all before `first`, and those whose bit is set after it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken {
    first: usize,
    later: Vec<u64>,
}

impl Taken {
    fn has(&self, event: usize) -> bool {
        let Some(at) = event.checked_sub(self.first) else { return true };
        self.later.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// With one more, in the one form that stands for this set.
    fn with(&self, event: usize) -> Taken {
        let taken = |other: usize| other == event || self.has(other);
        let mut first = self.first;
        while taken(first) {
            first += 1;
        }
        let last = self.first + self.later.len() * 64;
        let mut later = Vec::new();
        for other in (first..last.max(event + 1)).filter(|other| taken(*other)) {
            let at = other - first;
            later.resize(later.len().max(at / 64 + 1), 0);
            later[at / 64] |= 1 << (at % 64);
        }
        Taken { first, later }
    }
}

struct Search<'a> {
    events: &'a [Event],
    seen: HashSet<(Taken, Option<Value>, bool)>,
    explained: usize,
    stuck: Vec<Event>,
}

/// One step of the search: a configuration and the operations that are still to be tried from it.
struct Frame {
    taken: Taken,
    state: Option<Value>,
    /// In the order in which they are tried, the last one first.
    untried: Vec<usize>,
    /// Operations of known outcome that are taken.
    known: usize,
}

impl<'a> Search<'a> {
    fn new(events: &'a [Event]) -> Self {
        Search { events, seen: HashSet::new(), explained: 0, stuck: Vec::new() }
    }

    /// The operations that may come next: not taken, begun before any other that is left ended.
    /// Tried last is what ended last, so that an operation of unknown outcome takes effect only
    /// where something needs it to.
    ///
    /// `after_unknown`: the one taken last has an unknown outcome. Directly before one that
    /// overwrites, it may as well not have happened, so that order need not be tried.
    fn next(&self, taken: &Taken, after_unknown: bool) -> Vec<usize> {
        let mut earliest_end = u64::MAX;
        let mut next = Vec::new();
        for (at, event) in self.events.iter().enumerate().skip(taken.first) {
            if event.start > earliest_end {
                break;
            }
            if !taken.has(at) {
                earliest_end = earliest_end.min(event.effective_end());
                next.push(at);
            }
        }
        next.retain(|at| {
            let event = &self.events[*at];
            event.start <= earliest_end && !(after_unknown && event.overwrites())
        });
        next.sort_by_key(|at| std::cmp::Reverse(self.events[*at].effective_end()));
        next
    }

    fn run(mut self) -> Result<(), Refusal> {
        let owed = self.events.iter().filter(|event| event.outcome != Outcome::Unknown).count();
        let taken = Taken { first: 0, later: Vec::new() };
        let untried = self.next(&taken, false);
        let mut path = vec![Frame { taken, state: None, untried, known: 0 }];
        while let Some(frame) = path.last_mut() {
            if frame.known == owed {
                return Ok(());
            }
            let Some(at) = frame.untried.pop() else {
                path.pop();
                continue;
            };
            let event = &self.events[at];
            let Some(state) = event.apply(frame.state) else { continue };
            let taken = frame.taken.with(at);
            let unknown = event.outcome == Outcome::Unknown;
            let known = frame.known + usize::from(!unknown);
            if !self.seen.insert((taken.clone(), state, unknown)) {
                continue;
            }
            if self.seen.len() > MOST_CONFIGURATIONS {
                return Err(Refusal::Undecided { configurations: self.seen.len() });
            }
            let untried = self.next(&taken, unknown);
            if known > self.explained {
                self.explained = known;
                self.stuck = untried.iter().rev().map(|at| self.events[*at]).collect();
            }
            path.push(Frame { taken, state, untried, known });
        }
        if self.explained == 0 {
            let first = self.next(&Taken { first: 0, later: Vec::new() }, false);
            self.stuck = first.iter().rev().map(|at| self.events[*at]).collect();
        }
        Err(Refusal::NotLinearizable { explained: self.explained, stuck: self.stuck })
    }
}
