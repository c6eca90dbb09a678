//! Scans: pages in key order, route by route, over all groups.

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;

use keyviz_types::RouteId;

use super::consistency::Consistency;
use super::coordinator::Coordinator;
use super::error::KvError;
use super::limits::check_range;
use super::page::{Page, Row, SCAN_PAGE_BYTES, SCAN_PAGE_ROWS, ScanRange};
use super::peer::{PeerRead, PeerReadReply};

/// Where a scan stands.
struct Cursor {
    coordinator: Arc<Coordinator>,
    consistency: Consistency,
    keys_only: bool,
    /// Next key to read; `None`: done.
    next: Option<Bytes>,
    end: Option<Bytes>,
    /// Rows still wanted.
    wanted: u64,
    route: Option<RouteId>,
}

/// The part of a scan that lies in the route at its cursor.
struct Stretch {
    route: RouteId,
    end: Option<Bytes>,
}

impl Coordinator {
    /// Streams the rows of `[start, end)` in key order as pages that are never empty. `limit` 0:
    /// all rows.
    pub fn scan(
        self: &Arc<Self>,
        start: Bytes,
        end: Option<Bytes>,
        limit: u64,
        consistency: Consistency,
        keys_only: bool,
    ) -> Result<impl Stream<Item = Result<Vec<Row>, KvError>> + Send + use<>, KvError> {
        check_range(&start, end.as_deref())?;
        let cursor = Cursor {
            coordinator: Arc::clone(self),
            consistency,
            keys_only,
            next: Some(start),
            end,
            wanted: if limit == 0 { u64::MAX } else { limit },
            route: None,
        };
        Ok(futures::stream::try_unfold(cursor, Cursor::rows))
    }
}

impl Cursor {
    /// The next page that has rows.
    async fn rows(mut self) -> Result<Option<(Vec<Row>, Self)>, KvError> {
        while let Some(start) = self.next.take() {
            if self.wanted == 0 || self.end.as_ref().is_some_and(|end| start >= *end) {
                return Ok(None);
            }
            let page = self.page(start).await?;
            if !page.rows.is_empty() {
                self.wanted -= page.rows.len() as u64;
                return Ok(Some((page.rows, self)));
            }
        }
        Ok(None)
    }

    /// The page at `start`. The routes may change until it is read; then it is another one.
    async fn page(&mut self, start: Bytes) -> Result<Page, KvError> {
        let deadline = self.coordinator.deadline();
        loop {
            match self.page_of_route(start.clone()).await {
                Err(KvError::Moving { .. }) if Instant::now() < deadline => {}
                page => return page,
            }
        }
    }

    async fn page_of_route(&mut self, start: Bytes) -> Result<Page, KvError> {
        let stretch = self.stretch(&start)?;
        let range = ScanRange {
            start: start.clone(),
            end: stretch.end.clone(),
            max_rows: u32::try_from(self.wanted).unwrap_or(u32::MAX).min(SCAN_PAGE_ROWS),
            max_bytes: SCAN_PAGE_BYTES,
            keys_only: self.keys_only,
            continued: self.route == Some(stretch.route),
            uncounted: false,
        };
        let coordinator = Arc::clone(&self.coordinator);
        let locate = || coordinator.group_of_range(&start, stretch.end.as_deref());
        let reply = coordinator.read(locate, self.consistency, PeerRead::Page(range)).await?;
        self.route = Some(stretch.route);
        let PeerReadReply::Page(page) = reply else {
            return Err(KvError::Undecodable { reason: "a value in answer to a page".to_owned() });
        };
        self.next = page.next.clone().or(stretch.end);
        Ok(page)
    }

    fn stretch(&self, start: &[u8]) -> Result<Stretch, KvError> {
        let epoch = self.coordinator.parts.sampler.epoch();
        let located = epoch.locate(start).ok_or(KvError::NotReady)?;
        let route = epoch.route(located);
        let end = match (&route.range.end, &self.end) {
            (Some(route_end), Some(end)) => Some(route_end.min(end).clone()),
            (Some(end), None) | (None, Some(end)) => Some(end.clone()),
            (None, None) => None,
        };
        Ok(Stretch { route: route.id, end })
    }
}
