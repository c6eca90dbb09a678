//! What `deploy/` and the operator's handbook say is what the program takes: every file parses,
//! every flag and variable exists, and each node that they describe starts as far as its
//! certificates, which are not here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{self, KEYVIZ, stderr};
use keyviz_security::{SecurityError, Tls, TlsFiles};
use serde::Deserialize as _;
use serde_norway::Value;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    let text = read(path);
    let documents = serde_norway::Deserializer::from_str(&text).map(|document| {
        let mut value = Value::deserialize(document).unwrap_or_else(|e| panic!("{path}: {e}"));
        value.apply_merge().unwrap_or_else(|e| panic!("{path}: {e}"));
        value
    });
    documents.collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not text: {value:?}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_sequence().unwrap_or_else(|| panic!("not a list: {value:?}"))
}

fn help(command: &[&str]) -> String {
    let output = Command::new(KEYVIZ).args(command).arg("--help").output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("help is text")
}

/// Words that begin with `start` and go on with what a name may have.
fn words<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).map(move |(at, _)| {
        let word = &text[at..];
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        &word[..word.find(|c| !name(c)).unwrap_or(word.len())]
    })
}

fn run(program: &str, arguments: &[&str], env: &BTreeMap<String, String>) -> Output {
    let binaries = Path::new(KEYVIZ).parent().expect("it lies in a folder").display();
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", format!("{binaries}:/usr/bin:/bin"))
        .envs(env)
        .stdin(Stdio::null())
        .output()
        .expect("it starts")
}

/// That a node took all that it was told, and stopped at the certificate that is not there.
#[track_caller]
fn wants_certificate(output: &Output, path: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(path) && said.contains("cannot read the"), "{said}");
}

#[test]
fn every_variable_in_the_files_is_a_flag() {
    let known: String = [&["serve"][..], &["cluster", "status"]].map(help).concat();
    let known: BTreeSet<&str> = words(&known, "KEYVIZ_").collect();
    assert!(known.contains("KEYVIZ_TLS_CERT") && known.contains("KEYVIZ_TOKEN_FILE"), "{known:?}");
    for path in [
        "deploy/systemd/keyviz.service",
        "deploy/systemd/keyviz.env.example",
        "deploy/container/Dockerfile",
        "deploy/compose/compose.yaml",
        "deploy/kubernetes/keyviz.yaml",
        "docs/operations.md",
    ] {
        for name in words(&read(path), "KEYVIZ_").filter(|name| *name != "KEYVIZ_") {
            assert!(known.contains(name), "{path} has {name}, which is no flag");
        }
    }
}

#[test]
fn every_command_of_the_handbook_exists_with_its_flags() {
    let mut seen = 0;
    for path in ["docs/operations.md", "README.md"] {
        let joined = read(path).replace("\\\n", " ");
        for line in joined.lines().map(str::trim).filter(|line| line.starts_with("keyviz ")) {
            let line = line.split(" #").next().unwrap_or(line);
            let plain: Vec<&str> = line.split_whitespace().skip(1).collect();
            let depth = match plain.first() {
                Some(&("routes" | "cluster")) => 2,
                _ => 1,
            };
            let help = help(&plain[..depth]);
            let known: BTreeSet<&str> = words(&help, "--").collect();
            for flag in plain.iter().filter(|word| word.starts_with("--")) {
                assert!(known.contains(flag), "{path}: {flag} in {line}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 15, "only {seen} commands were found");
}

#[test]
fn the_unit_starts_a_node() {
    let env = read("deploy/systemd/keyviz.env.example");
    let env: BTreeMap<String, String> = env
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("no variable: {line}")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let unit = read("deploy/systemd/keyviz.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/keyviz "));
    let arguments: Vec<&str> = start.expect("it starts keyviz").split(' ').collect();
    wants_certificate(&run(KEYVIZ, &arguments, &env), "/etc/keyviz/node.pem");
    let folder = tempfile::TempDir::new().expect("a folder");
    let unit = support::write_file(
        folder.path(),
        "keyviz.service",
        &unit.replace("/usr/local/bin/keyviz", KEYVIZ),
    );
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg(&unit).output() else {
        eprintln!("skipped: systemd-analyze is not installed, so the unit was not verified");
        return;
    };
    let said = stderr(&verified);
    // What else may stand there concerns other units of the machine.
    assert!(!said.contains("keyviz.service"), "{said}");
}

#[test]
fn the_compose_file_starts_three_nodes() {
    let compose = &yaml("deploy/compose/compose.yaml")[0];
    let services = compose["services"].as_mapping().expect("services");
    assert_eq!(services.len(), 3);
    let declared = compose["secrets"].as_mapping().expect("secrets");
    for (name, service) in services {
        let env: BTreeMap<String, String> = service["environment"]
            .as_mapping()
            .expect("variables")
            .iter()
            .map(|(name, value)| (text(name).to_owned(), text(value).to_owned()))
            .collect();
        let env: BTreeMap<_, _> =
            env.into_iter().chain([("KEYVIZ_DATA".into(), "/nowhere".into())]).collect();
        let command: Vec<&str> = list(&service["command"]).iter().map(text).collect();
        wants_certificate(&run(KEYVIZ, &command, &env), "/run/secrets/node.pem");
        let check: Vec<&str> = list(&service["healthcheck"]["test"]).iter().map(text).collect();
        assert_eq!(check[..2], ["CMD", "keyviz"]);
        wants_certificate(&run(KEYVIZ, &check[2..], &env), "/run/secrets/ca.pem");
        for secret in list(&service["secrets"]) {
            assert!(declared.contains_key(secret), "{name:?} has an unknown secret {secret:?}");
            assert!(env.values().any(|path| *path == format!("/run/secrets/{}", text(secret))));
        }
    }
}

#[test]
fn the_kubernetes_manifests_fit_together_and_start_nodes() {
    let all = yaml("deploy/kubernetes/keyviz.yaml");
    let of = |kind: &str, name: &str| {
        let found = all.iter().find(|object| {
            text(&object["kind"]) == kind && text(&object["metadata"]["name"]) == name
        });
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let set = &of("StatefulSet", "keyviz")["spec"];
    let labels = &set["template"]["metadata"]["labels"];
    let headless = &of("Service", text(&set["serviceName"]))["spec"];
    assert_eq!(headless["clusterIP"], Value::from("None"));
    assert_eq!(headless["publishNotReadyAddresses"], Value::from(true));
    let budget = &of("PodDisruptionBudget", "keyviz")["spec"];
    assert_eq!(budget["maxUnavailable"], Value::from(1));
    let pod = &set["template"]["spec"];
    let apart =
        &pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    for selector in [
        &set["selector"]["matchLabels"],
        &headless["selector"],
        &of("Service", "keyviz")["spec"]["selector"],
        &budget["selector"]["matchLabels"],
        &of("NetworkPolicy", "keyviz")["spec"]["podSelector"]["matchLabels"],
        &apart["labelSelector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    let container = &pod["containers"][0];
    let ports: Vec<&str> =
        list(&container["ports"]).iter().map(|port| text(&port["name"])).collect();
    for (probe, path) in
        [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")]
    {
        let get = &container[probe]["httpGet"];
        assert_eq!((text(&get["path"]), text(&get["scheme"])), (path, "HTTPS"));
        assert!(ports.contains(&text(&get["port"])));
    }
    let volumes: BTreeSet<&str> = list(&pod["volumes"])
        .iter()
        .map(|volume| text(&volume["name"]))
        .chain(
            list(&set["volumeClaimTemplates"]).iter().map(|claim| text(&claim["metadata"]["name"])),
        )
        .collect();
    let mounts: Vec<&str> =
        list(&container["volumeMounts"]).iter().map(|mount| text(&mount["mountPath"])).collect();
    for mount in list(&container["volumeMounts"]) {
        assert!(volumes.contains(text(&mount["name"])), "{mount:?}");
    }

    // Every node, with its variables as Kubernetes would fill them in; the fourth joins.
    let command: Vec<&str> = list(&container["command"]).iter().map(text).collect();
    for ordinal in 1..=4 {
        let mut env = BTreeMap::new();
        for variable in list(&container["env"]) {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.name") => format!("keyviz-{ordinal}"),
                Some("metadata.labels['apps.kubernetes.io/pod-index']") => ordinal.to_string(),
                Some(other) => panic!("what is {other}?"),
                None => env.iter().fold(
                    text(&variable["value"]).to_owned(),
                    |value, (name, known): (&String, &String)| {
                        value.replace(&format!("$({name})"), known)
                    },
                ),
            };
            assert!(!value.contains("$("), "{value} uses what comes later");
            env.insert(text(&variable["name"]).to_owned(), value);
        }
        for path in env.values().filter(|value| value.starts_with('/')) {
            assert!(mounts.iter().any(|mount| path.starts_with(mount)), "{path} is not mounted");
        }
        // The volume is here.
        let volume = tempfile::TempDir::new().expect("a folder");
        let here =
            |text: &str| text.replace("/var/lib/keyviz", &volume.path().display().to_string());
        let arguments: Vec<String> = command[1..].iter().map(|text| here(text)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let env = env.into_iter().map(|(name, value)| (name, here(&value))).collect();
        let kept = volume.path().join("id");
        let start =
            || wants_certificate(&run(command[0], &arguments, &env), "/etc/keyviz/tls/tls.crt");
        start();
        // The first three have their ordinals until they come back with an empty volume; what joins
        // has an id of its own, and keeps it.
        assert_eq!(kept.exists(), ordinal > 3);
        if ordinal > 3 {
            let id = std::fs::read_to_string(&kept).expect("it is there");
            assert!(id.trim().parse::<u64>().is_ok_and(|id| id > 1_000_000), "{id}");
            start();
            assert_eq!(std::fs::read_to_string(&kept).expect("it is there"), id);
        }
    }
    assert_eq!(yaml("deploy/kubernetes/certificate.yaml").len(), 4);
}

#[test]
fn the_script_makes_certificates_that_nodes_take() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let openssl = Command::new("openssl").arg("version").output();
    if !openssl.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: openssl is not installed, so deploy/certificates.sh was not run");
        return;
    }
    let make = |arguments: &[&str]| {
        let output = Command::new("sh")
            .arg(root("deploy/certificates.sh"))
            .arg(folder.path())
            .args(arguments)
            .output()
            .expect("there is a shell");
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    };
    make(&["ca"]);
    make(&["node", "node1", "node1.example.net,10.0.0.1"]);
    make(&["client", "grafana"]);
    let file = |name: &str| folder.path().join(name);
    let open = |name: &str| {
        Tls::open(&TlsFiles {
            cert: file(&format!("{name}.pem")),
            key: file(&format!("{name}.key")),
            ca: file("ca.pem"),
        })
    };
    open("node1").expect("a node can serve with it");
    assert!(matches!(open("grafana"), Err(SecurityError::Chain { .. })), "a client cannot");
}
