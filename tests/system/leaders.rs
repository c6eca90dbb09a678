//! Who leads, as answers tell it, and what the load generator makes of it.

use crate::support::{self, Cluster, stderr};
use keyviz_proto::kv_client::KvClient;
use keyviz_proto::metadata::LEADER_METADATA;
use keyviz_proto::{Consistency, GetRequest, PutRequest};

fn leader(cluster: &Cluster) -> usize {
    let routes = cluster.json(&["routes", "list"]);
    let leader = routes["routes"][0]["leader"].as_u64().expect("the group has a leader");
    usize::try_from(leader).expect("an id of three") - 1
}

#[test]
fn answers_name_the_leader_where_another_node_answers() {
    let cluster = Cluster::start(3, &["--groups", "1"]);
    let leader = leader(&cluster);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        for node in 0..3 {
            let url = format!("http://{}", cluster.grpc[node]);
            let mut client = KvClient::connect(url).await.expect("the node listens");
            let put = PutRequest { key: "k".into(), value: "v".into() };
            let get = |consistency: Consistency| GetRequest {
                key: "k".into(),
                consistency: consistency.into(),
            };
            let put = client.put(put).await.expect("it serves");
            let read = client.get(get(Consistency::Linearizable)).await.expect("it serves");
            let stale = client.get(get(Consistency::Stale)).await.expect("it serves");
            let expected = (node != leader).then_some(cluster.grpc[leader].as_str());
            for said in [put.metadata(), read.metadata()] {
                let named = said.get(LEADER_METADATA).map(|value| value.to_str().expect("text"));
                assert_eq!(named, expected, "node {node}, where {leader} leads");
            }
            let named = stale.metadata().get(LEADER_METADATA);
            assert_eq!(named, None, "any replica serves a stale read as well");
        }
    });
}

#[test]
fn load_goes_to_the_leader_leaves_some_reads_at_home_and_survives_its_death() {
    let mut cluster = Cluster::start(3, &["--groups", "1", "--keyviz-step", "1s"]);
    let load = ["load", "--keys", "100", "--clients", "12", "--operations", "4000"];
    let follower_reads = |cluster: &Cluster, more: &[&str]| {
        let before = cluster.total(0, "reads", &["--role", "follower-read"]);
        let report = cluster.json(&[&load, more].concat());
        assert_eq!(report["errors"], 0, "{report}");
        let served = cluster.total(0, "reads", &["--role", "follower-read"]) - before;
        (served, report["reads_ok"].as_u64().expect("a count"))
    };
    // Of clients that are spread over three nodes, two thirds are at a follower.
    let (served, of) = follower_reads(&cluster, &["--spread"]);
    assert!(served * 2 > of && of > 1_000, "{served} of {of} reads by followers");
    let (served, of) = follower_reads(&cluster, &[]);
    assert!(served > 0 && served * 4 < of, "{served} of {of} reads by followers");

    let leader = leader(&cluster);
    let clients = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let nodes = cluster.grpc.join(",");
            let mut load = std::process::Command::new(support::KEYVIZ);
            load.args(["load", "--keys", "100", "--clients", "12", "--operations", "4000"]);
            load.args(["--verify", "--rate", "1000", "--node", &nodes, "--format", "json"]);
            load.output().expect("it runs")
        });
        std::thread::sleep(std::time::Duration::from_secs(1));
        support::signal_pid(cluster.pid(leader), "KILL");
        running.join().expect("no panic")
    });
    cluster.kill(leader);
    let report: serde_json::Value = serde_json::from_slice(&clients.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", stderr(&clients)));
    assert_eq!(report["missing"], 0, "{report}");
    let done = report["writes_acked"].as_u64().unwrap() + report["reads_ok"].as_u64().unwrap();
    assert!(done > 3_000, "the others go on: {report}");
}
