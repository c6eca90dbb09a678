//! Fuzz targets: decoders of the catalog's bytes from the log, the disk and peers.

use super::{
    Catalog, CatalogCommand, DiskCommand, Disks, JournalCommand, PlaceCommand, Placement, Retention,
};
use crate::machine::codec::{self, Kind};
use keyviz_testkit::fuzz::Target;
use keyviz_types::RouteId;

/// The decoders of this crate.
pub fn targets() -> Vec<Target> {
    vec![
        Target { name: "catalog_command", run: command, corpus: commands },
        Target { name: "catalog_records", run: records, corpus: snapshots },
    ]
}

fn sealed(kind: Kind, data: &[u8]) -> Vec<u8> {
    codec::seal(kind, |sealed| sealed.extend_from_slice(data))
}

/// A command that decodes is the one its own bytes stand for, and can be applied.
fn command(data: &[u8]) {
    for bytes in [data, &sealed(Kind::Placement, data)] {
        let Some(Ok(command)) = PlaceCommand::decode(bytes) else { continue };
        if let Ok(encoded) = command.encode() {
            assert_eq!(PlaceCommand::decode(&encoded), Some(Ok(command.clone())));
        }
        let _ = Placement::default().after(&command);
    }
    for bytes in [data, &sealed(Kind::Disk, data)] {
        let Some(Ok(command)) = DiskCommand::decode(bytes) else { continue };
        assert!(command.encode().is_ok());
        let _ = Disks::default().after(&command, &Placement::default());
    }
    for bytes in [data, &sealed(Kind::Journal, data)] {
        let Some(Ok(command)) = JournalCommand::decode(bytes) else { continue };
        if let Ok(encoded) = command.encode() {
            assert_eq!(JournalCommand::decode(&encoded), Some(Ok(command.clone())));
        }
        let _ = Catalog::new(Retention::DEFAULT).apply_journal(&command);
    }
    for bytes in [data, &sealed(Kind::Command, data)] {
        let Ok(command) = CatalogCommand::decode(bytes) else { continue };
        if let Ok(encoded) = command.encode() {
            assert_eq!(CatalogCommand::decode(&encoded), Ok(command.clone()));
        }
        let mut catalog = Catalog::new(Retention::DEFAULT);
        let _ = catalog.apply(command);
    }
}

fn commands() -> Vec<Vec<u8>> {
    let split = CatalogCommand::Split {
        route_id: RouteId::new(1).expect("not 0"),
        key: b"m".to_vec(),
        expected_version: 1,
        request_id: "r".to_owned(),
        time_ms: 1,
    };
    let merge = CatalogCommand::Merge {
        left_id: RouteId::new(2).expect("not 0"),
        right_id: RouteId::new(3).expect("not 0"),
        expected_version: 2,
        request_id: String::new(),
        time_ms: 2,
    };
    let encoded = [split, merge].map(|command| command.encode().expect("it is small"));
    // With their seal and without.
    encoded
        .iter()
        .flat_map(|bytes| [bytes.clone(), bytes[codec::HEADER_BYTES..].to_vec()])
        .collect()
}

/// A snapshot whole, and its parts as a snapshot and as the records of a tree.
fn records(data: &[u8]) {
    for bytes in [data, &sealed(Kind::Snapshot, data)] {
        if let Ok(catalog) = Catalog::decode_snapshot(bytes, Retention::DEFAULT) {
            assert!(catalog.encode_snapshot().is_ok());
        }
    }
    let (key, value) = data.split_at(data.len().min(9));
    let value = sealed(Kind::Record, value);
    let _ = Catalog::load([(key.to_vec(), value)], Retention::DEFAULT);
}

fn snapshots() -> Vec<Vec<u8>> {
    let empty = Catalog::new(Retention::DEFAULT);
    let bytes = empty.encode_snapshot().expect("it is small");
    vec![bytes[codec::HEADER_BYTES..].to_vec(), bytes]
}

#[cfg(test)]
#[test]
fn fuzz_no_decoder_panics_whatever_it_is_given() {
    keyviz_testkit::fuzz::check(targets());
}
