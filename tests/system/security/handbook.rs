//! Every command of the handbook on a cluster with TLS, token and secret, as an operator types it:
//! with the variables that `docs/operations.md` sets first.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::secured::{Secured, TOKEN, https};
use crate::support::certs::Use;
use crate::support::{Cluster, KEYVIZ, eventually, free_addresses, stderr};

struct Operator<'a> {
    files: &'a Secured,
    nodes: String,
}

impl Operator<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(KEYVIZ)
            .args(arguments)
            .env("KEYVIZ_NODE", &self.nodes)
            .env("KEYVIZ_TLS_CA", self.files.path("ca.pem"))
            .env("KEYVIZ_TOKEN_FILE", self.files.path("token"))
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts")
    }

    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert!(ran.status.success(), "{arguments:?}: {:?} {}", ran.status, stderr(&ran));
        String::from_utf8(ran.stdout).expect("text")
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.does(&[arguments, &["--format", "json"]].concat());
        serde_json::from_str(&said).expect("--format json prints JSON")
    }
}

fn ready(files: &Secured, cluster: &Cluster, index: usize) {
    eventually("the node says that it is ready", || {
        let answer = https(&cluster.http[index], &files.path("ca.pem"), "/readyz", "");
        answer.is_ok_and(|answer| answer.0 == 200)
    });
}

#[test]
fn every_command_of_the_handbook_works_on_a_secured_cluster() {
    let files = Secured::new();
    let mut cluster = files.cluster(3, &["--groups", "2"]);
    let operator = Operator { files: &files, nodes: cluster.grpc.join(",") };

    // Keys.
    operator.does(&["put", "hello", "world"]);
    assert_eq!(operator.does(&["get", "hello"]).trim(), "world");
    operator.does(&["cas", "hello", "--expect", "world", "there"]);
    files.write("operations", "put a 1\nput b 2\ndelete hello\n");
    operator.does(&["batch", &files.path("operations")]);
    assert!(operator.does(&["scan", ""]).contains('b'));
    operator.does(&["delete", "a"]);
    operator.does(&["delete-range", "b", "c"]);
    operator.does(&["load", "--duration", "2s", "--rate", "50", "--clients", "2", "--verify"]);

    // Routes.
    let routes = operator.does(&["routes", "list", "--format", "json"]);
    assert!(routes.contains("route_id") || routes.contains("\"id\""), "{routes}");
    // Route 1 begins with the first key there can be.
    operator.does(&["routes", "split", "1", "!"]);
    operator.does(&["routes", "history"]);
    let mut watch = Command::new(KEYVIZ)
        .args(["routes", "watch"])
        .env("KEYVIZ_NODE", &operator.nodes)
        .env("KEYVIZ_TLS_CA", files.path("ca.pem"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut first = [0; 16];
    std::io::Read::read_exact(watch.stdout.as_mut().expect("piped"), &mut first).expect("routes");
    watch.kill().expect("the process is ours");
    watch.wait().expect("the process is ours");
    let history = operator.does(&["routes", "history", "--format", "json"]);
    let created: Value =
        serde_json::from_str(history.lines().next().expect("a line")).expect("JSON");
    let ids = find_created(&created).expect("the split created two routes");
    operator.does(&["routes", "merge", &ids.0.to_string(), &ids.1.to_string()]);
    operator.does(&["heat", "--last", "5m"]);
    operator.does(&["heat", "--last", "5m", "--scope", "node"]);

    // Members.
    let status = operator.json(&["cluster", "status"]);
    assert_eq!(status["members"].as_array().map(Vec::len), Some(3));
    let mut groups = status["groups"].as_array().expect("groups").iter();
    let group = groups.find(|group| group["group_id"] == 1).expect("the group");
    let to = if group["leader"] == 2 { "3" } else { "2" };
    operator.does(&["cluster", "transfer-leader", "1", to]);
    operator.does(&["cluster", "verify"]);
    let fourth = cluster.enlist(0);
    cluster.spawn(fourth);
    ready(&files, &cluster, fourth);
    operator.does(&["cluster", "add-node", "4", &cluster.grpc[fourth].clone()]);
    operator.does(&["cluster", "remove-node", "4"]);
    assert_eq!(operator.json(&["cluster", "status"])["members"].as_array().map(Vec::len), Some(3));
    let fifth = cluster.enlist(0);
    cluster.spawn(fifth);
    ready(&files, &cluster, fifth);
    cluster.kill(2);
    operator.does(&["cluster", "replace-node", "3", "--with", "5"]);
    let members = operator.json(&["cluster", "status"])["members"].clone();
    assert!(members.as_array().expect("members").iter().all(|member| member["id"] != 3));

    // Backup and restore, and a look at a folder.
    let backup = files.path("a.backup");
    operator.does(&["backup", "--out", &backup]);
    let restored = files.path("restored");
    let address = free_addresses(1).remove(0);
    let first = format!("1={address}");
    let restore = ["restore", "--from", &backup, "--data", &restored, "--id", "1", "--bootstrap"];
    operator.does(&[&restore[..], &[&first]].concat());
    operator.does(&["check", "--data", &restored]);
    for index in [0, 1, fifth] {
        assert_eq!(cluster.stop(index), Some(0));
    }
    operator.does(&["check", "--data", cluster.data(0).to_str().expect("text")]);
}

/// The ids of the first two routes that anything in there created.
fn find_created(value: &Value) -> Option<(u64, u64)> {
    if let Some(created) = value["created"].as_array()
        && created.len() == 2
    {
        let id = |at: usize| {
            let route = &created[at];
            route.as_u64().or_else(|| route["id"].as_u64()).or_else(|| route["route_id"].as_u64())
        };
        return Some((id(0)?, id(1)?));
    }
    match value {
        Value::Object(fields) => fields.values().find_map(find_created),
        Value::Array(items) => items.iter().find_map(find_created),
        _ => None,
    }
}

#[test]
fn a_certificate_that_ends_soon_is_in_the_log_in_readyz_in_the_status_and_in_the_metrics() {
    let files = Secured::new();
    files.issue("node", Use::EndsSoon);
    let cluster = files.cluster(1, &["--groups", "1"]);
    let operator = Operator { files: &files, nodes: cluster.grpc.join(",") };
    let words = "the certificate of this node expires in 10 days";
    assert!(cluster.log(0).contains(words), "{}", cluster.log(0));
    let get = |path: &str| {
        let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
        https(&cluster.http[0], &files.path("ca.pem"), path, &bearer).expect(path)
    };
    assert!(get("/readyz").1.contains(words));
    assert_eq!(operator.json(&["cluster", "status"])["members"][0]["warning"], words);
    assert!(operator.does(&["cluster", "status"]).contains("expires in 10 days"));
    let end = |page: &str| {
        let name = "keyviz_certificate_expiry_timestamp_seconds ";
        page.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok())
    };
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let days =
        (end(&get("/metrics").1).expect("the metric") - now.expect("later").as_secs()) / 86_400;
    assert_eq!(days, 10);
    // One that holds for long says nothing more.
    files.issue("node", Use::Node);
    eventually("the new certificate is in force", || get("/readyz").1 == "ready\n");
    assert_eq!(operator.json(&["cluster", "status"])["members"][0]["warning"], "");
}
