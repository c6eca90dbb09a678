//! A node's folder: who holds it, and which format it has.
//!
//! ```text
//! <dir>/LOCK     held with an advisory file lock while a process has the folder open; has its pid
//! <dir>/FORMAT   "keyviz data format 2\n"
//! <dir>/log/db, <dir>/db, <dir>/side/*/db and beside each conf, blobs/, snap.*   sled
//! ```

pub(in crate::storage) mod binding;
pub(in crate::storage) mod upgrade;

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::engine::scarce::Scarce;
use super::engine::{JOURNAL, ROWS};

/// The format of the folders that this program writes; it reads those from 1 on.
pub const FORMAT_VERSION: u32 = 2;
const FORMAT_PREFIX: &str = "keyviz data format ";

/// Keys and values are nobody else's to read.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

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
    /// `LOCK` is a symbolic link.
    #[error(
        "{} is a symbolic link, and the node does not write through it; remove the link",
        .0.display()
    )]
    LinkedLock(PathBuf),
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
    /// The system gave too little to open it. Its data is as it was.
    #[error(
        "the folder {} cannot be opened now: {cause}. Nothing is wrong with its data: start again \
         once there is enough",
        .dir.display()
    )]
    Scarce {
        /// The folder.
        dir: PathBuf,
        /// Which resource, and how to get more of it.
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
        if let Some(scarce) = Scarce::of(&error) {
            let own = error.raw_os_error().is_none();
            let cause = if own { error } else { scarce.error(error) };
            return OpenError::Scarce { dir, cause: cause.to_string() };
        }
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
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir).map_err(io)?;
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

    /// Takes the permissions of group and others from the folder and all in it: what an earlier
    /// version made was open to them. Returns what stays open to others, because it is another
    /// user's, as the root of a volume often is.
    pub(super) fn close_to_others(&self) -> Vec<PathBuf> {
        let mut open = Vec::new();
        close_to_others(&self.dir, &mut open);
        open
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
            .mode(FILE_MODE)
            // Whoever can write into the folder's parent must not choose another file of this
            // user's.
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|error| match error.raw_os_error() {
                Some(number) if number == Errno::LOOP.raw_os_error() => {
                    OpenError::LinkedLock(path.clone())
                }
                _ => io(error),
            })?;
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
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&aside)?;
        writeln!(file, "{FORMAT_PREFIX}{FORMAT_VERSION}")?;
        file.sync_all()?;
        fs::rename(&aside, dir.join("FORMAT"))?;
        File::open(dir)?.sync_all()
    }
}

fn close_to_others(path: &Path, open: &mut Vec<PathBuf>) {
    // Not through links, which may lead anywhere.
    let Ok(found) = fs::symlink_metadata(path) else { return };
    if found.is_symlink() {
        return;
    }
    let mode = if found.is_dir() { FOLDER_MODE } else { FILE_MODE };
    if found.permissions().mode() & 0o077 != 0
        && fs::set_permissions(path, Permissions::from_mode(mode)).is_err()
    {
        open.push(path.to_path_buf());
    }
    if found.is_dir() && path.file_name().is_none_or(|name| name != "lost+found") {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            close_to_others(&entry.path(), open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_and_its_files_are_closed_to_others_also_those_of_an_earlier_version() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/node");
        let folder = Folder::open(&data).unwrap();
        assert_eq!([mode(&data), mode(&data.join("LOCK"))], [FOLDER_MODE, FILE_MODE]);
        let (inner, file) = (data.join("log"), data.join("log/db"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, data.join("link")).unwrap();
        for (path, open) in [(&data, 0o755), (&inner, 0o755), (&file, 0o644), (&outside, 0o644)] {
            fs::set_permissions(path, Permissions::from_mode(open)).unwrap();
        }
        assert!(folder.close_to_others().is_empty());
        assert_eq!([&data, &inner, &file].map(|path| mode(path)), [0o700, 0o700, 0o600]);
        assert_eq!(mode(&outside), 0o644, "links are not followed");
    }

    #[test]
    fn a_lock_that_is_a_symbolic_link_is_refused_and_what_it_names_is_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (data, outside) = (dir.path().join("node"), dir.path().join("outside"));
        fs::create_dir(&data).unwrap();
        fs::write(&outside, "precious").unwrap();
        std::os::unix::fs::symlink(&outside, data.join("LOCK")).unwrap();
        let error = open_error(&data);
        assert!(matches!(error, OpenError::LinkedLock(_)), "{error}");
        assert!(error.to_string().contains("remove the link"));
        assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
    }

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
