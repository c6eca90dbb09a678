//! Moves copies to where they belong: those of nodes that have left, whose own node sends nothing
//! any more, and those that this node holds although other members do now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use keyviz_core::copies::{CopyPush, CopyRecord, HeldCopy, Inventory, Taken, fingerprint, holders};
use keyviz_core::history::ColumnId;
use keyviz_core::history::HistoryHandoff;
use keyviz_core::{Archive, Incarnation, NodeId};
use keyviz_peer::CopyCallError;

use super::copier::Copier;

/// Members are compared with the copies this often.
pub(super) const TEND_EVERY: Duration = Duration::from_secs(15);

/// Copies of nodes that have left are compared with their holders this often, and when members
/// change.
const COMPARE_EVERY: Duration = Duration::from_secs(600);

/// Columns in one call.
const COLUMNS: usize = 16;

/// A pause between calls, which bounds the rate.
const PAUSE: Duration = Duration::from_millis(250);

/// What this node has of another one.
enum Source {
    Copy(HeldCopy),
    Handoff(Box<HistoryHandoff>),
}

pub(super) struct Keeper {
    copier: Arc<Copier>,
    /// The members at the last comparison.
    members: BTreeSet<NodeId>,
    compared: BTreeMap<NodeId, Instant>,
}

impl Keeper {
    pub(super) fn new(copier: Arc<Copier>) -> Self {
        Keeper { copier, members: BTreeSet::new(), compared: BTreeMap::new() }
    }

    /// Compares the copies with the members.
    pub(super) async fn tend(&mut self, members: &BTreeSet<NodeId>) {
        let local = Arc::clone(&self.copier.local);
        let Some(copies) = local.copies().map(Arc::clone) else { return };
        let (known, now_ms) = (members.clone(), local.clock().now_ms());
        let noting = {
            let copies = Arc::clone(&copies);
            keyviz_raft::blocking(move || copies.know_members(&known, now_ms))
        };
        if !matches!(noting.await, Ok(Ok(()))) {
            return;
        }
        if *members != self.members {
            self.compared.clear();
            self.members.clone_from(members);
        }
        let mut sources: BTreeMap<NodeId, Source> = BTreeMap::new();
        for kept in local.history().kept_estates() {
            sources.insert(kept.node, Source::Handoff(Box::new(kept)));
        }
        for held in copies.held() {
            sources.entry(held.node).or_insert(Source::Copy(held));
        }
        for (of, source) in sources {
            let due = |at: &Instant| at.elapsed() >= COMPARE_EVERY;
            if !self.compared.get(&of).is_none_or(due) || self.copier.stop.is_cancelled() {
                continue;
            }
            let result = match members.contains(&of) {
                true => self.give_up(of, &source, members).await,
                false => self.pass_on(of, &source, members).await,
            };
            match result {
                Ok(()) => drop(self.compared.insert(of, Instant::now())),
                Err(error) => tracing::debug!(%of, %error, "a copy was not compared"),
            }
        }
    }

    fn targets(&self, of: NodeId, members: &BTreeSet<NodeId>) -> Vec<NodeId> {
        holders(of, members.iter().copied(), self.copier.copies)
    }

    /// Drops the copy of a member that others hold now, once they have as much.
    async fn give_up(
        &self,
        of: NodeId,
        source: &Source,
        members: &BTreeSet<NodeId>,
    ) -> Result<(), CopyCallError> {
        let targets = self.targets(of, members);
        let Source::Copy(held) = source else { return Ok(()) };
        if targets.contains(&self.copier.node) || targets.is_empty() {
            return Ok(());
        }
        for target in targets {
            let theirs = self.inventory(target, of).await?;
            if theirs.complete_to_ms < held.complete_to_ms {
                let what = "the holders of a copy do not have all of it yet";
                return Err(CopyCallError::Call(tonic::Status::aborted(what)));
            }
        }
        self.remove(of).await
    }

    async fn remove(&self, of: NodeId) -> Result<(), CopyCallError> {
        let local = Arc::clone(&self.copier.local);
        let removing = keyviz_raft::blocking(move || match local.copies() {
            Some(copies) => copies.remove(of),
            None => Ok(()),
        });
        match removing.await {
            Ok(Ok(())) => {
                tracing::info!(%of, "a copy of a history is kept by other members now");
                Ok(())
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    async fn inventory(&self, target: NodeId, of: NodeId) -> Result<Inventory, CopyCallError> {
        let me = (self.copier.node, &self.copier.disk.0[..]);
        self.copier.client.copy_inventory(target, of, me).await
    }

    /// Gives the columns of a node that has left to the members that hold them now.
    async fn pass_on(
        &self,
        of: NodeId,
        source: &Source,
        members: &BTreeSet<NodeId>,
    ) -> Result<(), CopyCallError> {
        if self.copier.copies < 2 {
            return Ok(());
        }
        // The node itself is gone: as many members as there were copies.
        let mut targets = holders(of, members.iter().copied(), self.copier.copies + 1);
        let here = targets.contains(&self.copier.node);
        targets.retain(|target| *target != self.copier.node);
        let own = self.own_columns(of, source).await?;
        for target in targets {
            let theirs = self.inventory(target, of).await?;
            let there: BTreeMap<ColumnId, u64> = theirs.columns.iter().copied().collect();
            let lacks = |(id, print): &(ColumnId, u64)| {
                let other = there.get(id) != Some(print);
                other && id.end_ms > theirs.forgotten_before_ms
            };
            let missing: Vec<ColumnId> =
                own.iter().filter(|own| lacks(own)).map(|(id, _)| *id).collect();
            let told = self.summary(source);
            let behind = theirs.complete_to_ms < told.1;
            let mut parcels = missing.chunks(COLUMNS).rev().peekable();
            if parcels.peek().is_none() && behind {
                self.push(target, of, source, Vec::new(), true).await?;
            }
            while let Some(ids) = parcels.next() {
                let records = self.records(of, source, ids.to_vec()).await?;
                self.push(target, of, source, records, parcels.peek().is_none()).await?;
                tokio::time::sleep(PAUSE).await;
            }
        }
        if !here && matches!(source, Source::Copy(_)) {
            self.remove(of).await?;
        }
        Ok(())
    }

    /// Latest start, complete to, left and forgotten.
    fn summary(&self, source: &Source) -> (Incarnation, u64, u64, u64) {
        match source {
            Source::Copy(held) => {
                let left_ms = held.left_ms.unwrap_or(held.complete_to_ms);
                (held.incarnation, held.complete_to_ms, left_ms, held.forgotten_before_ms)
            }
            Source::Handoff(kept) => {
                // It was handed over whole.
                let end_ms = kept.columns.last().map_or(0, |column| column.end_ms());
                (kept.incarnation, end_ms, end_ms, kept.forgotten_before_ms)
            }
        }
    }

    async fn own_columns(
        &self,
        of: NodeId,
        source: &Source,
    ) -> Result<Vec<(ColumnId, u64)>, CopyCallError> {
        match source {
            Source::Copy(_) => {
                let local = Arc::clone(&self.copier.local);
                let reading = keyviz_raft::blocking(move || {
                    local.copies().map(|copies| copies.inventory(of)).transpose()
                });
                let inventory = reading.await.map_err(|error| failed(error.to_string()))?;
                let inventory = inventory.map_err(|error| failed(error.to_string()))?;
                Ok(inventory.map(|inventory| inventory.columns).unwrap_or_default())
            }
            Source::Handoff(kept) => {
                let columns = kept.columns.clone();
                let reading = keyviz_raft::blocking(move || {
                    let print = |column: &Arc<_>| (column_id(column), fingerprint(column));
                    columns.iter().map(print).collect()
                });
                reading.await.map_err(|error| failed(error.to_string()))
            }
        }
    }

    async fn records(
        &self,
        of: NodeId,
        source: &Source,
        ids: Vec<ColumnId>,
    ) -> Result<Vec<CopyRecord>, CopyCallError> {
        match source {
            Source::Copy(_) => {
                let local = Arc::clone(&self.copier.local);
                let reading = keyviz_raft::blocking(move || {
                    local.copies().map(|copies| copies.records(of, &ids)).transpose()
                });
                let records = reading.await.map_err(|error| failed(error.to_string()))?;
                let records = records.map_err(|error| failed(error.to_string()))?;
                Ok(records.unwrap_or_default())
            }
            Source::Handoff(kept) => {
                let wanted: BTreeSet<ColumnId> = ids.into_iter().collect();
                let columns = kept.columns.iter();
                let columns = columns.filter(|column| wanted.contains(&column.id()));
                let columns: Vec<_> = columns.cloned().collect();
                let packing = keyviz_raft::blocking(move || {
                    Archive::default().batch(columns.iter().map(AsRef::as_ref), &[]).puts
                });
                packing.await.map_err(|error| failed(error.to_string()))
            }
        }
    }

    async fn push(
        &self,
        target: NodeId,
        of: NodeId,
        source: &Source,
        records: Vec<CopyRecord>,
        last: bool,
    ) -> Result<(), CopyCallError> {
        let (incarnation, complete_to_ms, left_ms, forgotten_before_ms) = self.summary(source);
        let push = CopyPush {
            node: of,
            incarnation,
            step_ms: self.copier.local.history().config().step_ms,
            complete_to_ms: last.then_some(complete_to_ms),
            left_ms: Some(left_ms),
            forgotten_before_ms,
            records,
            removed: Vec::new(),
        };
        let bytes = push.bytes() as u64;
        let me = (self.copier.node, &self.copier.disk.0[..]);
        let taken = self.copier.client.store_copy(target, me, push).await?;
        self.copier.local.copy_stats().sent(bytes);
        match taken {
            Taken::Stored { .. } => Ok(()),
            Taken::MissingChunks => Err(failed("it lacks slots of columns".to_owned())),
        }
    }
}

fn column_id(column: &keyviz_core::history::Column) -> ColumnId {
    column.id()
}

fn failed(reason: String) -> CopyCallError {
    CopyCallError::Call(tonic::Status::internal(reason))
}
