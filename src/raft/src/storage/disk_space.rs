//! Watches the free space of the disk, and refuses work before the database hits a full disk.
//!
//! After a write fails with ENOSPC, sled refuses all further writes. Free space is therefore
//! measured ten times a second, and work that can wait is refused while there is still space for
//! what cannot: votes, entries that open a term, marks that purge a log, and entries that were
//! accepted before.
//!
//! | free | effect |
//! |---|---|
//! | 1.5 x the floor or more | none |
//! | less | the visualizer stores nothing, and its stored history is dropped |
//! | less than the floor | the node is read-only: it accepts no proposals |
//! | less than a quarter of the floor | the ballast is released |
//! | less than an eighth of the floor | as a follower it accepts no entries with commands |
//!
//! Recovery needs an eighth of the floor more, which prevents flapping.
//!
//! What was accepted a moment ago is not on the disk yet. [`WRITE_COST`] times its bytes therefore
//! count as used: with large values, what is in progress can be more than the floor.
//!
//! The ballast is a file of allocated blocks: if another program fills the disk completely,
//! releasing it gives the node space. It is allocated again once the disk has room for it above the
//! floor.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::loops::{Loops, RaftLoop};

/// The interval between measurements. A disk takes some 100 MiB in that time at most, which is less
/// than the default floor.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The default floor: this, or an eighth of the disk if that is less.
const DEFAULT_FLOOR_BYTES: u64 = 256 * 1024 * 1024;

/// The largest ballast. It has to hold votes and marks, a few hundred bytes each.
const MAX_BALLAST_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of disk that a byte of an accepted command takes until old segments are emptied: once in
/// the log, once among the rows, and what the rows around it take when they are written again. 3.1
/// was measured with values of 4 KiB, 2 with values of 1 MiB.
const WRITE_COST: u64 = 4;

/// Measurements after which accepted bytes are taken to be on the disk. They count for one to two
/// times as long: the databases write what they hold back within a second.
const LOOKS_UNTIL_WRITTEN: u64 = 10;

const BALLAST: &str = "BALLAST";

/// The space on a node's disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DiskSpace {
    /// Less than the floor is free: the node is read-only.
    Full,
    /// The visualizer's history is dropped.
    Scarce,
    /// Enough.
    Ample,
}

/// A write was refused because the disk is full. Nothing was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the disk of {} is full: {free_bytes} bytes are free, and {min_free_bytes} are kept free; \
     the node is read-only until there is space", .dir.display()
)]
pub struct DiskFull {
    /// The node's folder.
    pub dir: PathBuf,
    /// Bytes that were free at the last measurement.
    pub free_bytes: u64,
    /// Bytes below which writes are refused.
    pub min_free_bytes: u64,
}

/// Why no more bytes are accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NoSpace {
    /// The disk has no room for them.
    Full(DiskFull),
    /// It has, but not beside what was accepted a moment ago.
    Busy,
}

/// Free space and floor of the disk that holds a node's folder. Clones share it.
#[derive(Clone)]
pub(crate) struct DiskSpaceMonitor {
    shared: Arc<Shared>,
    watch: Arc<Watch>,
}

struct Shared {
    dir: PathBuf,
    floor: u64,
    ballast: u64,
    // Written by the measuring thread. Relaxed, because a measurement may be late by one anyway.
    state: AtomicU8,
    free: AtomicU64,
    /// Bytes accepted since the last [`LOOKS_UNTIL_WRITTEN`] measurements, and in those before.
    accepted: [AtomicU64; 2],
    looks: AtomicU64,
    #[cfg(test)]
    pretended: Mutex<Option<u64>>,
}

#[derive(Default)]
struct Watch {
    stopping: Mutex<bool>,
    stop: Condvar,
    stopped: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for DiskSpaceMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DiskSpaceMonitor").field(&self.state()).finish()
    }
}

/// The state after a measurement. `wanted` is the size of the ballast if it has to be allocated
/// again.
fn next(now: DiskSpace, free: u64, floor: u64, wanted: u64) -> DiskSpace {
    let scarce = floor + floor / 2;
    let margin = floor / 8 + wanted;
    // A better state than the current one needs the margin.
    let holds = |state, least: u64| free >= if now >= state { least } else { least + margin };
    if holds(DiskSpace::Ample, scarce) {
        DiskSpace::Ample
    } else if holds(DiskSpace::Scarce, floor) {
        DiskSpace::Scarce
    } else {
        DiskSpace::Full
    }
}

fn space(dir: &Path) -> io::Result<(u64, u64)> {
    let disk = rustix::fs::statvfs(dir)?;
    let block = disk.f_frsize.max(1);
    Ok((disk.f_bavail.saturating_mul(block), disk.f_blocks.saturating_mul(block)))
}

impl DiskSpaceMonitor {
    /// Measures the disk of a folder once, and releases the ballast if the database could not even
    /// open. `floor` `None`: by the size of the disk; 0: nothing is ever refused.
    pub(crate) fn of(dir: &Path, floor: Option<u64>) -> io::Result<Self> {
        let (free, total) = space(dir)?;
        let floor = floor.unwrap_or_else(|| DEFAULT_FLOOR_BYTES.min(total / 8));
        let shared = Shared {
            dir: dir.to_path_buf(),
            floor,
            ballast: (floor / 4).min(MAX_BALLAST_BYTES),
            state: AtomicU8::new(DiskSpace::Ample as u8),
            free: AtomicU64::new(free),
            accepted: Default::default(),
            looks: AtomicU64::new(0),
            #[cfg(test)]
            pretended: Mutex::default(),
        };
        shared.look();
        Ok(Self { shared: Arc::new(shared), watch: Arc::default() })
    }

    /// A disk that is never full.
    pub(crate) fn unlimited() -> Self {
        let shared = Shared {
            dir: PathBuf::new(),
            floor: 0,
            ballast: 0,
            state: AtomicU8::new(DiskSpace::Ample as u8),
            free: AtomicU64::new(u64::MAX),
            accepted: Default::default(),
            looks: AtomicU64::new(0),
            #[cfg(test)]
            pretended: Mutex::default(),
        };
        Self { shared: Arc::new(shared), watch: Arc::default() }
    }

    /// Measures repeatedly until [`DiskSpaceMonitor::stop`].
    pub(crate) fn watch(&self, loops: Loops) -> io::Result<()> {
        if self.shared.floor == 0 {
            return Ok(());
        }
        let (shared, watch) = (self.shared.clone(), Arc::downgrade(&self.watch));
        let look = move || {
            loop {
                let Some(watch) = watch.upgrade() else { return };
                let mut stopping = watch.stopping.lock();
                if !*stopping {
                    watch.stop.wait_for(&mut stopping, LOOK_EVERY);
                }
                if *stopping {
                    return;
                }
                drop(stopping);
                shared.look();
            }
        };
        let thread = std::thread::Builder::new().name("disk-watch".into());
        let thread = thread.spawn(move || loops.run(RaftLoop::DiskWatch, look))?;
        *self.watch.thread.lock() = Some(thread);
        Ok(())
    }

    /// Stops measuring.
    pub(crate) fn stop(&self) {
        if self.watch.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        *self.watch.stopping.lock() = true;
        self.watch.stop.notify_all();
        if let Some(thread) = self.watch.thread.lock().take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }

    pub(crate) fn state(&self) -> DiskSpace {
        self.shared.state()
    }

    /// Bytes that were free at the last measurement.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.shared.free.load(Ordering::Relaxed)
    }

    /// Bytes below which writes are refused; 0: none are.
    pub(crate) fn min_free_bytes(&self) -> u64 {
        self.shared.floor
    }

    /// Fails while the disk is full.
    pub(crate) fn check(&self) -> Result<(), DiskFull> {
        match self.state() {
            DiskSpace::Full => Err(self.shared.full()),
            DiskSpace::Scarce | DiskSpace::Ample => Ok(()),
        }
    }

    /// Accepts a command of so many bytes, while `under_way` bytes of others wait for the log.
    pub(crate) fn accept(&self, bytes: u64, under_way: u64) -> Result<(), NoSpace> {
        self.check().map_err(NoSpace::Full)?;
        // Half of the floor: small writes go on until the floor is reached and the node says so.
        self.shared.accept(bytes, under_way, self.shared.floor / 2)
    }

    /// Accepts so many bytes of entries that a leader has already proposed, or of a snapshot. Most
    /// of the floor is reserved for them: a follower that filled up a moment before its leader
    /// would otherwise block what the next leader must commit before it can serve reads.
    pub(crate) fn accept_to_follow(&self, bytes: u64) -> Result<(), DiskFull> {
        let kept = self.shared.floor / 8;
        self.shared.accept(bytes, 0, kept).map_err(|_| self.shared.full())
    }

    /// Makes every measurement from now on return this; `None`: the real value.
    #[cfg(test)]
    pub(crate) fn pretend(&self, free: Option<u64>) {
        *self.shared.pretended.lock() = free;
        self.shared.look();
    }
}

impl Shared {
    fn state(&self) -> DiskSpace {
        match self.state.load(Ordering::Relaxed) {
            0 => DiskSpace::Full,
            1 => DiskSpace::Scarce,
            _ => DiskSpace::Ample,
        }
    }

    fn ballast_path(&self) -> PathBuf {
        self.dir.join(BALLAST)
    }

    fn free(&self) -> io::Result<u64> {
        #[cfg(test)]
        if let Some(free) = *self.pretended.lock() {
            return Ok(free);
        }
        Ok(space(&self.dir)?.0)
    }

    fn full(&self) -> DiskFull {
        let free_bytes = self.free.load(Ordering::Relaxed);
        DiskFull { dir: self.dir.clone(), free_bytes, min_free_bytes: self.floor }
    }

    /// Accepts bytes if `kept` bytes stay free beside them and beside what is not written yet.
    fn accept(&self, bytes: u64, under_way: u64, kept: u64) -> Result<(), NoSpace> {
        if self.floor == 0 {
            return Ok(());
        }
        let [now, before] = &self.accepted;
        let recent = now.load(Ordering::Relaxed) + before.load(Ordering::Relaxed);
        let cost = |bytes: u64| bytes.saturating_mul(WRITE_COST).saturating_add(kept);
        let alone = cost(bytes);
        let with_others = cost(bytes.saturating_add(recent.max(under_way)));
        let mut free = self.free.load(Ordering::Relaxed);
        if free / 2 < with_others {
            // Close: others may have written since the last measurement. It is one system call.
            free = self.free().unwrap_or(free);
        }
        if free < alone {
            Err(NoSpace::Full(DiskFull { free_bytes: free, ..self.full() }))
        } else if free < with_others {
            Err(NoSpace::Busy)
        } else {
            now.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        }
    }

    /// Takes what was accepted before the last measurements to be written.
    fn age(&self) {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        if looks.is_multiple_of(LOOKS_UNTIL_WRITTEN) {
            let [now, before] = &self.accepted;
            before.store(now.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn look(&self) {
        if self.floor == 0 {
            return;
        }
        self.age();
        let free = match self.free() {
            Ok(free) => free,
            Err(error) => {
                tracing::debug!(%error, "the free space of the disk cannot be determined");
                return;
            }
        };
        self.free.store(free, Ordering::Relaxed);
        let held = self.ballast_path().exists();
        if held && free < self.floor / 4 {
            // A failure here is retried at the next measurement.
            let _ = std::fs::remove_file(self.ballast_path());
        }
        let before = self.state();
        let wanted = if held { 0 } else { self.ballast };
        let now = next(before, free, self.floor, wanted);
        self.state.store(now as u8, Ordering::Relaxed);
        if !held && free >= self.floor + self.floor / 8 + self.ballast {
            self.take_ballast();
        }
        let (dir, floor) = (self.dir.display(), self.floor);
        match (before, now) {
            (DiskSpace::Full, DiskSpace::Full) => {}
            (_, DiskSpace::Full) => tracing::error!(
                %dir, free, floor, "the disk is full: the node is read-only until there is space"
            ),
            (DiskSpace::Full, _) => {
                tracing::warn!(%dir, free, floor, "the disk has space again: writes are accepted");
            }
            (DiskSpace::Ample, DiskSpace::Scarce) => {
                tracing::warn!(%dir, free, floor, "the disk is filling up");
            }
            _ => {}
        }
    }

    /// Allocates the ballast. On a file system that cannot reserve blocks, the node has none.
    fn take_ballast(&self) {
        let taken = File::create(self.ballast_path()).and_then(|file| {
            let flags = rustix::fs::FallocateFlags::empty();
            Ok(rustix::fs::fallocate(&file, flags, 0, self.ballast)?)
        });
        if let Err(error) = taken {
            tracing::debug!(%error, "no ballast was taken");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DiskSpace::{Ample, Full, Scarce};
    use super::*;

    #[test]
    fn bounds_the_state_of_a_disk_falls_at_once_and_rises_with_a_margin() {
        let floor = 800;
        for (now, free, wanted, then) in [
            (Ample, 1_200, 0, Ample),
            (Ample, 1_199, 0, Scarce),
            (Ample, 799, 0, Full),
            (Scarce, 1_299, 0, Scarce),
            (Scarce, 1_300, 0, Ample),
            (Scarce, 800, 0, Scarce),
            (Scarce, 799, 0, Full),
            (Full, 899, 0, Full),
            (Full, 900, 0, Scarce),
            (Full, 900, 50, Full),
            (Full, 950, 50, Scarce),
            (Full, 1_400, 50, Ample),
            (Full, 0, 0, Full),
        ] {
            assert_eq!(next(now, free, floor, wanted), then, "{now:?} with {free}, {wanted}");
        }
    }

    #[test]
    fn the_ballast_is_given_up_when_little_is_left_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let monitor = DiskSpaceMonitor::of(dir.path(), Some(4096)).unwrap();
        let ballast = dir.path().join(BALLAST);
        assert_eq!(monitor.state(), Ample);
        assert_eq!(std::fs::metadata(&ballast).unwrap().len(), 1024);
        monitor.pretend(Some(1024));
        assert!(ballast.exists() && monitor.check().is_err());
        monitor.pretend(Some(1023));
        assert!(!ballast.exists());
        let refusal = monitor.check().unwrap_err();
        assert_eq!((refusal.free_bytes, refusal.min_free_bytes), (1023, 4096));
        // DiskSpaceMonitor for the margin, not for the ballast too.
        monitor.pretend(Some(4096 + 512));
        assert!(!ballast.exists() && monitor.check().is_err());
        monitor.pretend(None);
        assert!(ballast.exists() && monitor.check().is_ok());
    }

    #[test]
    fn what_was_proposed_already_is_taken_down_to_an_eighth_of_the_floor() {
        let dir = tempfile::tempdir().unwrap();
        let monitor = DiskSpaceMonitor::of(dir.path(), Some(4096)).unwrap();
        monitor.pretend(Some(512 + WRITE_COST));
        assert!(monitor.check().is_err() && monitor.accept_to_follow(1).is_ok());
        monitor.pretend(Some(511 + WRITE_COST));
        assert!(monitor.check().is_err() && monitor.accept_to_follow(1).is_err());
    }

    #[test]
    fn bounds_what_is_accepted_in_a_moment_fits_above_half_the_floor() {
        let dir = tempfile::tempdir().unwrap();
        let monitor = DiskSpaceMonitor::of(dir.path(), Some(4096)).unwrap();
        monitor.pretend(Some(4096 * 4));
        let room = 4096 * 4 - 4096 / 2;
        let accepted = (0..1_000).take_while(|_| monitor.accept(100, 0).is_ok()).count() as u64;
        assert_eq!(accepted, room / WRITE_COST / 100);
        // There is room for it, but not beside the others; alone it would not fit either.
        assert_eq!(monitor.accept(100, 0), Err(NoSpace::Busy));
        let alone = monitor.accept(room / WRITE_COST + 1, 0).unwrap_err();
        assert!(matches!(alone, NoSpace::Full(full) if full.free_bytes == 4096 * 4));
        assert!(monitor.accept_to_follow(100).is_ok(), "followers have most of the floor");
        // Later it is on the disk, and the measurement knows of it.
        (0..2 * LOOKS_UNTIL_WRITTEN).for_each(|_| monitor.shared.look());
        assert!(monitor.accept(100, 0).is_ok());
        assert_eq!(monitor.accept(100, room / WRITE_COST), Err(NoSpace::Busy), "what waits counts");
    }

    #[test]
    fn a_floor_of_nothing_refuses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let monitor = DiskSpaceMonitor::of(dir.path(), Some(0)).unwrap();
        monitor.pretend(Some(0));
        assert!(monitor.check().is_ok() && !dir.path().join(BALLAST).exists());
        assert!(monitor.accept(u64::MAX, 0).is_ok() && monitor.accept_to_follow(1).is_ok());
    }
}
