//! Small file systems in memory, for disks that fill up. They need root.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::stderr;

/// A file system of its own, unmounted at the end.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    /// Mounts one of `bytes`. `None`: that cannot be done here, and standard error says why.
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

    pub fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.0).expect("the disk is mounted");
        disk.f_bavail * disk.f_frsize
    }

    /// Writes a file of someone else's that leaves `bytes` free; 0: until the disk takes no more.
    pub fn fill(&self, name: &str, leave: u64) -> PathBuf {
        use std::io::Write as _;
        let path = self.0.join(name);
        let mut file = std::fs::File::create(&path).expect("an empty file");
        let chunk = vec![7u8; 64 << 10];
        while self.free() > leave && file.write_all(&chunk).is_ok() {}
        path
    }

    /// Makes the disk so small that `bytes` are free, as if somebody else had taken the rest.
    pub fn leave(&self, bytes: u64) {
        super::eventually("the disk shrinks while it is written", || {
            let disk = rustix::fs::statvfs(&self.0).expect("the disk is mounted");
            let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
            self.resize(used + bytes)
        });
    }

    /// Makes the disk `bytes` large. False: it holds more.
    pub fn resize(&self, bytes: u64) -> bool {
        let done = mount(&format!("remount,size={bytes}"), &self.0);
        done.is_ok_and(|output| output.status.success())
    }
}

fn mount(options: &str, at: &Path) -> std::io::Result<Output> {
    Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
