//! `heat --live` on a terminal: the heatmap with a cursor, updated by the cluster's stream of
//! columns, or by repeated queries if the stream does not fit.
//!
//! [`view`] changes the query by keys, [`slide`] merges the updates of the stream, and [`picture`]
//! draws; all three are pure. This module has the tasks: one reads keys, one reads the stream, one
//! queries.

mod asking;
mod found;
mod hot;
mod picture;
mod slide;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::CliError;
use super::client::Client;
use super::heat::{LiveRows, Query, Scope, counted_by, live_every, more_detail, now_ms};
use super::heatmap::{Drawing, render};
use super::terminal::output::{self, ColorDepth};
use super::terminal::text;
use asking::{Whole, ask, follow};
use keyviz_proto as proto;
use picture::{Layout, Picture, drawing};
use view::{Act, Around, View};

/// Interval of full queries beside a stream, because members, roles and totals change too.
const WHOLE_EVERY: Duration = Duration::from_secs(60);
/// The pause before a broken stream is opened again.
const STREAM_AGAIN: Duration = Duration::from_secs(5);
/// Updates that wait to be drawn; a faster stream waits.
const MOST_WAITING: usize = 64;
/// Time after which a cursor that was not moved rests.
const CURSOR_RESTS: Duration = Duration::from_millis(200);
/// Maximum length of a default window.
const MOST_LAST: Duration = Duration::from_secs(3_600);

/// Messages of the tasks. Answers carry the number of their query.
enum Told {
    Key(Event),
    Whole(u64, Box<Result<Whole, CliError>>),
    Columns(u64, Box<proto::ColumnsUpdate>),
    StreamOver(u64, String),
    /// The hot keys of a cell, in words.
    Hot(Box<proto::GetHotKeysRequest>, String),
    /// What stands out, in words; empty: not known.
    Found(u64, String),
}

/// Runs until `q` or Ctrl-C.
///
/// # Errors
/// If the first query fails, or the terminal cannot be drawn on.
pub async fn run(query: Query, client: Client, color: ColorDepth) -> Result<(), CliError> {
    let (width, height) = output::size();
    let drawing = drawing(width, height, color);
    // A failure of the first query ends the command.
    let whole = ask(&query, &client, &drawing, 0).await?;
    let (tell, mut told) = mpsc::channel(MOST_WAITING);
    let mut app = App::new(query, client, color, whole, tell.clone());
    let mut terminal = ratatui::try_init()?;
    std::thread::spawn(move || read_keys(&tell));
    let ran = app.run(&mut terminal, &mut told).await;
    ratatui::try_restore()?;
    app.stop();
    ran?;
    // The last drawing stays on the screen.
    let (width, height) = output::size();
    let mut out = output::stdout();
    out.write_all(render(&app.matrix, &Drawing { width, height, color }).as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Reads keys until the receiver is gone.
fn read_keys(tell: &mpsc::Sender<Told>) {
    while let Ok(event) = event::read() {
        if tell.blocking_send(Told::Key(event)).is_err() {
            return;
        }
    }
}

/// How the drawing is updated.
enum Feed {
    /// By the stream of columns.
    Stream,
    /// By repeated queries, and why.
    Asking(String),
}

struct App {
    view: View,
    client: Client,
    color: ColorDepth,
    matrix: proto::Matrix,
    /// The rows that are kept.
    rows: LiveRows,
    leaders: HashMap<u64, u64>,
    bounds: Vec<Bytes>,
    /// Number of the current query; answers to others are late.
    question: u64,
    feed: Feed,
    failure: Option<String>,
    stream: Option<JoinHandle<()>>,
    asking: Option<JoinHandle<()>>,
    next_ask: Instant,
    next_stream: Option<Instant>,
    /// The hot keys of the cell under the cursor: the question, and the answer once it is there.
    hot: Option<(proto::GetHotKeysRequest, String)>,
    asking_hot: Option<JoinHandle<()>>,
    /// What stands out, in words; empty: not known.
    found: String,
    asking_found: Option<JoinHandle<()>>,
    tell: mpsc::Sender<Told>,
}

impl App {
    fn new(
        query: Query,
        client: Client,
        color: ColorDepth,
        whole: Whole,
        tell: mpsc::Sender<Told>,
    ) -> Self {
        App {
            rows: LiveRows::new(&query.boundaries, &whole.matrix),
            view: View::new(query),
            client,
            color,
            matrix: whole.matrix,
            leaders: whole.leaders,
            bounds: whole.bounds.unwrap_or_default(),
            question: 0,
            feed: Feed::Asking("the stream is opened".into()),
            failure: None,
            stream: None,
            asking: None,
            next_ask: Instant::now() + WHOLE_EVERY,
            next_stream: Some(Instant::now()),
            hot: None,
            asking_hot: None,
            found: String::new(),
            asking_found: None,
            tell,
        }
    }

    fn stop(&mut self) {
        let tasks =
            [&mut self.stream, &mut self.asking, &mut self.asking_hot, &mut self.asking_found];
        for task in tasks.into_iter().filter_map(Option::take) {
            task.abort();
        }
    }

    async fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        told: &mut mpsc::Receiver<Told>,
    ) -> Result<(), CliError> {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            let layout = self.draw(terminal)?;
            self.ask_hot(&layout);
            self.ask_found();
            let next_stream = self.next_stream.filter(|_| self.streams());
            let asks = !self.view.paused && self.asking.is_none();
            let stream_at = next_stream.unwrap_or_else(Instant::now);
            let told = tokio::select! {
                _ = &mut interrupt => return Ok(()),
                told = told.recv() => told,
                () = tokio::time::sleep_until(self.next_ask), if asks => {
                    self.ask();
                    continue;
                }
                () = tokio::time::sleep_until(stream_at), if next_stream.is_some() => {
                    self.open_stream();
                    continue;
                }
            };
            match told {
                None => return Ok(()),
                Some(Told::Key(event)) => {
                    if self.key(&event, &layout) == Act::Quit {
                        return Ok(());
                    }
                }
                Some(Told::Whole(question, whole)) if question == self.question => {
                    self.whole(*whole)
                }
                Some(Told::Columns(question, update)) if question == self.question => {
                    self.columns(*update);
                }
                Some(Told::StreamOver(question, why)) if question == self.question => {
                    self.stream = None;
                    self.next_stream = Some(Instant::now() + STREAM_AGAIN);
                    self.fall_back(format!("the stream broke: {why}"));
                }
                Some(Told::Hot(asked, words)) => {
                    if let Some((_, known)) = self.hot.as_mut().filter(|(hot, _)| *hot == *asked) {
                        *known = words;
                    }
                }
                Some(Told::Found(question, words)) if question == self.question => {
                    self.found = words;
                }
                // A late answer to an earlier query.
                Some(_) => {}
            }
        }
    }

    fn draw(&self, terminal: &mut DefaultTerminal) -> io::Result<Layout> {
        let size = terminal.size()?;
        let layout = Layout::new(&self.matrix, size.width.into(), size.height.into());
        let status = match self.view.query.scope {
            Scope::Cluster => None,
            Scope::Node => counted_by(&self.matrix),
        };
        let status = status.into_iter().chain([self.status()]).collect::<Vec<_>>().join(" · ");
        let picture = Picture {
            matrix: &self.matrix,
            view: &self.view,
            status: &status,
            found: &self.found,
            leaders: &self.leaders,
            hot: self.hot.as_ref().map(|(_, words)| &**words).unwrap_or_default(),
            color: self.color,
        };
        terminal.draw(|frame| picture.draw(&layout, frame.area(), frame.buffer_mut()))?;
        Ok(layout)
    }

    fn status(&self) -> String {
        if let Some(failure) = &self.failure {
            return format!("not up to date: {failure}");
        }
        if self.view.paused {
            return "paused: Space goes on".into();
        }
        match &self.feed {
            _ if !self.view.is_live() => "a window that has ended · Home: back to now".into(),
            Feed::Stream => match more_detail(&self.matrix) {
                Some(gain) => format!("live · m: more detail ({gain:.1} times the rows)"),
                None => "live: columns come as they close".into(),
            },
            Feed::Asking(why) => {
                format!("asked every {} ({why})", text::duration(live_every(&self.matrix)))
            }
        }
    }

    fn key(&mut self, event: &Event, layout: &Layout) -> Act {
        let key = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => *key,
            Event::Resize(..) => {
                self.question_changed();
                return Act::Ask;
            }
            _ => return Act::Nothing,
        };
        let newest = self.matrix.columns.last().map_or_else(now_ms, |column| {
            if self.view.is_live() { column.end_ms } else { now_ms() }
        });
        let around = Around { grid: &layout.grid, bounds: &self.bounds, now_ms: newest };
        let act = self.view.key(key, around);
        match act {
            Act::Ask => self.question_changed(),
            Act::Plan => self.plan_anew(),
            Act::Nothing | Act::Draw | Act::Quit => {}
        }
        act
    }

    fn question_changed(&mut self) {
        self.rows = LiveRows::planned(&self.view.query.boundaries);
        self.plan_anew();
    }

    /// Asks for rows as they are planned today.
    fn plan_anew(&mut self) {
        self.stop();
        self.found.clear();
        self.rows.plan();
        self.question += 1;
        self.feed = Feed::Asking("the stream is opened".into());
        self.next_stream = None;
        self.next_ask = Instant::now();
        self.ask();
    }

    fn ask(&mut self) {
        let (query, client, tell) =
            (self.view.query.on(&self.rows), self.client.clone(), self.tell.clone());
        let (question, version) = (self.question, self.matrix.catalog_version);
        let version = if self.bounds.is_empty() { 0 } else { version };
        let (width, height) = output::size();
        let drawing = drawing(width, height, self.color);
        self.asking = Some(tokio::spawn(async move {
            let whole = ask(&query, &client, &drawing, version).await;
            let _ = tell.send(Told::Whole(question, Box::new(whole))).await;
        }));
    }

    /// Asks for the hot keys of the cell under the cursor once the cursor rests.
    fn ask_hot(&mut self, layout: &Layout) {
        let question = hot::question(&self.matrix, &self.view, &layout.grid);
        if question.as_ref() == self.hot.as_ref().map(|(asked, _)| asked) {
            return;
        }
        if let Some(task) = self.asking_hot.take() {
            task.abort();
        }
        self.hot = question.map(|question| (question, String::new()));
        let Some((question, _)) = &self.hot else { return };
        let (question, client, tell) = (question.clone(), self.client.clone(), self.tell.clone());
        let scope = self.view.query.scope;
        self.asking_hot = Some(tokio::spawn(async move {
            tokio::time::sleep(CURSOR_RESTS).await;
            // A cluster without hot keys has none to tell.
            if let Ok(answer) = crate::heat::hot::ask(&client, scope, &question).await {
                let _ = tell.send(Told::Hot(Box::new(question), hot::words(&answer))).await;
            }
        }));
    }

    /// Asks what stands out in the window, again and again; its answers come by themselves.
    fn ask_found(&mut self) {
        if self.asking_found.is_some() || self.view.query.scope != Scope::Cluster {
            return;
        }
        let (query, client, tell) =
            (self.view.query.clone(), self.client.clone(), self.tell.clone());
        self.asking_found = Some(tokio::spawn(found::follow(query, client, self.question, tell)));
    }

    /// Whether a stream can answer the query.
    fn streams(&self) -> bool {
        let query = &self.view.query;
        self.view.is_live()
            && !self.view.paused
            && query.scope == Scope::Cluster
            && query.axis != proto::Axis::Then
    }

    fn open_stream(&mut self) {
        self.next_stream = None;
        let (query, client, tell) =
            (self.view.query.on(&self.rows), self.client.clone(), self.tell.clone());
        self.stream = Some(tokio::spawn(follow(query, client, self.question, tell)));
    }

    fn whole(&mut self, whole: Result<Whole, CliError>) {
        self.asking = None;
        match whole {
            Ok(whole) => {
                self.failure = None;
                self.matrix = whole.matrix;
                if self.rows.shown(&self.matrix) {
                    self.plan_anew();
                }
                self.leaders = whole.leaders;
                self.bounds = whole.bounds.unwrap_or_else(|| std::mem::take(&mut self.bounds));
            }
            Err(error) => self.failure = Some(error.to_string()),
        }
        let every = match self.feed {
            Feed::Stream => WHOLE_EVERY,
            Feed::Asking(_) => live_every(&self.matrix),
        };
        self.next_ask = Instant::now() + every;
        if self.stream.is_none() && self.next_stream.is_none() {
            self.next_stream = Some(Instant::now());
        }
    }

    fn columns(&mut self, update: proto::ColumnsUpdate) {
        let Some(update) = update.matrix else { return };
        if self.view.paused {
            return;
        }
        if let Some(column) = update.columns.first() {
            self.settle(Duration::from_millis(column.end_ms.saturating_sub(column.start_ms)));
        }
        let last_ms = self.view.query.last.unwrap_or(MOST_LAST).as_millis() as u64;
        let oldest_ms = match self.view.query.from_ms {
            Some(from_ms) => from_ms,
            None => update.columns.last().map_or(0, |column| column.end_ms).saturating_sub(last_ms),
        };
        match slide::slide(&self.matrix, &update, oldest_ms) {
            Some(matrix) => {
                self.matrix = matrix;
                if self.rows.shown(&self.matrix) {
                    self.plan_anew();
                    return;
                }
                if matches!(self.feed, Feed::Asking(_)) {
                    self.feed = Feed::Stream;
                    self.next_ask = Instant::now() + WHOLE_EVERY;
                }
            }
            None => self.fall_back("columns or rows are wider than those of the stream".into()),
        }
    }

    /// The default window: as many columns as fit, at most an hour.
    fn settle(&mut self, step: Duration) {
        if self.view.query.last.is_some() || !self.view.is_live() {
            return;
        }
        let (width, height) = output::size();
        let (columns, _) = drawing(width, height, self.color).budget();
        let fits = step * u32::try_from(columns.saturating_sub(2)).unwrap_or(u32::MAX).max(1);
        let before = self.view.query.clone();
        self.view.settle(fits.min(MOST_LAST));
        if self.view.query != before && fits < MOST_LAST {
            self.question_changed();
        }
    }

    fn fall_back(&mut self, why: String) {
        if matches!(self.feed, Feed::Stream) {
            self.next_ask = Instant::now();
        } else {
            self.next_ask = self.next_ask.min(Instant::now() + live_every(&self.matrix));
        }
        self.feed = Feed::Asking(why);
    }
}
