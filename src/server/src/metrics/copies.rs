//! Copies of histories.

use std::fmt;
use std::time::Duration;

use keyviz_fanout::LocalMatrix;

use super::page::Page;

pub(super) fn counters(local: &LocalMatrix, page: &mut Page<'_>) -> fmt::Result {
    let stats = local.copy_stats();
    let what = "Members that are to hold copies of this node's history";
    page.gauge("copies_holders", what, stats.holders())?;
    let what = "Bytes of history sent to other members";
    page.counter("copies_sent_bytes", what, stats.sent_bytes())?;
    let what = "Calls that sent history to other members";
    page.counter("copies_pushes", what, stats.pushes())?;
    let what = "Calls that failed to send history to other members";
    page.counter("copies_failures", what, stats.failures())?;
    let lag = stats.lag_ms(local.clock().now_ms()).unwrap_or(0);
    let what = "Age of the oldest counts that no other member has; 0 while none has any";
    page.gauge_seconds("copies_lag_seconds", what, Duration::from_millis(lag))?;
    let Some(copies) = local.copies() else { return Ok(()) };
    let what = "Nodes whose history this node holds a copy of";
    page.gauge("copies_held", what, copies.held().len() as u64)?;
    let what = "Bytes of copies of other nodes' history on the disk";
    page.gauge("copies_held_bytes", what, copies.bytes_held() as u64)?;
    let what = "Records of copies that could not be read and are fetched again; 0 unless \
                something is wrong";
    page.counter("copies_damaged_records", what, copies.damaged())
}
