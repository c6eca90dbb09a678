//! `export`: streams the counts of a window, as fine as they are kept, for other programs.
//!
//! Rows come from the same matrices that the heatmap shows, one piece of time and up to a thousand
//! routes after the other, so an export of any length needs the memory of one page, and holders of
//! copies answer for nodes that are gone. At the end the sums are compared with the totals of one
//! matrix of the whole window: folding history in the middle of an export is the one thing that
//! could set them apart, and is told.

mod asking;
mod error;
mod hot;
mod page;
#[cfg(feature = "parquet")]
mod parquet;
mod record;
mod scope;
mod sink;
mod target;
mod window;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;

use crate::client::NodeArgs;
use crate::flags::values;
use crate::heat::now_ms;
use crate::terminal::talk::say;
use crate::terminal::text::{self, thousands};
use crate::{CliError, UsageError};
use keyviz_json::series_name;
use keyviz_proto as proto;

use asking::Questions;
pub use error::ExportError;
use hot::Times;
use page::{ORDER, page};
use record::{Kind, Record, SERIES};
use scope::{Place, Scope};
use sink::Sink;
pub use target::ExportFormat;
use target::Target;
use window::Found;

/// Most hot keys of a column.
const MAX_HOT_KEYS: u64 = 1_000;
/// The shortest time between two words about the progress.
const SAY_EVERY: Duration = Duration::from_secs(2);
/// Default of `--last`.
const LAST: Duration = Duration::from_secs(3_600);

/// `export`.
#[derive(Args, Debug)]
#[command(after_help = "Only closed columns are exported. The kind of a row is\n  \
      cell        counted for one route and column\n  \
      block       counted together for several\n  \
      straddling  the same, reaching beyond the window or keys: in no total\n  \
      hot_key     a key with many operations\n  \
      gap         counts of this time may be missing\n  \
      end         the last row of a complete export\n\
    With --dedup, cells and blocks add up to the matrix exactly; without it too, unless two nodes\n\
    claim one term, whose rows are marked as conflict. Exits with 6 if counts may be missing.")]
pub struct ExportArgs {
    /// Start of the window: RFC 3339 or Unix milliseconds; absent: 1h before its end
    #[arg(long, value_name = "TIME", value_parser = values::time_ms)]
    from: Option<u64>,
    /// End of the window, exclusive: RFC 3339 or Unix milliseconds; absent: now
    #[arg(long, value_name = "TIME", value_parser = values::time_ms)]
    to: Option<u64>,
    /// Length of the window until now, such as 5m or 24h [default: 1h]
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = values::duration,
        conflicts_with_all = ["from", "to"],
    )]
    last: Option<Duration>,
    /// First key, inclusive; absent: the beginning of the key space
    #[arg(long, value_name = "KEY", value_parser = values::bound)]
    start: Option<Bytes>,
    /// First key after the range; absent: the end of the key space
    #[arg(long, value_name = "KEY", value_parser = values::bound)]
    end: Option<Bytes>,
    /// How to write rows
    #[arg(long, value_enum, default_value = "csv")]
    format: ExportFormat,
    /// File to write, which must not exist, and which appears once it is complete; - for stdout
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// One row for each route and column, instead of one for each node, group and term that counted
    #[arg(long)]
    dedup: bool,
    /// Routes of the rows: then, those at the start of each piece of the window (an hour, or five
    /// minutes where columns are short); now, those of today
    #[arg(long, value_name = "AXIS", default_value = "then", value_parser = values::axis)]
    axis: proto::Axis,
    /// Hot keys of each column, of reads and of writes, at most 1,000; 0: none
    #[arg(long, value_name = "KEYS", default_value_t = 20, value_parser = hot_keys)]
    hot_keys: u32,
    #[command(flatten)]
    nodes: NodeArgs,
}

fn hot_keys(text: &str) -> Result<u32, values::ValueError> {
    values::number_in(text, 0, MAX_HOT_KEYS).map(|keys| keys as u32)
}

impl ExportArgs {
    /// Checks the combination of flags.
    fn scope(&self, now_ms: u64) -> Result<Scope, UsageError> {
        let to_ms = self.to.unwrap_or(now_ms);
        let last_ms = u64::try_from(self.last.unwrap_or(LAST).as_millis()).unwrap_or(u64::MAX);
        let from_ms = self.from.unwrap_or(to_ms.saturating_sub(last_ms));
        if let (Some(from), None) = (self.from, self.to)
            && from >= to_ms
        {
            let reason = format!("the window would begin in the future: {}", text::time_utc(from));
            return Err(UsageError::value("--from <TIME>", from, reason));
        }
        if from_ms >= to_ms {
            let (from, end) = (text::time_utc(from_ms), text::time_utc(to_ms));
            let reason = format!("the window must end after it begins: {end} is not after {from}");
            return Err(UsageError::value("--to <TIME>", to_ms, reason));
        }
        let start = self.start.clone().unwrap_or_default();
        if let Some(end) = self.end.as_ref().filter(|end| start >= **end) {
            let reason = "the key range ends before it begins (--start)";
            return Err(UsageError::value("--end <KEY>", text::preview(end), reason));
        }
        let (end, axis, dedup) = (self.end.clone(), self.axis, self.dedup);
        Ok(Scope { from_ms, to_ms, start, end, axis, dedup, routes: 0 })
    }
}

/// Runs `export`.
///
/// # Errors
/// [`CliError::InPart`] if counts may be missing; the output is complete otherwise. With any other
/// error no file is left.
pub async fn run(args: ExportArgs) -> Result<(), CliError> {
    let scope = args.scope(now_ms())?;
    let client = args.nodes.client()?;
    let (target, sink) = Target::open(&args.out, args.format)?;
    let mut export = Export::new(Questions::new(&client), sink, args.hot_keys);
    let made = export.all(scope).await;
    let made = match made {
        Ok(()) => export.sink.finish().and_then(|()| target.complete()).map_err(CliError::from),
        Err(error) => Err(error),
    };
    if let Err(error) = made {
        target.discard();
        return Err(match error {
            CliError::Export(error) => target.named(error).into(),
            error => error,
        });
    }
    let told = export.told;
    say!("keyviz: {} rows exported", thousands(told.rows));
    for (series, count) in ORDER.iter().zip(told.unattributed).filter(|(_, count)| *count > 0) {
        let series = series_name(*series);
        say!("keyviz: {series} without a route, in no row: {}", thousands(count));
    }
    match told.doubt {
        None => Ok(()),
        Some(doubt) => Err(CliError::InPart(doubt)),
    }
}

/// What is said at the end.
#[derive(Default)]
struct Told {
    rows: u64,
    unattributed: [u64; SERIES],
    /// Why the export may lack counts.
    doubt: Option<String>,
}

/// An export in progress.
struct Export<'a> {
    questions: Questions<'a>,
    sink: Box<dyn Sink>,
    /// Of a column; 0: none.
    hot_keys: u32,
    /// Of cells and blocks.
    sums: [u64; SERIES],
    conflict: bool,
    said: Instant,
    told: Told,
}

impl<'a> Export<'a> {
    fn new(questions: Questions<'a>, sink: Box<dyn Sink>, hot_keys: u32) -> Self {
        let (said, told) = (Instant::now(), Told::default());
        Export { questions, sink, hot_keys, sums: [0; SERIES], conflict: false, said, told }
    }

    async fn all(&mut self, scope: Scope) -> Result<(), CliError> {
        let found = window::find(&mut self.questions, &scope).await?;
        let asked = (scope.from_ms, scope.to_ms);
        let scope =
            Scope { from_ms: found.from_ms, to_ms: found.to_ms, routes: found.routes(), ..scope };
        if found.dropped && found.from_ms > asked.0 {
            let gap = Record::of_time(Kind::Gap, asked.0, found.from_ms.min(asked.1));
            self.put(&Record { partial: true, ..gap })?;
        }
        if scope.from_ms < scope.to_ms {
            self.pieces(&scope, &found).await?;
            self.compare(&scope).await?;
        } else {
            say!("keyviz: there is no closed column in the window");
        }
        let partial = self.told.doubt.is_some();
        let end = Record::of_time(Kind::End, asked.0, scope.to_ms.max(asked.0));
        self.put(&Record { partial, ..end })
    }

    async fn pieces(&mut self, scope: &Scope, found: &Found) -> Result<(), CliError> {
        let mut from_ms = scope.from_ms;
        while from_ms < scope.to_ms {
            let to_ms = (from_ms / found.piece_ms + 1).saturating_mul(found.piece_ms);
            let to_ms = to_ms.min(scope.to_ms);
            self.piece(scope, from_ms, to_ms).await?;
            if self.said.elapsed() >= SAY_EVERY && to_ms < scope.to_ms {
                let done = (to_ms - scope.from_ms) as f64 / (scope.to_ms - scope.from_ms) as f64;
                let (rows, done) = (thousands(self.told.rows), done * 100.0);
                say!("keyviz: {rows} rows, up to {} ({done:.0} %)", text::time_utc(to_ms));
                self.said = Instant::now();
            }
            from_ms = to_ms;
        }
        Ok(())
    }

    async fn piece(&mut self, scope: &Scope, from_ms: u64, to_ms: u64) -> Result<(), CliError> {
        let mut times = Times::default();
        let mut next = Some(scope.start.clone());
        while let Some(start) = next {
            let first = start == scope.start;
            let place = Place { from_ms, to_ms, start };
            let page = page(&mut self.questions, scope, &place).await?;
            for record in &page.records {
                times.note(record);
                self.add(record)?;
            }
            if first {
                for (sum, count) in self.told.unattributed.iter_mut().zip(page.unattributed) {
                    *sum = sum.saturating_add(count);
                }
            }
            next = page.next;
        }
        if self.hot_keys == 0 {
            return Ok(());
        }
        match hot::hot_keys(&self.questions, scope, &times, self.hot_keys).await? {
            Some(records) => records.iter().try_for_each(|record| self.put(record)),
            None => {
                self.hot_keys = 0;
                Ok(())
            }
        }
    }

    fn add(&mut self, record: &Record) -> Result<(), CliError> {
        if let (Kind::Cell | Kind::Block, Some(counts)) = (record.kind, record.counts) {
            for (sum, count) in self.sums.iter_mut().zip(counts) {
                *sum = sum.saturating_add(count);
            }
        }
        self.conflict |= record.conflict;
        self.put(record)
    }

    fn put(&mut self, record: &Record) -> Result<(), CliError> {
        if record.partial && self.told.doubt.is_none() {
            let time = text::time_utc(record.from_ms);
            self.told.doubt = Some(format!(
                "counts may be missing, first at {time}; the rows of these times are marked as \
                 partial"
            ));
        }
        self.told.rows += 1;
        Ok(self.sink.put(&record.line())?)
    }

    /// Compares the sums with one matrix of the whole window.
    async fn compare(&mut self, scope: &Scope) -> Result<(), CliError> {
        // Of a conflict the matrix has the larger claim, and the export of sources has both.
        if self.told.doubt.is_some() || (self.conflict && !scope.dedup) {
            return Ok(());
        }
        for (series, sum) in ORDER.into_iter().zip(self.sums) {
            let request = proto::GetMatrixRequest {
                series: series.into(),
                from_ms: Some(scope.from_ms),
                to_ms: Some(scope.to_ms),
                start: scope.start.clone(),
                end: scope.end.clone(),
                max_rows: 1,
                max_columns: 1,
                ..Default::default()
            };
            let matrix = self.questions.matrix(&request).await?;
            let partial = matrix.rows.iter().any(|row| !row.partial.is_empty());
            if matrix.total != sum && !partial {
                let (series, rows, total) =
                    (series_name(series), thousands(sum), thousands(matrix.total));
                self.told.doubt = Some(format!(
                    "the rows have {rows} {series} and the matrix has {total}: the history \
                     changed meanwhile; export the window again"
                ));
                return Ok(());
            }
        }
        Ok(())
    }
}
