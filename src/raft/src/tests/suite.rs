//! openraft's own suite of what it expects from a log store and a state machine.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::log::GroupLog;
use crate::machine::apply::Applier;
use crate::storage::{Storage, StorageOptions};
use crate::testing::{GROUP, Map};
use crate::types::Types;

struct Builder;

impl StoreBuilder<Types, GroupLog, Applier, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, GroupLog, Applier), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path(), StorageOptions::default()).unwrap();
        let log = storage.open_log(GROUP).unwrap();
        let keyspace = storage.open_space(GROUP).unwrap();
        let applier = Applier::open(storage, keyspace, Box::new(Map)).unwrap();
        Ok((dir, log, applier))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_suite_of_openraft_passes() {
    Suite::test_all(Builder).await.unwrap();
}
