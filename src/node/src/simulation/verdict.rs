//! What must hold when all is healed.

use std::ops::Bound;

use super::cluster::Cluster;
use super::host::Host;
use super::linear;
use keyviz_core::{GroupId, KeyRange, Query, Series, Window};
use keyviz_raft::{Group, KeyValue, PageLimit, Participation};

/// A process that died.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    pub(super) at_ms: u64,
    /// How long it stood still shortly before.
    pub(super) stopped_ms: u64,
}

/// What a kill may cost: counts since the last checkpoint, taken every second of the host's clock,
/// and that checkpoint, if the database had not passed it on to the system yet, which it does every
/// second.
const CHECKPOINT_MS: u64 = 1_000 + 1_000 + 200;
/// The longest way of an answer: from the host that counted, over the one that passed the request
/// on, to the client. A host may have died in the meantime.
const ANSWER_MS: u64 = 2 * 152;

fn groups(cluster: &Cluster) -> Vec<Vec<std::sync::Arc<Group>>> {
    let parts = cluster.taking_part().filter_map(|host| host.parts());
    parts.map(|parts| parts.groups.list()).collect()
}

/// Whether each group has one leader and all replicas have applied the same entries.
pub(super) fn is_settled(cluster: &Cluster) -> bool {
    let groups = groups(cluster);
    let same = |at: usize| {
        let first = &groups[0][at];
        let leader = first.leader();
        leader.is_some()
            && groups.iter().all(|of_host| {
                let group = &of_host[at];
                let status = group.status();
                group.leader() == leader
                    && status.stopped.is_none()
                    && status.applied == first.status().applied
                    && status.applied.map(|at| at.index) == status.last_log
            })
    };
    groups.len() == cluster.taking_part().count()
        && groups.iter().all(|of_host| of_host.len() == groups[0].len())
        && (0..groups[0].len()).all(same)
}

/// Whether no move is under way, as each host that takes part has it.
pub(super) fn nothing_moves(cluster: &Cluster) -> bool {
    cluster.taking_part().all(|host| {
        let moves = host.parts().map(|parts| parts.changes.applied().moves());
        moves.is_some_and(|moves| moves.under_way().is_empty())
    })
}

/// Moves that were made and that were abandoned, of those that are remembered.
pub(super) fn moves(cluster: &Cluster) -> (u64, u64) {
    let parts = cluster.taking_part().find_map(Host::parts);
    let moves = parts.map(|parts| parts.changes.applied().moves()).unwrap_or_default();
    let moved = moves.ended().filter(|ended| ended.version > 0).count();
    (moved as u64, (moves.ended().len() - moved) as u64)
}

/// Where each group stands on each host.
pub(super) fn describe(cluster: &Cluster) -> String {
    let mut text = String::new();
    for host in &cluster.hosts {
        let Some(parts) = host.parts() else {
            text += &format!("host {}: up {}, not ready\n", host.id, host.is_up());
            continue;
        };
        for group in parts.groups.list() {
            let s = group.status();
            text += &format!(
                "host {} group {}: {:?} in term {}, leader {:?}, log to {:?}, committed {:?}, \
                 applied {:?}, snapshot {:?}, purged {:?}, stopped {:?}\n",
                host.id,
                group.id(),
                s.role,
                s.term,
                s.leader.as_ref().map(|(leader, _)| leader),
                s.last_log,
                s.committed,
                s.applied,
                s.snapshot,
                s.purged,
                s.stopped
            );
        }
    }
    text
}

/// Everything that must hold.
pub(super) fn check(cluster: &Cluster) -> Result<(), String> {
    check_histories(cluster)?;
    check_replicas(cluster)?;
    check_owners(cluster)?;
    check_who_takes_part(cluster)?;
    check_counts(cluster)
}

fn check_histories(cluster: &Cluster) -> Result<(), String> {
    for (key, history) in cluster.workload.histories() {
        if let Err(refusal) = linear::check(&history) {
            let mut events = history;
            events.sort_by_key(|event| event.start);
            let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
            return Err(format!("key {key}: {refusal}\nits history:\n{}", lines.join("\n")));
        }
    }
    Ok(())
}

/// Whoever forgot takes part in nothing, and nobody met a leader that contradicted it.
pub(super) fn check_who_takes_part(cluster: &Cluster) -> Result<(), String> {
    for host in cluster.taking_part() {
        let Some(parts) = host.parts() else { continue };
        if let Some((group, reason)) = parts.groups.closed().into_iter().next() {
            return Err(format!("host {} closed group {group}: {reason}", host.id));
        }
        if let Participation::Refused(reason) = parts.roster.participation() {
            return Err(format!("host {} is refused: {reason}", host.id));
        }
    }
    let Some(parts) = cluster.out().and_then(Host::parts) else { return Ok(()) };
    let is_whole = parts.groups.list().len() == cluster.groups();
    match parts.roster.participation() {
        // A host whose rows went back takes part in the groups that it has whole.
        Participation::Member if is_whole => Err("a host that forgot takes part".to_owned()),
        _ => Ok(()),
    }
}

fn rows(group: &Group) -> Result<Vec<KeyValue>, String> {
    let all = PageLimit { rows: usize::MAX, bytes: usize::MAX };
    let page = group.keyspace().scan(Bound::Unbounded, Bound::Unbounded, all);
    Ok(page.map_err(|error| error.to_string())?.rows)
}

fn check_replicas(cluster: &Cluster) -> Result<(), String> {
    let groups = groups(cluster);
    for (host, of_host) in groups.iter().enumerate().skip(1) {
        for (ours, first) in of_host.iter().zip(&groups[0]) {
            if rows(ours)? != rows(first)? {
                let (group, host) = (ours.id(), host + 1);
                return Err(format!("group {group} has other rows on host {host} than on host 1"));
            }
        }
    }
    let tables: Vec<_> = cluster
        .taking_part()
        .filter_map(|host| host.parts())
        .map(|parts| {
            let table = parts.changes.applied().table();
            (table.version(), table.iter().collect::<Vec<_>>())
        })
        .collect();
    match tables.iter().all(|table| *table == tables[0]) {
        true => Ok(()),
        false => Err("the hosts have different catalogs".to_owned()),
    }
}

/// A group has rows of its own routes only, and no notes of moves that ended.
fn check_owners(cluster: &Cluster) -> Result<(), String> {
    let Some(parts) = cluster.taking_part().find_map(Host::parts) else { return Ok(()) };
    let table = parts.changes.applied().table();
    for group in parts.groups.list().iter().filter(|group| group.id() != GroupId::CATALOG) {
        for (key, _) in rows(group)? {
            let (group, shown) = (group.id(), key.escape_ascii());
            if key.starts_with(b"\0moves\0note") {
                return Err(format!("group {group} has a note of a move that ended: {shown}"));
            }
            if key.first() == Some(&0) {
                continue;
            }
            let owner = table.locate(&key).and_then(|at| table.get(at)).map(|route| route.group());
            if owner != Some(group) {
                return Err(format!("group {group} has key {shown}, which {owner:?} owns"));
            }
        }
    }
    Ok(())
}

/// Laws 1 and 2. A read whose answer was lost on its way between hosts is served, and counted,
/// again; so reads have no upper bound here.
fn check_counts(cluster: &Cluster) -> Result<(), String> {
    let tally = cluster.workload.tally();
    let at_risk = |at: u64| {
        cluster.kills.iter().any(|kill| {
            let first = kill.at_ms.saturating_sub(CHECKPOINT_MS + kill.stopped_ms);
            (first..=kill.at_ms + ANSWER_MS).contains(&at)
        })
    };
    let least = |acks: &[u64]| acks.iter().filter(|at| !at_risk(**at)).count() as u64;
    let writes = total(cluster, Series::Writes)?;
    let (from, to) =
        (least(&tally.write_acks), tally.write_acks.len() as u64 + tally.unknown_writes);
    // A host that takes part in nothing shows nothing of what it counted.
    // The same of a copy that was taken for it and is gone.
    let shows_less = cluster.out().is_some() || cluster.address_was_taken();
    let from = if shows_less { 0 } else { from };
    if !(from..=to).contains(&writes) {
        return Err(format!("{writes} writes are counted, and {from} to {to} were made"));
    }
    let (reads, from) = (total(cluster, Series::Reads)?, least(&tally.read_acks));
    if reads < from && !shows_less {
        return Err(format!("{reads} reads are counted, and at least {from} were served"));
    }
    Ok(())
}

fn total(cluster: &Cluster, series: Series) -> Result<u64, String> {
    let query = Query {
        window: Window { from_ms: 0, to_ms: u64::MAX >> 12 },
        range: KeyRange { start: Default::default(), end: None },
        series,
        role: None,
    };
    let mut total = 0;
    for host in cluster.taking_part() {
        let parts = host.parts().ok_or("a host is not up")?;
        // Nothing flushes between the two: all runs on this thread.
        let totals = parts.local.history().totals(&query, parts.local.sampler().peek());
        if totals.unattributed > 0 {
            return Err(format!("{} operations have no route", totals.unattributed));
        }
        total += totals.ranges.iter().map(|range| range.total).sum::<u64>();
    }
    Ok(total)
}
