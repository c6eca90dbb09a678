//! A node's folder: who holds it, and which format it has.
//!
//! ```text
//! <dir>/LOCK     held with an advisory file lock while a process has the folder open; has its pid
//! <dir>/FORMAT   "keyviz data format 2\n"
//! <dir>/log/db, <dir>/db, <dir>/side/*/db and beside each conf, blobs/, snap.*   sled
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::engine::{JOURNAL, ROWS};

/// The format of the folders that this program writes; it reads those from 1 on.
pub const FORMAT_VERSION: u32 = 2;
const FORMAT_PREFIX: &str = "keyviz data format ";

/// Why a node's folder cannot be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is a file of that name.
    #[error("{} is not a folder; name a folder for the node's data", .0.display())]
    NotAFolder(PathBuf),
    /// No node's data is there.
    #[error(
        "there is no node's data in {}; name the folder that was given to --data",
        .0.display()
    )]
    NoNode(PathBuf),
    /// The process may not read or write it.
    #[error(
        "no permission to use the folder {}; give this user read and write access",
        .0.display()
    )]
    Permission(PathBuf),
    /// Another process has it open.
    #[error(
        "the folder {} is in use by another process (pid {pid}); stop that node first",
        .dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The holder's process id as it wrote it down, or `unknown`.
        pid: String,
    },
    /// A later version wrote it.
    #[error(
        "the folder {} has data format {found}, this program knows up to {FORMAT_VERSION}; use the \
         version that wrote it or a later one",
        .dir.display()
    )]
    NewerFormat {
        /// The folder.
        dir: PathBuf,
        /// The format that was found.
        found: u32,
    },
    /// The folder has files, but not those of a node.
    #[error(
        "the folder {} holds something else than a node's data; name an empty folder",
        .0.display()
    )]
    Foreign(PathBuf),
    /// What is there does not read as what was written.
    #[error(
        "the data in {} is corrupt ({cause}). This node must not start from it or from an empty \
         folder under its id: it would have forgotten writes that it acknowledged. Keep the \
         folder. \
         While a majority of each group's members is up, replace the node: start one with a new id \
         and an empty folder (--join), then run `keyviz cluster replace-node`. Without a majority, \
         see \"A majority is lost\" in docs/operations.md first",
        .dir.display()
    )]
    Corrupt {
        /// The folder.
        dir: PathBuf,
        /// What was found.
        cause: String,
    },
    /// The system refused.
    #[error("cannot open the folder {}: {source}", .dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl OpenError {
    /// What an answer of the system means for the folder.
    pub fn from_io(dir: &Path, error: io::Error) -> Self {
        let dir = dir.to_path_buf();
        match error.kind() {
            io::ErrorKind::PermissionDenied => OpenError::Permission(dir),
            io::ErrorKind::NotADirectory => OpenError::NotAFolder(dir),
            io::ErrorKind::InvalidData => OpenError::Corrupt { dir, cause: error.to_string() },
            _ => OpenError::Io { dir, source: error },
        }
    }
}

/// A folder that this process holds until the value is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    /// The format that was found.
    format: u32,
    // The lock ends when the file closes.
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is missing, takes its lock and checks its format.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let io = |error| OpenError::from_io(dir, error);
        if dir.exists() && !dir.is_dir() {
            return Err(OpenError::NotAFolder(dir.to_path_buf()));
        }
        fs::create_dir_all(dir).map_err(io)?;
        let lock = Self::lock(dir)?;
        let format = Self::check_format(dir)?;
        // The journal is made first, so one that is missing was taken away, and with it what this
        // node has promised.
        if format > 1 && dir.join(ROWS.file()).exists() && !dir.join(JOURNAL.file()).exists() {
            let cause = format!("the file {} is missing", JOURNAL.file());
            return Err(OpenError::Corrupt { dir: dir.to_path_buf(), cause });
        }
        Ok(Self { dir: dir.to_path_buf(), format, _lock: lock })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The format of what is there.
    pub(super) fn format(&self) -> u32 {
        self.format
    }

    /// From here on the folder has the format of this program.
    pub(super) fn set_format(&self) -> io::Result<()> {
        Self::write_format(&self.dir)
    }

    /// Takes the lock of a folder that has a node's data, and checks its format.
    pub(crate) fn open_existing(dir: &Path) -> Result<Self, OpenError> {
        if dir.exists() && !dir.is_dir() {
            return Err(OpenError::NotAFolder(dir.to_path_buf()));
        }
        if !dir.join("FORMAT").exists() || !dir.join(ROWS.file()).exists() {
            return Err(OpenError::NoNode(dir.to_path_buf()));
        }
        Self::open(dir)
    }

    // `File::try_lock` came with Rust 1.89.
    fn lock(dir: &Path) -> Result<File, OpenError> {
        let io = |error| OpenError::from_io(dir, error);
        let path = dir.join("LOCK");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() }.to_owned();
                return Err(OpenError::Locked { dir: dir.to_path_buf(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(file)
    }

    fn check_format(dir: &Path) -> Result<u32, OpenError> {
        let io = |error| OpenError::from_io(dir, error);
        let path = dir.join("FORMAT");
        let text = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::create_format(dir).map(|()| FORMAT_VERSION);
            }
            Err(error) => return Err(io(error)),
        };
        let found = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.strip_prefix(FORMAT_PREFIX))
            .and_then(|version| version.trim_end().parse::<u32>().ok());
        match found {
            Some(found @ 1..=FORMAT_VERSION) => Ok(found),
            Some(found) if found > FORMAT_VERSION => {
                Err(OpenError::NewerFormat { dir: dir.to_path_buf(), found })
            }
            _ => Err(OpenError::Corrupt {
                dir: dir.to_path_buf(),
                cause: "its FORMAT file does not name a known format".into(),
            }),
        }
    }

    fn create_format(dir: &Path) -> Result<(), OpenError> {
        let io = |error| OpenError::from_io(dir, error);
        for entry in fs::read_dir(dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            // mkfs makes lost+found in the root of a volume.
            if name != "LOCK" && name != "LOCK.format" && name != "lost+found" {
                return Err(OpenError::Foreign(dir.to_path_buf()));
            }
        }
        Self::write_format(dir).map_err(io)
    }

    /// Whole or absent: written aside, synced, renamed, and the rename synced.
    fn write_format(dir: &Path) -> io::Result<()> {
        let aside = dir.join("LOCK.format");
        let mut file = File::create(&aside)?;
        writeln!(file, "{FORMAT_PREFIX}{FORMAT_VERSION}")?;
        file.sync_all()?;
        fs::rename(&aside, dir.join("FORMAT"))?;
        File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_error(dir: &Path) -> OpenError {
        Folder::open(dir).expect_err("this folder must be refused")
    }

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = Folder::open(dir.path()).unwrap();
        let error = open_error(dir.path());
        assert!(matches!(
            &error,
            OpenError::Locked { pid, .. } if *pid == std::process::id().to_string()
        ));
        assert!(error.to_string().contains(&dir.path().display().to_string()));
        drop(held);
        Folder::open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("FORMAT"), "keyviz data format 3\n").unwrap();
        assert!(matches!(open_error(dir.path()), OpenError::NewerFormat { found: 3, .. }));
    }

    #[test]
    fn a_mangled_format_is_corrupt_and_foreign_files_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("FORMAT"), b"\xffgarbage").unwrap();
        assert!(matches!(open_error(dir.path()), OpenError::Corrupt { .. }));

        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(open_error(dir.path()), OpenError::Foreign(_)));
        assert!(!dir.path().join("FORMAT").exists());
    }

    #[test]
    fn the_root_of_a_fresh_volume_is_an_empty_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        Folder::open(dir.path()).unwrap();
        assert!(dir.path().join("lost+found").is_dir());
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(open_error(&file), OpenError::NotAFolder(_)));
    }
}
