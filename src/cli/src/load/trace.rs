//! Traces: one operation per line, `t_s,op,key,value_bytes`, plain or gzipped.
//!
//! A trace is read twice: once completely, so that a malformed line is found before anything is
//! sent, and once during the replay, so that memory does not grow with the file. A pipe is copied
//! to a temporary file first.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use crate::flags::values::{self, MAX_VALUE_BYTES, ValueError};

/// The header of a trace.
pub const HEADER: [&str; 4] = ["t_s", "op", "key", "value_bytes"];

/// The first bytes of a gzipped file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a trace cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("cannot read the trace {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The first line is not the header.
    #[error("{}: line 1 is not the header {}", path.display(), HEADER.join(","))]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// A line is no operation.
    #[error("{}: line {line}: {fault} (--skip-bad skips it)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        fault: LineFault,
    },
}

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineFault {
    /// Too few or too many fields.
    #[error("{0} fields, expected 4")]
    Fields(usize),
    /// A field is not UTF-8.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// No time.
    #[error("t_s {0:?} is not a number of seconds from 0")]
    Time(String),
    /// No operation.
    #[error("op {0:?} is none of read, write, delete")]
    Operation(String),
    /// No key.
    #[error("key: {0}")]
    Key(#[from] ValueError),
    /// No size.
    #[error("value_bytes {0:?} is not a number from 0 to {MAX_VALUE_BYTES}")]
    ValueBytes(String),
}

/// What a line does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceKind {
    /// Read a key.
    Read,
    /// Write a key.
    Write,
    /// Delete a key.
    Delete,
}

/// One line.
#[derive(Clone, PartialEq, Debug)]
pub struct TraceLine {
    /// Seconds since the beginning of the trace.
    pub at_s: f64,
    /// What to do.
    pub kind: TraceKind,
    /// With which key.
    pub key: Bytes,
    /// Size of the value to write; 0 for other operations.
    pub value_bytes: usize,
}

/// A trace file.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    /// The copy of a file that can be read only once.
    copy: Option<File>,
}

/// The result of the first reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Operations.
    pub operations: u64,
    /// Malformed lines.
    pub bad: u64,
}

impl Trace {
    /// Finds the file.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let trace = Trace { path: path.to_owned(), copy: None };
        let mut file = File::open(path).map_err(|error| trace.unreadable(error))?;
        let meta = file.metadata().map_err(|error| trace.unreadable(error))?;
        if meta.is_dir() {
            return Err(trace.unreadable(io::ErrorKind::IsADirectory.into()));
        }
        if meta.is_file() {
            return Ok(trace);
        }
        let copied = tempfile::tempfile().and_then(|mut copy| {
            io::copy(&mut file, &mut copy)?;
            Ok(copy)
        });
        let copy = copied.map_err(|error| trace.unreadable(error))?;
        Ok(Trace { copy: Some(copy), ..trace })
    }

    fn unreadable(&self, error: io::Error) -> TraceError {
        TraceError::Read { path: self.path.clone(), error }
    }

    /// Reads all lines, and counts.
    ///
    /// # Errors
    /// If the file cannot be read, or at the first malformed line unless they are skipped.
    pub fn check(&self, skip_bad: bool) -> Result<Census, TraceError> {
        let mut census = Census::default();
        for line in self.lines()? {
            match line {
                Ok(_) => census.operations += 1,
                Err(TraceError::Line { .. }) if skip_bad => census.bad += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(census)
    }

    /// All lines from the first. A [`TraceError::Line`] does not end them; another error does.
    ///
    /// # Errors
    /// If the file cannot be read or does not begin with the header.
    pub fn lines(&self) -> Result<Lines, TraceError> {
        let reader = self.reader().map_err(|error| self.unreadable(error))?;
        let mut csv =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader);
        let mut record = csv::ByteRecord::new();
        match csv.read_byte_record(&mut record) {
            Ok(true) if record.iter().eq(HEADER.map(str::as_bytes)) => {}
            Ok(_) => return Err(TraceError::Header { path: self.path.clone() }),
            Err(error) => return Err(self.unreadable(error.into())),
        }
        Ok(Lines { path: self.path.clone(), csv, record, ended: false })
    }

    fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        let mut file = match &self.copy {
            None => File::open(&self.path)?,
            Some(copy) => copy.try_clone()?,
        };
        let mut magic = [0; GZIP_MAGIC.len()];
        file.seek(SeekFrom::Start(0))?;
        let gzipped = match file.read_exact(&mut magic) {
            Ok(()) => magic == GZIP_MAGIC,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(0))?;
        let file = BufReader::with_capacity(64 << 10, file);
        Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
    }
}

/// The lines of a trace.
pub struct Lines {
    path: PathBuf,
    csv: csv::Reader<Box<dyn Read + Send>>,
    record: csv::ByteRecord,
    ended: bool,
}

impl Iterator for Lines {
    type Item = Result<TraceLine, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.csv.read_byte_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => Some(parse(&self.record).map_err(|fault| TraceError::Line {
                path: self.path.clone(),
                line: self.record.position().map_or(0, csv::Position::line),
                fault,
            })),
            Err(error) => {
                self.ended = true;
                Some(Err(TraceError::Read { path: self.path.clone(), error: error.into() }))
            }
        }
    }
}

fn parse(record: &csv::ByteRecord) -> Result<TraceLine, LineFault> {
    if record.len() != HEADER.len() {
        return Err(LineFault::Fields(record.len()));
    }
    let field = |at: usize| std::str::from_utf8(&record[at]).map_err(|_| LineFault::NotUtf8);
    let (time, op, key, value_bytes) = (field(0)?, field(1)?, field(2)?, field(3)?);
    let at_s = time.trim().parse::<f64>().ok().filter(|at_s| at_s.is_finite() && *at_s >= 0.0);
    let at_s = at_s.ok_or_else(|| LineFault::Time(time.to_owned()))?;
    let kind = match op.trim() {
        "read" => TraceKind::Read,
        "write" => TraceKind::Write,
        "delete" => TraceKind::Delete,
        _ => return Err(LineFault::Operation(op.to_owned())),
    };
    let key = keyviz_json::parse_key(key).map_err(ValueError::from)?;
    values::check_key(&key)?;
    let size = match value_bytes.trim() {
        "" if kind != TraceKind::Write => Some(0),
        digits => digits.parse::<usize>().ok(),
    };
    // The size of a read in the trace is not limited, because it is not replayed.
    let size = size.filter(|size| kind != TraceKind::Write || *size <= MAX_VALUE_BYTES);
    let size = size.ok_or_else(|| LineFault::ValueBytes(value_bytes.to_owned()))?;
    let value_bytes = if kind == TraceKind::Write { size } else { 0 };
    Ok(TraceLine { at_s, kind, key, value_bytes })
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
