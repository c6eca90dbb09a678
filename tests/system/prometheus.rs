//! A real Prometheus scrapes a node, evaluates the rules of `deploy/`, and an alert fires and ends.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Cluster, eventually, free_addresses, http_answer, http_get, write_file};
use serde_json::Value;

/// A Prometheus that is killed when the value is dropped.
struct Prometheus {
    process: Child,
    address: String,
}

impl Prometheus {
    fn start(folder: &Path, targets: &[String]) -> Self {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules.yaml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{:?}]\n\
             scrape_configs: [{{job_name: keyviz, static_configs: [{{targets: {targets:?}}}]}}]\n",
            rules.display().to_string()
        );
        let config = write_file(folder, "prometheus.yaml", &config);
        let address = free_addresses(1).remove(0);
        let log = std::fs::File::create(folder.join("prometheus.log")).expect("a file");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let prometheus = Prometheus { process, address };
        let ready = || {
            let answer = http_answer(&prometheus.address, "/-/ready");
            answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        };
        eventually("Prometheus is ready", ready);
        prometheus
    }

    /// What a call of its API answers.
    fn ask(&self, path: &str) -> Value {
        let answer = http_get(&self.address, &format!("/api/v1/{path}"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"].clone()
    }

    fn samples(&self, query: &str) -> usize {
        let data = self.ask(&format!("query?query={query}"));
        data["result"].as_array().expect("a vector").len()
    }

    fn fires(&self, alert: &str) -> bool {
        let data = self.ask("alerts");
        let alerts = data["alerts"].as_array().expect("a list").iter();
        alerts.filter(|one| one["state"] == "firing").any(|one| one["labels"]["alertname"] == alert)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_real_prometheus_scrapes_evaluates_the_rules_and_an_alert_fires_and_ends() {
    if !Command::new("prometheus").arg("--version").output().is_ok_and(|ran| ran.status.success()) {
        println!("skipped: prometheus is not installed");
        return;
    }
    let mut cluster = Cluster::start(1, &["--groups", "1"]);
    let prometheus = Prometheus::start(cluster.folder.path(), &cluster.http);
    assert!(cluster.run(&["put", "a", "1"]).status.success());
    eventually("the node is scraped", || prometheus.samples("up==1") == 1);
    eventually("rules are recorded", || prometheus.samples("keyviz:node_proposals:rate1m") == 1);
    let evaluated = || {
        let data = prometheus.ask("rules");
        let groups = data["groups"].as_array().expect("groups").iter();
        let rules: Vec<Value> =
            groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect();
        assert!(rules.len() >= 22, "{}", rules.len());
        rules.iter().all(|rule| rule["health"] == "ok")
    };
    eventually("every rule is evaluated without an error", evaluated);
    assert!(!prometheus.fires("KeyvizDiskFull"));

    // More is to be kept free than any disk has.
    let variable = "KEYVIZ_MIN_FREE_BYTES";
    cluster.environment[0].push((variable.into(), "900000GiB".into()));
    cluster.kill(0);
    cluster.spawn(0);
    eventually("the alert fires", || prometheus.fires("KeyvizDiskFull"));
    cluster.environment[0].clear();
    cluster.kill(0);
    cluster.spawn(0);
    eventually("the alert ends", || !prometheus.fires("KeyvizDiskFull"));
    eventually("the node is back", || prometheus.samples("keyviz_disk_full==0") == 1);
}
