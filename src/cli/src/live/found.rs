//! What stands out in the window, in a line above the picture.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{MOST_LAST, Told};
use crate::client::Client;
use crate::heat::{Query, now_ms};
use crate::why;
use keyviz_proto as proto;

/// A node answers one such question at a time.
const EVERY: Duration = Duration::from_secs(10);
/// Findings that are named.
const NAMED: u32 = 3;

/// The question at `now_ms`: the window and the keys that are shown.
fn question(query: &Query, now_ms: u64) -> proto::GetFindingsRequest {
    let last = query.last.unwrap_or(MOST_LAST);
    let last_ms = u64::try_from(last.as_millis()).unwrap_or(u64::MAX);
    proto::GetFindingsRequest {
        from_ms: query.from_ms.or(Some(now_ms.saturating_sub(last_ms))),
        to_ms: query.to_ms,
        start: query.start.clone(),
        end: query.end.clone(),
        max_findings: NAMED,
    }
}

/// Asks until it is aborted. A cluster that knows no findings, or is busy, tells none.
pub(super) async fn follow(query: Query, client: Client, number: u64, tell: mpsc::Sender<Told>) {
    loop {
        let found = why::ask(&client, &question(&query, now_ms())).await;
        let words = found.map(|found| why::line(&found)).unwrap_or_default();
        if tell.send(Told::Found(number, words)).await.is_err() {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}
