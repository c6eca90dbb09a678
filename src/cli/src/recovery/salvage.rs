//! `salvage`: a backup from the folders of stopped nodes, where a majority is lost for good.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::backup::{self, NoBackup};
use crate::CliError;
use crate::data::kv::OneFormat;
use crate::terminal::{output, text};
use keyviz_node::{Salvage, SalvagedGroup};

/// `salvage`.
#[derive(Args, Debug)]
#[command(
    after_help = "For a cluster that has lost a majority of its members for good and has no\n\
    better backup. Each group is taken from the folder whose log of it goes furthest. Writes that\n\
    only lost members had are lost, and writes that were never acknowledged may appear. The\n\
    folders are copied, never changed. Without --accept-loss the command prints what would be\n\
    saved and writes nothing.\n\
    Exit codes: 0 written; 5 --accept-loss is missing or names another cluster; 1 it failed."
)]
pub struct SalvageArgs {
    /// Folder of a stopped node; give one for each surviving node
    #[arg(long, env = "KEYVIZ_DATA", value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
    /// File to write, which must not exist; the copies of the folders are made beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Confirms the loss: the id of the cluster, as the command prints it
    #[arg(long, value_name = "CLUSTER_ID")]
    accept_loss: Option<String>,
    /// How to print the result
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: OneFormat,
}

#[derive(Serialize)]
struct SalvageJson {
    cluster_id: String,
    catalog_version: u64,
    groups: Vec<GroupJson>,
    /// `null`: nothing was written.
    written: Option<WrittenJson>,
}

#[derive(Serialize)]
struct GroupJson {
    group_id: u64,
    folder: String,
    last_index: u64,
    last_term: u64,
    /// Entries after the applied ones; they are applied, whether or not they were acknowledged.
    replayed: u64,
    members: Vec<u64>,
    /// Members whose folders were not given.
    members_missing: Vec<u64>,
}

#[derive(Serialize)]
struct WrittenJson {
    file: String,
    bytes: u64,
    groups: u64,
    rows: u64,
    histories: Vec<u64>,
}

/// Why nothing was written although the folders can be read.
#[derive(Debug, thiserror::Error)]
pub enum NotConfirmed {
    /// No confirmation.
    #[error("nothing was written: run the command again with --accept-loss {cluster_id}")]
    Missing {
        /// The folders' cluster.
        cluster_id: String,
    },
    /// The confirmation of another loss.
    #[error(
        "nothing was written: --accept-loss names cluster {given}, and the folders belong to \
         cluster {cluster_id}"
    )]
    OtherCluster {
        /// What was given.
        given: String,
        /// The folders' cluster.
        cluster_id: String,
    },
}

/// Runs `salvage`.
pub async fn run(args: SalvageArgs) -> Result<(), CliError> {
    if args.out.exists() {
        return Err(NoBackup::Exists(args.out).into());
    }
    let scratch = match args.out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let salvage = Salvage::open(&args.data, scratch, &mut progress()).await?;
    let nodes: BTreeSet<u64> = salvage.nodes().iter().map(|node| node.0).collect();
    let mut json = SalvageJson {
        cluster_id: salvage.cluster_id().to_owned(),
        catalog_version: salvage.catalog_version(),
        groups: salvage.groups().iter().map(|group| group_json(group, &nodes)).collect(),
        written: None,
    };
    let mut out = output::stdout();
    if matches!(args.format, OneFormat::Table) {
        print(&json, &mut out)?;
        out.flush()?;
    }
    let cluster_id = json.cluster_id.clone();
    let refused = match args.accept_loss {
        Some(given) if given == cluster_id => None,
        Some(given) => Some(NotConfirmed::OtherCluster { given, cluster_id }),
        None => Some(NotConfirmed::Missing { cluster_id }),
    };
    if let Some(refused) = refused {
        if matches!(args.format, OneFormat::Json) {
            output::json_line(&mut out, &json)?;
            out.flush()?;
        }
        return Err(refused.into());
    }
    let written = write(&salvage, &args.out).await?;
    match args.format {
        OneFormat::Json => {
            json.written = Some(written);
            output::json_line(&mut out, &json)?;
        }
        OneFormat::Table => writeln!(
            out,
            "{}: {} rows in {} groups, history of {} nodes, {}. Create a new cluster's folders \
             from it with `keyviz restore`.",
            text::inert(&written.file),
            text::thousands(written.rows),
            written.groups,
            written.histories.len(),
            text::short_bytes(written.bytes),
        )?,
    }
    out.flush()?;
    Ok(())
}

async fn write(salvage: &Salvage, file: &Path) -> Result<WrittenJson, CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let aside = backup::aside(file);
    let made = match backup::create(&aside) {
        Ok(made) => salvage.write(made, created_ms).await.map_err(CliError::from),
        Err(error) => Err(error.into()),
    };
    let published = made.and_then(|made| backup::publish(&aside, file).map(|()| made));
    let made = published.inspect_err(|_| {
        // The partial file is useless; if it cannot be removed, it does no harm.
        let _ = std::fs::remove_file(&aside);
    })?;
    Ok(WrittenJson {
        file: file.display().to_string(),
        bytes: made.bytes,
        groups: made.groups,
        rows: made.rows,
        histories: made.histories.iter().map(|node| node.0).collect(),
    })
}

fn group_json(found: &SalvagedGroup, nodes: &BTreeSet<u64>) -> GroupJson {
    let members: Vec<u64> = found.members.iter().map(|node| node.0).collect();
    let replica = &found.replica;
    let replayed = replica.last.index + 1 - replica.applied.map_or(0, |at| at.index + 1);
    GroupJson {
        group_id: found.group.0,
        folder: found.folder.display().to_string(),
        last_index: replica.last.index,
        last_term: replica.last.term,
        replayed,
        members_missing: members.iter().filter(|node| !nodes.contains(node)).copied().collect(),
        members,
    }
}

fn print(json: &SalvageJson, out: &mut impl std::io::Write) -> std::io::Result<()> {
    let list = |ids: &[u64]| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    writeln!(out, "cluster {}, catalog version {}", json.cluster_id, json.catalog_version)?;
    for group in &json.groups {
        let name = match group.group_id {
            0 => "catalog".to_owned(),
            id => format!("group {id}"),
        };
        writeln!(
            out,
            "{name}: from {}, up to log entry {} of term {}, {} of them not known to be committed",
            text::inert(&group.folder),
            text::thousands(group.last_index),
            group.last_term,
            text::thousands(group.replayed),
        )?;
        if !group.members_missing.is_empty() {
            let missing = list(&group.members_missing);
            writeln!(out, "  no folder of node {missing}: later writes that it had are lost")?;
        }
    }
    Ok(())
}

/// Shows the copying on a terminal, at most once for each 64 MiB.
fn progress() -> impl FnMut(&Path, u64) {
    const STEP: u64 = 64 << 20;
    let shown = std::io::stderr().is_terminal();
    let mut last = 0;
    move |folder, bytes| {
        if shown && bytes / STEP != last {
            last = bytes / STEP;
            let (folder, size) = (folder.display().to_string(), text::short_bytes(bytes));
            let _ = writeln!(std::io::stderr(), "copied {size} of {}", text::inert(&folder));
        }
    }
}
