//! `--verify`: reads back every key with an acknowledged write, linearizably, and compares it with
//! the values that it may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::error::LoadError;
use super::ledger::{Ledger, Verdict};
use super::report::Verified;
use super::shared::Shared;
use super::worker::Worker;
use crate::terminal::talk::say;
use crate::terminal::text;

/// Maximum time for one key, long enough for a cluster to recover from the loss of a node.
const READ_BACK_FOR: Duration = Duration::from_secs(30);

/// Maximum number of keys that are named.
const NAMED: usize = 20;

/// Reads back with `clients` clients. If the run is aborted, the remaining keys count as unread.
pub(super) async fn run(
    shared: &Arc<Shared>,
    ledger: &Mutex<Ledger>,
    clients: usize,
) -> Result<Verified, LoadError> {
    let owed = Arc::new(ledger.lock().owed());
    shared.progress.plan_verification(owed.len() as u64);
    let next = Arc::new(AtomicUsize::new(0));
    let bad = Arc::new(Mutex::new(Vec::new()));
    let mut readers = JoinSet::new();
    for client in 0..clients.min(owed.len()) {
        let (shared, owed, next) = (shared.clone(), owed.clone(), next.clone());
        let bad = bad.clone();
        readers.spawn(async move {
            let mut worker = Worker::new(client, shared.clone(), None, Instant::now());
            let mut verified = Verified::default();
            // Relaxed: only the uniqueness of the number matters.
            while let Some(key) = owed.get(next.fetch_add(1, Ordering::Relaxed)) {
                let read = tokio::select! {
                    read = worker.read_back(key, Instant::now() + READ_BACK_FOR) => read.ok(),
                    () = shared.progress.aborted().cancelled() => None,
                };
                let verdict = read.map(|answer| {
                    let ledger =
                        shared.ledger.as_ref().expect("a run that is verified has a ledger");
                    ledger.lock().judge(key, answer.found)
                });
                if let Some(verdict @ (Verdict::Missing | Verdict::Wrong)) = verdict {
                    bad.lock().push(format!("{}: {}", text::preview(key), verdict.name()));
                }
                match verdict {
                    Some(Verdict::Right) => verified.right += 1,
                    Some(Verdict::Missing) => verified.absent += 1,
                    Some(Verdict::Wrong) => verified.wrong += 1,
                    None => verified.unread += 1,
                }
                shared.progress.count_checked();
            }
            verified
        });
    }
    let mut all = Verified::default();
    while let Some(verified) = readers.join_next().await {
        let verified = verified?;
        all.right += verified.right;
        all.absent += verified.absent;
        all.wrong += verified.wrong;
        all.unread += verified.unread;
    }
    for line in bad.lock().iter().take(NAMED) {
        say!("keyviz: {line}");
    }
    Ok(all)
}
