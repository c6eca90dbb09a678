//! Output: data to stdout, buffered; messages to stderr; colours as configured.

use std::io::{self, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use serde::Serialize;

/// Width of drawings without a terminal.
pub const PIPED_WIDTH: usize = 100;
/// Height of drawings without a terminal.
pub const PIPED_HEIGHT: usize = 60;

/// How a command prints its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one object, or one object per line for many rows.
    Json,
    /// One line per row, with a header.
    Csv,
}

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Also into pipes and files.
    Always,
    /// Never.
    Never,
}

/// Colours that the output can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColorDepth {
    /// No colours: density is drawn with characters.
    None,
    /// The 256-colour palette.
    Ansi256,
    /// 24 bits.
    Truecolor,
}

/// Properties of stdout and the environment; passed in, so that the decision can be tested.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Stdout is a terminal.
    pub terminal: bool,
    /// NO_COLOR is set and not empty.
    pub no_color: bool,
    /// TERM.
    pub term: String,
    /// COLORTERM.
    pub colorterm: String,
}

impl Environment {
    /// Reads it for stdout.
    pub fn of_stdout() -> Self {
        let var = |name| std::env::var(name).unwrap_or_default();
        Environment {
            terminal: io::stdout().is_terminal(),
            no_color: !var("NO_COLOR").is_empty(),
            term: var("TERM"),
            colorterm: var("COLORTERM"),
        }
    }
}

impl ColorWhen {
    /// The colours to use. NO_COLOR and TERM=dumb apply only if the flag is `auto`.
    pub fn depth(self, environment: &Environment) -> ColorDepth {
        let wanted = match self {
            ColorWhen::Never => false,
            ColorWhen::Always => true,
            ColorWhen::Auto => {
                environment.terminal && !environment.no_color && environment.term != "dumb"
            }
        };
        match (wanted, environment.colorterm.as_str()) {
            (false, _) => ColorDepth::None,
            (true, "truecolor" | "24bit") => ColorDepth::Truecolor,
            (true, _) => ColorDepth::Ansi256,
        }
    }
}

/// Width and height of stdout's terminal, or the fixed size of drawings into pipes.
pub fn size() -> (usize, usize) {
    if !io::stdout().is_terminal() {
        return (PIPED_WIDTH, PIPED_HEIGHT);
    }
    match crossterm::terminal::size() {
        Ok((columns, rows)) if columns > 0 && rows > 0 => (columns.into(), rows.into()),
        _ => (PIPED_WIDTH, PIPED_HEIGHT),
    }
}

/// Buffered stdout.
pub type Stdout = io::BufWriter<StdoutLock<'static>>;

/// Buffered stdout. Flush it at the end, so that a full disk is reported.
pub fn stdout() -> Stdout {
    io::BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// One JSON object and a line feed.
///
/// # Errors
/// What the writer says.
pub fn json_line<T: Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_flag_then_no_color_then_the_terminal() {
        let terminal = Environment {
            terminal: true,
            term: "xterm-256color".into(),
            colorterm: "truecolor".into(),
            no_color: false,
        };
        let plain = Environment { colorterm: String::new(), ..terminal.clone() };
        let no_color = Environment { no_color: true, ..terminal.clone() };
        let dumb = Environment { term: "dumb".into(), ..terminal.clone() };
        let pipe = Environment { terminal: false, ..terminal.clone() };
        assert_eq!(ColorWhen::Auto.depth(&terminal), ColorDepth::Truecolor);
        assert_eq!(ColorWhen::Auto.depth(&plain), ColorDepth::Ansi256);
        for off in [&no_color, &dumb, &pipe] {
            assert_eq!(ColorWhen::Auto.depth(off), ColorDepth::None);
            assert_eq!(ColorWhen::Always.depth(off), ColorDepth::Truecolor);
        }
        assert_eq!(ColorWhen::Never.depth(&terminal), ColorDepth::None);
    }
}
