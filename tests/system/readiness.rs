//! Ready means: this node knows, since seconds at most, that its groups can be served.

use crate::support::{self, Cluster, eventually, http_answer, is_ready};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// What a gRPC probe of this service gets; `None`: no answer.
fn health(address: &str, service: &str) -> Option<ServingStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = endpoint.connect().await.ok()?;
        let ask = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel).check(ask).await.ok()?.into_inner();
        Some(answer.status())
    })
}

fn serves(cluster: &Cluster, index: usize, status: ServingStatus) -> bool {
    let services = ["", "keyviz.v1.Kv", "keyviz.v1.KeyViz", "keyviz.v1.Cluster"];
    services.iter().all(|service| health(&cluster.grpc[index], service) == Some(status))
}

/// The words of a `/readyz` that says no.
fn not_ready(cluster: &Cluster, index: usize) -> Option<String> {
    let answer = http_answer(&cluster.http[index], "/readyz").ok()?;
    answer.starts_with("HTTP/1.1 503").then_some(answer)
}

fn groups(cluster: &Cluster, at: usize) -> Vec<serde_json::Value> {
    let status = cluster.json_on(at, &["cluster", "status"]);
    status["groups"].as_array().expect("groups").clone()
}

#[test]
fn a_node_without_a_quorum_is_not_ready_says_of_which_groups_and_names_no_dead_leader() {
    let mut cluster = Cluster::start(3, &["--groups", "2"]);
    // Of each kind: a leader that is left alone, and a follower whose leader dies.
    let leads = |cluster: &Cluster| {
        let led = groups(cluster, 0).into_iter().filter_map(|group| group["leader"].as_u64());
        led.collect::<Vec<_>>()
    };
    eventually("all groups have leaders", || leads(&cluster).len() == 3);
    for at in 0..3 {
        // The health service follows within a second.
        eventually("it serves for gRPC", || serves(&cluster, at, ServingStatus::Serving));
    }
    cluster.kill(1);
    cluster.kill(2);
    let words = std::cell::RefCell::new(String::new());
    eventually("the node that is left is not ready", || {
        *words.borrow_mut() = not_ready(&cluster, 0).unwrap_or_default();
        let words = words.borrow();
        ["Raft group 0", "Raft group 1", "Raft group 2"].iter().all(|group| words.contains(group))
    });
    eventually("nor for gRPC", || serves(&cluster, 0, ServingStatus::NotServing));
    for group in groups(&cluster, 0) {
        assert_eq!(group["leader"], serde_json::Value::Null, "{group}");
    }
    let status = cluster.json_on(0, &["cluster", "status"]);
    let member = &status["members"][0];
    assert!(member["not_ready"].as_str().is_some_and(|words| words.contains("Raft group 1")));
    let routes = cluster.json_on(0, &["routes", "list"]);
    for route in routes["routes"].as_array().expect("routes") {
        assert_eq!(route["leader"], serde_json::Value::Null, "{route}");
    }
    for group in 0..=2 {
        let metric = |name: &str| cluster.metric(0, &format!("keyviz_{name}{{group=\"{group}\"}}"));
        assert_eq!(metric("raft_quorum"), Some(0.0));
        assert_eq!(metric("raft_leading"), Some(0.0));
    }
    // And back.
    cluster.spawn(1);
    cluster.wait_until_serving();
    eventually("for gRPC too", || (0..2).all(|at| serves(&cluster, at, ServingStatus::Serving)));
    eventually("each group has a leader that lives", || {
        let leaders = leads(&cluster);
        leaders.len() == 3 && leaders.iter().all(|leader| *leader != 3)
    });
}

#[test]
fn a_node_without_a_cluster_is_not_ready() {
    let mut cluster = Cluster::prepare(3, &["--groups", "1"]);
    cluster.spawn(0);
    eventually("it answers", || not_ready(&cluster, 0).is_some());
    eventually("a gRPC probe is told the same", || serves(&cluster, 0, ServingStatus::NotServing));
    assert!(!is_ready(&cluster.http[0]));
    cluster.spawn(1);
    cluster.spawn(2);
    cluster.wait_until_serving();
    eventually("a gRPC probe is told so", || serves(&cluster, 0, ServingStatus::Serving));
}

#[test]
fn no_harm_a_rolling_restart_goes_from_node_to_node_by_readiness_alone() {
    let mut cluster = Cluster::start(3, &["--groups", "2"]);
    for index in 0..3 {
        assert_eq!(cluster.stop(index), Some(0));
        cluster.spawn(index);
        eventually("the restarted node is ready", || is_ready(&cluster.http[index]));
        let put = cluster.run_on(index, &["put", &format!("key/{index}"), "value"]);
        assert!(put.status.success(), "{}", support::stderr(&put));
    }
}
