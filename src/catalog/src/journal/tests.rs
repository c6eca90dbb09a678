//! The journal in the catalog: what is recorded, what is refused, and that it stays bounded.

use std::collections::BTreeMap;

use super::command::{Begun, JournalCommand};
use super::entry::{
    ActForecast, ActOutcome, ActState, AutopilotMode, JournalEntry, LayoutAct, LoadChange,
    MAX_CHANGES, MAX_JOURNAL, MAX_TEXT_BYTES,
};
use super::error::JournalError;
use crate::moves::command::MoveCommand;
use crate::{Catalog, CatalogCommand, ClusterId, Retention, plan_bootstrap};
use keyviz_types::{GroupId, KeyRange, NodeId, RouteId};

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let bootstrap = CatalogCommand::Bootstrap {
        cluster_id: ClusterId([7; 16]),
        groups: plan_bootstrap(&[NodeId(1)], 3, 1, &[]).expect("sound").groups,
        split_keys: vec![b"m".to_vec()],
        time_ms: 1_000,
    };
    catalog.apply(bootstrap).expect("a sound bootstrap");
    catalog
}

fn begun(autopilot: bool, request_id: &str) -> Begun {
    Begun {
        autopilot,
        by_default: true,
        expected_revision: 0,
        act: LayoutAct::TransferLeader { group: GroupId(1), to: NodeId(2) },
        why: "hot".to_owned(),
        finding: String::new(),
        request_id: request_id.to_owned(),
        from_group: None,
        from_node: Some(NodeId(1)),
        forecast: None,
        undoes: 0,
        done: false,
        time_ms: 5_000,
    }
}

fn begin(begun: Begun) -> JournalCommand {
    JournalCommand::Begin { begun: Box::new(begun) }
}

fn done(catalog: &mut Catalog, command: &JournalCommand) -> u64 {
    catalog.apply_journal(command).expect("a sound command").id
}

fn split(request_id: &str, route: u64, key: &str) -> CatalogCommand {
    CatalogCommand::Split {
        route_id: RouteId::new(route).expect("not 0"),
        key: key.into(),
        expected_version: 0,
        request_id: request_id.to_owned(),
        time_ms: 2_000,
    }
}

#[test]
fn acts_bounded_and_proven_an_act_is_recorded_from_its_beginning_to_its_outcome() {
    let mut catalog = catalog();
    let id = done(&mut catalog, &begin(begun(true, "a")));
    assert_eq!(done(&mut catalog, &begin(begun(true, "a"))), id, "a retry begins nothing");
    let other = Begun { act: LayoutAct::Split { at: b"x".to_vec() }, ..begun(true, "a") };
    let reused = catalog.apply_journal(&begin(other));
    assert_eq!(reused, Err(JournalError::RequestIdReused { id }));
    let outcome = Box::new(ActOutcome { without: 1_500, ..ActOutcome::default() });
    let measure = JournalCommand::Measure { id, outcome };
    assert_eq!(catalog.apply_journal(&measure), Err(JournalError::UnderWay { id }));
    let end = JournalCommand::End { id, state: ActState::Done, version: 9, time_ms: 4_000 };
    done(&mut catalog, &end);
    assert_eq!(catalog.apply_journal(&end), Err(JournalError::Ended { id }));
    done(&mut catalog, &measure);
    let back = done(&mut catalog, &begin(Begun { undoes: id, ..begun(true, "") }));
    let entry = catalog.journal().get(id).expect("kept");
    assert_eq!((entry.ended_ms, entry.version, entry.undone_by), (5_000, 9, back));
    assert_eq!(entry.outcome.as_ref().map(|outcome| outcome.without), Some(1_500));
    let unknown = JournalCommand::End { id: 99, state: ActState::Done, version: 0, time_ms: 1 };
    assert_eq!(catalog.apply_journal(&unknown), Err(JournalError::UnknownEntry { id: 99 }));
}

#[test]
fn acts_bounded_and_proven_a_switch_that_came_first_stops_the_autopilot() {
    let mut catalog = catalog();
    let off = JournalCommand::SetMode { mode: AutopilotMode::Off, expected_revision: 0 };
    done(&mut catalog, &off);
    assert_eq!(catalog.apply_journal(&begin(begun(true, ""))), Err(JournalError::NotActing));
    done(&mut catalog, &begin(begun(false, "")));
    let stale = JournalCommand::SetMode { mode: AutopilotMode::Act, expected_revision: 1 };
    let wrong = JournalError::WrongRevision { expected: 1, current: 2 };
    assert_eq!(catalog.apply_journal(&stale), Err(wrong.clone()));
    let late = Begun { expected_revision: 1, ..begun(false, "") };
    assert_eq!(catalog.apply_journal(&begin(late)), Err(wrong));
    let act = JournalCommand::SetMode { mode: AutopilotMode::Act, expected_revision: 2 };
    done(&mut catalog, &act);
    done(&mut catalog, &begin(begun(true, "")));
    // Without a mode of the cluster, that of the node counts.
    let mut fresh = self::catalog();
    let advises = Begun { by_default: false, ..begun(true, "") };
    assert_eq!(fresh.apply_journal(&begin(advises)), Err(JournalError::NotActing));
}

#[test]
fn acts_bounded_and_proven_changes_of_others_are_entered_with_the_routes() {
    let mut catalog = catalog();
    let before = catalog.apply(split("", 1, "b")).expect("inside").records;
    assert!(before.iter().all(|record| !matches!(record.key[0], b'a' | b'j')), "not opened yet");
    done(&mut catalog, &JournalCommand::Open);
    assert_eq!(done(&mut catalog, &JournalCommand::Open), 0);
    let made = catalog.apply(split("r", 3, "a")).expect("inside");
    assert!(made.records.iter().any(|record| record.key[0] == b'j'));
    let again = catalog.apply(split("r", 3, "a")).expect("a retry");
    assert!(again.records.is_empty());
    let merge = CatalogCommand::Merge {
        left_id: RouteId::new(5).expect("not 0"),
        right_id: RouteId::new(6).expect("not 0"),
        expected_version: 0,
        request_id: JournalEntry::step_request_id(1, "merge"),
        time_ms: 3_000,
    };
    catalog.apply(merge).expect("neighbours");
    assert_eq!(catalog.journal().entries().len(), 1, "a step of an entry is no entry");
    let start = MoveCommand::Start {
        route_id: RouteId::new(2).expect("not 0"),
        to: GroupId(3),
        expected_version: 0,
        request_id: String::new(),
        time_ms: 4_000,
    };
    let id = catalog.apply_move(&start).expect("sound").id;
    let entry = |catalog: &Catalog| catalog.journal().entries().last().cloned().expect("entered");
    assert_eq!(entry(&catalog).state, ActState::UnderWay);
    for command in [
        MoveCommand::Seal { id },
        MoveCommand::Commit { id, adopted_at: 1, time_ms: 4_500 },
        MoveCommand::Finish { id, time_ms: 5_000 },
    ] {
        catalog.apply_move(&command).expect("sound");
    }
    let moved = entry(&catalog);
    let range = KeyRange { start: "m".into(), end: None };
    assert_eq!(moved.act, LayoutAct::Move { range, to: GroupId(3) });
    assert_eq!((moved.state.clone(), moved.ended_ms), (ActState::Done, 5_000));
    assert!(!moved.autopilot && moved.version == catalog.version());
}

#[test]
fn bounds_the_journal_keeps_the_newest_entries_and_goes_on_after_a_restart() {
    let mut catalog = catalog();
    let change = |id| LoadChange { id, before: id, after: 0 };
    let forecast = ActForecast { nodes: (0..200).map(change).collect(), ..ActForecast::default() };
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = catalog.records().collect();
    for _ in 0..MAX_JOURNAL + 20 {
        let why = "ü".repeat(700);
        let long = Begun { why, forecast: Some(forecast.clone()), ..begun(true, "") };
        for record in catalog.apply_journal(&begin(long)).expect("sound").records {
            match record.value {
                Some(value) => records.insert(record.key, value),
                None => records.remove(&record.key),
            };
        }
    }
    assert_eq!(catalog.journal().entries().len(), MAX_JOURNAL);
    let oldest = catalog.journal().entries().next().expect("full");
    assert_eq!(oldest.id, 21);
    assert!(oldest.why.len() <= MAX_TEXT_BYTES);
    let nodes = &oldest.forecast.as_ref().expect("given").nodes;
    assert_eq!((nodes.len(), nodes[0].id), (MAX_CHANGES, 200 - MAX_CHANGES as u64));
    let loaded = Catalog::load(&records, Retention::DEFAULT).expect("sound records");
    assert_eq!(loaded.journal(), catalog.journal());
    let snapshot = catalog.encode_snapshot().expect("small");
    let other = Catalog::decode_snapshot(&snapshot, Retention::DEFAULT).expect("sound");
    assert_eq!(other.journal(), catalog.journal());
    records.remove(&b"a"[..]);
    assert!(Catalog::load(&records, Retention::DEFAULT).is_err(), "entries without a head");
}
