//! Usage lines of errors. clap lists flags with a default or a variable as if they were required;
//! this module uses the line of the help instead.

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue};

/// The error with the usage line of the subcommand in `words`.
pub fn corrected(
    mut error: clap::Error,
    mut command: Command,
    words: impl IntoIterator<Item = OsString>,
) -> clap::Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    command.build();
    let mut named = &mut command;
    for word in words.into_iter().skip(1) {
        if named.find_subcommand(&word).is_some() {
            named = named.find_subcommand_mut(&word).expect("it was found a line above");
        }
    }
    error.insert(ContextKind::Usage, ContextValue::StyledStr(named.render_usage()));
    error
}
