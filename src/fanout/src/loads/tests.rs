use std::collections::BTreeSet;

use bytes::Bytes;

use super::prefixes::{after, inside, overlap, prefix_length, rows_of_prefixes};
use super::*;

fn request(by: Grouping) -> LoadsRequest {
    LoadsRequest {
        by,
        from_ms: None,
        to_ms: None,
        start: Bytes::new(),
        end: None,
        ids: Vec::new(),
        prefix_depth: 0,
        delimiter: Bytes::new(),
        prefixes: Vec::new(),
    }
}

fn keys(keys: &[&'static str]) -> Vec<Bytes> {
    keys.iter().map(|key| Bytes::from(*key)).collect()
}

#[test]
fn bounds_a_question_that_names_too_much_or_what_does_not_fit_is_refused() {
    let refused = |change: fn(&mut LoadsRequest)| {
        let mut request = request(Grouping::Prefix);
        change(&mut request);
        request.check().expect_err("refused").to_string()
    };
    assert!(refused(|r| r.ids = vec![1]).contains("prefixes"));
    assert!(refused(|r| r.prefix_depth = 17).contains("at most 16"));
    assert!(refused(|r| r.delimiter = Bytes::from(vec![b'/'; 17])).contains("17 bytes"));
    assert!(refused(|r| r.prefixes = keys(&["a", ""])).contains("prefix 1 is empty"));
    assert!(refused(|r| r.prefixes = keys(&["b", "a", "ab"])).contains("prefix 2 begins"));
    assert!(refused(|r| r.prefixes = keys(&["a", "a"])).contains("prefix 1 begins"));
    assert!(refused(|r| r.prefixes = vec![Bytes::from("x"); 1_025]).contains("at most 1024"));
    assert!(
        refused(|r| {
            r.by = Grouping::Route;
            r.ids = vec![1; MAX_LOAD_IDS + 1];
        })
        .contains("100000")
    );
    assert!(
        refused(|r| {
            r.by = Grouping::Group;
            r.prefix_depth = 1;
        })
        .contains("by prefix")
    );
    let sound = LoadsRequest { prefixes: keys(&["a", "b"]), ..request(Grouping::Prefix) };
    assert_eq!(sound.check(), Ok(()));
}

#[test]
fn a_prefix_has_whole_parts_of_a_key() {
    let length = |key: &str, delimiter: &str, depth| {
        prefix_length(key.as_bytes(), delimiter.as_bytes(), depth)
    };
    assert_eq!(length("user/1/x", "/", 1), Some(5));
    assert_eq!(length("user/1/x", "/", 2), Some(7));
    assert_eq!(length("user/1/x", "/", 3), None);
    assert_eq!(length("a::b::c", "::", 2), Some(6));
    assert_eq!(length("", "/", 1), None);
    assert_eq!(after(b"a/"), Some(Bytes::from("a0")));
    assert_eq!(after(b"a\xff"), Some(Bytes::from("b")));
    assert_eq!(after(b"\xff\xff"), None);
}

#[test]
fn order_rows_of_prefixes_cover_the_range_without_gap_or_overlap() {
    let prefixes: BTreeSet<Bytes> = keys(&["a/", "b/", "b0", "z/"]).into_iter().collect();
    let range = |start: &'static str, end: Option<&'static str>| KeyRange {
        start: Bytes::from(start),
        end: end.map(Bytes::from),
    };
    let rows = |range: KeyRange| {
        let rows = rows_of_prefixes(&prefixes, &range).into_iter();
        let text = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        rows.map(|(start, of)| match of {
            Some(LoadOf::Prefix(prefix)) => format!("{}={}", text(&start), text(&prefix)),
            _ => text(&start),
        })
        .collect::<Vec<_>>()
    };
    // `b/` ends where `b0` begins.
    let all = ["", "a/=a/", "a0", "b/=b/", "b0=b0", "b1", "z/=z/", "z0"];
    assert_eq!(rows(range("", None)), all);
    assert_eq!(rows(range("a/5", Some("b/"))), ["a/5=a/", "a0"]);
    assert_eq!(rows(range("b/", Some("b/7"))), ["b/=b/"]);
    assert_eq!(rows(range("c", Some("d"))), ["c"]);
    assert!(inside(&range("b", Some("c")), &range("a", None)));
    assert!(!inside(&range("b", None), &range("a", Some("z"))));
    assert!(!overlap(&range("a", Some("b")), &range("b", None)));
}
