//! `cluster verify`: compares all replicas of each group while they serve.

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use clap::Args;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tonic::{Status, Streaming};

use crate::CliError;
use crate::client::{self, Effect, NodeArgs};
use crate::data::kv::OneFormat;
use crate::flags::keyviz_flags::{SizeError, size_in};
use crate::terminal::talk::say;
use crate::terminal::{output, text};
use keyviz_proto as proto;
use keyviz_proto::cluster_client::ClusterClient;
use keyviz_proto::replica_verified::Outcome;
use keyviz_proto::verify_update::Update;
use keyviz_proto::{GroupVerified, VerifyVerdict};

/// A node reports progress twice a second; after this silence it counts as gone.
const SILENT_FOR: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// Raft groups to verify; 0 is the catalog group; may be given several times; absent: all
    #[arg(long = "group", value_name = "N[,N...]", value_delimiter = ',')]
    groups: Vec<u64>,
    /// Maximum bytes of rows per second that each replica reads, in bytes or as KiB, MiB or GiB; at
    /// least 64KiB. A replica reads faster if too much is written meanwhile
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = rate)]
    rate: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn rate(text: &str) -> Result<u64, SizeError> {
    size_in(text, 64 << 10, 1 << 40)
}

/// Why not all replicas agree.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyFindings {
    /// Some replicas have other rows.
    #[error(
        "replicas differ: {0}. Stop each node that is not as the majority, keep its folder to find \
         the cause, replace it (keyviz cluster replace-node), then run keyviz cluster verify again",
        .groups.join("; ")
    )]
    Differ {
        /// The group and its nodes.
        groups: Vec<String>,
    },
    /// Some replicas gave no digest; the others agree.
    #[error("not all replicas were compared: {0}", .groups.join("; "))]
    Incomplete {
        /// The group and its nodes.
        groups: Vec<String>,
    },
}

#[derive(Serialize)]
struct VerifyJson<'a> {
    /// agree, differ or incomplete: the verdict of the worst group, where differ is worse than
    /// incomplete.
    verdict: &'static str,
    groups: Vec<GroupJson<'a>>,
}

#[derive(Serialize)]
struct GroupJson<'a> {
    group_id: u64,
    index: u64,
    verdict: &'static str,
    /// A majority of the replicas has the same rows.
    majority: bool,
    replicas: Vec<ReplicaJson<'a>>,
}

#[derive(Serialize)]
struct ReplicaJson<'a> {
    node_id: u64,
    /// In hexadecimal digits; null if there is none.
    digest: Option<String>,
    rows: Option<u64>,
    bytes: Option<u64>,
    /// Its rows differ from those of the majority.
    differs: bool,
    /// Why there is no digest; empty if there is one.
    error: &'a str,
}

impl<'a> From<&'a proto::ReplicaVerified> for ReplicaJson<'a> {
    fn from(replica: &'a proto::ReplicaVerified) -> Self {
        let digest = digest_of(replica);
        ReplicaJson {
            node_id: replica.node_id,
            digest: digest.map(hex),
            rows: digest.map(|digest| digest.rows),
            bytes: digest.map(|digest| digest.bytes),
            differs: replica.differs,
            error: error_of(replica),
        }
    }
}

fn digest_of(replica: &proto::ReplicaVerified) -> Option<&proto::RowsDigest> {
    match &replica.outcome {
        Some(Outcome::Digest(digest)) => Some(digest),
        _ => None,
    }
}

fn error_of(replica: &proto::ReplicaVerified) -> &str {
    match &replica.outcome {
        Some(Outcome::Error(error)) => error,
        Some(Outcome::Digest(_)) => "",
        None => "it said nothing",
    }
}

fn hex(digest: &proto::RowsDigest) -> String {
    digest.digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(group: u64) -> String {
    if group == 0 { "catalog".to_owned() } else { group.to_string() }
}

fn word(verdict: VerifyVerdict) -> &'static str {
    match verdict {
        VerifyVerdict::Agree => "agree",
        VerifyVerdict::Differ => "differ",
        VerifyVerdict::Incomplete | VerifyVerdict::Unspecified => "incomplete",
    }
}

pub(super) async fn run(args: VerifyArgs) -> Result<(), CliError> {
    let client = args.nodes.client()?;
    let request = &proto::VerifyRequest { group_ids: args.groups, bytes_per_s: args.rate };
    let (address, updates) = client
        .call_where(Effect::Read, |channel| async move {
            ClusterClient::new(channel).verify(request.clone()).await
        })
        .await?;
    let groups = follow(updates.into_inner(), client.timeout().max(SILENT_FOR)).await;
    let groups = groups.map_err(|status| {
        let (address, status) = (address.clone(), Box::new(status));
        CliError::Call(client::CallError::Refused { address, status })
    })?;
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &json(&groups))?,
        OneFormat::Table => print_table(&mut out, &groups)?,
    }
    out.flush()?;
    findings(&groups).map_or(Ok(()), |found| Err(found.into()))
}

/// Shows progress on stderr until each group has a verdict.
async fn follow(
    mut updates: Streaming<proto::VerifyUpdate>,
    silent_for: Duration,
) -> Result<Vec<GroupVerified>, Status> {
    let bar = bar();
    let (mut groups, mut count) = (Vec::new(), 0);
    loop {
        let update = tokio::time::timeout(silent_for, updates.message()).await;
        let update = update.unwrap_or_else(|_| Err(client::local_timeout(silent_for)));
        match update.inspect_err(|_| bar.abandon())?.and_then(|update| update.update) {
            Some(Update::Start(start)) => {
                count = start.group_ids.len();
                bar.set_length(count as u64);
            }
            Some(Update::Progress(progress)) => bar.set_message(words(&progress)),
            Some(Update::Verified(verified)) => {
                if bar.is_hidden() {
                    let at = verified.index;
                    let verdict = word(verified.verdict());
                    say!("group {}: {verdict} at entry {at}", name(verified.group_id));
                }
                bar.inc(1);
                groups.push(verified);
            }
            None => break,
        }
    }
    bar.finish_and_clear();
    if groups.len() == count {
        return Ok(groups);
    }
    Err(Status::unavailable(format!("it stopped after {} of {count} groups", groups.len())))
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} groups, {elapsed}: {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(300));
    bar
}

fn words(progress: &proto::VerifyProgress) -> String {
    let group = name(progress.group_id);
    match (progress.bytes, progress.index) {
        (0, 0) => format!("group {group}"),
        (0, index) => format!("group {group} at entry {index}"),
        (bytes, index) => {
            let bytes = text::short_bytes(bytes);
            format!("group {group} at entry {index}, {bytes} of each replica")
        }
    }
}

fn worst(groups: &[GroupVerified]) -> VerifyVerdict {
    let any = |verdict| groups.iter().any(|group| group.verdict() == verdict);
    let all_agree = groups.iter().all(|group| group.verdict() == VerifyVerdict::Agree);
    match (any(VerifyVerdict::Differ), all_agree) {
        (true, _) => VerifyVerdict::Differ,
        (false, true) => VerifyVerdict::Agree,
        (false, false) => VerifyVerdict::Incomplete,
    }
}

fn json(groups: &[GroupVerified]) -> VerifyJson<'_> {
    let each = groups.iter().map(|group| GroupJson {
        group_id: group.group_id,
        index: group.index,
        verdict: word(group.verdict()),
        majority: group.majority,
        replicas: group.replicas.iter().map(ReplicaJson::from).collect(),
    });
    VerifyJson { verdict: word(worst(groups)), groups: each.collect() }
}

fn print_table(out: &mut impl Write, groups: &[GroupVerified]) -> std::io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["GROUP", "ENTRY", "NODE", "DIGEST", "ROWS", "BYTES", "VERDICT"]);
    for group in groups {
        for replica in &group.replicas {
            let digest = digest_of(replica);
            let known = |number: Option<u64>| number.map_or("-".into(), text::thousands);
            table.add_row([
                name(group.group_id),
                group.index.to_string(),
                replica.node_id.to_string(),
                digest.map_or("-".into(), hex),
                known(digest.map(|digest| digest.rows)),
                known(digest.map(|digest| digest.bytes)),
                verdict_of(group, replica),
            ]);
        }
    }
    super::right(&mut table, &[0, 1, 2, 4, 5]);
    writeln!(out, "{}\n", table.trim_fmt())?;
    let count = |verdict| groups.iter().filter(|group| group.verdict() == verdict).count();
    let (agree, differ) = (count(VerifyVerdict::Agree), count(VerifyVerdict::Differ));
    let incomplete = groups.len() - agree - differ;
    writeln!(
        out,
        "{} groups: {agree} agree, {differ} differ, {incomplete} incomplete",
        groups.len()
    )
}

fn verdict_of(group: &GroupVerified, replica: &proto::ReplicaVerified) -> String {
    match (digest_of(replica), replica.differs, group.majority) {
        (None, ..) => format!("no digest: {}", text::inert(error_of(replica))),
        (Some(_), true, true) => "differs from the majority".to_owned(),
        (Some(_), true, false) => "differs, no majority".to_owned(),
        (Some(_), false, _) => "agrees".to_owned(),
    }
}

/// The findings; `None`: all replicas agree.
fn findings(groups: &[GroupVerified]) -> Option<VerifyFindings> {
    let of = |group: &GroupVerified, nodes: Vec<u64>, what: &str| {
        let word = if nodes.len() == 1 { "node" } else { "nodes" };
        let nodes = nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let (id, index) = (name(group.group_id), group.index);
        format!("group {id} at entry {index}, {word} {nodes} ({what})")
    };
    let differ = groups.iter().filter(|group| group.verdict() == VerifyVerdict::Differ);
    let differ: Vec<String> = differ
        .map(|group| {
            let nodes = group.replicas.iter().filter(|replica| replica.differs);
            let what = if group.majority { "not as the majority" } else { "without a majority" };
            of(group, nodes.map(|replica| replica.node_id).collect(), what)
        })
        .collect();
    if !differ.is_empty() {
        return Some(VerifyFindings::Differ { groups: differ });
    }
    let incomplete = groups.iter().filter(|group| group.verdict() != VerifyVerdict::Agree);
    let incomplete: Vec<String> = incomplete
        .map(|group| {
            let nodes = group.replicas.iter().filter(|replica| digest_of(replica).is_none());
            of(group, nodes.map(|replica| replica.node_id).collect(), "no digest")
        })
        .collect();
    (!incomplete.is_empty()).then_some(VerifyFindings::Incomplete { groups: incomplete })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exit;

    fn replica(node_id: u64, digest: u8, differs: bool) -> proto::ReplicaVerified {
        let digest =
            proto::RowsDigest { digest: vec![digest; 16].into(), rows: 1_204, bytes: 70_000 };
        proto::ReplicaVerified { node_id, outcome: Some(Outcome::Digest(digest)), differs }
    }

    fn silent(node_id: u64) -> proto::ReplicaVerified {
        let outcome = Some(Outcome::Error("no answer\x1b[0m".into()));
        proto::ReplicaVerified { node_id, outcome, differs: false }
    }

    fn group(
        group_id: u64,
        verdict: VerifyVerdict,
        replicas: Vec<proto::ReplicaVerified>,
    ) -> GroupVerified {
        let majority = verdict != VerifyVerdict::Incomplete;
        GroupVerified { group_id, index: 21, verdict: verdict.into(), replicas, majority }
    }

    fn groups() -> Vec<GroupVerified> {
        let agree = vec![replica(1, 7, false), replica(2, 7, false)];
        let differ = vec![replica(1, 8, false), replica(2, 8, false), replica(3, 9, true)];
        vec![
            group(0, VerifyVerdict::Agree, agree),
            group(1, VerifyVerdict::Differ, differ),
            group(2, VerifyVerdict::Incomplete, vec![replica(1, 7, false), silent(3)]),
        ]
    }

    #[test]
    fn the_table_has_a_line_for_each_replica_and_hostile_words_are_inert() {
        let mut printed = Vec::new();
        print_table(&mut printed, &groups()).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(!printed.contains('\x1b'), "{printed}");
        for part in [
            "catalog",
            "07070707070707070707070707070707",
            "1,204",
            "differs from the majority",
            "no digest: no answer",
            "3 groups: 1 agree, 1 differ, 1 incomplete",
        ] {
            assert!(printed.contains(part), "{part:?} is not in:\n{printed}");
        }
    }

    #[test]
    fn json_has_the_names_of_the_protos() {
        let groups = groups();
        let json = serde_json::to_value(json(&groups)).unwrap();
        assert_eq!(json["verdict"], "differ");
        let replica = &json["groups"][1]["replicas"][2];
        assert_eq!(replica["node_id"], 3);
        assert_eq!(replica["digest"], "09".repeat(16));
        assert_eq!((&replica["rows"], &replica["differs"]), (&1_204.into(), &true.into()));
        assert_eq!(json["groups"][2]["replicas"][1]["digest"], serde_json::Value::Null);
    }

    #[test]
    fn what_differs_is_worse_than_what_is_missing() {
        let mut groups = groups();
        let found = findings(&groups).expect("one differs");
        assert!(matches!(found, VerifyFindings::Differ { .. }), "{found}");
        assert!(found.to_string().contains("group 1 at entry 21, node 3"), "{found}");
        assert_eq!(CliError::from(found).exit(), Exit::Failed);
        groups.remove(1);
        let found = findings(&groups).expect("one is incomplete");
        assert!(found.to_string().contains("group 2 at entry 21, node 3 (no digest)"), "{found}");
        assert_eq!(CliError::from(found).exit(), Exit::Partial);
        groups.remove(1);
        assert_eq!(findings(&groups), None);
    }
}
