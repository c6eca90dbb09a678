//! Output: tables, JSON and CSV lines, escapes, messages.

pub(crate) mod json_log;
pub(crate) mod notation;
pub(crate) mod output;
pub(crate) mod screen;
pub(crate) mod talk;
pub(crate) mod text;
