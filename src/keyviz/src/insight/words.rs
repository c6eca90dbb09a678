//! Findings in sentences.

use super::draft::Draft;
use super::finding::{Kind, Remedy};
use super::forecast::{Able, Act};
use crate::matrix::LABEL_CHARS;
use keyviz_types::KeyRange;

/// A key, for people: bytes that are no plain text are escapes, as in the terminal.
fn label(key: &[u8]) -> String {
    let mut out = String::new();
    for chunk in key.utf8_chunks() {
        for c in chunk.valid().chars() {
            let plain = c == ' ' || c.is_ascii_graphic() || !c.is_ascii() && c.is_alphanumeric();
            match c {
                '\\' => out.push_str("\\\\"),
                c if plain => out.push(c),
                c if c.is_ascii() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
        if let Some((cut, _)) = out.char_indices().nth(LABEL_CHARS) {
            out.truncate(cut);
            out.push('…');
            return out;
        }
    }
    out
}

/// Keys, for people.
pub(crate) fn keys(range: &KeyRange) -> String {
    match (range.start.is_empty(), &range.end) {
        (true, None) => "all keys".to_owned(),
        (true, Some(end)) => format!("keys before {}", label(end)),
        (false, None) => format!("keys from {}", label(&range.start)),
        (false, Some(end)) => format!("{} to {}", label(&range.start), label(end)),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

fn number(draft: &Draft, name: &str) -> f64 {
    draft.facts.iter().find(|fact| fact.name == name).map_or(0.0, |fact| fact.value)
}

/// What it is.
pub(super) fn summary(draft: &Draft, range: &KeyRange, share: f64, rate: f64) -> String {
    let (keys, percent) = (keys(range), percent(share));
    let group = || draft.group.map_or_else(String::new, |group| group.to_string());
    match draft.kind {
        Kind::OneKey => {
            let key = draft.key.as_deref().map(label).unwrap_or_default();
            format!("The key {key} has {percent} of all operations ({rate:.0}/s).")
        }
        Kind::HotRange => format!("{keys}: {percent} of all operations ({rate:.0}/s)."),
        Kind::SequentialAppend => {
            let way = if draft.up { "up" } else { "down" };
            format!("Writes follow each other {way} through {keys} ({rate:.0}/s at the front).")
        }
        Kind::MovingSpot => {
            let places = number(draft, "places seen");
            format!("A hot spot changes its place in {keys}: {places:.0} places ({rate:.0}/s).")
        }
        Kind::Scan => {
            let way = if draft.up { "up" } else { "down" };
            format!("Reads pass {way} through {keys} ({rate:.0}/s at the front).")
        }
        Kind::UnevenLeaders => {
            let node = draft.node.map_or_else(String::new, |node| node.to_string());
            let groups = number(draft, "groups that it leads");
            format!("Node {node} leads {groups:.0} groups and {percent} of all operations.")
        }
        Kind::UnevenGroups => {
            let times = number(draft, "times the middle group");
            format!("Group {} has {times:.1} times the load of the middle group.", group())
        }
        Kind::ReadHeavy => {
            let reads = number(draft, "part of reads") * 100.0;
            format!("{reads:.0}% of group {}'s load are reads, served by its leader.", group())
        }
        Kind::LargeValues => {
            let bytes = number(draft, "bytes an operation");
            let of = number(draft, "share of the bytes") * 100.0;
            format!("{keys}: {bytes:.0} bytes an operation, {of:.0}% of all bytes.")
        }
        Kind::Conflicts => {
            let part = number(draft, "part of the writes that failed") * 100.0;
            format!("{keys}: {part:.0}% of the writes fail because another came first.")
        }
        Kind::PeriodicBurst => {
            let seconds = number(draft, "seconds between bursts");
            format!("{keys}: a burst every {seconds:.0} s.")
        }
        Kind::SuddenChange => {
            let was = number(draft, "operations a second at that time before");
            let is = number(draft, "operations a second now");
            format!("{keys}: {is:.0}/s, and {was:.0}/s at the same time before.")
        }
        Kind::ColdSplits => {
            let routes = number(draft, "routes without load");
            format!("{keys}: {routes:.0} neighbouring routes of one group have no load.")
        }
    }
}

/// What helps, or why nothing of what keyviz can do does.
pub(super) fn advice(draft: &Draft, remedies: &[Remedy], able: Able) -> String {
    let offered = remedies.first().map(|remedy| {
        let node = remedy.forecast.hottest_node();
        let then = match remedy.act {
            Act::Merge { .. } => format!("{} routes fewer.", remedy.forecast.routes_saved),
            _ => {
                format!("the hottest node falls from {:.0}/s to {:.0}/s.", node.before, node.after)
            }
        };
        format!("{}: {then}", remedy.act.words())
    });
    let by_hand = match draft.kind {
        Kind::OneKey => {
            "A split cannot divide one key, and a move takes it along. Cache it, or spread it over \
             several keys."
        }
        Kind::SequentialAppend => {
            "A split does not help: the next keys all lie beyond it. Begin the keys with a hash, \
             or with something that varies."
        }
        Kind::MovingSpot => {
            "The spot leaves a place before a split or a move of it pays. Spread what is hot over \
             the keys, or cache it."
        }
        Kind::Scan => "A split does not help: the scan passes on. Slow it down, or run it later.",
        Kind::LargeValues => {
            "A split does not make values smaller. Compress them, or keep them elsewhere."
        }
        Kind::Conflicts => {
            "Neither a split nor a move ends conflicts. Let fewer clients write the same keys, or \
             wait longer before a retry."
        }
        Kind::PeriodicBurst => {
            "Between bursts there is nothing to balance. Spread what runs then over time."
        }
        Kind::SuddenChange => {
            "Nothing to change in the layout. Look at what was deployed or stopped then."
        }
        Kind::HotRange | Kind::UnevenGroups if !able.moves => {
            "A split alone changes nothing: both halves stay with their leader, and this cluster \
             does not move a route to another group. Spread what is hot over more keys of other \
             groups, or cache it."
        }
        Kind::HotRange if draft.coarse => {
            "The range was not told apart any finer, so that no key to split at is known. No other \
             move would make the hottest node cooler."
        }
        Kind::HotRange | Kind::UnevenGroups => {
            "No split, move or transfer would make the hottest node cooler by a twentieth."
        }
        Kind::UnevenLeaders => {
            "No transfer to a node with a replica would make the hottest node cooler."
        }
        Kind::ReadHeavy => "Reads from followers would not make the hottest node cooler.",
        Kind::ColdSplits => "There is nothing to merge.",
    };
    let always = matches!(draft.kind, Kind::OneKey | Kind::Scan);
    match offered {
        Some(offered) if always => format!("{by_hand} {offered}"),
        Some(offered) => offered,
        None => by_hand.to_owned(),
    }
}

impl Act {
    /// What to do, in words.
    pub fn words(&self) -> String {
        match self {
            Act::Split { at } => format!("Split at {}", label(at)),
            Act::SplitAndMove { at, range, to } => {
                format!("Split at {} and move {} to group {to}", label(at), keys(range))
            }
            Act::Move { range, to } => format!("Move {} to group {to}", keys(range)),
            Act::TransferLeader { group, to } => {
                format!("Transfer the leadership of group {group} to node {to}")
            }
            Act::ReadFromFollowers { range } => format!("Read {} from followers", keys(range)),
            Act::Merge { range } => format!("Merge the routes of {}", keys(range)),
        }
    }
}
