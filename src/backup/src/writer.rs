//! Writes a backup. A section that failed is truncated and written again.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};

use prost::Message as _;

use super::{MAGIC, Part, checksum};
use keyviz_proto as proto;

const BUFFER_BYTES: usize = 1 << 20;

/// A backup file that is being written.
#[derive(Debug)]
pub struct BackupWriter {
    file: BufWriter<File>,
    chunks: u64,
    bytes: u64,
    sections: u64,
    rows: u64,
}

/// A place between two sections.
#[derive(Clone, Copy, Debug)]
pub struct FilePosition {
    chunks: u64,
    bytes: u64,
    sections: u64,
    rows: u64,
}

impl BackupWriter {
    /// Creates an empty backup.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn new(file: File, start: proto::BackupStart) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        file.write_all(MAGIC)?;
        let bytes = MAGIC.len() as u64;
        let mut writer = BackupWriter { file, chunks: 0, bytes, sections: 0, rows: 0 };
        writer.write(Part::Start(start))?;
        Ok(writer)
    }

    /// Writes one part.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn write(&mut self, part: Part) -> io::Result<()> {
        match &part {
            Part::Rows(rows) => self.rows += rows.rows.len() as u64,
            Part::SectionEnd(_) => self.sections += 1,
            _ => {}
        }
        let body = proto::BackupPart { part: Some(part) }.encode_to_vec();
        let length = u32::try_from(body.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "a part of a backup is below 4 GiB")
        })?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&checksum(self.chunks, &body).to_le_bytes())?;
        self.file.write_all(&body)?;
        self.chunks += 1;
        self.bytes += 8 + u64::from(length);
        Ok(())
    }

    /// The offset of the next section.
    pub fn place(&self) -> FilePosition {
        let &BackupWriter { chunks, bytes, sections, rows, .. } = self;
        FilePosition { chunks, bytes, sections, rows }
    }

    /// Truncates the file to `place`.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn back_to(&mut self, place: FilePosition) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_mut().set_len(place.bytes)?;
        self.file.seek(SeekFrom::Start(place.bytes))?;
        (self.chunks, self.bytes) = (place.chunks, place.bytes);
        (self.sections, self.rows) = (place.sections, place.rows);
        Ok(())
    }

    /// The number of rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes the end, which names the members whose history is missing, makes the file durable and
    /// returns its length.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn finish(mut self, histories_missing: Vec<u64>) -> io::Result<u64> {
        let (sections, rows) = (self.sections, self.rows);
        let end = proto::BackupEnd { sections, rows, histories_missing };
        self.write(Part::End(end))?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(self.bytes)
    }
}
