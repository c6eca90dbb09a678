use super::page::{journal, page};
use keyviz_proto as proto;

fn forecast() -> proto::Forecast {
    let change = |id, before, after| proto::LoadChange { id, before, after };
    proto::Forecast {
        nodes: vec![change(1, 900.0, 300.0), change(2, 0.0, 600.0)],
        hottest_before: 900.0,
        hottest_after: 600.0,
        imbalance_before: 2.0,
        imbalance_after: 1.333,
        ..Default::default()
    }
}

#[test]
fn acts_bounded_and_proven_the_journal_says_who_when_why_forecast_and_outcome() {
    let entry = proto::JournalEntry {
        id: 7,
        by: "autopilot".to_owned(),
        words: "Move a\x1b to b to group 2".to_owned(),
        why: "Node 1 has 2.00 times the mean load.".to_owned(),
        state: "done".to_owned(),
        started_ms: 1_800_000_000_000,
        ended_ms: 1_800_000_001_500,
        forecast: Some(forecast()),
        outcome: Some(proto::ActOutcome {
            nodes: forecast().nodes,
            hottest_before: 910.0,
            hottest_after: 590.0,
            imbalance_before: 2.0,
            imbalance_after: 1.3,
            imbalance_without: 2.0,
            rate_before: 910.0,
            rate_after: 905.0,
            ..Default::default()
        }),
        undone_by: 9,
        ..Default::default()
    };
    let told = journal(&proto::Journal { entries: vec![entry], more: true, revision: 9 }, 60);
    for words in
        ["7 2027", "autopilot: Move", "after 1.5s", "2.00 times", "forecast: hottest node 900/s"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    let joined = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains("outcome: hottest node 910/s to 590/s, 2.00 to 1.30"), "{told}");
    assert!(joined.contains("was taken back by 9") && joined.contains("--before 7"), "{told}");
    assert!(!told.contains('\x1b') && told.lines().all(|line| line.chars().count() <= 60));
    let empty = journal(&proto::Journal::default(), 80);
    assert!(empty.contains("Nothing was recorded yet"), "{empty}");
}

#[test]
fn acts_bounded_and_proven_the_page_says_what_it_would_do_and_why_not() {
    let told = proto::Autopilot {
        mode: "advise".to_owned(),
        node: Some(2),
        reasons: vec!["It waits: node 3 does not answer.".to_owned()],
        advice: vec![proto::ActPreview {
            words: "Move all keys to group 2".to_owned(),
            why: "Node 1 has 2.00 times the mean load.".to_owned(),
            forecast: Some(forecast()),
            ..Default::default()
        }],
        nodes: vec![proto::NodeLoad { id: 1, load: 900.0 }],
        imbalance: 2.0,
        policy: Some(proto::AutopilotPolicy { acts_per_minute: 12, ..Default::default() }),
        ..Default::default()
    };
    let page = page(&told, 200);
    for words in [
        "autopilot: advise (as the node was started), on node 2",
        "node 3 does not answer",
        "It would do: Move all keys",
        "1.33 times the mean",
        "limits: 12 acts a minute",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}
