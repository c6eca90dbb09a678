//! What takes the rows of an export.

use std::io::Write;

use super::error::ExportError;
use super::record::Line;

/// A writer that encoders own.
pub(super) type Output = Box<dyn Write + Send>;

/// A format being written.
pub(super) trait Sink {
    /// Takes a row.
    fn put(&mut self, line: &Line<'_>) -> Result<(), ExportError>;
    /// Writes what is left.
    fn finish(self: Box<Self>) -> Result<(), ExportError>;
}
