//! Drawing in place on a terminal.

use std::io::{self, Write};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::execute;
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen,
};

/// The alternate screen; dropping this leaves it.
#[derive(Debug)]
pub struct Screen(());

impl Screen {
    /// Enters it.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn enter() -> io::Result<Self> {
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(Screen(()))
    }

    /// Replaces the content of the screen by `text`, without flicker.
    ///
    /// # Errors
    /// If stdout cannot be written.
    pub fn show(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        execute!(out, BeginSynchronizedUpdate, MoveTo(0, 0))?;
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            write!(out, "{line}")?;
            execute!(out, Clear(ClearType::UntilNewLine))?;
            if lines.peek().is_some() {
                write!(out, "\r\n")?;
            }
        }
        execute!(out, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that went away need not be restored.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
}
