//! The `keyviz` command: arguments, client commands and drawings.
//!
//! Data goes to stdout, messages go to stderr, and [`Exit`] has the exit codes. If the reader
//! closes the pipe, the command ends without a message.

mod about;
mod alerts;
mod autopilot;
mod capabilities;
mod client;
mod cluster;
mod data;
mod demo;
mod exit;
mod export;
#[cfg(test)]
#[path = "../../client/src/fake.rs"]
mod fake;
mod flags;
mod heat;
mod heatmap;
mod limits;
mod live;
pub mod load;
mod loads;
mod otlp;
mod recovery;
mod routes;
mod running;
mod serve;
mod terminal;
mod top;
mod why;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use cluster::{ReplaceError, VerifyFindings};
pub use demo::DemoOptions;
pub use exit::Exit;
pub use export::ExportError;
pub use flags::keyviz_flags::KeyvizOptions;
pub use flags::values::{Address, MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueError};
pub use heatmap::{Drawing, render};
pub use keyviz_client::{Access, Error as CallError, GroupAt, Leaders};
pub use serve::{ServeOptions, Start};
pub use terminal::output::ColorDepth;
pub use why::ApplyError;

use terminal::output::{ColorWhen, Environment};

/// How keys and values are written.
const KEY_HELP: &str = "\
Keys are text. Tables show every other byte as an escape, and arguments read it back:
\\\\ \\n \\r \\t \\xNN \\u{N}; a backslash is written as \\\\. `hex:` and hexadecimal digits stand
for any bytes. Values are taken as they are, or as `hex:` and digits. JSON and CSV have text where
it is printable UTF-8, else `hex:`.";

/// A sharded, Raft-replicated key-value store with a live heatmap of its key space.
#[derive(Parser, Debug)]
#[command(name = "keyviz", propagate_version = true, max_term_width = 100)]
#[command(version = about::VERSION, long_version = about::LONG_VERSION.as_str())]
#[command(after_help = format!("{}\n\n{KEY_HELP}", exit::HELP))]
struct Cli {
    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        display_order = 900
    )]
    color: ColorWhen,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a whole cluster in this process, with a workload and its live heatmap
    Demo(demo::DemoArgs),
    /// Run one node
    Serve(Box<serve::ServeArgs>),
    /// Store a value
    Put(data::kv::PutArgs),
    /// Read one key
    Get(data::kv::GetArgs),
    /// Remove one key
    Delete(data::kv::DeleteArgs),
    /// List keys and values in key order
    Scan(data::kv::ScanArgs),
    /// Write a key only if its value is the expected one
    Cas(data::cas::CasArgs),
    /// Apply the operations in a file atomically
    Batch(data::batch::BatchArgs),
    /// Remove all keys of a range
    DeleteRange(data::delete_range::DeleteRangeArgs),
    /// List, change and watch routes: key ranges with ids, each in a Raft group
    Routes(routes::RoutesArgs),
    /// Show the heatmap of the key space
    Heat(heat::HeatArgs),
    /// Say why the load is as it is, since when, and what would help
    Why(why::WhyArgs),
    /// Show and switch the autopilot, which balances the load, and its journal
    Autopilot(autopilot::AutopilotArgs),
    /// Show the keys with the most reads or writes, of any past time and key range
    Hot(heat::hot::HotArgs),
    /// Show the hottest ranges or routes, refreshed in place
    Top(top::TopArgs),
    /// Sum load by group, leader, node, route or prefix of keys
    Loads(loads::LoadsArgs),
    /// Check rules of alerts
    Alerts(alerts::AlertsArgs),
    /// Show and change members, groups and leaders
    Cluster(cluster::ClusterArgs),
    /// Show what a node and all members can do
    Capabilities(capabilities::CapabilitiesArgs),
    /// Write the counts of a window as CSV, JSON or Parquet, for other programs
    Export(export::ExportArgs),
    /// Write the whole cluster into a file: data, routes and heatmap history
    Backup(recovery::backup::BackupArgs),
    /// Create the folder of a node from a backup, for a new cluster
    Restore(recovery::restore::RestoreArgs),
    /// Make a backup from the folders of stopped nodes, where a majority is lost for good
    Salvage(recovery::salvage::SalvageArgs),
    /// Check the folder of a stopped node
    Check(recovery::check::CheckArgs),
    /// Run a workload on the cluster
    Load(Box<load::LoadArgs>),
    /// Print a shell's completion script
    Completion(about::CompletionArgs),
    /// Write the manual pages
    Man(about::ManArgs),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Flags contradict each other, or one is missing.
    #[error("{0}")]
    Usage(UsageError),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The key does not exist.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// A route that the catalog does not have.
    #[error("there is no route {id} in catalog version {version}")]
    NoSuchRoute {
        /// The route.
        id: u64,
        /// The catalog version of the node asked.
        version: u64,
    },
    /// A move of a route was taken back.
    #[error("route {id} was not moved: {reason}")]
    MoveAbandoned {
        /// The route.
        id: u64,
        /// Why.
        reason: String,
    },
    /// A remedy was not carried out.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A compare-and-swap found another value.
    #[error("not swapped: {key} {found}")]
    NotSwapped {
        /// The key.
        key: String,
        /// A description of the value found.
        found: String,
    },
    /// A value could not be read.
    #[error(transparent)]
    Value(#[from] flags::value_input::ValueInputError),
    /// A batch file is malformed or cannot be read.
    #[error(transparent)]
    Batch(#[from] data::batch::BatchError),
    /// Rules of alerts cannot be used.
    #[error(transparent)]
    Rules(#[from] alerts::BadRules),
    /// Manual pages or completions could not be written.
    #[error("cannot write the manual pages to {}: {source}", .folder.display())]
    Man {
        /// The folder.
        folder: std::path::PathBuf,
        /// An error of the operating system.
        source: io::Error,
    },
    /// A scan ended before its end.
    #[error("the rows up to {last} were listed, later ones were not: {source}")]
    ScanCut {
        /// The last key listed.
        last: String,
        /// Why.
        source: CallError,
    },
    /// A range was deleted in part.
    #[error(
        "{deleted} keys were deleted: all before {next}; those from {next} on may still be there \
         (delete the range from there on again): {source}"
    )]
    DeleteRangeCut {
        /// Keys that were deleted.
        deleted: u64,
        /// First key of the rest.
        next: String,
        /// Why.
        source: CallError,
    },
    /// Part of the command was done.
    #[error("done in part: {0}")]
    InPart(String),
    /// A Raft group that the cluster does not have.
    #[error("there is no Raft group {0}")]
    NoSuchGroup(u64),
    /// A Raft group whose leader is not known.
    #[error("no leader of Raft group {0} is known")]
    NoLeader(u64),
    /// There is no heatmap, because the visualizer is off.
    #[error("the visualizer is unavailable: {0}")]
    HeatUnavailable(CallError),
    /// No key divides the load of a route.
    #[error("no key to split at: {0}")]
    NoSplitKey(String),
    /// The workload could not be run.
    #[error(transparent)]
    Load(#[from] load::LoadError),
    /// The workload ran and found errors. The summary has the numbers.
    #[error("{0}")]
    LoadFindings(load::Findings),
    /// A member was not replaced.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// Not all replicas agree. The table has the digests.
    #[error(transparent)]
    Verify(#[from] VerifyFindings),
    /// Output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The folder of a node is damaged. The output lists the damage.
    #[error(
        "{records} damaged records in {}; started, the node serves what is sound. To be rid of the \
         damage, replace the node: start one with a new id and an empty folder (--join), then run \
         `keyviz cluster replace-node`. An empty folder under the old id is refused: it would have \
         forgotten writes that the node acknowledged", .folder.display()
    )]
    Damaged {
        /// How many.
        records: usize,
        /// The folder.
        folder: std::path::PathBuf,
    },
    /// Nothing was exported. Nothing is left of it.
    #[error("no export was made: {0}")]
    Export(#[from] export::ExportError),
    /// A backup was not made. Nothing is left of it.
    #[error("no backup was made: {0}")]
    Backup(#[from] recovery::backup::NoBackup),
    /// A backup was not restored. Nothing is left of the attempt.
    #[error("nothing was restored: {0}")]
    Restore(#[from] keyviz_node::RestoreError),
    /// The system gives too few threads.
    #[error(transparent)]
    Threads(#[from] limits::TooFewThreads),
    /// Nothing was salvaged. The folders are as they were.
    #[error("nothing was salvaged: {0}")]
    Salvage(#[from] keyviz_node::SalvageError),
    /// The loss was not confirmed.
    #[error(transparent)]
    NotConfirmed(#[from] recovery::salvage::NotConfirmed),
    /// A node could not be started or stopped.
    #[error("{}", with_causes(.0))]
    Node(anyhow::Error),
}

/// An error with those of its causes that it does not name itself.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |said, cause| {
        let cause = cause.to_string();
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

/// Why flags cannot be combined. Names the flag and the value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UsageError {
    /// The value of a flag contradicts another flag.
    #[error("invalid value '{value}' for '{flag}': {reason}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A flag needs another one.
    #[error("'{flag}' needs '{needs}'")]
    Needs {
        /// The flag that was given.
        flag: &'static str,
        /// The flag that is missing.
        needs: &'static str,
    },
}

impl UsageError {
    fn value(flag: &'static str, value: impl ToString, reason: impl ToString) -> Self {
        UsageError::Value { flag, value: value.to_string(), reason: reason.to_string() }
    }
}

impl From<UsageError> for CliError {
    fn from(error: UsageError) -> Self {
        CliError::Usage(error)
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            return usage_exit(&flags::usage::corrected(error, command(), std::env::args_os()));
        }
    };
    let exit = exit_of(run(cli));
    terminal::talk::finish();
    exit
}

fn exit_of(ran: Result<(), CliError>) -> ExitCode {
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Usage(error)) => {
            let words = format!("{error}\n\nFor more information, try '--help'.\n");
            let error = clap::Error::raw(clap::error::ErrorKind::ValueValidation, words);
            usage_exit(&error)
        }
        Err(error) => {
            let exit = error.exit();
            if exit != Exit::BrokenPipe {
                terminal::talk::say!("keyviz: {error}");
            }
            exit.into()
        }
    }
}

/// The command line. A value that begins with a hyphen reaches the parser of its flag, so that the
/// error names the flag: by default clap takes `--rate -1` for an unknown flag `-1`.
fn command() -> clap::Command {
    fn let_through(arg: clap::Arg) -> clap::Arg {
        // An empty variable counts as not set.
        let variable = arg.get_env().and_then(std::env::var_os);
        let arg = match variable.is_some_and(|value| value.is_empty()) {
            true => arg.env(clap::builder::Resettable::Reset),
            false => arg,
        };
        let named = arg.get_long().is_some();
        match arg.get_action().takes_values() {
            true if named && !flags::FREE_TEXT.contains(&arg.get_id().as_str()) => {
                arg.allow_hyphen_values(true)
            }
            true => arg.allow_negative_numbers(true),
            false => arg,
        }
    }
    fn all(command: clap::Command) -> clap::Command {
        command.mut_args(let_through).mut_subcommands(all)
    }
    all(Cli::command())
}

/// Prints help and version to stdout, usage errors to stderr.
fn usage_exit(error: &clap::Error) -> ExitCode {
    // If stdout or stderr is closed, there is nothing left to do.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn run(cli: Cli) -> Result<(), CliError> {
    let color = cli.color.depth(&Environment::of_stdout());
    match cli.command {
        Command::Demo(args) => {
            let options = args.options()?;
            limits::keep_files_private();
            limits::raise_open_files();
            let nodes = usize::try_from(options.nodes).unwrap_or(usize::MAX);
            limits::check_threads_of_nodes(nodes, cores())?;
            many_threads()?.block_on(demo::run_demo(options, color, None))
        }
        Command::Serve(args) => {
            let options = args.options()?;
            limits::keep_files_private();
            limits::raise_open_files();
            limits::check_threads_of_nodes(1, node_workers())?;
            let runtime = node_threads()?;
            let ran = runtime.block_on(serve::run_serve(options, None));
            // A storage that hangs must not keep the process from ending.
            runtime.shutdown_timeout(Duration::from_secs(1));
            ran
        }
        Command::Put(args) => one_thread()?.block_on(data::kv::put(args)),
        Command::Get(args) => one_thread()?.block_on(data::kv::get(args)),
        Command::Delete(args) => one_thread()?.block_on(data::kv::delete(args)),
        Command::Scan(args) => one_thread()?.block_on(data::kv::scan(args)),
        Command::Cas(args) => one_thread()?.block_on(data::cas::run(args)),
        Command::Batch(args) => one_thread()?.block_on(data::batch::run(args)),
        Command::DeleteRange(args) => one_thread()?.block_on(data::delete_range::run(args)),
        Command::Completion(args) => about::completion(args, command()),
        Command::Man(args) => about::man(args, command()),
        Command::Routes(args) => one_thread()?.block_on(routes::run(args)),
        Command::Heat(args) => one_thread()?.block_on(heat::run(args, color)),
        Command::Autopilot(args) => one_thread()?.block_on(autopilot::run(args)),
        Command::Why(args) => one_thread()?.block_on(why::run(args)),
        Command::Hot(args) => one_thread()?.block_on(heat::hot::run(args)),
        Command::Top(args) => one_thread()?.block_on(top::run(args)),
        Command::Loads(args) => one_thread()?.block_on(loads::run(args)),
        Command::Capabilities(args) => one_thread()?.block_on(capabilities::run(args)),
        Command::Alerts(args) => alerts::run(args),
        Command::Cluster(args) => one_thread()?.block_on(cluster::run(args)),
        Command::Export(args) => one_thread()?.block_on(export::run(args)),
        Command::Backup(args) => {
            limits::keep_files_private();
            one_thread()?.block_on(recovery::backup::run(args))
        }
        Command::Restore(args) => {
            limits::keep_files_private();
            limits::check_threads_of_folder()?;
            recovery::restore::run(args)
        }
        Command::Check(args) => {
            limits::check_threads_of_folder()?;
            recovery::check::run(args)
        }
        Command::Salvage(args) => {
            limits::keep_files_private();
            limits::check_threads_of_folder()?;
            many_threads()?.block_on(recovery::salvage::run(args))
        }
        Command::Load(args) => {
            let (nodes, options) = args.options()?;
            one_thread()?.block_on(load::command(nodes, options))
        }
    }
}

/// A client mostly waits for the network; more threads would not help.
fn one_thread() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn many_threads() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

fn node_workers() -> usize {
    cores().saturating_sub(1).max(1)
}

/// One core is left to the log writer and the database, because every write waits for their
/// threads.
fn node_threads() -> io::Result<tokio::runtime::Runtime> {
    let workers = node_workers();
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

#[cfg(test)]
mod tests;
