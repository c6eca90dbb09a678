//! `backup`: writes the whole cluster into one file.
//!
//! Histories come first, then the data groups, then the catalog, so that the catalog has every
//! route that was counted or written to before. The leader of each group dumps it as of one applied
//! entry that covers everything acknowledged until then; if the leader fails, the group is dumped
//! again. The file is renamed to its final name once it is complete and has been read back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;
use tonic::{Status, Streaming};

use crate::CliError;
use crate::client::{self, Client, Effect, MAX_ANSWER_BYTES, NodeArgs};
use crate::cluster;
use crate::data::kv::OneFormat;
use crate::flags::values::Address;
use crate::terminal::talk::say;
use crate::terminal::{output, text};
use keyviz_backup::{BackupError, BackupReader, BackupWriter, Part};
use keyviz_catalog::{Catalog, LoadError, Retention};
use keyviz_client as failure;
use keyviz_proto as proto;
use keyviz_proto::backup_client::BackupClient;
use keyviz_raft::KeyValue;

/// Failed dumps of one group after which the backup fails.
const ATTEMPTS: u32 = 10;

/// The pause before the next attempt: about the time of an election.
const PAUSE: Duration = Duration::from_secs(1);

/// `backup`.
#[derive(Args, Debug)]
#[command(
    after_help = "The file appears once it is complete. `keyviz restore` creates the folders of a\n\
    new cluster from it. Exits with 6 if a member did not answer: the file then lacks the counts\n\
    of that member."
)]
pub struct BackupArgs {
    /// File to write, which must not exist; or a folder, for a file named after cluster and time
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// How to print the result
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum NoBackup {
    /// Something has its name.
    #[error("{} exists; name a file that does not", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("cannot write {}: {source}", .file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// An error of the operating system.
        source: io::Error,
    },
    /// A group could not be dumped.
    #[error("Raft group {group} could not be read: {reason}")]
    Group {
        /// The group.
        group: u64,
        /// The error of the last attempt.
        reason: String,
    },
    /// A route is on its way.
    #[error(
        "route {route} is being moved to group {group}; wait until it has moved, or cancel the \
         move, and start the backup again"
    )]
    Moving {
        /// The route.
        route: u64,
        /// The group that gets it.
        group: u64,
    },
    /// A route moved while the groups were read.
    #[error("a route moved while the groups were read; start the backup again")]
    Moved,
    /// The catalog that was written is of no use.
    #[error("the catalog that was written cannot be used: {0}")]
    Catalog(#[from] LoadError),
    /// The file that was written cannot be read back.
    #[error("the file that was written cannot be read back: {0}")]
    Unreadable(#[from] BackupError),
}

#[derive(Serialize)]
struct BackupJson {
    file: String,
    bytes: u64,
    cluster_id: String,
    catalog_version: u64,
    groups: u64,
    rows: u64,
    histories: Vec<u64>,
    /// Nodes that have left, whose history members keep.
    histories_kept: Vec<u64>,
    /// Members that did not answer and nodes that have left, whose history comes from a copy.
    histories_copied: Vec<u64>,
    /// Members that did not answer; their history is not in the file.
    histories_missing: Vec<u64>,
}

/// How the dump of one section ended.
enum Cut {
    /// The node or the network failed; worth another attempt.
    Node(String),
    /// The file.
    File(io::Error),
}

impl From<Status> for Cut {
    fn from(status: Status) -> Self {
        Cut::Node(failure::reason(&status))
    }
}

/// Runs `backup`.
pub async fn run(args: BackupArgs) -> Result<(), CliError> {
    let client = args.nodes.client()?;
    let status = cluster::status(&client).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let file = name(&args.out, &status, now)?;
    let aside = aside(&file);
    // The groups are read one after the other, so a range that moves meanwhile may be in neither.
    let newest = nothing_moves(&client).await?;
    let made = write(&client, &status, now, &aside).await;
    let finished = made.and_then(|(bytes, json)| {
        nothing_moved(&read_back(&aside)?, newest)?;
        put_in_place(&aside, &file)?;
        Ok((bytes, json))
    });
    let (bytes, json) = finished.inspect_err(|_| {
        // The partial file is useless; if it cannot be removed, it does no harm.
        let _ = fs::remove_file(&aside);
    })?;
    let json = BackupJson { file: file.display().to_string(), bytes, ..json };
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &json)?,
        OneFormat::Table => {
            writeln!(
                out,
                "{}: {} rows in {} groups, history of {} nodes, catalog version {}, {}",
                text::inert(&json.file),
                text::thousands(json.rows),
                json.groups,
                json.histories.len() + json.histories_kept.len() + json.histories_copied.len(),
                json.catalog_version,
                text::short_bytes(json.bytes),
            )?;
        }
    }
    out.flush()?;
    if json.histories_missing.is_empty() {
        return Ok(());
    }
    let nodes = json.histories_missing.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    Err(CliError::InPart(format!("the file lacks what the nodes {nodes} counted")))
}

/// The newest move that ended, if none is under way, as far as one node knows.
async fn nothing_moves(client: &Client) -> Result<u64, CliError> {
    let moves = client.moves().await?;
    match moves.iter().find(|moving| moving.ended_ms == 0) {
        Some(moving) => {
            Err(NoBackup::Moving { route: moving.route_id, group: moving.to_group }.into())
        }
        None => Ok(moves.iter().map(|moving| moving.move_id).max().unwrap_or(0)),
    }
}

/// Checks that no move began after the `newest` one until the catalog was dumped, which is last.
fn nothing_moved(catalog: &[KeyValue], newest: u64) -> Result<(), NoBackup> {
    let catalog = Catalog::load(catalog.iter().cloned(), Retention::DEFAULT)?;
    let moves = catalog.moves();
    let last = moves.ended().map(|moved| moved.id).max().unwrap_or(0);
    let still = moves.under_way().is_empty() && last == newest;
    if still { Ok(()) } else { Err(NoBackup::Moved) }
}

fn name(out: &Path, status: &proto::ClusterStatus, now: Duration) -> Result<PathBuf, NoBackup> {
    let file = match out.is_dir() {
        true => {
            let cluster: String = status.cluster_id.chars().take(8).collect();
            out.join(format!("keyviz-{cluster}-{}.backup", now.as_secs()))
        }
        false => out.to_path_buf(),
    };
    if file.exists() { Err(NoBackup::Exists(file)) } else { Ok(file) }
}

/// The path of the file until it is complete.
pub fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}

async fn write(
    client: &Client,
    status: &proto::ClusterStatus,
    now: Duration,
    aside: &Path,
) -> Result<(u64, BackupJson), CliError> {
    let wrote = |source| NoBackup::Write { file: aside.to_path_buf(), source };
    let groups = status.groups.iter().filter(|group| group.group_id != 0).count() as u64;
    let start = proto::BackupStart {
        cluster_id: status.cluster_id.clone(),
        created_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        groups,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut writer =
        File::create(aside).and_then(|file| BackupWriter::new(file, start)).map_err(wrote)?;
    let (mut answered, mut missing, mut kept) = (Vec::new(), Vec::new(), BTreeSet::new());
    for member in &status.members {
        let place = writer.place();
        let dumped = match member.address.parse::<Address>() {
            Ok(address) if member.ok => histories(client, &address, &mut writer).await,
            _ => Err(Cut::Node(member.error.clone())),
        };
        match dumped {
            Ok(kept_here) => {
                answered.push(member.id);
                kept.extend(kept_here);
            }
            Err(Cut::File(source)) => return Err(wrote(source).into()),
            Err(Cut::Node(reason)) => {
                writer.back_to(place).map_err(wrote)?;
                missing.push(member.id);
                let reason = text::inert(&reason).into_owned();
                say!("keyviz: the history of node {} is left out: {reason}", member.id);
            }
        }
    }
    let mut copied: Vec<u64> = Vec::new();
    for member in status.members.iter().filter(|member| answered.contains(&member.id)) {
        let Ok(address) = member.address.parse::<Address>() else { continue };
        let without = answered.iter().chain(&kept).chain(&copied).copied().collect();
        let place = writer.place();
        match copies(client, &address, without, &mut writer).await {
            Ok(nodes) => copied.extend(nodes),
            Err(Cut::File(source)) => return Err(wrote(source).into()),
            // An earlier version holds none.
            Err(Cut::Node(_)) => writer.back_to(place).map_err(wrote)?,
        }
    }
    for node in missing.extract_if(.., |node| copied.contains(node)) {
        say!("keyviz: the history of node {node} is that of its copy at another member");
    }
    let in_histories = writer.rows();
    let ids = status.groups.iter().map(|group| group.group_id);
    let mut ids: Vec<u64> = ids.filter(|group| *group != 0).collect();
    ids.push(0);
    for group in ids {
        let rows = group_rows(client, group, &mut writer, &wrote).await?;
        match group {
            0 => say!("keyviz: catalog: {} records", text::thousands(rows)),
            _ => say!("keyviz: group {group}: {} rows", text::thousands(rows)),
        }
    }
    let json = BackupJson {
        file: String::new(),
        bytes: 0,
        cluster_id: status.cluster_id.clone(),
        catalog_version: status.catalog_version,
        groups: groups + 1,
        rows: writer.rows() - in_histories,
        histories: answered,
        histories_kept: kept.into_iter().collect(),
        histories_copied: copied,
        histories_missing: missing,
    };
    Ok((writer.finish(json.histories_missing.clone()).map_err(wrote)?, json))
}

/// Dumps a group at its current leader, and returns the number of rows.
async fn group_rows(
    client: &Client,
    group: u64,
    writer: &mut BackupWriter,
    wrote: impl Fn(io::Error) -> NoBackup,
) -> Result<u64, CliError> {
    let (place, before) = (writer.place(), writer.rows());
    let mut reason = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            writer.back_to(place).map_err(&wrote)?;
            tokio::time::sleep(PAUSE).await;
        }
        let leader = match cluster::status(client).await {
            Ok(status) => leader(&status, group),
            Err(error) => {
                reason = error.to_string();
                continue;
            }
        };
        let Some(leader) = leader else {
            "no leader is known".clone_into(&mut reason);
            continue;
        };
        match dump_group(client, &leader, group, writer).await {
            Ok(()) => return Ok(writer.rows() - before),
            Err(Cut::Node(cut)) => reason = cut,
            Err(Cut::File(source)) => return Err(wrote(source).into()),
        }
    }
    Err(NoBackup::Group { group, reason: text::inert(&reason).into_owned() }.into())
}

fn leader(status: &proto::ClusterStatus, group: u64) -> Option<Address> {
    let leader = status.groups.iter().find(|known| known.group_id == group)?.leader?;
    let member = status.members.iter().find(|member| member.id == leader)?;
    member.address.parse().ok()
}

async fn dump_group(
    client: &Client,
    address: &Address,
    group: u64,
    writer: &mut BackupWriter,
) -> Result<(), Cut> {
    let request = proto::DumpGroupRequest { group_id: group };
    let node = client.at(address.clone());
    let parts = node.call(Effect::Read, |channel| async move {
        BackupClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .dump_group(request)
            .await
    });
    let mut parts = parts.await.map_err(|error| Cut::Node(error.to_string()))?.into_inner();
    let wanted = |part: &Part| matches!(part, Part::Group(found) if found.group_id == group);
    match section(&mut parts, client.timeout(), wanted, writer).await? {
        true => Ok(()),
        false => Err(Cut::Node("it sent nothing".into())),
    }
}

/// The node's own history, and those that it keeps of nodes that have left: the ids of these.
async fn histories(
    client: &Client,
    address: &Address,
    writer: &mut BackupWriter,
) -> Result<Vec<u64>, Cut> {
    let node = client.at(address.clone());
    let parts = node.call(Effect::Read, |channel| async move {
        BackupClient::new(channel)
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .dump_history(proto::DumpHistoryRequest::default())
            .await
    });
    let mut parts = parts.await.map_err(|error| Cut::Node(error.to_string()))?.into_inner();
    let (mut sections, mut kept) = (0, Vec::new());
    let mut is_history = |part: &Part| match part {
        Part::History(history) => {
            if history.held_by != 0 {
                kept.push(history.node_id);
            }
            true
        }
        _ => false,
    };
    while section(&mut parts, client.timeout(), &mut is_history, writer).await? {
        sections += 1;
    }
    // An earlier version sends its own history alone.
    if sections == 0 { Err(Cut::Node("it sent nothing".into())) } else { Ok(kept) }
}

/// The copies of histories that a member holds, of nodes whose history is not there yet: the ids of
/// these.
async fn copies(
    client: &Client,
    address: &Address,
    without: Vec<u64>,
    writer: &mut BackupWriter,
) -> Result<Vec<u64>, Cut> {
    let node = client.at(address.clone());
    let request = proto::DumpHistoryRequest { copies: true, without: without.clone() };
    let parts = node.call(Effect::Read, |channel| {
        let request = request.clone();
        async move {
            BackupClient::new(channel)
                .max_decoding_message_size(MAX_ANSWER_BYTES)
                .dump_history(request)
                .await
        }
    });
    let mut parts = parts.await.map_err(|error| Cut::Node(error.to_string()))?.into_inner();
    let mut nodes = Vec::new();
    let mut is_copy = |part: &Part| match part {
        Part::History(history) if history.held_by != 0 => {
            let wanted = !without.contains(&history.node_id);
            nodes.push(history.node_id);
            wanted
        }
        _ => false,
    };
    while section(&mut parts, client.timeout(), &mut is_copy, writer).await? {}
    Ok(nodes)
}

/// Receives one section: its header, its rows and its end. Returns
/// whether there was one.
async fn section(
    parts: &mut Streaming<proto::BackupPart>,
    timeout: Duration,
    mut is_header: impl FnMut(&Part) -> bool,
    writer: &mut BackupWriter,
) -> Result<bool, Cut> {
    let strange = || Cut::Node("it sent something else than was asked for".into());
    let mut begun = false;
    loop {
        let next = tokio::time::timeout(timeout, parts.message()).await;
        let next = next.map_err(|_| client::local_timeout(timeout))??;
        if next.is_none() && !begun {
            return Ok(false);
        }
        let Some(part) = next.and_then(|next| next.part) else {
            return Err(Cut::Node("it stopped half way".into()));
        };
        let ends = matches!(part, Part::SectionEnd(_));
        match &part {
            header if !begun && is_header(header) => begun = true,
            Part::Rows(_) | Part::SectionEnd(_) if begun => {}
            _ => return Err(strange()),
        }
        writer.write(part).map_err(Cut::File)?;
        if ends {
            return Ok(true);
        }
    }
}

/// Begins the file.
pub fn create(aside: &Path) -> Result<File, NoBackup> {
    File::create(aside).map_err(|source| NoBackup::Write { file: aside.to_path_buf(), source })
}

/// Reads the file back and renames it durably.
pub fn publish(aside: &Path, file: &Path) -> Result<(), CliError> {
    read_back(aside)?;
    put_in_place(aside, file)
}

/// Reads the whole file back; the rows of its catalog.
fn read_back(aside: &Path) -> Result<Vec<KeyValue>, NoBackup> {
    let wrote = |source| NoBackup::Write { file: aside.to_path_buf(), source };
    let read = File::open(aside).map_err(wrote)?;
    let mut reader = BackupReader::new(BufReader::with_capacity(1 << 20, read))?;
    let (mut catalog, mut in_catalog) = (Vec::new(), false);
    while let Some(part) = reader.next_part()? {
        match part {
            Part::Group(group) => in_catalog = group.group_id == 0,
            Part::History(_) => in_catalog = false,
            Part::Rows(rows) if in_catalog => {
                catalog.extend(rows.rows.into_iter().map(|row| (row.key, row.value)));
            }
            Part::Rows(_) | Part::Start(_) | Part::SectionEnd(_) | Part::End(_) => {}
        }
    }
    Ok(catalog)
}

/// Renames the file durably.
fn put_in_place(aside: &Path, file: &Path) -> Result<(), CliError> {
    let wrote = |source| NoBackup::Write { file: file.to_path_buf(), source };
    if file.exists() {
        return Err(NoBackup::Exists(file.to_path_buf()).into());
    }
    fs::rename(aside, file).map_err(wrote)?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(wrote)?;
    Ok(())
}
