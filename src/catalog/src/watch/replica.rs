//! A subscriber's copy of the route table.

use super::hub::WatchEvent;
use crate::routes::route::Delta;
use crate::routes::table::{RouteTable, TableError};

/// Why an event does not fit the table. The table is unchanged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FollowError {
    /// A change that does not follow, or would leave a gap or an overlap.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A snapshot older than the table.
    #[error("the table has version {have}; the snapshot is of version {found}")]
    Backwards {
        /// Version of the table.
        have: u64,
        /// Version of the snapshot.
        found: u64,
    },
    /// The table is not current although everything was sent.
    #[error("the table has version {have}, though everything up to {current} was sent")]
    NotCurrent {
        /// Version of the table.
        have: u64,
        /// Version that the mark bears.
        current: u64,
    },
}

/// Follows a watch. An event that does not fit is refused, and the copy is not ready until an event
/// fits again: subscribe again after [`RouteTableReplica::version`].
#[derive(Clone, Default, Debug)]
pub struct RouteTableReplica {
    table: RouteTable,
    current: bool,
    fault: Option<FollowError>,
}

impl RouteTableReplica {
    /// A replica without a table.
    pub fn new() -> Self {
        RouteTableReplica::default()
    }

    /// The table as followed so far.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Version to resume after.
    pub fn version(&self) -> u64 {
        self.table.version()
    }

    /// Why the last event was refused; `None` where it was taken.
    pub fn fault(&self) -> Option<&FollowError> {
        self.fault.as_ref()
    }

    /// Whether there is a table and nothing was refused since it was last known to be right.
    pub fn is_ready(&self) -> bool {
        !self.table.is_empty() && self.fault.is_none()
    }

    /// Whether the last event was a mark of progress: the table is the node's newest.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// Takes one event.
    ///
    /// # Errors
    /// Where the event does not fit; the table stays as it was then.
    pub fn apply(&mut self, event: &WatchEvent) -> Result<(), FollowError> {
        let outcome = match event {
            WatchEvent::Snapshot { table, .. } => self.take_snapshot(table),
            WatchEvent::Deltas(deltas) => self.take_deltas(deltas.iter().map(AsRef::as_ref)),
            WatchEvent::Progress(version) => self.take_progress(*version),
        };
        self.current = outcome.is_ok() && matches!(event, WatchEvent::Progress(_));
        self.fault = outcome.clone().err();
        outcome
    }

    fn take_snapshot(&mut self, table: &RouteTable) -> Result<(), FollowError> {
        let (have, found) = (self.version(), table.version());
        if found < have {
            return Err(FollowError::Backwards { have, found });
        }
        self.table = table.clone();
        Ok(())
    }

    fn take_deltas<'a>(
        &mut self,
        deltas: impl Iterator<Item = &'a Delta>,
    ) -> Result<(), FollowError> {
        self.table = self.table.advance(deltas)?;
        Ok(())
    }

    fn take_progress(&self, current: u64) -> Result<(), FollowError> {
        let have = self.version();
        if have == current { Ok(()) } else { Err(FollowError::NotCurrent { have, current }) }
    }
}
