//! The blocks of a group's log on disk: writing, reading, truncating and purging them. Only the
//! log-writer thread writes; readers find blocks through the tree.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;

use super::record::{self, Block, BlockBuilder, CorruptLog, Key};
use super::shared::{BlockIndex, Extent, LogShared};
use crate::storage::{RECORD_BYTES, Tree};
use crate::types::{Entry, LogId, Vote};
use keyviz_types::GroupId;

/// Writes one block and returns its bytes.
pub(crate) fn write(tree: &Tree, log: &LogShared, block: BlockBuilder) -> io::Result<u64> {
    let (first, end) = (block.first(), block.next_index());
    let bytes = block.finish();
    let parts = bytes.len().div_ceil(RECORD_BYTES);
    // Part 0 is last, because it makes the block exist.
    for (part, chunk) in bytes.chunks(RECORD_BYTES).enumerate().rev() {
        let part = u16::try_from(part).expect("checked when the block was finished");
        tree.put(&Key::Block { first, part }.encode(log.group()), chunk)?;
    }
    let parts = u16::try_from(parts).expect("checked when the block was finished");
    let truncations = {
        let mut index = log.blocks().lock();
        index.blocks.insert(first, Extent { end, parts });
        index.truncations
    };
    log.stored(end, truncations);
    Ok(bytes.len() as u64)
}

/// Removes the entries from `from` on, last block first, so that a crash leaves no gap.
pub(crate) fn truncate(tree: &Tree, log: &LogShared, from: u64) -> io::Result<()> {
    let group = log.group();
    let mut index = log.blocks().lock();
    index.truncations += 1;
    while let Some((&first, &extent)) = index.blocks.last_key_value() {
        if extent.end <= from {
            break;
        }
        if first >= from {
            remove(tree, group, first, extent.parts)?;
            index.blocks.remove(&first);
            continue;
        }
        // The truncation is within this block: overwrite it with the remaining entries.
        let kept = read(tree, group, first)?;
        let mut block = BlockBuilder::new(first);
        block.set_committed(kept.committed);
        for entry in kept.entries.iter().take_while(|entry| entry.log_id.index < from) {
            block.push(entry);
        }
        drop(index);
        write(tree, log, block)?;
        return Ok(());
    }
    Ok(())
}

/// Notes that blocks up to `upto` inclusive may go.
pub(crate) fn mark_purged(log: &LogShared, upto: u64) {
    let mut index = log.blocks().lock();
    index.purged_before = index.purged_before.max(upto + 1);
}

/// Removes at most `budget` purged blocks, lowest first. Returns their number; 0: none are left.
pub(crate) fn sweep(tree: &Tree, log: &LogShared, budget: usize) -> io::Result<usize> {
    let mut index = log.blocks().lock();
    let mut removed = 0;
    while removed < budget {
        match index.blocks.first_key_value() {
            Some((&first, &extent)) if extent.end <= index.purged_before => {
                remove(tree, log.group(), first, extent.parts)?;
                index.blocks.remove(&first);
                removed += 1;
            }
            _ => break,
        }
    }
    Ok(removed)
}

fn remove(tree: &Tree, group: GroupId, first: u64, parts: u16) -> io::Result<()> {
    (0..parts).try_for_each(|part| tree.delete(&Key::Block { first, part }.encode(group)))
}

fn read(tree: &Tree, group: GroupId, first: u64) -> io::Result<Block> {
    let corrupt = |what| CorruptLog { group, index: first, what };
    let part = |part| tree.get(&Key::Block { first, part }.encode(group));
    let head = part(0)?.ok_or(corrupt("its block is missing"))?;
    let parts = record::parts(group, first, &head)?;
    let mut bytes = Vec::from(&head[..]);
    for n in 1..parts {
        bytes.extend_from_slice(&part(n)?.ok_or(corrupt("a part of its block is missing"))?);
    }
    Ok(record::decode_block(group, first, Bytes::from(bytes))?)
}

/// The entries of `[start, end)` that are on disk, in order and without gap. Fewer if the range was
/// purged or truncated in between.
pub(crate) fn read_range(
    tree: &Tree,
    group: GroupId,
    start: u64,
    end: u64,
) -> io::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let floor = Key::Block { first: 0, part: 0 }.encode(group);
    let from = Key::Block { first: start, part: 0 }.encode(group);
    let holding_start = tree.range(&floor[..]..=&from[..]).rev().find_map(|row| match row {
        Ok((key, _)) => match Key::decode(group, &key) {
            Some(Key::Block { first, part: 0 }) => Some(Ok(first)),
            _ => None,
        },
        Err(error) => Some(Err(error)),
    });
    let mut next = match holding_start {
        Some(first) => first?,
        None => return Ok(entries),
    };
    while next < end {
        if tree.get(&Key::Block { first: next, part: 0 }.encode(group))?.is_none() {
            break;
        }
        let block = read(tree, group, next)?;
        next += block.entries.len() as u64;
        let wanted = block.entries.into_iter();
        entries.extend(wanted.filter(|entry| (start..end).contains(&entry.log_id.index)));
    }
    Ok(entries)
}

/// The contents of a group's log at open.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) last: Option<LogId>,
    /// The newest entries, in order, up to the bytes asked for.
    pub(crate) tail: Vec<Entry>,
    pub(crate) bytes: u64,
    pub(crate) index: BlockIndex,
}

/// Reads and checks every record of a group's log, and removes partial writes of a crash.
pub(crate) fn recover(tree: &Tree, group: GroupId, tail_bytes: usize) -> io::Result<Recovered> {
    let mut found = Recovered::default();
    if let Some(vote) = tree.get(&Key::Vote.encode(group))? {
        found.vote = Some(record::decode_vote(group, &vote)?);
    }
    if let Some(purged) = tree.get(&Key::Purged.encode(group))? {
        let purged = record::decode_purged(group, &purged)?;
        found.purged = Some(purged);
        found.index.purged_before = purged.index + 1;
    }
    let (heads, orphans) = block_keys(tree, group)?;
    for (first, part) in orphans {
        tree.delete(&Key::Block { first, part }.encode(group))?;
    }

    let mut tail = std::collections::VecDeque::new();
    let mut cached = 0;
    let mut expected = None;
    for (first, parts) in heads {
        let corrupt = |what| CorruptLog { group, index: first, what };
        let block = read(tree, group, first)?;
        let end = first + block.entries.len() as u64;
        found.index.blocks.insert(first, Extent { end, parts });
        if end <= found.index.purged_before {
            continue;
        }
        let follows = match expected {
            Some(expected) => first == expected,
            None => first <= found.index.purged_before,
        };
        if !follows {
            return Err(corrupt("the entries before it are missing").into());
        }
        expected = Some(end);
        found.committed = block.committed.or(found.committed);
        for entry in block.entries {
            if entry.log_id.index < found.index.purged_before {
                continue;
            }
            if found.last.is_some_and(|last| last.leader_id > entry.log_id.leader_id) {
                return Err(corrupt("its term is lower than the one before").into());
            }
            found.last = Some(entry.log_id);
            let bytes = record::entry_bytes(&entry);
            found.bytes += bytes as u64;
            cached += bytes;
            tail.push_back(entry);
            while cached > tail_bytes && tail.len() > 1 {
                let dropped = tail.pop_front().expect("it has more than one");
                cached -= record::entry_bytes(&dropped);
            }
        }
    }
    found.last = found.last.or(found.purged);
    found.tail = tail.into();
    Ok(found)
}

type Heads = Vec<(u64, u16)>;

/// The blocks with a head, and the parts that no head claims.
fn block_keys(tree: &Tree, group: GroupId) -> io::Result<(Heads, Heads)> {
    let floor = Key::Block { first: 0, part: 0 }.encode(group);
    let ceiling = Key::Block { first: u64::MAX, part: u16::MAX }.encode(group);
    let (mut heads, mut orphans): (Heads, Heads) = Default::default();
    for row in tree.range(&floor[..]..=&ceiling[..]) {
        let (key, value) = row?;
        match Key::decode(group, &key) {
            Some(Key::Block { first, part: 0 }) => {
                heads.push((first, record::parts(group, first, &value)?));
            }
            Some(Key::Block { first, part }) => match heads.last() {
                Some((head, parts)) if *head == first && part < *parts => {}
                _ => orphans.push((first, part)),
            },
            _ => {}
        }
    }
    Ok((heads, orphans))
}

/// The sound contents of a group's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogExtent {
    pub(crate) entries: u64,
    /// Index of the last entry, purged or not.
    pub(crate) last: Option<u64>,
    /// Index of the last entry that is purged.
    pub(crate) purged: Option<u64>,
}

/// The groups that have a log, and keys that belong to none.
pub(crate) fn groups(tree: &Tree) -> io::Result<(BTreeSet<GroupId>, Vec<Vec<u8>>)> {
    let (mut groups, mut strange) = (BTreeSet::new(), Vec::new());
    for row in tree.range(..) {
        let (key, _) = row?;
        let group = key.first_chunk::<8>().map(|group| GroupId(u64::from_be_bytes(*group)));
        match group.filter(|group| Key::decode(*group, &key).is_some()) {
            Some(group) => drop(groups.insert(group)),
            None => strange.push(key.to_vec()),
        }
    }
    Ok((groups, strange))
}

/// Reads every record of a group's log without changing it, and reports all damage.
pub(crate) fn check(tree: &Tree, group: GroupId) -> (LogExtent, Vec<CorruptLog>) {
    let (mut extent, mut damage) = (LogExtent::default(), Vec::new());
    let mut note = |index, error: io::Error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<CorruptLog>());
        let what = "the database cannot read it";
        damage.push(inner.cloned().unwrap_or(CorruptLog { group, index, what }));
    };
    let get = |key: Key| tree.get(&key.encode(group));
    let vote = get(Key::Vote).and_then(|vote| match vote {
        Some(vote) => Ok(record::decode_vote(group, &vote).map(drop)?),
        None => Ok(()),
    });
    vote.unwrap_or_else(|error| note(0, error));
    let purged = get(Key::Purged).and_then(|purged| match purged {
        Some(purged) => Ok(Some(record::decode_purged(group, &purged)?.index)),
        None => Ok(None),
    });
    extent.last = purged.unwrap_or_else(|error| {
        note(0, error);
        None
    });
    extent.purged = extent.last;
    let purged_before = extent.last.map_or(0, |purged| purged + 1);
    let from = Key::Block { first: 0, part: 0 }.encode(group);
    let to = Key::Block { first: u64::MAX, part: u16::MAX }.encode(group);
    // The first index that a sound block may begin with.
    let mut begins_by = purged_before;
    for row in tree.range(&from[..]..=&to[..]) {
        let first = match row.map(|(key, _)| Key::decode(group, &key)) {
            Ok(Some(Key::Block { first, part: 0 })) => first,
            // Parts are read with their head; parts without a head are leftovers of a crash.
            Ok(_) => continue,
            Err(error) => {
                note(begins_by, error);
                break;
            }
        };
        match read(tree, group, first) {
            Ok(block) => {
                let end = first + block.entries.len() as u64;
                if end > purged_before && first > begins_by {
                    let what = "the entries before it are missing";
                    note(first, CorruptLog { group, index: first, what }.into());
                }
                extent.entries += block.entries.len() as u64;
                extent.last = extent.last.max(Some(end - 1));
                begins_by = end.max(purged_before);
            }
            Err(error) => {
                note(first, error);
                // Blocks after a damaged one are checked independently.
                begins_by = u64::MAX;
            }
        }
    }
    (extent, damage)
}
