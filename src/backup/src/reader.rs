//! Reads a backup chunk by chunk, and stops at the first damaged one.

use std::io::{self, Read};

use bytes::Bytes;
use prost::Message as _;

use super::order::Order;
use super::{BackupError, MAGIC, MAX_PART_BYTES, Part, checksum};
use keyviz_proto as proto;

/// The parts of a file, in order.
#[derive(Debug)]
pub struct BackupReader<R> {
    file: R,
    order: Order,
    chunk: u64,
    offset: u64,
}

impl<R: Read> BackupReader<R> {
    /// Reads the first bytes of a file.
    ///
    /// # Errors
    /// If the file is not a backup, or has another format.
    pub fn new(mut file: R) -> Result<Self, BackupError> {
        let mut magic = [0; MAGIC.len()];
        match file.read_exact(&mut magic) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(BackupError::NotABackup);
            }
            Err(error) => return Err(error.into()),
        }
        match magic.strip_prefix(b"keyviz backup ") {
            Some(_) if magic == *MAGIC => {}
            Some(_) => return Err(BackupError::OtherFormat),
            None => return Err(BackupError::NotABackup),
        }
        Ok(BackupReader { file, order: Order::default(), chunk: 0, offset: MAGIC.len() as u64 })
    }

    /// The next part; `None` after the end.
    ///
    /// # Errors
    /// If the chunk is damaged, missing or out of place.
    pub fn next_part(&mut self) -> Result<Option<Part>, BackupError> {
        if self.order.ended() {
            let mut more = [0];
            return match self.file.read(&mut more)? {
                0 => Ok(None),
                _ => Err(self.damaged("something follows the end")),
            };
        }
        let body = self.body()?;
        let length = body.len() as u64;
        let decoded = proto::BackupPart::decode(body).ok().and_then(|part| part.part);
        let part = decoded.ok_or_else(|| self.damaged("it is no part that this program knows"))?;
        self.order.take(&part).map_err(|what| self.damaged(what))?;
        self.chunk += 1;
        self.offset += 8 + length;
        Ok(Some(part))
    }

    fn body(&mut self) -> Result<Bytes, BackupError> {
        let mut head = [0; 8];
        self.fill(&mut head)?;
        let (length, crc) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize;
        let crc = u32::from_le_bytes(crc.try_into().expect("4 bytes"));
        if length > MAX_PART_BYTES {
            return Err(self.damaged("its length is impossible"));
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        if checksum(self.chunk, &body) != crc {
            return Err(self.damaged("its checksum does not match"));
        }
        Ok(body.into())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("the file ends before the backup does"),
            _ => error.into(),
        })
    }

    fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { chunk: self.chunk, offset: self.offset, what }
    }
}
