//! Version, shell completion and manual pages.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::Args;
use clap_complete::Shell;

use super::CliError;
use super::terminal::output;
use keyviz_backup as backup;
use keyviz_core::wire::CONTRIBUTION_VERSION;
use keyviz_raft as raft;

/// The commit that this program was built from; `unknown` without git.
pub const COMMIT: &str = env!("KEYVIZ_COMMIT");

/// Version and commit, in one line.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("KEYVIZ_COMMIT"), ")");

/// Version, commit, and the formats that this program reads and writes.
pub static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\ncommit: {COMMIT}\ndata format: {} (reads 1 to {})\n\
         wire format: keyviz.v1, matrix form {}\nbackup format: {}",
        env!("CARGO_PKG_VERSION"),
        raft::DATA_FORMAT,
        raft::DATA_FORMAT,
        CONTRIBUTION_VERSION,
        backup::FORMAT,
    )
});

/// `completion`.
#[derive(Args, Debug)]
#[command(after_help = "\
  keyviz completion bash > /etc/bash_completion.d/keyviz
  keyviz completion zsh > \"${fpath[1]}/_keyviz\"
  keyviz completion fish > ~/.config/fish/completions/keyviz.fish")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// `man`.
#[derive(Args, Debug)]
#[command(after_help = "Each command has a page of its own: `man -l DIR/keyviz-put.1`.")]
pub struct ManArgs {
    /// Folder for the pages; created if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Prints a completion script.
pub fn completion(args: CompletionArgs, mut command: clap::Command) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "keyviz", &mut script);
    let mut out = output::stdout();
    out.write_all(&script)?;
    out.flush()?;
    Ok(())
}

/// Writes a manual page for each command.
pub fn man(args: ManArgs, command: clap::Command) -> Result<(), CliError> {
    let written = std::fs::create_dir_all(&args.out)
        .and_then(|()| clap_mangen::generate_to(command, &args.out));
    written.map_err(|source| CliError::Man { folder: args.out, source })
}
