//! What a thread keeps of each sampler that it uses: its shard lease and the epoch it loaded last.
//!
//! Loading an `ArcSwap` costs two atomic read-modify-writes, as much as the whole budget of a
//! record. So a thread keeps the epoch that it loaded and, each time, only compares its number
//! with the published one: a plain load of a line that is written once an epoch.
//!
//! The price: a thread that records nothing more keeps its last epoch alive, counters and all,
//! until it ends or calls [`super::Sampler::rest`]. At most one epoch a thread.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

use super::epoch::{Epoch, Located};
use super::shard::{Lease, Op, Shards};
use super::sync::{Arc, thread_local};

/// The current epoch, borrowed by one thread. Not `Send`: to keep an epoch across an await, take
/// [`super::Sampler::epoch_full`].
///
/// The thread keeps the epoch that it loaded last, and its counters with it, until it loads the
/// next one, ends, or calls [`super::Sampler::rest`].
#[derive(Clone)]
pub struct EpochGuard(Rc<Pin>);

struct Pin {
    epoch: Arc<Epoch>,
    lease: Option<Rc<Lease>>,
}

impl EpochGuard {
    /// Counts one call that read `ops` times and returned `bytes` bytes.
    #[inline]
    pub fn record_read(&self, located: Located, key: &[u8], ops: u64, bytes: u64) {
        self.record(Op::Read, located, key, ops, bytes);
    }

    /// Counts one call that wrote `ops` times and `bytes` bytes of keys and values.
    #[inline]
    pub fn record_write(&self, located: Located, key: &[u8], ops: u64, bytes: u64) {
        self.record(Op::Write, located, key, ops, bytes);
    }

    /// Counts one call.
    #[inline]
    pub fn record(&self, op: Op, located: Located, key: &[u8], ops: u64, bytes: u64) {
        self.0.epoch.record(self.0.lease.as_deref(), located, key, op, ops, bytes);
    }

    /// The epoch as a counted reference, to keep as long as needed.
    pub fn full(&self) -> Arc<Epoch> {
        Arc::clone(&self.0.epoch)
    }
}

impl Deref for EpochGuard {
    type Target = Epoch;

    fn deref(&self) -> &Epoch {
        &self.0.epoch
    }
}

struct Binding {
    shards: Arc<Shards>,
    lease: Rc<Lease>,
    pin: Option<EpochGuard>,
}

impl Binding {
    fn new(shards: &Arc<Shards>) -> Self {
        Binding { shards: Arc::clone(shards), lease: Rc::new(Lease::take(shards)), pin: None }
    }

    /// The epoch loaded last if its number is at least `published`, else the one that `load` gives.
    #[inline]
    fn current(&mut self, published: u64, load: impl FnOnce() -> Arc<Epoch>) -> &EpochGuard {
        if self.pin.as_ref().is_none_or(|pin| pin.number() < published) {
            self.load(load);
        }
        self.pin.as_ref().expect("the one before, or the one just loaded")
    }

    #[cold]
    fn load(&mut self, load: impl FnOnce() -> Arc<Epoch>) {
        // The old epoch goes before anything else, so that a thread never holds two.
        self.pin = None;
        if self.lease.is_overflow() {
            self.lease = Rc::new(Lease::take(&self.shards));
        }
        let epoch = load();
        epoch.prepare(&self.lease);
        let pin = Rc::new(Pin { epoch, lease: Some(Rc::clone(&self.lease)) });
        self.pin = Some(EpochGuard(pin));
    }
}

/// A thread's bindings; few, so a search from the front is the fastest.
struct Bindings(Vec<Binding>);

impl Bindings {
    #[inline]
    fn of(&mut self, shards: &Arc<Shards>) -> &mut Binding {
        match self.position(shards) {
            Some(index) => &mut self.0[index],
            None => self.bind(shards),
        }
    }

    #[inline]
    fn position(&self, shards: &Arc<Shards>) -> Option<usize> {
        self.0.iter().position(|binding| Arc::ptr_eq(&binding.shards, shards))
    }

    /// The lease for a record under an epoch that another thread may have loaded. A thread that has
    /// none yet gets a block there too.
    #[inline]
    fn lease_for(&mut self, epoch: &Epoch) -> &Lease {
        match self.position(epoch.shards()) {
            Some(index) => &self.0[index].lease,
            None => {
                let lease = &self.bind(epoch.shards()).lease;
                epoch.prepare(lease);
                lease
            }
        }
    }

    #[cold]
    fn bind(&mut self, shards: &Arc<Shards>) -> &mut Binding {
        self.0.retain(|binding| !binding.shards.is_closed());
        self.0.push(Binding::new(shards));
        self.0.last_mut().expect("one was pushed")
    }
}

thread_local! {
    static BINDINGS: RefCell<Bindings> = const { RefCell::new(Bindings(Vec::new())) };
}

/// Works under the thread's epoch if its number is at least `published`, else under the one that
/// `load` gives. Nothing is counted or cloned for it: that costs as much as a record.
#[inline]
pub(crate) fn with<R>(
    shards: &Arc<Shards>,
    published: u64,
    load: impl Fn() -> Arc<Epoch>,
    work: impl FnOnce(&EpochGuard) -> R,
) -> R {
    let mut work = Some(work);
    let done = BINDINGS.try_with(|bindings| {
        let mut bindings = bindings.try_borrow_mut().ok()?;
        let guard = bindings.of(shards).current(published, &load);
        work.take().map(|work| work(guard))
    });
    match (done, work) {
        (Ok(Some(result)), _) => result,
        // Within such work, or while the thread's locals are being destroyed, the overflow shard
        // is recorded in.
        (_, Some(work)) => work(&EpochGuard(Rc::new(Pin { epoch: load(), lease: None }))),
        (_, None) => unreachable!("work that was taken has given its result"),
    }
}

/// Records under an epoch that any thread may have loaded, with this thread's lease.
#[inline]
pub(crate) fn record(epoch: &Epoch, op: Op, located: Located, key: &[u8], ops: u64, bytes: u64) {
    let recorded = BINDINGS.try_with(|bindings| {
        let mut bindings = bindings.try_borrow_mut().ok()?;
        let lease = bindings.lease_for(epoch);
        epoch.record(Some(lease), located, key, op, ops, bytes);
        Some(())
    });
    if !matches!(recorded, Ok(Some(()))) {
        epoch.record(None, located, key, op, ops, bytes);
    }
}

/// Lets go of the thread's epoch, not of its shard.
pub(crate) fn rest(shards: &Arc<Shards>) {
    // A thread whose locals are being destroyed holds nothing any more.
    let _ = BINDINGS.try_with(|bindings| {
        let mut bindings = bindings.try_borrow_mut().ok()?;
        let binding = bindings.0.iter_mut().find(|b| Arc::ptr_eq(&b.shards, shards))?;
        binding.pin.take()
    });
}
