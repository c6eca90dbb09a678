//! Checks the folder of a stopped node: the records of the storage and their contents.

use std::path::Path;

use keyviz_catalog::AppliedCatalog;
use keyviz_catalog_group::CatalogMachine;
use keyviz_core::copies::damaged_records;
use keyviz_core::history::{Damaged, HistoryHandoff};
use keyviz_core::{Archive, GroupId, NodeId};
use keyviz_json::key_text;
use keyviz_raft::{
    CheckReport, Keyspace, Machine as _, MachineError, OpenError, RecordError, SideRows, Unsound,
    Verify, check_folder,
};

use super::{archive, history_copies, history_handoffs, identity};

/// Reads every record of a stopped node's folder; see [`check_folder`].
///
/// # Errors
/// If the folder is in use, does not belong to a node, or its database cannot be opened.
pub fn check(dir: &Path) -> Result<CheckReport, OpenError> {
    check_folder(dir, &Contents)
}

struct Contents;

impl Verify for Contents {
    fn record(&self, name: &str, value: &[u8]) -> Result<(), RecordError> {
        identity::check_record(name, value)
    }

    fn group(&self, keyspace: &Keyspace) -> Result<(), MachineError> {
        if keyspace.group() != GroupId::CATALOG {
            // A row of a data group is arbitrary bytes of a client.
            return Ok(());
        }
        CatalogMachine::of(&AppliedCatalog::default()).restore(keyspace)
    }

    fn side(&self, name: &str, rows: &SideRows) -> Result<Vec<(String, String)>, Unsound> {
        if let Some(node) = name.strip_prefix(history_handoffs::ROWS) {
            let node = NodeId(node.parse().map_err(|_| Unsound::Node)?);
            let rows = rows.rows().map_err(std::io::Error::from)?;
            let damaged =
                HistoryHandoff::of_records(node, rows).map_or_else(Vec::new, |(_, bad)| bad);
            let named = |row: Damaged| (key_text(&row.key).into_owned(), row.error.to_string());
            return Ok(damaged.into_iter().map(named).collect());
        }
        if name == history_copies::ROWS {
            let rows = rows.rows().map_err(std::io::Error::from)?;
            let damaged = damaged_records(rows).into_iter();
            return Ok(damaged
                .map(|(key, error)| (key_text(&key).into_owned(), error.to_string()))
                .collect());
        }
        if name != archive::ROWS {
            return Ok(Vec::new());
        }
        let rows = rows.rows().map_err(std::io::Error::from)?;
        let damaged = Archive::open(rows).damaged.into_iter();
        Ok(damaged.map(|row| (key_text(&row.key).into_owned(), row.error.to_string())).collect())
    }
}
