//! `restore`: creates the folder of a node from a backup.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::data::kv::OneFormat;
use crate::flags::values::{self, Address};
use crate::serve::{self, DEFAULT_REPLICATION, MAX_REPLICATION};
use crate::terminal::talk::say;
use crate::terminal::{output, text};
use crate::{CliError, UsageError};
use keyviz_node::{Restore, Restored};
use keyviz_types::NodeId;

/// `restore`.
#[derive(Args, Debug)]
#[command(
    after_help = "Run it once for every member, with the same file and the same list; then start\n\
    each with `keyviz serve --id ID --data DIR --listen ...`, without --bootstrap."
)]
pub struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Folder to create; it must not exist, or be empty
    #[arg(long, env = "KEYVIZ_DATA", value_name = "DIR")]
    data: PathBuf,
    /// The node that the folder is for
    #[arg(
        long,
        env = "KEYVIZ_ID",
        value_name = "ID",
        value_parser = |text: &str| values::number_in(text, 1, u64::MAX),
    )]
    id: u64,
    /// All members of the new cluster
    #[arg(
        long,
        env = "KEYVIZ_BOOTSTRAP",
        value_name = "ID=HOST:PORT,...",
        value_delimiter = ',',
        value_parser = serve::member,
        required = true
    )]
    bootstrap: Vec<(u64, Address)>,
    /// Replicas of each group, 1 to 9 [default: 3, or the number of members]
    #[arg(
        long,
        env = "KEYVIZ_REPLICATION",
        value_name = "N",
        value_parser = |text: &str| values::number_in(text, 1, MAX_REPLICATION),
    )]
    replication: Option<u64>,
    /// Goes into the new cluster's id, the same for every member. Needed where this backup was
    /// restored for these members before: the id would be the same again, and clients that kept a
    /// catalog version from then would not notice
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// How to print the result
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: OneFormat,
}

#[derive(Serialize)]
struct RestoreJson<'a> {
    cluster_id: &'a str,
    catalog_version: u64,
    groups: u64,
    rows: u64,
    history_records: u64,
    /// Nodes that are no members and whose history this node keeps.
    history_kept_for: Vec<u64>,
    /// Nodes whose history the backup lacks.
    history_left_out: Vec<u64>,
}

impl RestoreArgs {
    fn restore(self) -> Result<(Restore, OneFormat), UsageError> {
        const FLAG: &str = "--bootstrap <ID=HOST:PORT,...>";
        let mut members: BTreeMap<NodeId, String> = BTreeMap::new();
        for (id, address) in &self.bootstrap {
            let entry = format!("{id}={address}");
            if members.values().any(|known| known == address.as_str()) {
                return Err(UsageError::value(FLAG, entry, "another node has this address too"));
            }
            if members.insert(NodeId(*id), address.to_string()).is_some() {
                return Err(UsageError::value(FLAG, entry, "this id is in the list twice"));
            }
        }
        if !members.contains_key(&NodeId(self.id)) {
            let reason = "this node is not in the list of --bootstrap";
            return Err(UsageError::value("--id <ID>", self.id, reason));
        }
        let count = members.len() as u64;
        let replication = self.replication.unwrap_or(DEFAULT_REPLICATION.min(count));
        if replication > count {
            let reason = format!("there are only {count} members");
            return Err(UsageError::value("--replication <N>", replication, reason));
        }
        let restore = Restore {
            from: self.from,
            data: self.data,
            id: NodeId(self.id),
            members,
            replication: usize::try_from(replication).unwrap_or(usize::MAX),
            name: self.name.unwrap_or_default(),
        };
        Ok((restore, self.format))
    }
}

/// Runs `restore`.
pub fn run(args: RestoreArgs) -> Result<(), CliError> {
    let (restore, format) = args.restore()?;
    let restored = restore.run()?;
    let Restored { catalog_version, groups, rows, .. } = restored;
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<u64>>();
    for node in &restored.history_kept_for {
        say!("keyviz: node {node} is no member; this node keeps its history");
    }
    for node in &restored.history_left_out {
        say!(
            "keyviz: the backup lacks the history of node {node}; heatmaps show the time before \
             the backup as partial"
        );
    }
    let mut out = output::stdout();
    match format {
        OneFormat::Json => {
            let json = RestoreJson {
                cluster_id: &restored.cluster_id,
                catalog_version,
                groups,
                rows,
                history_records: restored.history,
                history_kept_for: ids(&restored.history_kept_for),
                history_left_out: ids(&restored.history_left_out),
            };
            output::json_line(&mut out, &json)?;
        }
        OneFormat::Table => writeln!(
            out,
            "{}: node {} of cluster {}, catalog version {catalog_version}, {} rows in {groups} \
             groups",
            text::inert(&restore.data.display().to_string()),
            restore.id,
            restored.cluster_id,
            text::thousands(rows),
        )?,
    }
    out.flush()?;
    Ok(())
}
