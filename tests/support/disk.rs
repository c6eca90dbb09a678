//! Small file systems in memory, for disks that fill up. They need root.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::stderr;

/// A file system in memory that is unmounted when the value is dropped.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    /// Mounts one of this size. `None`: the machine does not allow it; standard error says why.
    pub fn mount(at: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(at).expect("the temporary folder takes one");
        match mount(&format!("size={bytes}"), at) {
            Ok(output) if output.status.success() => Some(SmallDisk(at.to_path_buf())),
            Ok(output) => {
                eprintln!("skipped: a small disk cannot be mounted: {}", stderr(&output).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: mount cannot be run: {error}");
                None
            }
        }
    }
}

/// Mounts a file system in memory at a folder, or mounts it again with other options.
pub fn mount(options: &str, at: &Path) -> std::io::Result<Output> {
    Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
