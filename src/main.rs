//! The `keyviz` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyviz::cli::main()
}
