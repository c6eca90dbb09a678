//! What is found: the words, numbers and types of an answer.

use bytes::Bytes;

use super::forecast::{Act, Forecast};
use keyviz_types::{GroupId, KeyRange, NodeId};

/// Points of a sparkline, at most.
pub const MAX_POINTS: usize = 120;

/// Most findings of one answer: those that rank highest.
pub const MAX_FINDINGS: usize = 256;

/// What kind of load it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// One key carries much of the load.
    OneKey,
    /// A small part of the keys carries much of the load.
    HotRange,
    /// New keys follow each other; the place of writing moves up or down.
    SequentialAppend,
    /// A hot spot that changes its place.
    MovingSpot,
    /// Reads pass over the keys in order.
    Scan,
    /// One node leads more than its part of the groups.
    UnevenLeaders,
    /// One group has more than its part of the load.
    UnevenGroups,
    /// A leader serves reads that followers could serve.
    ReadHeavy,
    /// Few operations carry many bytes.
    LargeValues,
    /// Compare-and-swaps that fail because others came first.
    Conflicts,
    /// Load that comes and goes at equal intervals.
    PeriodicBurst,
    /// A load unlike that of the same time before.
    SuddenChange,
    /// Neighbouring routes of one group that have no load.
    ColdSplits,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 13] = [
        Kind::OneKey,
        Kind::HotRange,
        Kind::SequentialAppend,
        Kind::MovingSpot,
        Kind::Scan,
        Kind::UnevenLeaders,
        Kind::UnevenGroups,
        Kind::ReadHeavy,
        Kind::LargeValues,
        Kind::Conflicts,
        Kind::PeriodicBurst,
        Kind::SuddenChange,
        Kind::ColdSplits,
    ];

    /// The name in programs.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::OneKey => "one-key",
            Kind::HotRange => "hot-range",
            Kind::SequentialAppend => "sequential-append",
            Kind::MovingSpot => "moving-spot",
            Kind::Scan => "scan",
            Kind::UnevenLeaders => "uneven-leaders",
            Kind::UnevenGroups => "uneven-groups",
            Kind::ReadHeavy => "read-heavy",
            Kind::LargeValues => "large-values",
            Kind::Conflicts => "conflicts",
            Kind::PeriodicBurst => "periodic-burst",
            Kind::SuddenChange => "sudden-change",
            Kind::ColdSplits => "cold-splits",
        }
    }
}

/// A finding's name. It stays while the finding goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FindingId(pub u64);

impl std::fmt::Display for FindingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// When it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Since {
    /// Start of the first column above the level.
    pub at_ms: u64,
    /// It began after this; `None`: it may be older than the load that was looked at.
    pub earliest_ms: Option<u64>,
    /// It had begun by then.
    pub latest_ms: u64,
}

/// A number that speaks for a finding.
#[derive(Clone, PartialEq, Debug)]
pub struct Fact {
    /// What was measured, with its unit.
    pub name: &'static str,
    /// The measure.
    pub value: f64,
    /// The level from which on it counts, if there is one.
    pub level: Option<f64>,
}

/// An act and what it would bring.
#[derive(Clone, PartialEq, Debug)]
pub struct Remedy {
    /// What to do.
    pub act: Act,
    /// The last columns, replayed on the changed layout.
    pub forecast: Forecast,
}

/// Why it is hot, since when, and what helps.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// Its name. Of [`analyze`](super::analyze) alone: a hash of what is found;
    /// [`Tracker`](super::Tracker) keeps it while the finding goes on.
    pub id: FindingId,
    /// What kind of load.
    pub kind: Kind,
    /// Where: all keys that it concerns.
    pub range: KeyRange,
    /// The key, of [`Kind::OneKey`].
    pub key: Option<Bytes>,
    /// The groups that serve it, ascending.
    pub groups: Vec<GroupId>,
    /// The nodes that lead these groups, ascending.
    pub nodes: Vec<NodeId>,
    /// Its share of all operations at present, from 0 to 1.
    pub share: f64,
    /// Operations a second at present.
    pub rate: f64,
    /// When it began.
    pub since: Since,
    /// One sentence: what it is.
    pub summary: String,
    /// What helps, in words; also that nothing does.
    pub advice: String,
    /// Numbers.
    pub facts: Vec<Fact>,
    /// Operations a second by column, oldest first; of [`Kind::LargeValues`], bytes a second.
    pub sparkline: Vec<u64>,
    /// From 0 to 1.
    pub confidence: f64,
    /// What changes something, the best first.
    pub remedies: Vec<Remedy>,
    /// When it ended; `None` while it goes on.
    pub resolved_ms: Option<u64>,
}

impl Finding {
    /// The order of findings: the larger first.
    pub fn rank(&self) -> f64 {
        let rank = self.share * self.confidence;
        if rank.is_finite() { rank } else { 0.0 }
    }
}

/// The largest first; no more than `most`.
pub(super) fn rank(findings: &mut Vec<Finding>, most: usize) {
    findings.sort_by(|a, b| b.rank().total_cmp(&a.rank()).then(a.id.cmp(&b.id)));
    findings.truncate(most);
}
