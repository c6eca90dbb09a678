//! The `keyviz` command.

use std::process::ExitCode;

/// glibc's allocator took a ninth of a node's time under load: its arenas grow and shrink with
/// every burst of requests, each time by a system call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyviz_cli::main()
}
