//! The machines that the pages speak of, on this one: their addresses and files are others here,
//! and nothing else of a command is.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::super::root;
use super::page::Typed;
use crate::support::{Cluster, KEYVIZ, eventually, free_addresses, signal, stderr};

/// A command that never ends by itself is watched for so long.
const WATCHED: Duration = Duration::from_secs(3);

/// What the system would have to have, and what would change it: checked elsewhere, or by hand.
const ELSEWHERE: &[&str] = &["docker", "kubectl", "systemctl", "useradd", "cargo"];

pub(super) struct World {
    pub(super) secured: bool,
    folder: TempDir,
    pub(super) cluster: Option<Cluster>,
    /// Nodes that were typed, by the address that they listen on.
    typed: Vec<(String, Child)>,
    addresses: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    /// Where the folder of a node is from now on.
    pub(super) machines: &'static str,
    pub(super) ran: usize,
}

impl World {
    pub(super) fn new(secured: bool) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let at = |path: &str| folder.path().join(path);
        for path in ["bin", "work", "etc/systemd/system", "usr/local/bin", "backups", "home"] {
            std::fs::create_dir_all(at(path)).expect("a new folder");
        }
        // What is installed is a script: the binary of a test is large.
        for path in ["bin/keyviz", "work/keyviz"] {
            std::fs::write(at(path), format!("#!/bin/sh\nexec {KEYVIZ} \"$@\"\n")).expect("a file");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(at(path), mode).expect("our file");
        }
        std::os::unix::fs::symlink(root("deploy"), at("work/deploy")).expect("a link");
        std::fs::write(at("work/photo.jpg"), b"\xff\xd8\x00 a photo").expect("a file");
        std::fs::write(at("work/changes.txt"), "put user/7 seven\ndelete user/8\n")
            .expect("a file");
        World {
            secured,
            folder,
            cluster: None,
            typed: Vec::new(),
            addresses: BTreeMap::new(),
            variables: BTreeMap::new(),
            values: BTreeMap::new(),
            machines: "machine",
            ran: 0,
        }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Another section: nothing runs, and nobody knows an address.
    pub(super) fn next_section(&mut self) {
        for (_, mut node) in self.typed.drain(..) {
            node.kill().expect("the process is ours");
            node.wait().expect("the process is ours");
        }
        self.cluster = None;
        self.addresses.clear();
        self.machines = "machine";
    }

    /// The flags of a node of this world.
    fn node_flags(&self) -> Vec<String> {
        let file = |name: &str| self.path("etc/keyviz").join(name).display().to_string();
        let mut flags = vec!["--keyviz-step".to_owned(), "1s".to_owned()];
        if self.secured {
            for (flag, name) in [
                ("--tls-cert", "node.pem"),
                ("--tls-key", "node.key"),
                ("--tls-ca", "ca.pem"),
                ("--admin-token-file", "admin-token"),
                ("--cluster-secret-file", "cluster-secret"),
            ] {
                flags.extend([flag.to_owned(), file(name)]);
            }
        }
        flags
    }

    /// Three nodes, as the pages assume them, once a command needs them.
    pub(super) fn cluster(&mut self) -> &mut Cluster {
        if self.cluster.is_none() {
            let flags = self.node_flags();
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let groups = ["--groups", "2", "--split-at", "m"];
            let mut cluster = Cluster::prepare(3, &[&flags[..], &groups].concat());
            (0..3).for_each(|index| cluster.spawn(index));
            for (at, (grpc, http)) in cluster.grpc.iter().zip(&cluster.http).enumerate() {
                for host in [format!("node{}.example.net", at + 1), format!("10.0.0.{}", at + 1)] {
                    self.addresses.insert(format!("{host}:7401"), grpc.clone());
                    self.addresses.insert(format!("{host}:7501"), http.clone());
                }
            }
            self.variables.insert("KEYVIZ_NODE".into(), cluster.grpc.join(","));
            self.cluster = Some(cluster);
            eventually("all members answer", || self.members_that_answer() == [1, 2, 3]);
            eventually("every group takes writes", || {
                ["a", "z"]
                    .iter()
                    .all(|key| self.sh(&format!("keyviz put {key} 1")).status.success())
            });
        }
        self.cluster.as_mut().expect("it was just made")
    }

    pub(super) fn members_that_answer(&self) -> Vec<u64> {
        let said = self.sh("keyviz cluster status --format json");
        let status: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let members = status["members"].as_array().into_iter().flatten();
        members.filter(|member| member["ok"] == true).filter_map(|m| m["id"].as_u64()).collect()
    }

    /// The address here of one that a page writes.
    fn address(&mut self, written: &str) -> String {
        let known = self.addresses.entry(written.to_owned());
        known.or_insert_with(|| free_addresses(1).remove(0)).clone()
    }

    /// Two addresses of a page that are one.
    pub(super) fn alias(&mut self, written: &str, address: &str) {
        self.addresses.insert(written.to_owned(), address.to_owned());
    }

    /// A command of a page with the addresses and files of this machine.
    pub(super) fn here(&mut self, text: &str) -> String {
        let word = |c: char| c.is_ascii_alphanumeric() || ".:-".contains(c);
        let mut here = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            let (token, after) = rest.split_at(end);
            let port = token.rsplit_once(':').map(|(_, port)| port);
            let port = port.is_some_and(|port| port.len() > 3 && port.parse::<u16>().is_ok());
            here += &if port { self.address(token) } else { token.to_owned() };
            let symbol = after.find(word).unwrap_or(after.len());
            here += &after[..symbol];
            rest = &after[symbol..];
        }
        let id = argument(text, "--id").and_then(|id| id.parse::<usize>().ok()).unwrap_or(0);
        let of_cluster = self.cluster.as_ref().filter(|cluster| {
            self.machines == "machine"
                && text.contains("serve")
                && (1..=cluster.len()).contains(&id)
        });
        let data = match of_cluster {
            Some(cluster) => cluster.data(id - 1),
            None => self.path(&format!("{}-{id}", self.machines)),
        };
        if let Some(cluster) = &self.cluster {
            for number in [2, 3] {
                let lost = format!("/var/lib/keyviz-{number}");
                here = here.replace(&lost, &cluster.data(number - 1).display().to_string());
            }
        }
        let folder = self.folder.path().display();
        here = here.replace("/var/lib/keyviz", &data.display().to_string());
        for top in ["/etc/", "/usr/local/", "/backups/"] {
            here = here.replace(top, &format!("{folder}{top}"));
        }
        // Its group is not on this machine, and times are shorter.
        here = here.replace("-g keyviz ", "").replace("--duration 30s", "--duration 3s");
        here = here.replace("--duration 10s", "--duration 2s");
        here.replace("cargo run --release -- demo", "keyviz demo")
    }

    fn shell(&self, text: &str) -> Command {
        let mut command = Command::new("sh");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-c", text])
            .current_dir(self.path("work"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("KEYVIZ_PORT", self.demo_port().to_string())
            .envs(&self.variables)
            .stdin(Stdio::null());
        command
    }

    /// What a shell says to a line.
    pub(super) fn sh(&self, text: &str) -> Output {
        self.shell(text).output().expect("sh is part of every system this runs on")
    }

    /// A port for the demo, with those that follow it.
    fn demo_port(&self) -> u16 {
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let all = |first: &u16| (0..3).all(|at| free(first + at) && free(first + 100 + at));
        let begin = 20_000 + (std::process::id() % 400) as u16 * 10;
        (begin..begin + 4_000).step_by(10).find(all).expect("loopback has free ports")
    }

    /// Types a command of a page; what was wrong with it.
    pub(super) fn type_in(&mut self, typed: &Typed) -> Result<(), String> {
        let program = typed.text.split_whitespace().next().unwrap_or_default();
        let demo = typed.text.ends_with(" demo");
        if ELSEWHERE.contains(&program) && !demo {
            return Ok(());
        }
        if program == "curl" && self.sh("curl --version").status.code() == Some(127) {
            println!("skipped: {}: curl is not installed", typed.text);
            return Ok(());
        }
        self.ran += 1;
        if let Some(exports) = typed.text.strip_prefix("export ") {
            return self.export(exports);
        }
        let needs_cluster = program == "keyviz" && !demo || program == "curl";
        let forms = typed.text.contains("--bootstrap") || self.machines != "machine";
        if needs_cluster && !forms {
            self.cluster();
        }
        let mut text = self.here(&typed.text);
        if program == "curl" && !self.secured {
            text = text.replace("https://", "http://");
        }
        if typed.text.starts_with("keyviz serve") {
            return self.serve(&text);
        }
        if demo || typed.text == "keyviz routes watch" {
            return self.watch(&text);
        }
        let output = self.sh(&text);
        let said = || format!("{text}\n{:?}\n{}", output.status, stderr(&output));
        if output.status.code() != Some(typed.exit) {
            return Err(said());
        }
        self.compare(&typed.text, &output).map_err(|why| format!("{why}: {}", said()))
    }

    fn export(&mut self, exports: &str) -> Result<(), String> {
        for export in exports.split_whitespace() {
            let (name, value) = export.split_once('=').ok_or("an export without a value")?;
            match name {
                // The nodes are those of the section.
                "KEYVIZ_NODE" | "PATH" => {}
                _ if self.secured => {
                    let home = self.path("home").display().to_string();
                    let value = self.here(&value.replace("$HOME", &home));
                    self.variables.insert(name.to_owned(), value);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A value that was put before is what comes back.
    fn compare(&mut self, text: &str, output: &Output) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["keyviz", "put", key, value] => {
                self.values.insert(key.to_owned(), value.to_owned());
            }
            ["keyviz", "get", key, ..] => {
                let wanted = self.values.get(key).map(|value| format!("{value}\n"));
                let got = String::from_utf8_lossy(&output.stdout).into_owned();
                if wanted.as_deref().is_some_and(|wanted| wanted != got) {
                    return Err(format!("{key} is {got:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Starts a node, and waits until it is a member that answers.
    fn serve(&mut self, text: &str) -> Result<(), String> {
        let line = text.trim_end_matches('&').trim().trim_end_matches("...");
        let flags = self.node_flags().join(" ");
        let log = self.path("typed.log");
        let log = std::fs::File::options().create(true).append(true).open(&log);
        let log = log.map_err(|error| error.to_string())?;
        let listen = argument(text, "--listen").ok_or("no --listen")?.to_owned();
        let mut node = self.shell(&format!("exec {line} {flags}"));
        node.env_remove("KEYVIZ_NODE");
        for variable in ["KEYVIZ_TLS_CA", "KEYVIZ_TOKEN_FILE"] {
            node.env_remove(variable);
        }
        let node = node.stdout(Stdio::null()).stderr(log).spawn();
        self.typed.push((listen, node.map_err(|error| error.to_string())?));
        Ok(())
    }

    /// Waits until a node that was typed is a member that answers at its address.
    pub(super) fn await_member(&mut self, id: u64, listen: &str) {
        let listen = self.address(listen);
        let log = self.path("typed.log");
        let all = || format!("node {id}: {}", std::fs::read_to_string(&log).unwrap_or_default());
        for _ in 0..600 {
            let said = self.sh(&format!("keyviz cluster status --format json --node {listen}"));
            let status: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            let mut members = status["members"].as_array().into_iter().flatten();
            let is = |member: &Value| member["id"] == id && member["address"] == *listen;
            if members.any(|member| is(member) && member["ok"] == true) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("in vain: {}", all());
    }

    /// Ends a node that was typed, as its supervisor would.
    pub(super) fn stop_typed(&mut self, listen: &str) {
        let listen = self.address(listen);
        let at = self.typed.iter().position(|(address, _)| *address == listen);
        let (_, mut node) = self.typed.remove(at.expect("it was typed"));
        signal(&node, "TERM");
        let status = node.wait().expect("the process is ours");
        assert_eq!(status.code(), Some(0), "{listen} stops in good order");
    }

    /// A command that goes on until Ctrl-C: it says something, and Ctrl-C ends it.
    fn watch(&mut self, text: &str) -> Result<(), String> {
        let mut command = self.shell(&format!("exec {text}"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|error| error.to_string())?;
        std::thread::sleep(WATCHED);
        signal(&child, "INT");
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let ended = output.status.success() || output.status.signal() == Some(2);
        if ended && !output.stdout.is_empty() {
            return Ok(());
        }
        let said = output.stdout.len();
        Err(format!("{text}\n{:?}, {said} bytes\n{}", output.status, stderr(&output)))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, node) in &mut self.typed {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// The value of a flag in a command line.
pub(super) fn argument<'a>(text: &'a str, flag: &str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    words.find(|word| *word == flag)?;
    words.next()
}

/// Copies a file, as an operator does between two steps.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}
