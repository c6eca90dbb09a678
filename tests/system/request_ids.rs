//! Request ids on a real cluster.

use crate::support::{self, Cluster, eventually};
use keyviz_kv::KvCommand;
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::kv_peer_client::KvPeerClient;
use keyviz_proto::metadata::REQUEST_ID;
use keyviz_proto::propose_outcome::Outcome;
use keyviz_proto::{ProposeBatchRequest, ProposeOutcome, PutRequest, PutResponse};
use prost::Message as _;
use tonic::{Request, Response, Status};

fn a_cluster_that_tells() -> Cluster {
    Cluster::start(3, &["--log", "info,keyviz=debug", "--groups", "1"])
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime starts")
}

async fn put(address: String, key: String, id: String) -> Result<Response<PutResponse>, Status> {
    let mut client = KvClient::connect(address).await.expect("the node listens");
    let mut request = Request::new(PutRequest { key: key.into(), value: "v".into() });
    request.metadata_mut().insert(REQUEST_ID, id.parse().expect("it is metadata"));
    client.put(request).await
}

impl Cluster {
    fn url(&self, node: usize) -> String {
        format!("http://{}", self.grpc[node])
    }

    /// How often node `node` has told what came of a command passed on under an id.
    fn tells_of(&self, node: usize, id: &str) -> usize {
        let span = format!("passed_on{{id=\"{id}\"}}");
        let told = |line: &&str| line.contains(&span) && line.contains("proposed and applied");
        self.log(node).lines().filter(told).count()
    }
}

/// Where the id of a request is seen: in the answer, also of a refusal, and in the logs of the
/// node that was asked and of the leader to which that passed the request on.
#[test]
fn the_id_of_a_request_goes_with_it() {
    let cluster = a_cluster_that_tells();
    let id_at = |node: usize| format!("at-{node}");
    runtime().block_on(async {
        // At every node, so that two of the three pass it on.
        for node in 0..3 {
            let answer = put(cluster.url(node), "key".to_owned(), id_at(node)).await;
            let answer = answer.expect("the cluster serves");
            assert_eq!(answer.metadata().get(REQUEST_ID).expect("it has an id"), &*id_at(node));
        }
        let refused = put(cluster.url(0), String::new(), "empty-key".to_owned()).await;
        let refused = refused.expect_err("a key is never empty");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert_eq!(refused.metadata().get(REQUEST_ID).expect("a refusal has it"), "empty-key");
    });
    eventually("two of three requests show at a leader, each once", || {
        let at_others = |asked: usize| {
            (0..3)
                .filter(|node| *node != asked)
                .map(|node| cluster.tells_of(node, &id_at(asked)))
                .sum()
        };
        let mut seen: Vec<usize> = (0..3).map(at_others).collect();
        seen.sort_unstable();
        seen == [0, 1, 1]
    });
    for node in 0..3 {
        let span = format!("request{{id=\"{}\" path=\"/keyviz.v1.Kv/Put\"}}", id_at(node));
        eventually("the node that was asked tells of it", || cluster.log(node).contains(&span));
        assert_eq!(cluster.tells_of(node, &id_at(node)), 0, "nobody passes it on to itself");
    }
    let answer = support::http_head(&cluster.http[0], "/healthz");
    assert!(answer.contains("x-request-id: "), "{answer}");
}

/// Writes that leave together keep their ids apart.
#[test]
fn each_write_of_a_batch_keeps_its_own_id() {
    const WRITES: usize = 300;
    let cluster = a_cluster_that_tells();
    let ids = |node: usize| (0..WRITES).map(move |at| format!("write-{node}-{at}"));
    runtime().block_on(async {
        for node in 0..3 {
            let mut client = KvClient::connect(cluster.url(node)).await.expect("the node listens");
            // The group has a leader by then, so that the rest is passed on once.
            client
                .put(PutRequest { key: "first".into(), value: "v".into() })
                .await
                .expect("served");
            let puts = ids(node).map(|id| {
                let mut client = client.clone();
                async move {
                    let put = PutRequest { key: id.clone().into(), value: "v".into() };
                    let mut request = Request::new(put);
                    request.metadata_mut().insert(REQUEST_ID, id.parse().expect("it is metadata"));
                    client.put(request).await
                }
            });
            futures::future::try_join_all(puts).await.expect("the cluster serves");
        }
    });
    let told = |asked: usize, id: &str| -> usize {
        (0..3).filter(|node| *node != asked).map(|node| cluster.tells_of(node, id)).sum()
    };
    eventually("two nodes passed all on", || {
        let whole = |node: &usize| ids(*node).all(|id| told(*node, &id) >= 1);
        (0..3).filter(whole).count() == 2
    });
}

/// What a node of before request ids knows of a batch.
#[derive(Clone, PartialEq, prost::Message)]
struct EarlierBatch {
    #[prost(string, tag = "1")]
    cluster_id: String,
    #[prost(uint64, tag = "2")]
    group_id: u64,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    commands: Vec<bytes::Bytes>,
}

/// While nodes are replaced one by one, batches go both ways between such with ids and such
/// without.
#[test]
fn batches_with_and_without_ids_are_understood_on_both_sides() {
    let command = |key: &str| KvCommand::Put { key: key.as_bytes(), value: b"v" }.encode();
    let batch = |ids: &[&str]| ProposeBatchRequest {
        cluster_id: String::new(),
        group_id: 1,
        commands: vec![command("a"), command("b")],
        trace_parents: Vec::new(),
        request_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let whole = batch(&["id-a", "id-b"]);
    let read = EarlierBatch::decode(whole.encode_to_vec().as_slice()).expect("it can be read");
    assert_eq!(read.commands, whole.commands);
    let earlier = read.encode_to_vec();
    assert_eq!(ProposeBatchRequest::decode(earlier.as_slice()), Ok(batch(&[])));

    let cluster = a_cluster_that_tells();
    let unsound = format!("{}\n", "x".repeat(100));
    let batches: [&[&str]; 6] = [
        &[],
        &["only-a"],
        &["", "only-b"],
        &["all-a", "all-b"],
        &["1", "2", "3"],
        &[&unsound, "c d"],
    ];
    runtime().block_on(async {
        for ids in batches {
            let outcomes = proposed_by_the_leader(&cluster, batch(ids)).await;
            assert_eq!(outcomes.len(), 2, "{ids:?}");
        }
    });
    let told = |id: &str| (0..3).map(|node| cluster.tells_of(node, id)).sum::<usize>();
    for id in ["only-a", "only-b", "all-a", "all-b", "1", "2"] {
        eventually("the leader tells of it", || told(id) == 1);
    }
    for node in 0..3 {
        assert!(!cluster.log(node).contains("xxxxxxxxxx"), "what no log can show is not shown");
    }
}

/// What the leader answers to a batch, as its peers ask it.
async fn proposed_by_the_leader(
    cluster: &Cluster,
    batch: ProposeBatchRequest,
) -> Vec<ProposeOutcome> {
    let deadline = std::time::Instant::now() + support::PATIENCE;
    for node in (0..3).cycle() {
        assert!(std::time::Instant::now() < deadline, "no node leads");
        let client = KvPeerClient::connect(cluster.url(node)).await;
        let answers = client.expect("the node listens").propose(batch.clone()).await;
        let mut chunks = answers.expect("a peer is served").into_inner();
        let mut outcomes = Vec::new();
        while let Some(chunk) = chunks.message().await.expect("the answer is whole") {
            outcomes.extend(chunk.outcomes);
        }
        let done = |outcome: &ProposeOutcome| matches!(outcome.outcome, Some(Outcome::Reply(_)));
        if outcomes.iter().all(done) {
            return outcomes;
        }
    }
    unreachable!("the nodes are asked again and again")
}
