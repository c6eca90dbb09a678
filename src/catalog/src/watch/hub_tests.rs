//! Subscribers of every kind end with the same table.

use std::sync::Arc;

use crate::*;
use keyviz_types::{NodeId, RouteId};

/// A catalog with its hub: every change is published at once.
struct Node {
    catalog: Catalog,
    hub: WatchHub,
}

impl Node {
    fn new(retained: usize) -> Self {
        let retention = Retention { deltas: retained, ..Retention::DEFAULT };
        let mut node = Node { catalog: Catalog::new(retention), hub: WatchHub::new(retained) };
        let plan = plan_bootstrap(&[NodeId(1)], 1, 1, &[]).expect("sound");
        node.apply(plan.command(ClusterId([1; 16]), 1));
        node
    }

    fn apply(&mut self, command: CatalogCommand) {
        let delta = self.catalog.apply(command).expect("sound").delta;
        self.hub.publish(self.catalog.table().clone(), &[delta]).expect("in order");
    }

    /// Splits the last route.
    fn split(&mut self) {
        let last = self.catalog.table().get(self.catalog.table().len() - 1).expect("bootstrapped");
        self.apply(CatalogCommand::Split {
            route_id: last.id(),
            key: format!("{:08}", last.id().get()).into_bytes(),
            expected_version: 0,
            request_id: String::new(),
            time_ms: 2,
        });
    }
}

fn drain(subscription: &mut Subscription, replica: &mut RouteTableReplica) -> Vec<WatchEvent> {
    let events: Vec<_> = std::iter::from_fn(|| subscription.try_next()).collect();
    events.iter().for_each(|event| replica.apply(event).expect("fits"));
    events
}

#[test]
fn a_subscriber_from_0_gets_the_table_then_a_mark_then_changes() {
    let mut node = Node::new(8);
    node.split();
    let mut subscription = node.hub.subscribe(0).expect("not ahead");
    let mut replica = RouteTableReplica::new();
    let table = node.catalog.table().clone();
    assert_eq!(
        drain(&mut subscription, &mut replica),
        [WatchEvent::Snapshot { table, reset: false }, WatchEvent::Progress(2)]
    );
    assert!(replica.is_ready() && replica.is_current());
    node.split();
    node.split();
    let events = drain(&mut subscription, &mut replica);
    let newest: Vec<Arc<Delta>> = node.catalog.log().skip(1).cloned().collect();
    assert_eq!(events, [WatchEvent::Deltas(WatchDeltas::new(newest))]);
    assert_eq!(replica.table(), node.catalog.table());
    assert_eq!(subscription.progress(), Some(WatchEvent::Progress(4)));
}

#[test]
fn a_resumed_subscriber_gets_exactly_what_it_missed() {
    let mut node = Node::new(8);
    let mut replica = RouteTableReplica::new();
    drain(&mut node.hub.subscribe(0).expect("not ahead"), &mut replica);
    (0..5).for_each(|_| node.split());
    let mut resumed = node.hub.subscribe(replica.version()).expect("not ahead");
    let events = drain(&mut resumed, &mut replica);
    assert!(matches!(&events[..], [WatchEvent::Deltas(deltas), WatchEvent::Progress(6)]
        if deltas.len() == 5));
    assert_eq!(replica.table(), node.catalog.table());
}

#[test]
fn a_subscriber_behind_what_is_retained_gets_a_reset() {
    let mut node = Node::new(4);
    let mut stopped = node.hub.subscribe(0).expect("not ahead");
    let mut replica = RouteTableReplica::new();
    drain(&mut stopped, &mut replica);
    (0..4).for_each(|_| node.split());
    assert!(matches!(&drain(&mut stopped, &mut replica)[..], [WatchEvent::Deltas(_)]));
    (0..5).for_each(|_| node.split());
    assert!(matches!(
        &drain(&mut stopped, &mut replica)[..],
        [WatchEvent::Snapshot { reset: true, .. }, WatchEvent::Progress(10)]
    ));
    assert_eq!(replica.table(), node.catalog.table());
}

#[test]
fn a_cursor_ahead_of_the_node_is_refused() {
    let node = Node::new(4);
    let ahead = ChangesError::CursorAhead { cursor: 2, version: 1 };
    assert_eq!(node.hub.subscribe(2).expect_err("ahead"), ahead);
}

#[test]
fn what_does_not_follow_is_not_published() {
    let mut node = Node::new(4);
    node.split();
    let (table, log) =
        (node.catalog.table().clone(), node.catalog.log().cloned().collect::<Vec<_>>());
    assert_eq!(node.hub.publish(table.clone(), &log), Err(HubError::Hole { have: 2, table: 2 }));
    let old = RouteTable::empty();
    assert_eq!(node.hub.replace(old, &[]), Err(HubError::Backwards { have: 2, table: 0 }));
    assert_eq!(node.hub.table(), table);
}

#[test]
fn a_replaced_table_resets_those_whom_its_changes_do_not_reach() {
    let mut node = Node::new(2);
    let mut near = node.hub.subscribe(0).expect("not ahead");
    let mut far = node.hub.subscribe(0).expect("not ahead");
    let (mut near_table, mut far_table) = (RouteTableReplica::new(), RouteTableReplica::new());
    drain(&mut far, &mut far_table);
    node.split();
    node.split();
    drain(&mut near, &mut near_table);
    for _ in 0..2 {
        let last = node.catalog.table().get(node.catalog.table().len() - 1).expect("some");
        let key = format!("{:08}", last.id().get()).into_bytes();
        let split = CatalogCommand::Split {
            route_id: last.id(),
            key,
            expected_version: 0,
            request_id: String::new(),
            time_ms: 2,
        };
        node.catalog.apply(split).expect("inside");
    }
    let retained: Vec<_> = node.catalog.log().cloned().collect();
    node.hub.replace(node.catalog.table().clone(), &retained).expect("newer");
    assert!(matches!(&drain(&mut near, &mut near_table)[..], [WatchEvent::Deltas(_)]));
    assert!(matches!(
        &drain(&mut far, &mut far_table)[..],
        [WatchEvent::Snapshot { reset: true, .. }, WatchEvent::Progress(5)]
    ));
    assert_eq!(near_table.table(), far_table.table());
}

#[test]
fn a_follower_refuses_a_gap_whole_and_is_not_ready_until_something_fits() {
    let mut node = Node::new(8);
    let mut subscription = node.hub.subscribe(0).expect("not ahead");
    let mut replica = RouteTableReplica::new();
    drain(&mut subscription, &mut replica);
    (0..3).for_each(|_| node.split());
    let log: Vec<_> = node.catalog.log().cloned().collect();
    let before = replica.table().clone();
    let hole = WatchEvent::Deltas(WatchDeltas::new(vec![log[0].clone(), log[2].clone()]));
    let error = FollowError::Table(TableError::Hole { have: 2, found: 4 });
    assert_eq!(replica.apply(&hole), Err(error));
    assert_eq!(replica.table(), &before, "nothing of the event was taken");
    assert!(!replica.is_ready() && replica.fault().is_some());
    let not_current = FollowError::NotCurrent { have: 1, current: 4 };
    assert_eq!(replica.apply(&WatchEvent::Progress(4)), Err(not_current));
    replica.apply(&WatchEvent::Deltas(WatchDeltas::new(log))).expect("all of them");
    assert!(replica.is_ready());
    assert_eq!(replica.table(), node.catalog.table());
    let old = WatchEvent::Snapshot { table: before, reset: true };
    assert_eq!(replica.apply(&old), Err(FollowError::Backwards { have: 4, found: 1 }));
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken_and_told_when_the_hub_is_gone() {
    let mut node = Node::new(8);
    let mut subscription = node.hub.subscribe(1).expect("not ahead");
    assert_eq!(subscription.next().await, Some(WatchEvent::Progress(1)));
    let waiting = tokio::spawn(async move {
        let first = subscription.next().await;
        (first, subscription.next().await)
    });
    tokio::task::yield_now().await;
    node.split();
    tokio::task::yield_now().await;
    drop(node);
    let (first, last) = waiting.await.expect("no panic");
    assert!(matches!(first, Some(WatchEvent::Deltas(_))), "{first:?}");
    assert_eq!(last, None);
}

#[test]
fn ids_in_the_table_are_found() {
    let mut node = Node::new(8);
    (0..20).for_each(|_| node.split());
    let table = node.hub.table();
    for (at, route) in table.iter().enumerate() {
        assert_eq!(table.position(route.id()), Some(at));
        assert_eq!(table.locate(&route.range().start), Some(at));
        assert_eq!(table.overlapping(route.range()), at..at + 1);
    }
    assert_eq!(table.by_id(RouteId::FIRST), None);
}
