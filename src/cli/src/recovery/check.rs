//! `check`: verifies the folder of a stopped node.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::CliError;
use crate::data::kv::OneFormat;
use crate::terminal::{output, text};
use keyviz_raft::CheckReport;

/// `check`.
#[derive(Args, Debug)]
#[command(after_help = "Reads every record and repairs nothing. The node must not run.\n\
    Exit codes: 0 sound; 1 damaged, in use, or no node's folder; 2 wrong usage.")]
pub struct CheckArgs {
    /// Folder of the node
    #[arg(long, env = "KEYVIZ_DATA", value_name = "DIR")]
    data: PathBuf,
    /// How to print the findings
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: OneFormat,
}

#[derive(Serialize)]
struct CheckJson {
    sound: bool,
    groups: u64,
    entries: u64,
    rows: u64,
    records: u64,
    damage: Vec<DamageJson>,
}

#[derive(Serialize)]
struct DamageJson {
    file: String,
    group_id: Option<u64>,
    place: String,
    what: String,
}

impl From<&CheckReport> for CheckJson {
    fn from(report: &CheckReport) -> Self {
        let damage = report.damage.iter().map(|damage| DamageJson {
            file: damage.file.display().to_string(),
            group_id: damage.group.map(|group| group.0),
            place: damage.place.clone(),
            what: damage.what.clone(),
        });
        let &CheckReport { groups, entries, rows, records, .. } = report;
        let sound = report.damage.is_empty();
        CheckJson { sound, groups, entries, rows, records, damage: damage.collect() }
    }
}

pub fn run(args: CheckArgs) -> Result<(), CliError> {
    let report = keyviz_node::check(&args.data).map_err(|error| CliError::Node(error.into()))?;
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &CheckJson::from(&report))?,
        OneFormat::Table => {
            for damage in &report.damage {
                let (file, place) = (damage.file.display(), &damage.place);
                let line = format!("{file}, {place}: {}", damage.what);
                writeln!(out, "{}", text::inert(&line))?;
            }
            writeln!(
                out,
                "read {} groups, {} log entries, {} rows, {} node records: {}",
                report.groups,
                text::thousands(report.entries),
                text::thousands(report.rows),
                report.records,
                if report.damage.is_empty() { "sound" } else { "damaged" },
            )?;
        }
    }
    out.flush()?;
    match report.damage.len() {
        0 => Ok(()),
        records => Err(CliError::Damaged { records, folder: args.data }),
    }
}
