//! The rules and dashboards in `deploy/` ask for metrics that a node has, and each alert has its
//! runbook.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{self, Cluster};
use serde_json::Value;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names that begin with `start`, without the endings of a histogram's parts.
fn names(text: &str, start: &str) -> BTreeSet<String> {
    let found = text.match_indices(start).map(|(at, _)| {
        let word = &text[at..];
        let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        let name = &word[..end.unwrap_or(word.len())];
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name).to_owned()
    });
    found.collect()
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let folder = std::fs::read_dir(deploy("grafana")).expect("the folder is there");
    let paths = folder.map(|entry| entry.expect("it can be listed").path());
    let boards = paths.map(|path| {
        let board = serde_json::from_str(&read(&path));
        let board = board.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, board)
    });
    boards.collect()
}

#[test]
fn rules_and_dashboards_ask_for_metrics_that_a_node_has() {
    let cluster = Cluster::start(1, &["--groups", "1"]);
    let page = support::http_get(&cluster.http[0], "/metrics");
    let mut known = names(&page, "keyviz_");
    // Only nodes with TLS have it: see `security/handbook.rs`.
    known.insert("keyviz_certificate_expiry_timestamp_seconds".to_owned());

    let rules = read(&deploy("prometheus/rules.yaml"));
    let recorded: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: ").map(str::to_owned))
        .collect();
    let boards = dashboards();
    assert!(boards.len() >= 4 && recorded.len() >= 7, "{} and {recorded:?}", boards.len());
    let mut texts = vec![("rules.yaml".to_owned(), rules)];
    for (path, board) in &boards {
        let panels = board["panels"].as_array().expect("a dashboard has panels");
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "{}: ids of panels", path.display());
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array().expect("some")) {
            let expression = target["expr"].as_str().expect("an expression").to_owned();
            texts.push((path.display().to_string(), expression));
        }
    }
    for (place, text) in texts {
        for name in names(&text, "keyviz_") {
            assert!(known.contains(&name), "{place}: no node has {name}");
        }
        for name in names(&text, "keyviz:") {
            assert!(recorded.contains(&name), "{place}: no rule records {name}");
        }
    }
}

#[test]
fn each_alert_has_its_runbook_and_promtool_passes_the_rules() {
    let rules = read(&deploy("prometheus/rules.yaml"));
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md"));
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<&str> = alerts.collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        assert!(page.contains(&format!("\n### {alert}\n")), "{alert} has no runbook");
        let link = format!("docs/troubleshooting.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} does not link to its runbook");
    }
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        let ran =
            Command::new("promtool").args(arguments).current_dir(deploy("prometheus")).output();
        let Ok(ran) = ran else {
            println!("promtool is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{arguments:?}: {said}");
    }
}
