//! Where rows go: stdout, or a file that appears once it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::error::ExportError;
use super::record::Line;
use super::sink::{Output, Sink};
use crate::UsageError;

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ExportFormat {
    /// A header, then one line per row.
    Csv,
    /// One object per line.
    Json,
    /// Apache Parquet, compressed with Snappy, in groups of 65,536 rows.
    Parquet,
}

/// The end of `--out`: stdout, or a file that is written under another name first.
pub(super) struct Target {
    /// `None`: stdout.
    file: Option<PathBuf>,
}

impl Target {
    /// Checks where the rows go, before anything is asked.
    ///
    /// # Errors
    /// The file exists or cannot be written, the binary has no Parquet, or its bytes would go to a
    /// terminal.
    pub(super) fn open(
        out: &Path,
        format: ExportFormat,
    ) -> Result<(Self, Box<dyn Sink>), crate::CliError> {
        let is_stdout = out == Path::new("-");
        let is_parquet = format == ExportFormat::Parquet;
        if is_parquet && !cfg!(feature = "parquet") {
            let reason = "this keyviz was built without it; take csv or json, or build with the \
                          cargo feature parquet";
            return Err(UsageError::value("--format <FORMAT>", "parquet", reason).into());
        }
        if is_stdout && is_parquet && io::stdout().is_terminal() {
            let reason = "Parquet is not text; name a file (--out FILE) or redirect stdout";
            return Err(UsageError::value("--format <FORMAT>", "parquet", reason).into());
        }
        let (target, output) = if is_stdout {
            (Target { file: None }, Box::new(io::stdout()) as Output)
        } else {
            if out.exists() {
                return Err(ExportError::Exists(out.to_path_buf()).into());
            }
            let target = Target { file: Some(out.to_path_buf()) };
            let aside = aside(out);
            let file = File::create(&aside)
                .map_err(|source| ExportError::Write { file: out.to_path_buf(), source })?;
            (target, Box::new(file) as Output)
        };
        let output: Output = Box::new(BufWriter::with_capacity(64 << 10, output));
        let sink = sink(format, output).map_err(|error| target.named(error));
        match sink {
            Ok(sink) => Ok((target, sink)),
            Err(error) => {
                target.discard();
                Err(error.into())
            }
        }
    }

    /// Names the file in an error of writing it.
    pub(super) fn named(&self, error: ExportError) -> ExportError {
        match (&self.file, error) {
            (Some(file), ExportError::Output(source)) => {
                ExportError::Write { file: file.clone(), source }
            }
            (_, error) => error,
        }
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// Another file got the name meanwhile, or the disk fails.
    pub(super) fn complete(&self) -> Result<(), ExportError> {
        let Some(file) = &self.file else { return Ok(()) };
        let wrote = |source| ExportError::Write { file: file.clone(), source };
        if file.exists() {
            return Err(ExportError::Exists(file.clone()));
        }
        let aside = aside(file);
        File::open(&aside).and_then(|file| file.sync_all()).map_err(wrote)?;
        fs::rename(&aside, file).map_err(wrote)
    }

    /// Removes what was written.
    pub(super) fn discard(&self) {
        if let Some(file) = &self.file {
            // An incomplete file under another name does no harm.
            let _ = fs::remove_file(aside(file));
        }
    }
}

/// The path of a file until it is complete.
fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}

fn sink(format: ExportFormat, output: Output) -> Result<Box<dyn Sink>, ExportError> {
    Ok(match format {
        ExportFormat::Csv => Box::new(Csv(csv::Writer::from_writer(output))),
        #[cfg(feature = "parquet")]
        ExportFormat::Parquet => Box::new(super::parquet::Parquet::new(output)?),
        // Without the feature `Target::open` refuses Parquet before.
        _ => Box::new(Json(output)),
    })
}

struct Csv(csv::Writer<Output>);

impl Sink for Csv {
    fn put(&mut self, line: &Line<'_>) -> Result<(), ExportError> {
        self.0.serialize(line).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => ExportError::Output(error),
            kind => ExportError::Output(io::Error::other(format!("{kind:?}"))),
        })
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        Ok(self.0.flush()?)
    }
}

struct Json(Output);

impl Sink for Json {
    fn put(&mut self, line: &Line<'_>) -> Result<(), ExportError> {
        Ok(crate::terminal::output::json_line(&mut self.0, line)?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExportError> {
        Ok(self.0.flush()?)
    }
}
