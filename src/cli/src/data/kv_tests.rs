//! Tests of the module.

use std::sync::Arc;
use std::time::Duration;

use keyviz_client::Access;

use super::*;
use crate::client;
use crate::fake::{self, Fault, Store};

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

#[tokio::test]
async fn a_scan_that_cannot_go_on_says_how_far_it_came() {
    let store = Arc::new(Store::default());
    for at in 0..35 {
        store.map.lock().insert(Bytes::from(format!("k{at:02}")), Bytes::new());
    }
    let node = fake::start(store.clone()).await;
    node.fail(Fault::ScanRefused, 1);
    let timeout = Duration::from_millis(500);
    let client = client::client(std::slice::from_ref(&node.address), Access::default(), timeout);
    let mut scan = client.expect("an address").scan(..);
    let mut keys = 0;
    let listed = list(&mut scan, |rows| {
        keys += rows.len();
        Ok(())
    });
    let error = listed.await.expect_err("it was refused");
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
