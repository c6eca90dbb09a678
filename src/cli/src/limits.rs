//! System limits of a node: threads, open files, and the permissions of new files.
//!
//! A node that is started under a limit too small for it would fail somewhere in the middle, its
//! storage engine with a panic or a wait that never ends. So the threads that it needs at once are
//! made, and given back, before anything is opened.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Threads of this crate: the main one and the one that writes the log.
const OWN_THREADS: usize = 2;

/// The system gives fewer threads than a node needs. Nothing was opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} needs {needed} threads here, and the system gives it {given} ({source}). Raise the \
     limit of processes and threads (`ulimit -u`, TasksMax of systemd, the pids limit of a \
     container) or of memory (`ulimit -v`). Nothing was opened or changed"
)]
pub struct TooFewThreads {
    /// What needs them.
    pub what: &'static str,
    /// The threads that are needed.
    pub needed: usize,
    /// Those that could be had.
    pub given: usize,
    /// What the system says.
    pub source: io::Error,
}

/// Whether the system grants the threads for so many nodes on so many workers.
///
/// # Errors
/// [`TooFewThreads`].
pub fn check_threads_of_nodes(nodes: usize, workers: usize) -> Result<(), TooFewThreads> {
    check_threads("a node", workers + nodes.saturating_mul(keyviz_node::THREADS))
}

/// Whether a command that opens the folder of a node gets its threads.
///
/// # Errors
/// [`TooFewThreads`].
pub fn check_threads_of_folder() -> Result<(), TooFewThreads> {
    check_threads("the storage of a node", keyviz_raft::THREADS)
}

fn check_threads(what: &'static str, beside: usize) -> Result<(), TooFewThreads> {
    let needed = OWN_THREADS + beside;
    make(what, needed, |at, alive| {
        let parked = std::thread::Builder::new().name(format!("check-{at}"));
        let (end, ended) = channel::<()>();
        alive.push((end, parked.spawn(move || ended.recv().unwrap_or(()))?));
        Ok(())
    })
}

type Parked = (Sender<()>, JoinHandle<()>);

/// Makes all but the calling thread at once, then ends them.
fn make(
    what: &'static str,
    needed: usize,
    mut spawn: impl FnMut(usize, &mut Vec<Parked>) -> io::Result<()>,
) -> Result<(), TooFewThreads> {
    let mut alive = Vec::new();
    let made = (1..needed).try_for_each(|at| {
        let given = |source| TooFewThreads { what, needed, given: at, source };
        spawn(at, &mut alive).map_err(given)
    });
    for (end, thread) in alive {
        drop(end);
        // It does nothing that could panic.
        let _ = thread.join();
    }
    made
}

/// Raises the soft limit of open files to the hard one: a node has a connection for each peer and
/// client, and shells give a thousand where the system allows a million. Returns the limit.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where the system refuses, the limit stays what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// What this process makes from here on is this user's alone: files hold keys and values.
pub fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_the_system_does_not_give_are_an_error_that_says_how_many_and_what_to_do() {
        assert!(check_threads_of_nodes(1, 2).is_ok());
        let refused = make("a node", 10, |at, _| match at {
            0..7 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(11)),
        });
        let error = refused.expect_err("seven is too few");
        assert_eq!((error.needed, error.given), (10, 7));
        let words = error.to_string();
        assert!(words.contains("needs 10 threads") && words.contains("ulimit -u"), "{words}");
    }

    #[test]
    fn the_soft_limit_of_open_files_is_the_hard_one() {
        assert_eq!(raise_open_files(), getrlimit(Resource::Nofile).maximum);
    }
}
