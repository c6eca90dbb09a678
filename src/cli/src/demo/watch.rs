//! The heatmap of a running demo: drawn in place on a terminal, otherwise a line per column.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::CliError;
use super::super::client::{self, Client};
use super::super::heat::{self, Query, Scope};
use super::super::heatmap::{Drawing, noun, render};
use super::super::load::{Progress, progress_line};
use super::super::running::Signals;
use super::story::Story;
use super::{DemoOptions, HTTP_PORT_OFFSET, TIMEOUT};
use crate::flags::values::Address;
use crate::terminal::output::{self, ColorDepth};
use crate::terminal::screen::Screen;
use crate::terminal::talk::say;
use crate::terminal::text::{self, inert, thousands};
use keyviz_client::Access;
use keyviz_proto as proto;

/// Maximum interval between two drawings of the heatmap.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lines of news above the picture.
const NEWS: usize = 4;

fn query() -> Query {
    Query {
        series: proto::Series::Writes,
        role: proto::Role::Unspecified,
        last: None,
        from_ms: None,
        to_ms: None,
        start: Bytes::new(),
        end: None,
        rows: None,
        columns: None,
        scope: Scope::Cluster,
        axis: proto::Axis::Now,
        by_node: false,
        boundaries: Vec::new(),
        spread: false,
    }
}

/// Draws the heatmap of the first node periodically.
pub(super) struct Watch<'a> {
    options: &'a DemoOptions,
    color: ColorDepth,
    query: Query,
    client: Client,
    progress: &'a Progress,
    started: Instant,
    /// Present if the heatmap is drawn in place.
    screen: Option<Screen>,
    /// End of the newest column that was printed.
    told_ms: u64,
    failure: Option<String>,
    story: Story,
    /// The newest lines of it.
    news: VecDeque<String>,
}

impl<'a> Watch<'a> {
    /// Enters the alternate screen if stdout is a terminal; otherwise prints where to find the
    /// page.
    pub(super) fn new(
        options: &'a DemoOptions,
        color: ColorDepth,
        progress: &'a Progress,
    ) -> io::Result<Self> {
        let in_place = io::stdout().is_terminal();
        let watch = Watch {
            options,
            color,
            query: query(),
            client: client::client(&options.addresses()[..1], Access::default(), TIMEOUT)
                .expect("the demo has a node"),
            progress,
            started: Instant::now(),
            screen: if in_place { Some(Screen::enter()?) } else { None },
            told_ms: 0,
            failure: None,
            story: Story::default(),
            news: VecDeque::new(),
        };
        if !in_place {
            watch.greet()?;
        }
        Ok(watch)
    }

    fn drawing(&self) -> Drawing {
        let (width, height) = output::size();
        Drawing { width, height, color: self.color }
    }

    /// The addresses: the first lines of the drawing, or of stderr.
    fn where_to_look(&self) -> Vec<String> {
        let nodes: Vec<_> = self.options.addresses().iter().map(Address::to_string).collect();
        let http = self.options.address(1, HTTP_PORT_OFFSET);
        let end = match self.options.duration {
            Some(duration) => format!("ends after {}", text::duration(duration)),
            None => "Ctrl-C ends it".into(),
        };
        let load = match self.options.load {
            Some(_) => progress_line(self.progress, self.started.elapsed()),
            None => "no workload".into(),
        };
        vec![
            format!(
                "keyviz demo: nodes {} · heatmap page http://{http}/ · {end}",
                nodes.join(", ")
            ),
            format!("workload: {load}"),
        ]
    }

    fn greet(&self) -> io::Result<()> {
        let first = &self.where_to_look()[0];
        writeln!(io::stderr(), "{first}")
    }

    /// Queries as many of the latest columns as fit beside the labels.
    async fn ask(&mut self, drawing: &Drawing) -> Result<proto::Matrix, CliError> {
        let (columns, _) = drawing.budget();
        let most = self.options.keyviz.history_columns.min(columns as u64);
        // One less, because the column in progress is added.
        let last = self.options.keyviz.step * (most.saturating_sub(1)).max(1) as u32;
        self.query.last = Some(last.min(self.started.elapsed() + self.options.keyviz.step));
        self.query.ask(&self.client, Some(drawing)).await
    }

    pub(super) async fn until_the_end(&mut self, signals: &mut Signals) -> Result<(), CliError> {
        let end = self.options.duration.map(|duration| self.started + duration);
        let every = self.options.keyviz.step.min(LOOK_EVERY);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            let pause = left.map_or(every, |left| left.min(every));
            tokio::select! {
                () = signals.next() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = signals.next() => return Ok(()),
                looked = self.look() => looked?,
            }
        }
    }

    async fn look(&mut self) -> Result<(), CliError> {
        for line in self.story.news(&self.client, heat::now_ms()).await {
            if self.screen.is_none() {
                say!("{line}");
            }
            self.news.push_back(line);
            if self.news.len() > NEWS {
                self.news.pop_front();
            }
        }
        let mut drawing = self.drawing();
        let above: Vec<String> = self
            .where_to_look()
            .iter()
            .chain(&self.news)
            .flat_map(|line| text::wrap(line, drawing.width.max(1)))
            .collect();
        drawing.height = drawing.height.saturating_sub(above.len());
        let asked = self.ask(&drawing).await;
        match (&mut self.screen, asked) {
            (Some(screen), Ok(matrix)) => {
                let picture = heat::live_text(&matrix, &drawing, &None);
                screen.show(&format!("{}\n{picture}", above.join("\n")))?;
            }
            (Some(screen), Err(error)) => {
                let words = text::wrap(&inert(&error.to_string()), drawing.width).join("\n");
                screen.show(&format!("{}\n{words}\n", above.join("\n")))?;
            }
            (None, Ok(matrix)) => {
                self.failure = None;
                self.tell(&matrix);
            }
            (None, Err(error)) => {
                let words = error.to_string();
                if self.failure.as_ref() != Some(&words) {
                    say!("keyviz: {words}");
                }
                self.failure = Some(words);
            }
        }
        Ok(())
    }

    /// Prints a line on stderr for each column closed since the last query.
    fn tell(&mut self, matrix: &proto::Matrix) {
        for (at, column) in matrix.columns.iter().enumerate() {
            if column.open || column.end_ms <= self.told_ms {
                continue;
            }
            self.told_ms = column.end_ms;
            say!("{}", column_line(matrix, at, column));
        }
    }

    /// Leaves the alternate screen.
    pub(super) fn leave_screen(&mut self) {
        self.screen = None;
    }

    /// Prints the heatmap to stdout.
    pub(super) async fn last_picture(&mut self) -> Result<(), CliError> {
        let drawing = self.drawing();
        let matrix = match self.ask(&drawing).await {
            Ok(matrix) => matrix,
            Err(error @ CliError::HeatUnavailable(_)) if !self.options.keyviz.enabled => {
                say!("keyviz: {error}");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut out = output::stdout();
        out.write_all(render(&matrix, &drawing).as_bytes())?;
        out.flush()?;
        Ok(())
    }
}

/// Describes a closed column: its time, its sum and its hottest row.
pub(super) fn column_line(matrix: &proto::Matrix, at: usize, column: &proto::Column) -> String {
    let values = || matrix.rows.iter().map(|row| row.values.get(at).copied().unwrap_or(0));
    let sum = values().fold(0u64, u64::saturating_add);
    let hottest = matrix.rows.iter().zip(values()).max_by_key(|(_, value)| *value);
    let mut line =
        format!("{} {} {}", text::time_utc(column.start_ms), thousands(sum), noun(matrix.series()));
    if let Some((row, value)) = hottest.filter(|(_, value)| *value > 0) {
        let start = text::preview(&row.start);
        let start = if start.is_empty() { "(begin)".into() } else { start };
        line.push_str(&format!(", hottest from {start}: {}", thousands(value)));
    }
    line
}
