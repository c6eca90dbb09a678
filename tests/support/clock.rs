//! Nodes with a clock of their own, by way of libfaketime.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The library that gives a process another clock; `None` where it is not installed.
pub fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let folders = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    folders.chain(["/usr/lib/faketime/libfaketimeMT.so.1".into()]).find(|path| path.exists())
}

/// Variables that set a node's time of day apart with that library; timeouts and leases are
/// measured by the monotonic clock, which stays as it is.
pub fn clock_apart(library: &Path, seconds: f64) -> Vec<(OsString, OsString)> {
    vec![
        ("LD_PRELOAD".into(), library.into()),
        ("FAKETIME".into(), format!("{seconds:+.3}s").into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("NO_FAKE_STAT".into(), "1".into()),
    ]
}
