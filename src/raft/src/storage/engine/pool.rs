//! Lets most of sled's threads sleep.
//!
//! sled 0.34 gives each write of a buffer to a pool of the process, which has seven threads or
//! more, and wakes all that wait there for it: six of them for nothing. Of a cluster with one
//! client that was more than half of all context switches, and with many clients a tenth of the
//! processor time. No option of it changes that. But a thread of the pool that completes a future
//! calls the future's waker, and a waker of [`Bench`] returns only once the thread is wanted again.
//!
//! Nothing may hang on it:
//!
//! * Threads stay free for half of the process's databases at least, and never fewer than two. What
//!   the pool does never waits for other work of the pool, but it may wait for a lock whose holder
//!   does (in `SegmentAccountant::next`), so two are not always enough.
//! * When a call into a database has not come back in time, and no other one since, all threads go
//!   back to work, until no call has been late for some time. A slow disk has the same effect.

use std::future::Future as _;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Threads of sled's pool that never end.
pub(in crate::storage) const POOL: usize = 7;

/// Threads that are free whatever there is to do.
const LEAST_FREE: usize = 2;

/// The pause between checks, and so the time after which a call counts as late if none returned
/// since.
const LOOK: Duration = Duration::from_millis(100);

/// Looks without a late call after which threads may sleep again.
const CALM_LOOKS: u32 = 100;

/// The calls into a database. Clones share it; the last one closes the database.
#[derive(Clone)]
pub(in crate::storage) struct Calls {
    count: Arc<Count>,
    db: Arc<sled::Db>,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls")
    }
}

#[derive(Default)]
struct Count {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One call under way; ends when it is dropped, in a panic too.
pub(in crate::storage) struct Call<'a>(&'a Count);

impl Calls {
    /// Begins a call that may need a thread of the pool: a write.
    pub(in crate::storage) fn begin(&self) -> Call<'_> {
        self.count.begun.fetch_add(1, Ordering::Relaxed);
        Call(&self.count)
    }
}

impl Count {
    /// The calls that have ended, if one is under way.
    fn ended_before_one_under_way(&self) -> Option<u64> {
        // In this order: a call that ends in between is taken for one under way, never the reverse.
        let ended = self.ended.load(Ordering::Relaxed);
        (self.begun.load(Ordering::Relaxed) > ended).then_some(ended)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has the calls into a database watched, and threads sleep while it is open.
pub(in crate::storage) fn watch(db: &sled::Db) -> Calls {
    static WATCHED: LazyLock<Mutex<Watched>> = LazyLock::new(Mutex::default);
    let calls = Calls { count: Arc::default(), db: Arc::new(db.clone()) };
    let mut watched = WATCHED.lock();
    watched.databases.push(Database {
        count: Arc::clone(&calls.count),
        db: Arc::downgrade(&calls.db),
        seen: None,
    });
    if !watched.running {
        let overseer = std::thread::Builder::new().name("sled-pool".into());
        // Without the thread sled's pool runs unmodified.
        watched.running = overseer.spawn(|| oversee(&WATCHED)).is_ok();
    }
    calls
}

/// The databases of the process.
#[derive(Default)]
struct Watched {
    databases: Vec<Database>,
    /// Whether a thread looks after them.
    running: bool,
}

struct Database {
    count: Arc<Count>,
    db: Weak<sled::Db>,
    /// At the last look.
    seen: Option<u64>,
}

impl Database {
    /// Whether a call was under way at the last look, and none has ended since. Looks anew.
    fn is_late(&mut self) -> bool {
        let ended = self.count.ended_before_one_under_way();
        let before = std::mem::replace(&mut self.seen, ended);
        ended.is_some() && ended == before
    }
}

/// If the overseer panics, wakes the pool, which then runs as sled has it. The next database that
/// opens starts another overseer.
struct WakeAll<'a> {
    bench: &'a Bench,
    watched: &'a Mutex<Watched>,
}

impl Drop for WakeAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the thread \"sled-pool\" panicked; sled's pool runs without it");
            self.bench.keep(0);
            self.watched.lock().running = false;
        }
    }
}

/// Looks after the databases until all are closed.
fn oversee(watched: &Mutex<Watched>) {
    let bench = Arc::new(Bench::default());
    let _awake = WakeAll { bench: &bench, watched };
    let mut alarm = Alarm::default();
    loop {
        std::thread::sleep(LOOK);
        let mut watched = watched.lock();
        watched.databases.retain(|database| database.db.strong_count() > 0);
        if watched.databases.is_empty() {
            watched.running = false;
            bench.keep(0);
            return;
        }
        // All of them, so that each is looked at.
        let late = watched.databases.iter_mut().map(Database::is_late).fold(false, bool::max);
        let all_awake = alarm.rings(late);
        // One a look: whether it came is seen at the next one.
        if bench.keep(if all_awake { 0 } else { may_sleep(watched.databases.len()) }) {
            let db = watched.databases.iter().find_map(|database| database.db.upgrade());
            drop(watched);
            if let Some(db) = db {
                bench.invite(&db);
            }
        }
    }
}

/// Rings when a call is late, and until none has been for some time.
#[derive(Default)]
struct Alarm {
    looks: u32,
}

impl Alarm {
    fn rings(&mut self, late: bool) -> bool {
        self.looks = if late { CALM_LOOKS } else { self.looks.saturating_sub(1) };
        self.looks > 0
    }
}

/// The number of threads that may sleep in a process with this many databases.
fn may_sleep(databases: usize) -> usize {
    POOL.saturating_sub(databases.div_ceil(2).max(LEAST_FREE))
}

/// Where the pool's threads sleep.
#[derive(Default)]
struct Bench {
    seats: Mutex<Seats>,
    changed: Condvar,
}

#[derive(Default)]
struct Seats {
    /// Invited and not here yet.
    invited: usize,
    taken: usize,
    /// Of the taken ones, how many are kept.
    kept: usize,
}

impl Bench {
    /// Sends all but `kept` threads back to work; whether one more may come.
    fn keep(&self, kept: usize) -> bool {
        let mut seats = self.seats.lock();
        seats.kept = kept;
        if seats.taken > kept {
            self.changed.notify_all();
        }
        seats.taken + seats.invited < kept
    }

    /// Gives the pool something to do whose end takes the thread here.
    fn invite(self: &Arc<Self>, db: &sled::Db) {
        let waker = Waker::from(Arc::clone(self));
        self.seats.lock().invited += 1;
        let done = pin!(db.flush_async()).poll(&mut Context::from_waker(&waker));
        if done.is_ready() {
            // It was done before the waker was there. Another time.
            self.seats.lock().invited -= 1;
        }
    }
}

impl Wake for Bench {
    fn wake(self: Arc<Self>) {
        let mut seats = self.seats.lock();
        seats.invited -= 1;
        seats.taken += 1;
        while seats.taken <= seats.kept {
            self.changed.wait(&mut seats);
        }
        seats.taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn threads_are_free_for_half_of_the_databases_and_for_two_writes_at_least() {
        let free = |databases| POOL - may_sleep(databases);
        assert_eq!([1, 2, 3, 4, 5, 9, 13].map(free), [2, 2, 2, 2, 3, 5, 7]);
        assert_eq!(free(1_000), POOL);
    }

    #[test]
    fn no_harm_all_are_awake_from_a_late_call_until_none_was_late_for_some_time() {
        let mut alarm = Alarm::default();
        assert!(!alarm.rings(false));
        assert!(alarm.rings(true));
        assert!((1..CALM_LOOKS).all(|_| alarm.rings(false)));
        assert!(!alarm.rings(false));
    }

    #[test]
    fn no_harm_threads_sleep_while_they_are_kept_and_all_go_back_to_work() {
        let bench = Arc::new(Bench::default());
        assert!(bench.keep(2));
        bench.seats.lock().invited = 3;
        let come = || {
            std::thread::spawn({
                let bench = Arc::clone(&bench);
                move || bench.wake()
            })
        };
        let threads = [come(), come()];
        until("both are here", || bench.seats.lock().taken == 2);
        // There is no seat for a third.
        come().join().unwrap();
        assert!(threads.iter().all(|thread| !thread.is_finished()));
        assert!(!bench.keep(2), "nobody else is invited");
        assert!(!bench.keep(0));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(bench.seats.lock().taken, 0);
    }

    #[test]
    fn no_harm_a_call_that_does_not_come_back_is_late_and_one_after_the_other_is_not() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let calls = watch(&db);
        let (count, weak) = (Arc::clone(&calls.count), Arc::downgrade(&calls.db));
        let mut database = Database { count, db: weak, seen: None };
        assert!(!database.is_late());
        assert!(!database.is_late(), "nothing is under way");
        let call = calls.begin();
        assert!(!database.is_late(), "it may just have begun");
        calls.begin();
        assert!(!database.is_late(), "another one came back");
        assert!(database.is_late());
        drop(call);
        assert!(!database.is_late());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _call = calls.begin();
            panic!("as sled does on damage");
        }));
        assert!(panicked.is_err());
        assert!(!database.is_late());
        assert!(!database.is_late(), "a panic ends a call, too");
        let other = database.db.clone();
        drop((calls, database));
        assert_eq!(other.strong_count(), 0, "who watches keeps no database open");
    }
}
