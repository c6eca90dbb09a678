//! Records in a file beside a database how far it was durable.
//!
//! sled silently drops a damaged end of its log, and shows older pages where newer ones are
//! damaged, because it cannot tell damage from a write that a crash interrupted. But a synced end
//! was acknowledged, and a node that lost it must not restart as if nothing had happened: it would
//! vote and count entries contrary to its acknowledgements. Every sync therefore has a number,
//! which is written into the database with it and, once it is done, into the file `SYNCED`.
//!
//! The contents of the file are not synced. They survive the process, and after a power failure
//! they are at worst older than the database, which proves less but never too much. The name of the
//! file is synced before the first sync is numbered, so a missing file is damage too.
//!
//! ```text
//! SYNCED   0  8  number of the last sync, little-endian
//!          8  4  CRC-32 of it
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The name of the file.
pub(super) const FILE: &str = "SYNCED";

/// The file, open for as long as the database.
#[derive(Debug)]
pub(super) struct Synced {
    /// `None`: there is no such file yet, or no more.
    file: Option<File>,
    path: PathBuf,
    number: u64,
}

impl Synced {
    /// Opens the file of a folder, if it is there.
    pub(in crate::storage) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { file: None, path, number: 0 });
            }
            Err(error) => return Err(error),
        };
        let mut record = [0; 12];
        let number = match file.metadata()?.len() {
            // Made, and no sync was done since.
            0 => 0,
            12 => {
                file.read_exact_at(&mut record, 0)?;
                let (number, crc) = record.split_at(8);
                if crc32fast::hash(number).to_le_bytes() != crc {
                    return Err(corrupt("the file SYNCED is corrupt: its checksum does not match"));
                }
                u64::from_le_bytes(number.try_into().expect("8 bytes"))
            }
            _ => return Err(corrupt("the file SYNCED is corrupt: it does not have 12 bytes")),
        };
        Ok(Self { file: Some(file), path, number })
    }

    /// Compares the file with the database, creates it if necessary, and continues from the later
    /// of both.
    pub(in crate::storage) fn check(&mut self, database: &str, in_database: u64) -> io::Result<()> {
        if self.file.is_none() && in_database > 0 {
            return Err(corrupt(&format!(
                "the file SYNCED beside the file {database} is missing, so it cannot be told \
                 whether \
                 the database has lost what was durable"
            )));
        }
        if in_database < self.number {
            return Err(corrupt(&format!(
                "the file {database} has lost what was durable: it goes back to sync \
                 {in_database}, and \
                 sync {} was done",
                self.number
            )));
        }
        self.number = in_database;
        if self.file.is_none() {
            let mut options = File::options();
            let options = options.read(true).write(true).create(true).truncate(false);
            self.file = Some(options.open(&self.path)?);
        }
        Ok(())
    }

    /// The number of the sync to come.
    pub(in crate::storage) fn next(&self) -> u64 {
        self.number + 1
    }

    /// The sync of this number is done.
    pub(in crate::storage) fn done(&mut self, number: u64) -> io::Result<()> {
        let bytes = number.to_le_bytes();
        let record = [&bytes[..], &crc32fast::hash(&bytes).to_le_bytes()].concat();
        let file = self.file.as_ref().expect("`check` has made it");
        file.write_all_at(&record, 0)?;
        self.number = number;
        Ok(())
    }
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_and_cut_of_the_file_is_refused_but_the_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut synced = Synced::open(dir.path()).unwrap();
        synced.check("db", 0).unwrap();
        assert_eq!(synced.next(), 1);
        synced.done(41).unwrap();
        drop(synced);
        assert_eq!(Synced::open(dir.path()).unwrap().next(), 42);
        let sound = std::fs::read(&path).unwrap();
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).unwrap();
            assert!(Synced::open(dir.path()).is_err(), "bit {bit}");
        }
        for length in 1..sound.len() {
            std::fs::write(&path, &sound[..length]).unwrap();
            assert!(Synced::open(dir.path()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_database_that_went_back_is_refused_and_one_that_is_ahead_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut synced = Synced::open(dir.path()).unwrap();
        synced.check("db", 0).unwrap();
        synced.done(5).unwrap();
        assert!(synced.check("db", 4).unwrap_err().to_string().contains("goes back to sync 4"));
        synced.check("db", 5).unwrap();
        synced.check("db", 6).unwrap();
        assert_eq!(synced.next(), 7);
    }

    #[test]
    fn no_lost_write_a_missing_file_is_damage_and_stays_missing() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let refused = Synced::open(dir.path()).unwrap().check("log/db", 9).unwrap_err();
            assert!(refused.to_string().contains("SYNCED beside the file log/db is missing"));
            assert!(!dir.path().join(FILE).exists(), "the next start must refuse it, too");
        }
        // Of a database that was never synced nothing can have been lost.
        Synced::open(dir.path()).unwrap().check("log/db", 0).unwrap();
        assert!(dir.path().join(FILE).exists());
    }
}
