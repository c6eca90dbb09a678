//! A watch channel that wakes waiters in the order in which they came. The order of Tokio's channel
//! cannot be controlled by a seed.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use openraft::rt::watch::{self, RecvError, SendError};
use openraft::rt::{OptionalSend, OptionalSync};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

/// See the module.
#[derive(Debug)]
pub struct Watch;

struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// The waiting tasks, in order.
    waiting: Mutex<Vec<(u64, Waker)>>,
    next: AtomicU64,
}

impl<T> Shared<T> {
    fn changed(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn read(&self) -> Ref<'_, T> {
        RwLockReadGuard::map(self.value.read_recursive(), |value| value)
    }
}

pub(super) type Ref<'a, T> = MappedRwLockReadGuard<'a, T>;

/// One that sends.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.wake();
        }
    }
}

/// One that receives.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
    id: u64,
}

impl<T> Receiver<T> {
    fn new(shared: &Arc<Shared<T>>, seen: u64) -> Self {
        shared.receivers.fetch_add(1, Ordering::SeqCst);
        let id = shared.next.fetch_add(1, Ordering::SeqCst);
        Receiver { shared: Arc::clone(shared), seen, id }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver::new(&self.shared, self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::SeqCst);
        self.shared.waiting.lock().retain(|(id, _)| *id != self.id);
    }
}

impl watch::Watch for Watch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            version: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let receiver = Receiver::new(&shared, 0);
        (Sender(shared), receiver)
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<Watch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::SeqCst) == 0 {
            return Err(SendError(value));
        }
        *self.0.value.write() = value;
        self.0.changed();
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let modified = modify(&mut self.0.value.write());
        if modified {
            self.0.changed();
        }
        modified
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver::new(&self.0, self.0.version.load(Ordering::SeqCst))
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<Watch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| {
            // Registered before the look, so that a change in between is not missed.
            {
                let mut waiting = self.shared.waiting.lock();
                match waiting.iter_mut().find(|(id, _)| *id == self.id) {
                    Some((_, waker)) => waker.clone_from(context.waker()),
                    None => waiting.push((self.id, context.waker().clone())),
                }
            }
            let version = self.shared.version.load(Ordering::SeqCst);
            if version != self.seen {
                self.seen = version;
            } else if self.shared.senders.load(Ordering::SeqCst) > 0 {
                return Poll::Pending;
            } else {
                return Poll::Ready(Err(RecvError(())));
            }
            self.shared.waiting.lock().retain(|(id, _)| *id != self.id);
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.seen = self.shared.version.load(Ordering::SeqCst);
        self.shared.read()
    }
}
