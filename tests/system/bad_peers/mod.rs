//! Members that misbehave in every way that a network, a disk, another version or a bug could make
//! them: the matrix is right for the others and says what was wrong with that one.
//!
//! The peers are real gRPC servers on loopback. Node 3 is the bad one.

mod proxy;
mod scripted;
mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use keyviz_core::NodeId;
use keyviz_core::query::MAX_TOTALS;
use keyviz_fanout::{Asker as Whose, Work};
use keyviz_proto as proto;
use scripted::{Scripted, Step, send};
use support::{
    Asker, CLUSTER, PLENTY, Serving, assert_right_for_the_others, assert_with_the_third,
    assert_without_the_third, listen, local, peer, peer_of, request,
};
use tokio::io::AsyncWriteExt as _;
use tonic::codegen::{Service, http};

/// Where a test waits for a deadline. The healthy nodes need a few milliseconds.
const DEADLINE: Duration = Duration::from_secs(2);

fn scripted() -> Scripted {
    Scripted::new(peer(3, CLUSTER))
}

/// A peer that answers at once, but wrongly.
async fn assert_told(peer: Scripted, why: &str) {
    let third = Serving::peer(peer).await;
    let asker = Asker::new(&third.address, PLENTY).await;
    assert_without_the_third(&asker.ask().await, why);
    // Asked again it is no better, and harms no more.
    assert_without_the_third(&asker.ask().await, why);
}

#[tokio::test]
async fn a_peer_as_it_should_be() {
    let third = Serving::peer(scripted()).await;
    let asker = Asker::new(&third.address, PLENTY).await;
    assert_with_the_third(&asker.ask().await);
}

#[tokio::test]
async fn a_peer_that_is_down() {
    let (listener, address) = listen().await;
    drop(listener);
    let asker = Asker::new(&address, PLENTY).await;
    assert_without_the_third(&asker.ask().await, "refused");
}

#[tokio::test]
async fn a_peer_that_takes_connections_and_says_nothing() {
    // The system takes the connection; nobody reads it.
    let (_listener, address) = listen().await;
    let asker = Asker::new(&address, DEADLINE).await;
    assert_without_the_third(&asker.ask().await, "within the deadline of 2000 ms");
}

#[tokio::test]
async fn a_peer_that_is_slow_but_not_too_slow() {
    let slow = scripted().totals(|chunks| {
        // Longer than round one waits.
        let pause = Step::Wait(DEADLINE * 6 / 10);
        std::iter::once(pause).chain(send(chunks)).collect()
    });
    let third = Serving::peer(slow).await;
    let asker = Asker::new(&third.address, DEADLINE).await;
    assert_with_the_third(&asker.ask().await);
}

#[tokio::test]
async fn a_peer_that_is_too_slow() {
    let slow = |chunks| std::iter::once(Step::Wait(DEADLINE)).chain(send(chunks)).collect();
    let third = Serving::peer(scripted().totals(slow)).await;
    let asker = Asker::new(&third.address, DEADLINE).await;
    assert_without_the_third(&asker.ask().await, "within the deadline");
    let slow = |chunks| std::iter::once(Step::Wait(DEADLINE)).chain(send(chunks)).collect();
    let third = Serving::peer(scripted().columns(slow)).await;
    let asker = Asker::new(&third.address, DEADLINE).await;
    assert_without_the_third(&asker.ask().await, "within the deadline");
}

#[tokio::test]
async fn a_peer_that_hangs_in_the_middle_of_an_answer() {
    let hung = scripted().columns(|mut chunks| {
        // It answers for the first column and then stops.
        chunks[0].covers_to = 1;
        chunks[0].held = vec![0, 1];
        chunks[0].parts.retain(|part| part.column == 0);
        send(chunks).into_iter().chain([Step::Hang]).collect()
    });
    let third = Serving::peer(hung).await;
    let asker = Asker::new(&third.address, DEADLINE).await;
    assert_without_the_third(&asker.ask().await, "within the deadline");
    let hung = scripted().totals(|chunks| send(chunks).into_iter().chain([Step::Hang]).collect());
    let third = Serving::peer(hung).await;
    let asker = Asker::new(&third.address, DEADLINE).await;
    assert_without_the_third(&asker.ask().await, "within the deadline");
}

#[tokio::test]
async fn a_peer_that_breaks_off() {
    let broken = scripted().columns(|mut chunks| {
        chunks[0].covers_to = 2;
        chunks[0].held = vec![0, 2];
        chunks[0].parts.retain(|part| part.column < 2);
        send(chunks)
    });
    assert_told(broken, "ends after 2 of 3 columns").await;
    assert_told(scripted().totals(|_| Vec::new()), "answered nothing").await;
    assert_told(scripted().columns(|_| Vec::new()), "ends after 0 of 3 columns").await;
}

#[tokio::test]
async fn a_peer_that_is_no_grpc_server() {
    let (listener, address) = listen().await;
    let third = Serving::new(address, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Any fixed bytes that are no HTTP/2 frame of sense.
            let noise: Vec<u8> = (0..4_096u32).map(|n| (n * 167 % 251) as u8).collect();
            let _ = stream.write_all(&noise).await;
        }
    });
    let asker = Asker::new(&third.address, PLENTY).await;
    assert_without_the_third(&asker.ask().await, "");
    assert_without_the_third(&asker.ask().await, "");
}

/// Answers every call with a message that is no protobuf.
#[derive(Clone)]
struct Garbage;

impl tonic::server::NamedService for Garbage {
    const NAME: &'static str = "keyviz.v1.KeyVizPeer";
}

impl Service<http::Request<tonic::body::Body>> for Garbage {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        // One message of 5 bytes, which begins a field that is longer than it.
        let body = tonic::body::Body::new("\0\0\0\0\u{5}zzzzz".to_owned());
        let answer = http::Response::builder().header("content-type", "application/grpc");
        std::future::ready(Ok(answer.body(body).expect("the header is sound")))
    }
}

#[tokio::test]
async fn a_peer_that_answers_garbage() {
    let (listener, address) = listen().await;
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server =
        tonic::transport::Server::builder().add_service(Garbage).serve_with_incoming(incoming);
    let third = Serving::new(address, async move { server.await.expect("it serves") });
    let asker = Asker::new(&third.address, PLENTY).await;
    assert_without_the_third(&asker.ask().await, "decode");
}

#[tokio::test]
async fn a_peer_of_another_cluster() {
    let why = "cluster-b";
    // One that looks at the question, and two that do not.
    assert_told(Scripted::new(peer(3, why)), why).await;
    assert_told(scripted().total(|chunk| chunk.cluster_id = "cluster-b".into()), why).await;
    assert_told(scripted().column(|chunk| chunk.cluster_id = "cluster-b".into()), why).await;
}

#[tokio::test]
async fn a_peer_of_another_version() {
    assert_told(scripted().total(|chunk| chunk.version = 9), "form 9").await;
    assert_told(scripted().column(|chunk| chunk.version = 0), "form 0").await;
    assert_told(scripted().total(|chunk| chunk.step_ms = 7_000), "7000 ms wide").await;
    let source = |chunk: &mut proto::ColumnsChunk| chunk.key_sources[0] = 9;
    assert_told(scripted().column(source), "source 9").await;
}

#[tokio::test]
async fn a_peer_that_is_somebody_else() {
    assert_told(scripted().total(|chunk| chunk.node_id = 9), "it is node 9").await;
    assert_told(scripted().column(|chunk| chunk.node_id = 2), "it is node 2").await;
    // A member whose address leads to another one, which speaks for itself only.
    let second = Serving::peer(peer(2, CLUSTER)).await;
    let asker = Asker::of(&[(2, &second.address), (3, &second.address)], PLENTY);
    assert_without_the_third(&asker.ask().await, "it is node 2");
}

#[tokio::test]
async fn a_peer_with_an_axis_out_of_order() {
    assert_told(scripted().total(|chunk| chunk.ranges.reverse()), "out of order").await;
    let empty = |chunk: &mut proto::TotalsChunk| chunk.ranges[0].end = Some("".into());
    assert_told(scripted().total(empty), "out of order").await;
    let torn = |chunk: &mut proto::TotalsChunk| {
        chunk.packed = Some(proto::PackedRanges { ends: vec![0], ..Default::default() });
    };
    assert_told(scripted().total(torn), "do not fit together").await;
    assert_told(scripted().column(|chunk| chunk.key_rows.reverse()), "out of order").await;
    assert_told(scripted().column(|chunk| chunk.parts.reverse()), "out of order").await;
    let twice = |chunk: &mut proto::ColumnsChunk| chunk.parts.push(chunk.parts[2].clone());
    assert_told(scripted().column(twice), "out of order").await;
    let ragged = |chunk: &mut proto::ColumnsChunk| chunk.key_terms.truncate(1);
    assert_told(scripted().column(ragged), "different lengths").await;
    // Two numbers of eight bits.
    let zero = |chunk: &mut proto::ColumnsChunk| chunk.parts[0].values = packed(&[8, 0, 0, 7]);
    assert_told(scripted().column(zero), "zero").await;
    let again = scripted().columns(|chunks| send([chunks.clone(), chunks].concat()));
    assert_told(again, "twice").await;
}

#[tokio::test]
async fn a_peer_with_values_that_overflow() {
    let peer = scripted()
        .total(|chunk| chunk.ranges.iter_mut().for_each(|range| range.total = u64::MAX))
        .column(|chunk| {
            // Two numbers of 64 bits, all set.
            let largest = packed(&[&[64, 0][..], &[0xff; 16]].concat());
            chunk.parts.iter_mut().for_each(|part| part.values = largest.clone());
        });
    let third = Serving::peer(peer).await;
    let asker = Asker::new(&third.address, PLENTY).await;
    let answer = asker.ask().await;
    assert_right_for_the_others(&answer);
    assert!(answer.matrix.saturated, "the answer says that its sums are lower bounds");
    assert_eq!((answer.matrix.total, answer.matrix.responded), (u64::MAX, 3));
    assert!(answer.matrix.rows.iter().all(|row| row.values == [u64::MAX; 3]));
    let unsound: [&[u8]; 6] = [
        // Keys beyond any, and beyond those that were named.
        &[32, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[8, 0, 0, 6],
        // More bits than a number has; a patch of a number that is not there; too short, too long.
        &[65, 0, 0, 0],
        &[0, 1, 2, 1],
        &[8, 0, 0],
        &[8, 0, 0, 0, 0],
    ];
    for bytes in unsound {
        let keys = move |chunk: &mut proto::ColumnsChunk| chunk.parts[0].keys = packed(bytes);
        assert_told(scripted().column(keys), "out of order, unnamed or zero").await;
    }
    let more = |chunk: &mut proto::ColumnsChunk| chunk.parts[0].cells = u32::MAX;
    assert_told(scripted().column(more), "too many").await;
    let more = |chunk: &mut proto::ColumnsChunk| chunk.parts[1].cells = 1;
    assert_told(scripted().column(more), "out of order, unnamed or zero").await;
}

fn packed(numbers: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(numbers)
}

#[tokio::test]
async fn bounds_a_peer_that_sends_ten_times_what_was_promised() {
    let rows = |chunk: &mut proto::ColumnsChunk| {
        let keys = 10 * chunk.key_rows.len() as u32;
        chunk.key_rows = (0..keys).collect();
        chunk.key_sources = vec![2; keys as usize];
        chunk.key_groups = vec![0; keys as usize];
        chunk.key_terms = vec![0; keys as usize];
    };
    assert_told(scripted().column(rows), "of row 2, of 2").await;
    let columns = |chunk: &mut proto::ColumnsChunk| chunk.covers_to = 30;
    assert_told(scripted().column(columns), "ends after 30 of 3 columns").await;
    let ranges = scripted().totals(|chunks| {
        let crowd = vec![proto::TotalsRange { total: 1, ..Default::default() }; MAX_TOTALS / 2];
        let crowd = proto::TotalsChunk { ranges: crowd, ..chunks[0].clone() };
        send(vec![crowd; 20])
    });
    assert_told(ranges, "more than 131072 ranges").await;
    let packed = scripted().totals(|chunks| {
        let packed = proto::PackedRanges { totals: vec![1; MAX_TOTALS / 2], ..Default::default() };
        let crowd = proto::TotalsChunk { packed: Some(packed), ..chunks[0].clone() };
        send(vec![crowd; 20])
    });
    assert_told(packed, "more than 131072 ranges").await;
}

#[tokio::test]
async fn a_peer_with_a_column_of_the_future() {
    let part = |chunk: &mut proto::ColumnsChunk| chunk.parts[2].column = 3;
    assert_told(scripted().column(part), "column 3").await;
    let held = |chunk: &mut proto::ColumnsChunk| chunk.held = vec![0, 9];
    assert_told(scripted().column(held), "outside the plan").await;
    let covers = |chunk: &mut proto::ColumnsChunk| (chunk.covers_from, chunk.covers_to) = (3, 6);
    assert_told(scripted().column(covers), "out of order").await;
}

#[tokio::test]
async fn a_peer_that_claims_another_nodes_term_is_a_conflict_that_names_both() {
    let claim = |chunk: &mut proto::ColumnsChunk| chunk.key_terms.fill(2);
    let third = Serving::peer(scripted().column(claim)).await;
    let asker = Asker::new(&third.address, PLENTY).await;
    let answer = asker.ask().await;
    // The larger claim is that of node 3; node 2's is not counted beside it.
    assert_eq!(answer.matrix.total, 3 * 3 * (1 + 10_000));
    assert!(answer.matrix.rows.iter().all(|row| row.conflict.len() == 3));
    let both = vec![NodeId(2), NodeId(3)];
    let conflicts = &answer.matrix.conflicts;
    assert_eq!(conflicts.len(), 2, "one a group");
    assert!(conflicts.iter().all(|conflict| conflict.term.0 == 2 && conflict.nodes == both));
}

#[tokio::test]
async fn a_peer_that_forgot_the_beginning_of_the_window() {
    let forgot = |chunk: &mut proto::ColumnsChunk| chunk.forgotten_before_ms = 1_000_001_000;
    let third = Serving::peer(scripted().column(forgot)).await;
    let asker = Asker::new(&third.address, PLENTY).await;
    let answer = asker.ask().await;
    assert_right_for_the_others(&answer);
    assert!(answer.matrix.nodes[2].past_history);
    let partial = |row: &keyviz_core::Row| row.partial.iter().collect::<Vec<_>>();
    assert!(answer.matrix.rows.iter().all(|row| partial(row) == [0]));
}

/// A peer whose connection is reset after each number of bytes that it sends or is sent, from none
/// to the whole exchange. Every number is tried: a reset is a reset wherever in a frame it comes,
/// but only trying shows it.
async fn resets(direction: proxy::Direction) {
    let third = Serving::peer(peer(3, CLUSTER)).await;
    let (whole, carried) = proxy::start(third.address.clone(), direction, usize::MAX).await;
    assert_with_the_third(&Asker::new(&whole.address, PLENTY).await.ask().await);
    let length = carried.load(std::sync::atomic::Ordering::Relaxed);
    let healthy = Serving::peer(peer(2, CLUSTER)).await;
    let mut in_full = 0;
    for limit in 0..=length + 64 {
        let (cut, _) = proxy::start(third.address.clone(), direction, limit).await;
        let asker = Asker::of(&[(2, &healthy.address), (3, &cut.address)], PLENTY);
        let answer = asker.ask().await;
        if answer.matrix.nodes[2].ok {
            // Both rounds came through, be it over two connections.
            assert_with_the_third(&answer);
            in_full += 1;
        } else {
            assert_without_the_third(&answer, "");
            assert_ne!(answer.matrix.nodes[2].error.as_deref(), Some(""), "it says why");
        }
    }
    assert!(in_full > 0 && in_full < length, "{in_full} of {length} came through");
}

#[tokio::test]
async fn a_peer_that_resets_after_every_number_of_bytes_sent() {
    resets(proxy::Direction::Answers).await;
}

#[tokio::test]
async fn a_peer_that_resets_after_every_number_of_bytes_received() {
    resets(proxy::Direction::Questions).await;
}

#[tokio::test]
async fn no_harm_a_question_whose_asker_went_away_leaves_the_peers_queue() {
    let busy = local(3, Work::new(1, 1, 1, 8));
    let third = Serving::peer(peer_of(Arc::clone(&busy), CLUSTER)).await;
    // Its only place is taken for as long as the test likes.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let blocker = tokio::spawn({
        let busy = Arc::clone(&busy);
        async move { busy.work().compute(Whose::Own, move |_| released.recv().ok()).await }
    });
    while busy.work().free_computations() > 0 {
        tokio::task::yield_now().await;
    }
    let asker = Asker::new(&third.address, PLENTY).await;
    let fanout = Arc::clone(&asker.fanout);
    let question = tokio::spawn(async move { fanout.cluster(&request()).await });
    while busy.work().waiting_computations() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    question.abort();
    // The stream is reset, and the peer drops the call.
    while busy.work().waiting_computations() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    release.send(()).expect("the blocker waits");
    blocker.await.expect("no panic").expect("it was released");
    assert_with_the_third(&asker.ask().await);
}

#[tokio::test]
async fn bounds_a_peer_with_too_much_to_do_refuses_in_words() {
    let busy = local(3, Work::new(1, 1, 1, 0));
    let third = Serving::peer(peer_of(Arc::clone(&busy), CLUSTER)).await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let blocker = tokio::spawn({
        let busy = Arc::clone(&busy);
        async move { busy.work().compute(Whose::Own, move |_| released.recv().ok()).await }
    });
    while busy.work().free_computations() > 0 {
        tokio::task::yield_now().await;
    }
    let asker = Asker::new(&third.address, PLENTY).await;
    assert_without_the_third(&asker.ask().await, "at its limit of matrix work");
    release.send(()).expect("the blocker waits");
    blocker.await.expect("no panic").expect("it was released");
    assert_with_the_third(&asker.ask().await);
}
