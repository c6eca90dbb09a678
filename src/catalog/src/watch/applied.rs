//! The catalog that a node has applied, and its watchers.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::hub::{HubError, WatchHub};
use crate::journal::apply::JournalApplied;
use crate::journal::command::JournalCommand;
use crate::journal::entry::Journal;
use crate::journal::error::JournalError;
use crate::limits::Retention;
use crate::machine::command::CatalogCommand;
use crate::machine::error::CatalogError;
use crate::machine::records::RecordChange;
use crate::machine::state::{Applied, Catalog};
use crate::members::cluster::ClusterRecord;
use crate::members::disks::{DiskCommand, DiskError, Disks};
use crate::members::placement::{PlaceCommand, PlaceError, Placement};
use crate::moves::apply::MoveApplied;
use crate::moves::command::MoveCommand;
use crate::moves::error::MoveError;
use crate::moves::record::RouteMoves;
use crate::routes::route::Delta;
use crate::routes::table::RouteTable;

/// The catalog as this node has applied it. Shared by the state machine, which writes it, and
/// readers.
#[derive(Clone)]
pub struct AppliedCatalog {
    catalog: Arc<RwLock<Catalog>>,
    hub: WatchHub,
    placements: Arc<watch::Sender<Arc<Placement>>>,
    disks: Arc<watch::Sender<Arc<Disks>>>,
    moves: Arc<watch::Sender<Arc<RouteMoves>>>,
    journal: Arc<watch::Sender<Arc<Journal>>>,
}

impl Default for AppliedCatalog {
    fn default() -> Self {
        AppliedCatalog {
            catalog: Arc::new(RwLock::new(Catalog::new(Retention::DEFAULT))),
            hub: WatchHub::default(),
            placements: Arc::new(watch::Sender::new(Arc::default())),
            disks: Arc::new(watch::Sender::new(Arc::default())),
            moves: Arc::new(watch::Sender::new(Arc::default())),
            journal: Arc::new(watch::Sender::new(Arc::default())),
        }
    }
}

impl AppliedCatalog {
    /// The live routes.
    pub fn table(&self) -> RouteTable {
        self.catalog.read().table().clone()
    }

    /// The parameters of the bootstrap; `None` before it was applied here.
    pub fn cluster(&self) -> Option<Arc<ClusterRecord>> {
        self.catalog.read().cluster().cloned()
    }

    /// The stream of changes applied here.
    pub fn hub(&self) -> &WatchHub {
        &self.hub
    }

    /// Reads the whole catalog; changes wait meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&Catalog) -> T) -> T {
        look(&self.catalog.read())
    }

    /// The placement of groups, as applied here.
    pub fn placement(&self) -> Arc<Placement> {
        self.placements.borrow().clone()
    }

    /// A watch of the placement.
    pub fn placements(&self) -> watch::Receiver<Arc<Placement>> {
        self.placements.subscribe()
    }

    /// The disk of each member, as applied here.
    pub fn disks(&self) -> Arc<Disks> {
        self.disks.borrow().clone()
    }

    /// A watch of the disks.
    pub fn watch_disks(&self) -> watch::Receiver<Arc<Disks>> {
        self.disks.subscribe()
    }

    /// What is recorded of moves, as applied here.
    pub fn moves(&self) -> Arc<RouteMoves> {
        self.moves.borrow().clone()
    }

    /// A watch of the moves.
    pub fn watch_moves(&self) -> watch::Receiver<Arc<RouteMoves>> {
        self.moves.subscribe()
    }

    /// The journal, as applied here.
    pub fn journal(&self) -> Arc<Journal> {
        self.journal.borrow().clone()
    }

    /// A watch of the journal.
    pub fn watch_journal(&self) -> watch::Receiver<Arc<Journal>> {
        self.journal.subscribe()
    }

    /// Replaces the catalog, as after a start or an installed snapshot.
    ///
    /// # Errors
    /// If its routes and retained changes do not match.
    pub fn replace(&self, catalog: Catalog) -> Result<(), HubError> {
        let (table, retained) =
            (catalog.table().clone(), catalog.log().cloned().collect::<Vec<_>>());
        *self.catalog.write() = catalog;
        self.publish_placement();
        self.publish_disks();
        self.publish_moves();
        self.publish_journal();
        self.hub.replace(table, &retained)
    }

    /// Applies a change of the routes. Watchers see it after [`AppliedCatalog::publish`].
    ///
    /// # Errors
    /// As [`Catalog::apply`].
    pub fn apply(&self, command: CatalogCommand) -> Result<Applied, CatalogError> {
        self.catalog.write().apply(command)
    }

    /// Applies a change of the placement. Watchers see it after
    /// [`AppliedCatalog::publish_placement`].
    ///
    /// # Errors
    /// As [`Catalog::place`].
    pub fn place(&self, command: &PlaceCommand) -> Result<RecordChange, PlaceError> {
        self.catalog.write().place(command)
    }

    /// Records the disk of a member. Watchers see it after [`AppliedCatalog::publish_disks`].
    ///
    /// # Errors
    /// As [`Catalog::record_disk`].
    pub fn record_disk(&self, command: &DiskCommand) -> Result<RecordChange, DiskError> {
        self.catalog.write().record_disk(command)
    }

    /// Applies a command of a move. Watchers see it after [`AppliedCatalog::publish_moves`] and,
    /// where it changed the routes, [`AppliedCatalog::publish`].
    ///
    /// # Errors
    /// As [`Catalog::apply_move`].
    pub fn apply_move(&self, command: &MoveCommand) -> Result<MoveApplied, MoveError> {
        self.catalog.write().apply_move(command)
    }

    /// Applies a command of the journal. Watchers see it after [`AppliedCatalog::publish_journal`].
    ///
    /// # Errors
    /// As [`Catalog::apply_journal`].
    pub fn apply_journal(&self, command: &JournalCommand) -> Result<JournalApplied, JournalError> {
        self.catalog.write().apply_journal(command)
    }

    /// Publishes the journal to watchers.
    pub fn publish_journal(&self) {
        let now = self.with(|catalog| Arc::clone(catalog.journal()));
        self.journal.send_if_modified(|shown| {
            let changed = *shown != now;
            *shown = now;
            changed
        });
    }

    /// Publishes what is recorded of moves to watchers.
    pub fn publish_moves(&self) {
        let now = self.with(|catalog| Arc::clone(catalog.moves()));
        self.moves.send_if_modified(|shown| {
            let changed = *shown != now;
            *shown = now;
            changed
        });
    }

    /// Publishes the applied disks to watchers.
    pub fn publish_disks(&self) {
        let now = self.with(|catalog| Arc::clone(catalog.disks()));
        self.disks.send_if_modified(|shown| {
            let changed = *shown != now;
            *shown = now;
            changed
        });
    }

    /// Publishes applied changes of the routes to watchers.
    ///
    /// # Errors
    /// If they do not follow what was published last.
    pub fn publish(&self, deltas: &[Arc<Delta>]) -> Result<(), HubError> {
        self.hub.publish(self.table(), deltas)
    }

    /// Publishes applied changes to watchers.
    pub fn publish_placement(&self) {
        let now = self.with(|catalog| Arc::clone(catalog.placement()));
        self.placements.send_if_modified(|shown| {
            let changed = *shown != now;
            *shown = now;
            changed
        });
    }
}
