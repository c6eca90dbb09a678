//! The catalog's state machine on sled.
//!
//! Each change writes only the records it touched, in the batch that also moves the applied
//! position, so a restart finds the catalog exactly as applied. What was applied is published to
//! the watch hub once it is written, in order: the sampler, the coordinator and remote
//! subscribers all follow that one stream.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use keyviz_catalog::{
    AppliedCatalog, Catalog, CatalogCommand, CodecError, Delta, DeltaKind, DiskCommand,
    JournalCommand, MoveCommand, PlaceCommand, RecordChange, Retention,
};
use keyviz_raft::{Batch, Keyspace, LogPosition, Machine, MachineError, PageLimit};

use super::replies;

const PAGE: PageLimit = PageLimit { rows: 1_024, bytes: 1 << 20 };

/// The state machine of the catalog group.
pub struct CatalogMachine {
    applied: AppliedCatalog,
    /// Applied, not written yet.
    unpublished: Vec<Arc<Delta>>,
}

impl CatalogMachine {
    /// The machine that writes `applied`.
    pub fn of(applied: &AppliedCatalog) -> Self {
        CatalogMachine { applied: applied.clone(), unpublished: Vec::new() }
    }

    fn publish(&mut self) -> Result<(), MachineError> {
        if self.unpublished.is_empty() {
            return Ok(());
        }
        let deltas = std::mem::take(&mut self.unpublished);
        let published = self.applied.publish(&deltas);
        published.map_err(|error| MachineError::Corrupt(error.to_string()))
    }
}

impl Machine for CatalogMachine {
    fn restore(&mut self, keyspace: &Keyspace) -> Result<(), MachineError> {
        let mut records = Vec::new();
        let mut from = Bound::Unbounded;
        loop {
            let page = keyspace.scan(
                from.as_ref().map(|key: &Bytes| key.as_ref()),
                Bound::Unbounded,
                PAGE,
            )?;
            records.extend(page.rows);
            match records.last() {
                Some((last, _)) if page.more => from = Bound::Excluded(last.clone()),
                _ => break,
            }
        }
        let catalog = Catalog::load(records, Retention::DEFAULT)
            .map_err(|error| MachineError::Corrupt(error.to_string()))?;
        self.unpublished.clear();
        let replaced = self.applied.replace(catalog);
        replaced.map_err(|error| MachineError::Corrupt(error.to_string()))
    }

    fn apply(
        &mut self,
        at: LogPosition,
        command: &Bytes,
        batch: &mut Batch<'_>,
    ) -> Result<Bytes, MachineError> {
        let corrupt = |error: CodecError| MachineError::Corrupt(format!("log entry {at}: {error}"));
        if let Some(command) = PlaceCommand::decode(command) {
            let placed = self.applied.place(&command.map_err(corrupt)?);
            if let Ok(record) = &placed {
                put_record(batch, record)?;
            }
            let revision =
                placed.map(|_| self.applied.with(|catalog| catalog.placement().revision()));
            return Ok(replies::encode(&revision));
        }
        if let Some(command) = DiskCommand::decode(command) {
            let recorded = self.applied.record_disk(&command.map_err(corrupt)?);
            if let Ok(record) = &recorded {
                put_record(batch, record)?;
            }
            return Ok(replies::encode(&recorded.map(drop)));
        }
        if let Some(command) = MoveCommand::decode(command) {
            let applied = self.applied.apply_move(&command.map_err(corrupt)?);
            if let Ok(applied) = &applied {
                for record in &applied.records {
                    put_record(batch, record)?;
                }
                self.unpublished.extend(applied.delta.clone());
            }
            return Ok(replies::encode(&applied.map(|applied| applied.id)));
        }
        if let Some(command) = JournalCommand::decode(command) {
            let applied = self.applied.apply_journal(&command.map_err(corrupt)?);
            if let Ok(applied) = &applied {
                for record in &applied.records {
                    put_record(batch, record)?;
                }
            }
            return Ok(replies::encode(&applied.map(|applied| applied.id)));
        }
        let command = CatalogCommand::decode(command).map_err(corrupt)?;
        let outcome = self.applied.apply(command);
        if let Ok(applied) = &outcome {
            for record in &applied.records {
                put_record(batch, record)?;
            }
            if !applied.replayed {
                self.unpublished.push(Arc::clone(&applied.delta));
            }
        }
        Ok(replies::encode(&outcome.map(|applied| answer(&applied.delta))))
    }

    fn written(&mut self, _keyspace: &Keyspace, last: LogPosition) {
        self.applied.publish_placement();
        self.applied.publish_disks();
        // Before the routes: who sees a route in its new group knows since which entry it is there.
        self.applied.publish_moves();
        self.applied.publish_journal();
        if let Err(error) = self.publish() {
            // The hub refused the change whole; subscribers keep the table they had.
            tracing::error!(at = %last, %error, "an applied catalog change could not be published");
        }
    }
}

fn put_record(batch: &mut Batch<'_>, record: &RecordChange) -> Result<(), MachineError> {
    let key = Bytes::copy_from_slice(&record.key);
    match &record.value {
        Some(value) => batch.put(key, Bytes::copy_from_slice(value))?,
        None => batch.delete(key)?,
    }
    Ok(())
}

/// What a proposer is told. The first routes of a cluster can be 100,000; nobody asks for them so.
fn answer(delta: &Delta) -> Delta {
    match delta.kind {
        DeltaKind::Bootstrap => Delta { created: Vec::new(), ..delta.clone() },
        _ => delta.clone(),
    }
}
