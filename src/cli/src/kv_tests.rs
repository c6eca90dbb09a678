//! Tests of the module.

use std::sync::Arc;

use super::super::fake::{self, Fault, Store};
use super::*;

fn page(format: Format, keys_only: bool) -> String {
    let row = |key: &'static [u8], value: &'static [u8]| proto::KeyValue {
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
    };
    let rows =
        [row(b"a,b", b"plain"), row(b"user/\xff", b"two\nlines \"q\""), row(b"\x1b[2J", b"")];
    let mut out = Vec::new();
    print_page(&mut out, &rows, format, keys_only).expect("a vector takes everything");
    String::from_utf8(out).expect("output is text")
}

/// The keys that a scan of 35 rows lists where streams break after their first page of 10.
async fn scanned(fault: Fault, times: u64, limit: u64) -> (usize, Result<(), CliError>) {
    let store = Arc::new(Store::default());
    for at in 0..35 {
        store.map.lock().insert(Bytes::from(format!("k{at:02}")), Bytes::new());
    }
    store.map.lock().insert(vec![b'm'; MAX_KEY_BYTES].into(), Bytes::new());
    let node = fake::start(store.clone()).await;
    node.fail(fault, times);
    let client = Client::new(vec![node.address.clone()], Duration::from_millis(500));
    let request = proto::ScanRequest { limit, ..proto::ScanRequest::default() };
    let mut keys = Vec::new();
    let listed = list(&client, request, |rows| {
        keys.extend(rows.iter().map(|row| row.key.clone()));
        Ok(())
    })
    .await;
    assert!(keys.is_sorted_by(|a, b| a < b), "each key once: {keys:?}");
    (keys.len(), listed)
}

#[tokio::test]
async fn a_scan_that_breaks_goes_on_after_its_last_key() {
    for limit in [0, 36, 100] {
        let (keys, listed) = scanned(Fault::ScanCut, 3, limit).await;
        listed.expect("it goes on");
        assert_eq!(keys, 36, "limit {limit}");
    }
    let (keys, listed) = scanned(Fault::ScanCut, 2, 25).await;
    listed.expect("it goes on");
    assert_eq!(keys, 25);
}

#[tokio::test]
async fn a_scan_that_cannot_go_on_says_how_far_it_came() {
    let (keys, listed) = scanned(Fault::ScanRefused, 1, 0).await;
    let error = listed.expect_err("it was refused");
    assert!(matches!(&error, CliError::ScanCut { last, .. } if last == "k09"), "{error}");
    assert_eq!(keys, 10);
}

#[test]
fn a_page_as_a_table_is_aligned_and_inert() {
    let lines = ["a,b        plain", "user/\\xff  two\\nlines \"q\"", "\\x1b[2J    ", ""];
    assert_eq!(page(Format::Table, false), lines.join("\n"));
    assert_eq!(page(Format::Table, true), "a,b\nuser/\\xff\n\\x1b[2J\n");
}

#[test]
fn a_page_for_programs_can_be_read_back() {
    let json = concat!(
        "{\"key\":\"a,b\",\"value\":\"plain\"}\n",
        "{\"key\":\"hex:757365722fff\",\"value\":\"two\\nlines \\\"q\\\"\"}\n",
        "{\"key\":\"hex:1b5b324a\",\"value\":\"\"}\n",
    );
    assert_eq!(page(Format::Json, false), json);
    let csv = "\"a,b\",plain\nhex:757365722fff,\"two\nlines \"\"q\"\"\"\nhex:1b5b324a,\n";
    assert_eq!(page(Format::Csv, false), csv);
    assert_eq!(page(Format::Csv, true), "\"a,b\"\nhex:757365722fff\nhex:1b5b324a\n");
}

#[test]
fn a_long_value_shows_its_size() {
    assert_eq!(value_preview(&[b'x'; 60]), "x".repeat(60));
    assert_eq!(value_preview(&[b'x'; 2048]), format!("{}… (2.0 KiB)", "x".repeat(59)));
}
