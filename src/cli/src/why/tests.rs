use bytes::Bytes;
use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    why: WhyArgs,
}

fn parsed(args: &[&str]) -> WhyArgs {
    Cli::try_parse_from([&["why"][..], args].concat()).expect("the flags are sound").why
}

fn finding(kind: &str, start: &'static [u8], end: Option<&'static [u8]>) -> proto::Finding {
    proto::Finding {
        id: "00c0ffee00c0ffee".to_owned(),
        kind: kind.to_owned(),
        start: Bytes::from_static(start),
        end: end.map(Bytes::from_static),
        groups: vec![2],
        nodes: vec![3],
        share: 0.873,
        rate: 2_811.4,
        since_ms: 1_767_182_400_000,
        since_earliest_ms: Some(1_767_182_340_000),
        since_latest_ms: 1_767_182_460_000,
        confidence: 0.94,
        sparkline: vec![10, 12, 9, 11, 10, 900, 2_700, 2_811],
        ..Default::default()
    }
}

fn findings(findings: Vec<proto::Finding>) -> proto::Findings {
    proto::Findings {
        findings,
        from_ms: 1_767_180_000_000,
        to_ms: 1_767_183_600_000,
        columns: 60,
        rate: 3_220.0,
        responded: 3,
        expected: 3,
        ..Default::default()
    }
}

fn hot_range() -> proto::Finding {
    let fact = |name: &str, value, level| proto::Fact { name: name.to_owned(), value, level };
    let change = |id, before, after| proto::LoadChange { id, before, after };
    let forecast = proto::Forecast {
        nodes: vec![
            change(1, 210.0, 1_010.0),
            change(2, 199.0, 999.0),
            change(3, 2_811.0, 1_211.0),
        ],
        hottest_before: 2_811.0,
        hottest_after: 1_211.0,
        imbalance_before: 2.62,
        imbalance_after: 1.13,
        ..Default::default()
    };
    proto::Finding {
        summary: "user/600 to user/601: 87% of all operations (2811/s).".to_owned(),
        advice: "Read user/600 to user/601 from followers: the hottest node falls from 2811/s to \
                 1211/s."
            .to_owned(),
        facts: vec![
            fact("share of the operations", 0.873, Some(0.08)),
            fact("times its usual load", 240.0, Some(4.0)),
        ],
        remedies: vec![proto::Remedy {
            act: "read-from-followers".to_owned(),
            words: "Read user/600 to user/601 from followers".to_owned(),
            forecast: Some(forecast),
            ..Default::default()
        }],
        ..finding("hot-range", b"user/600", Some(b"user/601"))
    }
}

#[test]
fn a_finding_is_a_page_with_cause_numbers_and_forecast() {
    insta::assert_snapshot!(page::page(&findings(vec![hot_range()]), 100));
}

#[test]
fn a_narrow_terminal_and_a_whole_cluster_of_troubles() {
    let mut found = findings(vec![
        proto::Finding {
            key: Some(Bytes::from_static(b"cart/\x1b[2J\xff")),
            advice: "A split cannot divide one key, and a move takes it along.".to_owned(),
            summary: "The key cart/\x1b[2J has 41% of all operations.".to_owned(),
            since_earliest_ms: None,
            ..finding("one-key\u{202e}", b"cart/\x1b[2J\xff", Some(b"cart/\x1b[2J\xff\0"))
        },
        finding("cold-splits", b"", None),
    ]);
    found.resolved = vec![proto::Finding {
        resolved_ms: Some(1_767_183_000_000),
        summary: "a to b: a burst every 60 s.".to_owned(),
        ..finding("periodic-burst", b"a", Some(b"b"))
    }];
    (found.responded, found.partial_columns, found.omitted) = (2, 3, 9_990);
    found.nodes = vec![proto::NodeStatus {
        id: 2,
        error: "no connection\r\n\x1b]0;x\x07".to_owned(),
        ..Default::default()
    }];
    let page = page::page(&found, 60);
    assert!(page.lines().all(|line| text::width(line) <= 60), "{page}");
    assert!(!page.contains(['\x1b', '\r', '\x07', '\u{202e}']), "{page}");
    insta::assert_snapshot!(page);
}

#[test]
fn nothing_is_said_in_words() {
    let quiet = page::page(&findings(Vec::new()), 100);
    assert!(quiet.ends_with("\nNothing stands out.\n"), "{quiet}");
    let idle = page::page(&proto::Findings { rate: 0.0, ..findings(Vec::new()) }, 100);
    assert!(idle.ends_with("\nNothing was counted at the end of this window.\n"), "{idle}");
}

#[test]
fn findings_are_printed_for_programs() {
    let mut out = Vec::new();
    let mut found = findings(vec![hot_range()]);
    found.findings[0].key = Some(Bytes::from_static(b"a\xff"));
    output::json_line(&mut out, &FindingsJson::from(&found)).expect("a vector takes everything");
    insta::assert_snapshot!(String::from_utf8(out).expect("output is text"));
}

#[test]
fn ranges_are_two_keys_or_the_beginning_of_keys() {
    let all = |text: &str| range(text).expect("it is a range");
    let of = |start: &'static [u8], end: Option<&'static [u8]>| KeyRange {
        start: Bytes::from_static(start),
        end: end.map(Bytes::from_static),
    };
    assert_eq!(all("a..b"), of(b"a", Some(b"b")));
    assert_eq!(all("a.."), of(b"a", None));
    assert_eq!(all("..b"), of(b"", Some(b"b")));
    assert_eq!(all(".."), of(b"", None));
    assert_eq!(all("user/"), of(b"user/", Some(b"user0")));
    assert_eq!(all("hex:61ff"), of(b"a\xff", Some(b"b")));
    assert_eq!(all("hex:ffff"), of(b"\xff\xff", None));
    assert_eq!(all("a\\x2e.."), of(b"a.", None));
    assert_eq!(all(""), of(b"", None));
    assert!(range("hex:0..b").is_err());
    assert!(range(&"k".repeat(4_097)).is_err());
}

#[test]
fn a_window_is_until_now_or_between_times() {
    let asked = |args: &[&str]| parsed(args).request(10_000_000).expect("sound");
    let request = asked(&[]);
    assert_eq!((request.from_ms, request.to_ms), (Some(6_400_000), None));
    assert_eq!(asked(&["--last", "5s"]).from_ms, Some(9_995_000));
    let request = asked(&["--to", "500"]);
    assert_eq!((request.from_ms, request.to_ms), (None, Some(500)));
    let refused =
        |args: &[&str]| parsed(args).request(10_000_000).expect_err("it is not sound").to_string();
    assert!(refused(&["--from", "5", "--to", "5"]).contains("--to <TIME>"));
    assert!(refused(&["b..a"]).contains("[RANGE]"));
}

#[test]
fn a_line_says_what_stands_out_and_nothing_that_a_terminal_would_obey() {
    let mut key = finding("one-key", b"user/1\x1b[2J", None);
    key.key = Some(Bytes::from_static(b"user/1\x1b[2J"));
    key.since_earliest_ms = None;
    let line = page::line(&findings(vec![hot_range(), key]));
    assert!(line.starts_with("1 hot-range: "), "{line}");
    assert!(line.contains(", 2,811/s, 87%, since 12:00:00Z, node 3 · 2 one-key: user/1"), "{line}");
    assert!(!line.contains('\x1b'), "{line}");
    assert_eq!(page::line(&findings(Vec::new())), "nothing stands out, 3,220/s in all");
    let idle = proto::Findings { rate: 0.0, ..findings(Vec::new()) };
    assert_eq!(page::line(&idle), "");
}
