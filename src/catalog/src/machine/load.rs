//! Loads a catalog from its records, or from a snapshot, which has all records in one piece.
//!
//! A catalog is loaded completely or not at all: one damaged, missing or contradictory record is an
//! error.

use bincode::Decode;

use super::codec::{self, CodecError, Kind};
use super::records::{
    Meta, numbered, put_cluster, put_delta, put_disks, put_entry, put_journal_head, put_meta,
    put_moves, put_placement, put_request, put_retired, put_route,
};
use super::state::Catalog;
use crate::journal::entry::{Journal, JournalEntry, JournalHead};
use crate::limits::{MAX_RECORD_BYTES, MAX_SNAPSHOT_BYTES, Retention};
use crate::members::cluster::{ClusterRecord, PlacementError, check_placement};
use crate::members::disks::Disks;
use crate::members::placement::Placement;
use crate::moves::record::RouteMoves;
use crate::routes::lineage::Lineage;
use crate::routes::log::{ChangesError, DeltaLog};
use crate::routes::requests::{Requests, Served};
use crate::routes::route::{Delta, Retired, Route};
use crate::routes::table::{RouteTable, TableError};
use keyviz_types::RouteId;

/// Why records do not make a catalog. None of them is used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// A record is damaged, or of an unsupported version.
    #[error("catalog record {key:02x?}: {source}")]
    Record {
        /// Key of the record.
        key: Vec<u8>,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The snapshot is damaged, or of an unsupported version.
    #[error("catalog snapshot: {0}")]
    Snapshot(CodecError),
    /// A record under an unknown key.
    #[error("unknown catalog record {key:02x?}")]
    UnknownRecord {
        /// The key.
        key: Vec<u8>,
    },
    /// A record under the wrong key, or a duplicate.
    #[error("catalog record {key:02x?} is not what its key says, or occurs twice")]
    Misplaced {
        /// The key.
        key: Vec<u8>,
    },
    /// The records that every catalog has are missing.
    #[error("the catalog's version or cluster record is missing")]
    Incomplete,
    /// The groups do not make a cluster.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The routes leave a gap or overlap, or are of another version.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The retained changes have a hole.
    #[error(transparent)]
    Log(#[from] ChangesError),
    /// An id is used twice among live, retired and future routes.
    #[error("route id {id} is used twice")]
    IdReused {
        /// The id.
        id: RouteId,
    },
    /// A request or retired route from a version that the catalog has not reached.
    #[error("a record is of version {found}, the catalog is at {version}")]
    FromTheFuture {
        /// Version of the record.
        found: u64,
        /// Version of the catalog.
        version: u64,
    },
}

/// The records read so far, not checked for consistency.
#[derive(Default)]
struct Parts {
    meta: Option<Meta>,
    cluster: Option<ClusterRecord>,
    placement: Option<Placement>,
    disks: Option<Disks>,
    moves: Option<RouteMoves>,
    journal: Option<JournalHead>,
    entries: Vec<JournalEntry>,
    routes: Vec<Route>,
    retired: Vec<Retired>,
    deltas: Vec<Delta>,
    served: Vec<Served>,
}

impl Parts {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let expected = match key {
            [b'c'] => {
                let twice = self.cluster.replace(decode(key, value)?).is_some();
                (!twice).then(|| vec![b'c'])
            }
            [b'm'] => {
                let twice = self.meta.replace(decode(key, value)?).is_some();
                (!twice).then(|| vec![b'm'])
            }
            [b'p'] => {
                let twice = self.placement.replace(decode(key, value)?).is_some();
                (!twice).then(|| vec![b'p'])
            }
            [b'i'] => {
                let twice = self.disks.replace(decode(key, value)?).is_some();
                (!twice).then(|| vec![b'i'])
            }
            [b'v'] => {
                let twice = self.moves.replace(decode(key, value)?).is_some();
                (!twice).then(|| vec![b'v'])
            }
            [b'a'] => {
                let twice = self.journal.replace(decode(key, value)?).is_some();
                (!twice).then(|| vec![b'a'])
            }
            [b'j', ..] => {
                self.entries.push(decode(key, value)?);
                self.entries.last().map(|entry| numbered(b'j', entry.id))
            }
            [b'r', ..] => {
                self.routes.push(decode(key, value)?);
                self.routes.last().map(|route| numbered(b'r', route.id().get()))
            }
            [b'x', ..] => {
                self.retired.push(decode(key, value)?);
                self.retired.last().map(|retired| numbered(b'x', retired.route.id().get()))
            }
            [b'd', ..] => {
                self.deltas.push(decode(key, value)?);
                self.deltas.last().map(|delta| numbered(b'd', delta.version))
            }
            [b'q', ..] => {
                self.served.push(decode(key, value)?);
                self.served.last().map(|served| numbered(b'q', served.delta.version))
            }
            _ => return Err(LoadError::UnknownRecord { key: key.to_vec() }),
        };
        if expected.as_deref() != Some(key) {
            return Err(LoadError::Misplaced { key: key.to_vec() });
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.meta.is_none()
            && self.cluster.is_none()
            && self.placement.is_none()
            && self.disks.is_none()
            && self.moves.is_none()
            && self.journal.is_none()
            && self.entries.is_empty()
            && self.routes.is_empty()
            && self.retired.is_empty()
            && self.deltas.is_empty()
            && self.served.is_empty()
    }

    fn build(mut self, retention: Retention) -> Result<Catalog, LoadError> {
        if self.is_empty() {
            return Ok(Catalog::new(retention));
        }
        let (Some(meta), Some(cluster)) = (self.meta.take(), self.cluster.take()) else {
            return Err(LoadError::Incomplete);
        };
        check_placement(&cluster.groups)?;
        let placement = match self.placement.take() {
            Some(placement) if placement.fits(&cluster) => placement,
            Some(_) => return Err(LoadError::Misplaced { key: vec![b'p'] }),
            // No group was moved yet, or the records are of a version without moves.
            None => Placement::of(&cluster),
        };
        self.routes.sort_by(|a, b| a.range().start.cmp(&b.range().start));
        let moves = self.moves.take().unwrap_or_default();
        let journal = self.journal()?;
        let routes = std::mem::take(&mut self.routes);
        let table = RouteTable::from_moved(meta.version, moves.last_change, routes)?;
        let newest = table.newest_id().ok_or(LoadError::Incomplete)?;
        if meta.next_route_id.get() != newest.get().wrapping_add(1) {
            return Err(LoadError::IdReused { id: meta.next_route_id });
        }
        Ok(Catalog {
            retention,
            cluster: Some(std::sync::Arc::new(cluster)),
            placement: std::sync::Arc::new(placement),
            disks: std::sync::Arc::new(self.disks.take().unwrap_or_default()),
            moves: std::sync::Arc::new(moves),
            journal: std::sync::Arc::new(journal),
            boundary_bytes: table.specs().iter().map(|spec| spec.range.start.len()).sum(),
            log: self.log(&table)?,
            requests: self.requests(&table)?,
            lineage: self.lineage(&table)?,
            table,
        })
    }

    fn journal(&mut self) -> Result<Journal, LoadError> {
        self.entries.sort_by_key(|entry| entry.id);
        let head = self.journal.take();
        let newest = self.entries.last().map_or(0, |entry| entry.id);
        // Each entry is counted, and there is none without a head.
        if head.map_or(0, |head| head.last_id) != newest {
            return Err(LoadError::Misplaced { key: numbered(b'j', newest) });
        }
        let twice = self.entries.windows(2).find(|pair| pair[0].id == pair[1].id);
        if let Some(pair) = twice {
            return Err(LoadError::Misplaced { key: numbered(b'j', pair[0].id) });
        }
        let entries = self.entries.drain(..).map(std::sync::Arc::new).collect();
        Ok(Journal { head: head.unwrap_or_default(), entries })
    }

    fn log(&mut self, table: &RouteTable) -> Result<DeltaLog, LoadError> {
        self.deltas.sort_by_key(|delta| delta.version);
        let log = DeltaLog::from_deltas(self.deltas.drain(..).map(Into::into).collect());
        log.check(table.version())?;
        Ok(log)
    }

    fn requests(&mut self, table: &RouteTable) -> Result<Requests, LoadError> {
        self.served.sort_by_key(|served| served.delta.version);
        let mut requests = Requests::default();
        for served in self.served.drain(..) {
            let found = served.delta.version;
            check_past(found, table.version())?;
            if !requests.insert(served) {
                return Err(LoadError::Misplaced { key: numbered(b'q', found) });
            }
        }
        Ok(requests)
    }

    fn lineage(&mut self, table: &RouteTable) -> Result<Lineage, LoadError> {
        let key =
            |retired: &Retired| (retired.retired_version, retired.route.range().start.clone());
        self.retired.sort_by_cached_key(key);
        let newest = table.newest_id();
        let mut lineage = Lineage::default();
        for retired in self.retired.drain(..) {
            let id = retired.route.id();
            check_past(retired.retired_version, table.version())?;
            let reused = Some(id) >= newest || table.position(id).is_some();
            if reused || !lineage.insert(retired) {
                return Err(LoadError::IdReused { id });
            }
        }
        Ok(lineage)
    }
}

fn check_past(found: u64, version: u64) -> Result<(), LoadError> {
    if found > version { Err(LoadError::FromTheFuture { found, version }) } else { Ok(()) }
}

fn decode<T: Decode<()>>(key: &[u8], value: &[u8]) -> Result<T, LoadError> {
    codec::decode::<MAX_RECORD_BYTES, T>(Kind::Record, value)
        .map_err(|source| LoadError::Record { key: key.to_vec(), source })
}

impl Catalog {
    /// The catalog that `records` (key, value; in any order) hold; without records, a catalog
    /// before bootstrap.
    ///
    /// # Errors
    /// If a record is damaged or contradicts another; nothing is loaded then.
    pub fn load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        records: impl IntoIterator<Item = (K, V)>,
        retention: Retention,
    ) -> Result<Self, LoadError> {
        let mut parts = Parts::default();
        for (key, value) in records {
            parts.add(key.as_ref(), value.as_ref())?;
        }
        parts.build(retention)
    }

    /// All records of this catalog, as `(key, value)`: what [`Catalog::load`] takes, and what a
    /// tree holds after a snapshot was installed into it.
    pub fn records(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
        let cluster = self.cluster.iter().map(|cluster| put_cluster(cluster));
        let moved = (self.placement.revision() > 0).then(|| put_placement(&self.placement));
        let disks = (!self.disks.is_empty()).then(|| put_disks(&self.disks));
        let moves = (!self.moves.is_empty()).then(|| put_moves(&self.moves));
        let head = (!self.journal.is_empty()).then(|| put_journal_head(&self.journal.head));
        let entries = self.journal.entries().map(|entry| put_entry(entry));
        let meta = self.cluster.iter().map(|_| put_meta(&self.table));
        let routes = self.table.iter().map(|route| put_route(&route));
        let retired = self.lineage.iter().map(put_retired);
        let deltas = self.log.iter().map(|delta| put_delta(delta));
        let served = self.requests.iter().map(put_request);
        let all = cluster
            .chain(moved)
            .chain(disks)
            .chain(moves)
            .chain(head)
            .chain(entries)
            .chain(meta)
            .chain(routes)
            .chain(retired)
            .chain(deltas)
            .chain(served);
        all.filter_map(|record| Some((record.key, record.value?)))
    }

    /// The whole catalog as one byte string: every record with its key, each prefixed with its
    /// length (u32 little-endian), with one checksum over all.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] beyond [`MAX_SNAPSHOT_BYTES`], which the other limits rule out.
    pub fn encode_snapshot(&self) -> Result<Vec<u8>, CodecError> {
        let sealed = codec::seal(Kind::Snapshot, |bytes| {
            for (key, value) in self.records() {
                for part in [key, value] {
                    // Records are at most 1 MiB, so their lengths fit.
                    bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(&part);
                }
            }
        });
        let len = sealed.len();
        if len > MAX_SNAPSHOT_BYTES {
            return Err(CodecError::TooLarge { len, limit: MAX_SNAPSHOT_BYTES });
        }
        Ok(sealed)
    }

    /// The catalog of a snapshot.
    ///
    /// # Errors
    /// If the bytes are damaged or the records do not make a catalog; nothing is loaded then.
    pub fn decode_snapshot(bytes: &[u8], retention: Retention) -> Result<Self, LoadError> {
        let mut rest =
            codec::open(Kind::Snapshot, bytes, MAX_SNAPSHOT_BYTES).map_err(LoadError::Snapshot)?;
        let mut parts = Parts::default();
        while !rest.is_empty() {
            let key = take_part(&mut rest)?;
            let value = take_part(&mut rest)?;
            parts.add(key, value)?;
        }
        parts.build(retention)
    }
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], LoadError> {
    let cut = |rest: &'a [u8]| {
        let (len, rest) = rest.split_first_chunk::<4>()?;
        rest.split_at_checked(u32::from_le_bytes(*len) as usize)
    };
    let truncated = LoadError::Snapshot(CodecError::Truncated { len: rest.len() });
    let (part, after) = cut(rest).ok_or(truncated)?;
    *rest = after;
    Ok(part)
}
