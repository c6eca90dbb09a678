//! What the system did not give: threads, memory, open files.
//!
//! sled passes such an answer on as an error or panics with it, often in the same words as on
//! damage, and often only because it could not read. It says nothing about the data, so it must
//! never be taken for damage: the folder is as it was, and the node can start from it once there is
//! more.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Set once the system refused something while a database was used: what was found since then
/// proves no damage.
static SEEN: AtomicBool = AtomicBool::new(false);

/// A resource that the system did not give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scarce {
    /// Threads or processes.
    Threads,
    /// Memory.
    Memory,
    /// Open files.
    Files,
}

impl Scarce {
    /// What all errors of this kind begin with.
    pub(in crate::storage) const WORDS: &str = "the system does not give";

    const NUMBERS: [(Errno, Scarce); 4] = [
        (Errno::AGAIN, Scarce::Threads),
        (Errno::NOMEM, Scarce::Memory),
        (Errno::MFILE, Scarce::Files),
        (Errno::NFILE, Scarce::Files),
    ];

    /// What an answer of the system names, if it is of this kind.
    pub fn of(error: &io::Error) -> Option<Self> {
        if let Some(number) = error.raw_os_error() {
            return Self::of_number(number);
        }
        let own = error.get_ref().and_then(|inner| inner.downcast_ref::<ScarceError>());
        match error.kind() {
            _ if own.is_some() => own.map(|own| own.what),
            io::ErrorKind::OutOfMemory => Some(Scarce::Memory),
            _ => None,
        }
    }

    fn of_number(number: i32) -> Option<Self> {
        let known = Self::NUMBERS.iter().find(|(errno, _)| errno.raw_os_error() == number);
        known.map(|(_, scarce)| *scarce)
    }

    /// An answer of the system as everything above sees it, of this kind or not.
    pub(in crate::storage) fn told(error: io::Error) -> io::Error {
        match Self::of(&error) {
            Some(scarce) if error.raw_os_error().is_some() => scarce.error(error),
            _ => error,
        }
    }

    /// The same for the words of a panic, which hold the answer as `Debug` or `Display` writes it.
    pub(super) fn of_words(words: &str) -> Option<Self> {
        let named = |(errno, _): &&(Errno, Scarce)| {
            let number = errno.raw_os_error();
            words.contains(&format!("Os {{ code: {number},"))
                || words.contains(&format!("(os error {number})"))
        };
        Self::NUMBERS.iter().find(named).map(|(_, scarce)| *scarce)
    }

    /// Memory, where the process has nearly all that its limit allows: what panics then may have
    /// got none, whatever it says.
    pub(super) fn of_pressure() -> Option<Self> {
        let limit = getrlimit(Resource::As).current?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
        let kib: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
        (kib.saturating_mul(1024) >= limit / 4 * 3).then_some(Scarce::Memory)
    }

    /// The error that everything above sees.
    pub(in crate::storage) fn error(self, said: impl fmt::Display) -> io::Error {
        // Relaxed: read by the thread that sees the error, or after it.
        SEEN.store(true, Ordering::Relaxed);
        let kind = match self {
            Scarce::Threads => io::ErrorKind::WouldBlock,
            Scarce::Memory => io::ErrorKind::OutOfMemory,
            Scarce::Files => io::ErrorKind::Other,
        };
        io::Error::new(kind, ScarceError { what: self, said: said.to_string() })
    }

    /// Whether the system refused something to a database of this process.
    pub(in crate::storage) fn was_seen() -> bool {
        SEEN.load(Ordering::Relaxed)
    }
}

/// What there is too little of, and how to get more.
impl fmt::Display for Scarce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scarce::Threads => {
                "more threads: raise the limit of processes and threads (`ulimit -u`, TasksMax of \
                 systemd, the pids limit of a container)"
            }
            Scarce::Memory => {
                "more memory: raise the limit (`ulimit -v`, MemoryMax of systemd, the memory \
                 limit of a container), or lower --cache-size"
            }
            Scarce::Files => {
                "more open files: raise the limit (`ulimit -n`, LimitNOFILE of systemd)"
            }
        })
    }
}

/// Passes through the layers as an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{words} {what} ({said})", words = Scarce::WORDS)]
struct ScarceError {
    what: Scarce,
    said: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_system_are_told_from_damage_as_errors_and_as_panics() {
        for (errno, scarce) in Scarce::NUMBERS {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            assert_eq!(Scarce::of(&error), Some(scarce), "{error}");
            assert_eq!(Scarce::of_words(&error.to_string()), Some(scarce));
            let panic = format!("called `Result::unwrap()` on an `Err` value: {error:?}");
            assert_eq!(Scarce::of_words(&panic), Some(scarce), "{panic}");
            let passed_on = scarce.error("said");
            assert_eq!(Scarce::of(&passed_on), Some(scarce));
            assert_ne!(passed_on.kind(), io::ErrorKind::InvalidData);
            assert!(!passed_on.to_string().contains("corrupt"));
        }
        for other in [Errno::IO, Errno::NOSPC, Errno::ACCESS] {
            let error = io::Error::from_raw_os_error(other.raw_os_error());
            assert_eq!(Scarce::of(&error), None, "{error}");
            assert_eq!(Scarce::of_words(&format!("{error} {error:?}")), None);
        }
        // 11 is EAGAIN here, and no part of 110 or of an offset.
        assert_eq!(Scarce::of_words("Os { code: 110, kind: TimedOut }"), None);
        assert_eq!(Scarce::of_words("corrupt at 11"), None);
    }
}
