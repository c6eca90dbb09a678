//! The watch channel of [`Runtime`](super::Runtime): Tokio's, or the [`ordered`] one.

use std::ops::Deref;

use openraft::rt::watch::{RecvError, SendError, WatchReceiver, WatchSender};
use openraft::rt::{AsyncRuntime, OptionalSend, OptionalSync, watch};

use super::{is_reproducible, ordered};

type Tokio = <openraft::impls::TokioRuntime as AsyncRuntime>::Watch;
type TokioSender<T> = <Tokio as watch::Watch>::Sender<T>;
type TokioReceiver<T> = <Tokio as watch::Watch>::Receiver<T>;
type TokioRef<'a, T> = <Tokio as watch::Watch>::Ref<'a, T>;

/// Which of the two a channel is, is decided when it is made.
#[derive(Debug)]
pub struct Watch;

/// One that sends.
pub enum Sender<T: OptionalSend + OptionalSync> {
    Tokio(TokioSender<T>),
    Ordered(ordered::Sender<T>),
}

impl<T: OptionalSend + OptionalSync> Clone for Sender<T> {
    fn clone(&self) -> Self {
        match self {
            Sender::Tokio(sender) => Sender::Tokio(sender.clone()),
            Sender::Ordered(sender) => Sender::Ordered(sender.clone()),
        }
    }
}

/// One that receives.
pub enum Receiver<T: OptionalSend + OptionalSync> {
    Tokio(TokioReceiver<T>),
    Ordered(ordered::Receiver<T>),
}

impl<T: OptionalSend + OptionalSync> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        match self {
            Receiver::Tokio(receiver) => Receiver::Tokio(receiver.clone()),
            Receiver::Ordered(receiver) => Receiver::Ordered(receiver.clone()),
        }
    }
}

/// A borrow of the value, during which it does not change.
pub enum Ref<'a, T: OptionalSend + 'a> {
    Tokio(TokioRef<'a, T>),
    Ordered(ordered::Ref<'a, T>),
}

impl<T: OptionalSend> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Ref::Tokio(value) => value,
            Ref::Ordered(value) => value,
        }
    }
}

impl watch::Watch for Watch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        if is_reproducible() {
            let (sender, receiver) = ordered::Watch::channel(init);
            return (Sender::Ordered(sender), Receiver::Ordered(receiver));
        }
        let (sender, receiver) = Tokio::channel(init);
        (Sender::Tokio(sender), Receiver::Tokio(receiver))
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<Watch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self {
            Sender::Tokio(sender) => sender.send(value),
            Sender::Ordered(sender) => sender.send(value),
        }
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        match self {
            Sender::Tokio(sender) => sender.send_if_modified(modify),
            Sender::Ordered(sender) => sender.send_if_modified(modify),
        }
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        match self {
            Sender::Tokio(sender) => Ref::Tokio(sender.borrow_watched()),
            Sender::Ordered(sender) => Ref::Ordered(sender.borrow_watched()),
        }
    }

    fn subscribe(&self) -> Receiver<T> {
        match self {
            Sender::Tokio(sender) => Receiver::Tokio(sender.subscribe()),
            Sender::Ordered(sender) => Receiver::Ordered(sender.subscribe()),
        }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<Watch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        match self {
            Receiver::Tokio(receiver) => receiver.changed().await,
            Receiver::Ordered(receiver) => receiver.changed().await,
        }
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        match self {
            Receiver::Tokio(receiver) => Ref::Tokio(receiver.borrow_watched()),
            Receiver::Ordered(receiver) => Ref::Ordered(receiver.borrow_watched()),
        }
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        match self {
            Receiver::Tokio(receiver) => Ref::Tokio(receiver.borrow_and_update()),
            Receiver::Ordered(receiver) => Ref::Ordered(receiver.borrow_and_update()),
        }
    }
}
