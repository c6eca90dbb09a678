//! The catalog as records in a key-value tree: the keys, and what a change writes under them.
//!
//! ```text
//! key (integers big endian)        value
//! 'c'                              cluster record, written once
//! 'm'                              Meta: catalog version, next route id
//! 'r' route id u64                 live route
//! 'x' route id u64                 retired route
//! 'd' version u64                  retained change
//! 'p'                              Placement, from its first change on
//! 'q' version u64                  request that made the version, with the change
//! 'i'                              Disks, from the first one that was recorded on
//! 'v'                              RouteMoves, from the first move on
//! 'a'                              JournalHead, from the first command of the journal on
//! 'j' entry u64                    JournalEntry
//! ```
//!
//! Every value is sealed (see `codec`).

use bincode::{Decode, Encode};

use super::codec::{self, Kind};
use crate::journal::entry::{EntryId, JournalEntry, JournalHead};
use crate::limits::MAX_RECORD_BYTES;
use crate::members::cluster::ClusterRecord;
use crate::members::disks::Disks;
use crate::members::placement::Placement;
use crate::moves::record::RouteMoves;
use crate::routes::requests::Served;
use crate::routes::route::{Delta, Retired, Route};
use crate::routes::table::RouteTable;
use keyviz_types::RouteId;

/// One record to write, or to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordChange {
    /// Key of the record, at most 9 bytes.
    pub key: Vec<u8>,
    /// The record; `None`: delete it.
    pub value: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(crate) struct Meta {
    pub(crate) version: u64,
    pub(crate) next_route_id: RouteId,
}

pub(crate) fn numbered(prefix: u8, number: u64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn put<T: Encode>(key: Vec<u8>, value: &T) -> RecordChange {
    let value = codec::encode::<MAX_RECORD_BYTES, T>(Kind::Record, value);
    let value = value.expect("keys, ids and placements are bounded before they get here");
    RecordChange { key, value: Some(value) }
}

fn delete(key: Vec<u8>) -> RecordChange {
    RecordChange { key, value: None }
}

pub(crate) fn put_cluster(cluster: &ClusterRecord) -> RecordChange {
    put(vec![b'c'], cluster)
}

pub(crate) fn put_placement(placement: &Placement) -> RecordChange {
    put(vec![b'p'], placement)
}

pub(crate) fn put_disks(disks: &Disks) -> RecordChange {
    put(vec![b'i'], disks)
}

pub(crate) fn put_moves(moves: &RouteMoves) -> RecordChange {
    put(vec![b'v'], moves)
}

pub(crate) fn put_journal_head(head: &JournalHead) -> RecordChange {
    put(vec![b'a'], head)
}

pub(crate) fn put_entry(entry: &JournalEntry) -> RecordChange {
    put(numbered(b'j', entry.id), entry)
}

pub(crate) fn delete_entry(id: EntryId) -> RecordChange {
    delete(numbered(b'j', id))
}

pub(crate) fn put_meta(table: &RouteTable) -> RecordChange {
    let newest = table.newest_id().map_or(0, RouteId::get);
    let next_route_id = RouteId::new(newest.saturating_add(1)).unwrap_or(RouteId::FIRST);
    put(vec![b'm'], &Meta { version: table.version(), next_route_id })
}

pub(crate) fn put_route(route: &Route) -> RecordChange {
    put(numbered(b'r', route.id().get()), route)
}

pub(crate) fn delete_route(id: RouteId) -> RecordChange {
    delete(numbered(b'r', id.get()))
}

pub(crate) fn put_retired(retired: &Retired) -> RecordChange {
    put(numbered(b'x', retired.route.id().get()), retired)
}

pub(crate) fn delete_retired(id: RouteId) -> RecordChange {
    delete(numbered(b'x', id.get()))
}

pub(crate) fn put_delta(delta: &Delta) -> RecordChange {
    put(numbered(b'd', delta.version), delta)
}

pub(crate) fn delete_delta(version: u64) -> RecordChange {
    delete(numbered(b'd', version))
}

pub(crate) fn put_request(served: &Served) -> RecordChange {
    put(numbered(b'q', served.delta.version), served)
}

pub(crate) fn delete_request(version: u64) -> RecordChange {
    delete(numbered(b'q', version))
}
