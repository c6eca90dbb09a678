//! Binds the two databases of a folder to each other: each could be restored from a copy without
//! the other.
//!
//! ```text
//! b/start   0  16  disk id
//!          16   8  number of the start, little-endian; the journal has it first
//!          24   4  CRC-32 of both
//! ```

use std::io;

use crate::storage::seal::unseal;
use keyviz_types::DiskId;

pub(in crate::storage) fn encode(disk: DiskId, number: u64) -> Vec<u8> {
    [&disk.0[..], &number.to_le_bytes()].concat()
}

/// Whether rows that have `found` belong to a journal of `disk` at start `number`.
pub(in crate::storage) fn check(
    found: Option<&[u8]>,
    disk: DiskId,
    number: u64,
    since: u64,
) -> io::Result<()> {
    let corrupt = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let Some(record) = found else {
        // A start that was cut short may have left the journal one start ahead.
        return if number <= since + 1 {
            Ok(())
        } else {
            corrupt("the file db does not say which disk it is of, and log/db does".to_owned())
        };
    };
    let record = unseal(record)?;
    let parts = record.split_first_chunk::<16>().and_then(|(disk, number)| {
        Some((DiskId(*disk), u64::from_le_bytes(number.try_into().ok()?)))
    });
    let Some((found, last)) = parts else {
        return corrupt("the binding of the file db is damaged".to_owned());
    };
    if found != disk {
        return corrupt(format!("the file db is of disk {found}, and log/db of disk {disk}"));
    }
    if last >= number {
        return corrupt(format!(
            "the file log/db went back to an older state: it is at start {}, and the file db has \
             seen start {last}",
            number - 1
        ));
    }
    // Rows that are behind are rebuilt from the log, which reports if it does not reach back far
    // enough.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::seal::seal;

    #[test]
    fn a_database_of_another_folder_or_a_journal_that_went_back_is_refused() {
        let (disk, other) = (DiskId([1; 16]), DiskId([2; 16]));
        let bound = |disk, number| seal(&encode(disk, number));
        let judged = |found: &[u8], number| check(Some(found), disk, number, 1);
        judged(&bound(disk, 4), 5).unwrap();
        judged(&bound(disk, 2), 5).unwrap();
        let refused = judged(&bound(other, 4), 5).unwrap_err().to_string();
        assert!(refused.contains("of disk"), "{refused}");
        let refused = judged(&bound(disk, 5), 5).unwrap_err().to_string();
        assert!(refused.contains("log/db went back"), "{refused}");
        check(None, disk, 1, 1).unwrap();
        check(None, disk, 7, 7).unwrap();
        assert!(check(None, disk, 9, 7).is_err(), "rows of before the disk had an id");
        let sound = bound(disk, 4);
        for cut in 0..sound.len() {
            assert!(judged(&sound[..cut], 5).is_err(), "{cut} bytes");
        }
    }
}
