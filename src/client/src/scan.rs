//! A scan: a stream of rows that survives broken connections.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use tonic::{Code, Status, Streaming};

use super::client::{Client, Effect};
use super::consistency::Consistency;
use super::error::Error;
use super::failure::Meaning;
use super::nodes::address::Address;
use super::nodes::connection::{MAX_ANSWER_BYTES, local_timeout};

use keyviz_proto as proto;
use keyviz_proto::kv_client::KvClient;
use keyviz_types::{KeyRange, MAX_KEY_BYTES};

/// Streams in a row that return no row before the scan fails.
const FRUITLESS_STREAMS: u32 = 5;
/// The pause before a broken stream is opened again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A scan in progress, made by [`Client::scan`]. The methods `limit`, `keys_only` and `consistency`
/// apply until the first row is read.
///
/// Each page of a linearizable scan is read at a moment of its own, so writes during the scan may
/// appear or not.
#[derive(Debug)]
#[must_use = "a scan reads nothing until `next` or `next_page` is called"]
pub struct Scan {
    client: Client,
    /// What is left to read.
    request: proto::ScanRequest,
    stream: Option<Open>,
    /// The last key that was returned.
    last: Option<Bytes>,
    rows: std::vec::IntoIter<proto::KeyValue>,
    /// Streams opened since the last row.
    fruitless: u32,
    done: bool,
}

#[derive(Debug)]
struct Open {
    address: Address,
    first: Option<proto::ScanResponse>,
    pages: Streaming<proto::ScanResponse>,
}

impl Client {
    /// Reads a range in key order, over all routes and groups:
    ///
    /// ```no_run
    /// # async fn example(client: keyviz_client::Client) -> Result<(), keyviz_client::Error> {
    /// let mut users = client.scan("user/".."user0").limit(100);
    /// while let Some((key, value)) = users.next().await? {
    ///     println!("{key:?}: {} bytes", value.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// If the connection breaks, the scan continues after the last key that it returned.
    pub fn scan(&self, range: impl Into<KeyRange>) -> Scan {
        Scan::new(self.clone(), range.into())
    }
}

impl Scan {
    pub(crate) fn new(client: Client, range: KeyRange) -> Self {
        let done = range.is_empty();
        let request = proto::ScanRequest {
            start: range.start,
            end: range.end,
            ..proto::ScanRequest::default()
        };
        let rows = Vec::new().into_iter();
        Scan { client, request, stream: None, last: None, rows, fruitless: 0, done }
    }

    /// Returns at most so many rows; 0: all.
    pub fn limit(mut self, rows: u64) -> Self {
        self.request.limit = rows;
        self
    }

    /// Leaves the values out.
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// What the reads promise; linearizable by default.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.request.consistency = proto::Consistency::from(consistency).into();
        self
    }

    /// The last key of the pages read so far.
    pub fn last_key(&self) -> Option<&Bytes> {
        self.last.as_ref()
    }

    /// The next key and value; `None` at the end.
    ///
    /// # Errors
    /// Where the scan cannot go on. It can be called again, and continues after the last row.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, Error> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some((row.key, row.value)));
            }
            match self.next_page().await? {
                Some(rows) => self.rows = rows.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// The next rows, at least one, as the node sent them; `None` at the end.
    ///
    /// # Errors
    /// As [`Scan::next`].
    pub fn next_page(&mut self) -> BoxFuture<'_, Result<Option<Vec<proto::KeyValue>>, Error>> {
        async move {
            while !self.done {
                let error = match self.read().await {
                    Ok(Some(rows)) if rows.is_empty() => continue,
                    Ok(Some(rows)) => return Ok(Some(rows)),
                    Ok(None) => {
                        self.done = true;
                        continue;
                    }
                    Err(error) => error,
                };
                self.stream = None;
                // Until a row has arrived the failure is that of any other call.
                if self.last.is_none() || self.fruitless > FRUITLESS_STREAMS || !may_resume(&error)
                {
                    self.fruitless = 0;
                    return Err(error);
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            Ok(None)
        }
        .boxed()
    }

    /// Reads one page, over a new stream if there is none.
    async fn read(&mut self) -> Result<Option<Vec<proto::KeyValue>>, Error> {
        if self.stream.is_none() {
            self.fruitless += 1;
            self.stream = Some(self.open().await?);
        }
        let Some(open) = &mut self.stream else { return Ok(None) };
        let page = match open.first.take() {
            Some(page) => Some(page),
            None => {
                let timeout = self.client.timeout();
                let next = tokio::time::timeout(timeout, open.pages.message()).await;
                let next = next.unwrap_or_else(|_| Err(local_timeout(timeout)));
                next.map_err(|status| refused(&open.address, status))?
            }
        };
        Ok(page.map(|page| self.take(page.rows)))
    }

    async fn open(&self) -> Result<Open, Error> {
        let mut request = self.request.clone();
        // The first row is the last one of before, see `from_after`.
        if request.limit > 0 && self.last.as_ref() == Some(&request.start) {
            request.limit = request.limit.saturating_add(1);
        }
        let request = &request;
        let opened = self.client.call_where(Effect::Read, |channel| async move {
            let mut stub = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            let mut pages = stub.scan(request.clone()).await?.into_inner();
            let first = pages.message().await?;
            Ok((first, pages))
        });
        let (address, (first, pages)) = opened.await?;
        // No page at all: the stream has ended, which reading it again says.
        Ok(Open { address: address.clone(), first, pages })
    }

    /// Takes rows that were not returned yet.
    fn take(&mut self, mut rows: Vec<proto::KeyValue>) -> Vec<proto::KeyValue> {
        if let Some(last) = &self.last {
            let known = rows.iter().take_while(|row| row.key <= *last).count();
            rows.drain(..known);
        }
        if self.request.limit > 0 {
            rows.truncate(usize::try_from(self.request.limit).unwrap_or(usize::MAX));
            self.request.limit -= rows.len() as u64;
            self.done = self.request.limit == 0;
        }
        if let Some(row) = rows.last() {
            self.last = Some(row.key.clone());
            self.request.start = from_after(&row.key);
            self.fruitless = 0;
        }
        rows
    }
}

fn refused(address: &Address, status: Status) -> Error {
    Error::Refused { address: address.clone(), status: Box::new(status) }
}

/// Whether a scan can go on after this error, at whichever node answers.
fn may_resume(error: &Error) -> bool {
    match error {
        Error::NoNode(_) => true,
        Error::Refused { status, .. } => {
            Meaning::of(status).read_again(status)
                || matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
        }
        _ => false,
    }
}

/// Where a scan continues after `key`: at the smallest key after it, or, where that would be too
/// long, at the key itself, which is then read again.
fn from_after(key: &Bytes) -> Bytes {
    match key.len() < MAX_KEY_BYTES {
        true => [&key[..], &[0]].concat().into(),
        false => key.clone(),
    }
}
