use std::fs::File;
use std::io::Cursor;

use bytes::Bytes;

use super::*;

fn rows(keys: &[&str]) -> Part {
    let row = |key: &&str| proto::BackupRow {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from_static(b"value"),
    };
    Part::Rows(proto::BackupRows { rows: keys.iter().map(row).collect() })
}

fn end(rows: u64) -> Part {
    Part::SectionEnd(proto::BackupSectionEnd { rows })
}

fn group(group_id: u64) -> Part {
    Part::Group(proto::BackupGroup { group_id, applied_term: 1, applied_index: 9, term: 2 })
}

fn start() -> proto::BackupStart {
    proto::BackupStart { cluster_id: "ab".repeat(16), groups: 1, ..Default::default() }
}

fn sound() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup");
    let mut writer = BackupWriter::new(File::create(&path).unwrap(), start()).unwrap();
    let place = writer.place();
    for part in [group(1), rows(&["a", "c"])] {
        writer.write(part).unwrap();
    }
    // The node failed here; the section is written again.
    writer.back_to(place).unwrap();
    for part in [group(1), rows(&["a", "b"]), rows(&["c"]), end(3), group(0), end(0)] {
        writer.write(part).unwrap();
    }
    assert_eq!(writer.rows(), 3);
    let length = writer.finish(vec![7]).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<Part>, BackupError> {
    let mut reader = BackupReader::new(Cursor::new(bytes))?;
    let mut parts = Vec::new();
    while let Some(part) = reader.next_part()? {
        parts.push(part);
    }
    Ok(parts)
}

#[test]
fn a_backup_reads_as_it_was_written() {
    let parts = read(&sound()).unwrap();
    let [Part::Start(read), first, .., Part::End(last)] = &parts[..] else {
        panic!("{parts:?}");
    };
    assert_eq!((read, first), (&start(), &group(1)));
    assert_eq!((last.sections, last.rows), (2, 3));
    assert_eq!(parts.len(), 8);
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused_and_the_chunk_is_named() {
    let sound = sound();
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << bit;
            match read(&damaged).expect_err("a flipped bit") {
                BackupError::NotABackup | BackupError::OtherFormat if at < MAGIC.len() => {}
                BackupError::Damaged { offset, .. } if at >= MAGIC.len() => {
                    assert!(offset <= at as u64, "byte {at} is in the chunk at {offset}");
                }
                other => panic!("byte {at}: {other}"),
            }
        }
        assert!(read(&sound[..at]).is_err(), "cut at {at}");
    }
    assert!(read(&[&sound[..], b"x"].concat()).is_err());
}

#[test]
fn chunks_in_another_order_are_refused() {
    let sound = sound();
    let mut ends = vec![MAGIC.len()];
    while ends[ends.len() - 1] < sound.len() {
        let at = ends[ends.len() - 1];
        let length = u32::from_le_bytes(sound[at..at + 4].try_into().unwrap()) as usize;
        ends.push(at + 8 + length);
    }
    let chunk = |n: usize| &sound[ends[n]..ends[n + 1]];
    let count = ends.len() - 1;
    for gone in 0..count {
        let rest = (0..count).filter(|n| *n != gone).flat_map(chunk);
        let bytes: Vec<u8> = MAGIC.iter().chain(rest).copied().collect();
        let error = read(&bytes).expect_err("a chunk is missing");
        assert!(matches!(error, BackupError::Damaged { chunk, .. } if chunk == gone as u64));
    }
    let doubled: Vec<u8> = MAGIC.iter().chain(chunk(0)).chain(chunk(0)).copied().collect();
    assert!(read(&doubled).is_err());
}

#[test]
fn parts_that_make_no_backup_are_refused_although_each_is_sound() {
    let cases: [(&[Part], &str); 5] = [
        (&[rows(&["a"])], "rows outside a section"),
        (&[group(1), group(2)], "a section without its end"),
        (&[group(1), rows(&["b", "a"])], "rows that do not ascend"),
        (&[group(1), rows(&["a"]), end(2)], "another number of rows"),
        (&[Part::Start(start())], "a second start"),
    ];
    for (parts, what) in cases {
        let mut order = order::Order::default();
        order.take(&Part::Start(start())).unwrap();
        let refused = parts.iter().find_map(|part| order.take(part).err());
        assert!(refused.is_some_and(|refused| refused.contains(what)), "{what}: {refused:?}");
    }
}
