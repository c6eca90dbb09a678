//! Statistics of this process from the operating system. On Linux they are in `/proc`; elsewhere
//! there are none.

use std::fs;

/// One moment of this process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Process {
    /// Memory in use, bytes.
    pub(crate) resident_bytes: u64,
    /// Address space, bytes.
    pub(crate) virtual_bytes: u64,
    /// Open files and sockets.
    pub(crate) open_fds: u64,
    /// Maximum number of open files; `None`: unlimited or unknown.
    pub(crate) max_fds: Option<u64>,
    /// Threads.
    pub(crate) threads: u64,
    /// Time on a core, user and system.
    pub(crate) cpu_seconds: f64,
}

/// The unit of times in `/proc`, independent of the kernel's tick.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// This process now.
    pub(crate) fn now() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Some(Process {
            resident_bytes: field(&status, "VmRSS:")? * 1024,
            virtual_bytes: field(&status, "VmSize:")? * 1024,
            open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            max_fds: field(&limits, "Max open files"),
            threads: field(&status, "Threads:")?,
            cpu_seconds: cpu_ticks(&stat)? as f64 / TICKS_PER_SECOND,
        })
    }
}

/// The first number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime`, the 14th and 15th fields. The second, a name in brackets, may have spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_process_is_called() {
        let stat = "42 (a (strange) name) S 1 2 3 4 5 6 7 8 9 10 250 125 0 0 20 0 9 0";
        assert_eq!(cpu_ticks(stat), Some(375));
        assert_eq!(field("VmRSS:\t  12 kB\nThreads:\t9\n", "Threads:"), Some(9));
        assert_eq!(field("Max open files  unlimited  unlimited files", "Max open files"), None);
        assert_eq!(cpu_ticks("cut (short"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_files_and_threads() {
        let process = Process::now().expect("Linux has /proc");
        assert!(process.resident_bytes > 0 && process.open_fds > 2 && process.threads > 0);
    }
}
