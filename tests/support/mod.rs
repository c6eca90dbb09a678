//! Real processes of the `keyviz` binary on loopback, for tests that treat it as its users do.

#![allow(dead_code)]

pub mod certs;
pub mod disk;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub const KEYVIZ: &str = env!("CARGO_BIN_EXE_keyviz");

/// Long enough for an election on a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ports for nodes: below those that the system gives to outgoing connections (on Linux from 32768
/// on), one of which would otherwise take a node's port while that node is down.
const PORTS: std::ops::Range<u32> = 12_000..31_000;

/// Addresses that were free a moment ago, and are given to nobody else in this process.
pub fn free_addresses(count: usize) -> Vec<String> {
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let mut listeners = Vec::new();
    while listeners.len() < count {
        // Other processes begin elsewhere. Relaxed: only each number once.
        let turn = TURNS.fetch_add(1, Ordering::Relaxed);
        assert!(turn < PORTS.end - PORTS.start, "loopback has no free port");
        let at = std::process::id().wrapping_mul(7_919).wrapping_add(turn);
        let port = PORTS.start + at % (PORTS.end - PORTS.start);
        listeners.extend(TcpListener::bind(format!("127.0.0.1:{port}")));
    }
    let address = |listener: &TcpListener| listener.local_addr();
    let addresses = listeners.iter().map(address);
    addresses.map(|bound| bound.expect("a bound socket has an address").to_string()).collect()
}

/// `serve` processes that are killed when the value is dropped.
pub struct Cluster {
    pub folder: TempDir,
    pub grpc: Vec<String>,
    pub http: Vec<String>,
    /// The address under which the other nodes reach each: its own, or that of a proxy.
    pub advertised: Vec<String>,
    pub flags: Vec<String>,
    /// Variables added to each node's environment.
    pub environment: Vec<Vec<(OsString, OsString)>>,
    /// Nodes that joined, and through which address.
    joined: BTreeMap<usize, String>,
    /// The folders hold nodes already, so nothing is bootstrapped.
    pub restarts_only: bool,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts `count` first members with `flags` added, and waits until each can serve.
    pub fn start(count: usize, flags: &[&str]) -> Self {
        let mut cluster = Cluster::prepare(count, flags);
        for index in 0..count {
            cluster.spawn(index);
        }
        cluster.wait_until_serving();
        cluster
    }

    /// The same, with no process started yet.
    pub fn prepare(count: usize, flags: &[&str]) -> Self {
        let addresses = free_addresses(count * 2);
        let (grpc, http) = addresses.split_at(count);
        Cluster {
            folder: TempDir::new().expect("a temporary folder"),
            grpc: grpc.to_vec(),
            http: http.to_vec(),
            advertised: grpc.to_vec(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            environment: vec![Vec::new(); count],
            joined: BTreeMap::new(),
            restarts_only: false,
            nodes: (0..count).map(|_| None).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn data(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{}", index + 1))
    }

    /// Starts one more node, which joins through node `through`, and waits until it can serve; its
    /// index.
    pub fn join(&mut self, through: usize) -> usize {
        let index = self.enlist(through);
        self.spawn(index);
        eventually("the new node says that it is ready", || is_ready(&self.http[index]));
        index
    }

    /// One more node, which will join through node `through` when it is started; its index.
    pub fn enlist(&mut self, through: usize) -> usize {
        let through = self.grpc[through].clone();
        self.enlist_through(through)
    }

    /// The same, through this address.
    pub fn enlist_through(&mut self, through: String) -> usize {
        let index = self.len();
        let addresses = free_addresses(2);
        self.grpc.push(addresses[0].clone());
        self.advertised.push(addresses[0].clone());
        self.http.push(addresses[1].clone());
        self.joined.insert(index, through);
        self.environment.push(Vec::new());
        self.nodes.push(None);
        index
    }

    /// The command line that starts node `index`.
    pub fn serve_command(&self, index: usize) -> Command {
        let mut command = Command::new(KEYVIZ);
        command
            .arg("serve")
            .args(["--id", &(index + 1).to_string()])
            .args(["--listen", &self.grpc[index]])
            .args(["--advertise", &self.advertised[index]])
            .args(["--http", &self.http[index]])
            .arg("--data")
            .arg(self.data(index));
        match self.joined.get(&index) {
            Some(through) => {
                command.args(["--join", through]).args(self.flags_for_all());
            }
            None if self.restarts_only => {
                command.args(&self.flags);
            }
            None => {
                let first = (0..self.len()).filter(|index| !self.joined.contains_key(index));
                let members: Vec<String> =
                    first.map(|at| format!("{}={}", at + 1, self.advertised[at])).collect();
                command.args(["--bootstrap", &members.join(",")]).args(&self.flags);
            }
        }
        command.envs(self.environment[index].iter().cloned()).stdin(Stdio::null());
        command
    }

    /// The flags that are not of bootstrap alone.
    fn flags_for_all(&self) -> Vec<String> {
        let pairs = self.flags.chunks(2);
        let bootstrap = ["--groups", "--split-at", "--replication"];
        let kept = pairs.filter(|pair| !bootstrap.contains(&pair[0].as_str()));
        kept.flatten().cloned().collect()
    }

    /// Starts node `index`; its talk goes to a file beside its folder.
    pub fn spawn(&mut self, index: usize) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path(index))
            .expect("the temporary folder takes a file");
        self.spawn_saying_to(index, log.into());
    }

    /// Starts node `index`; its talk goes there.
    pub fn spawn_saying_to(&mut self, index: usize, stderr: Stdio) -> Option<ChildStderr> {
        let mut child = self
            .serve_command(index)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let said = child.stderr.take();
        self.nodes[index] = Some(child);
        said
    }

    pub fn log_path(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{}.log", index + 1))
    }

    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.log_path(index)).unwrap_or_default()
    }

    pub fn wait_until_serving(&self) {
        for index in 0..self.len() {
            if self.nodes[index].is_some() {
                // Asked over HTTP, because a read would be counted.
                eventually("every node says that it is ready", || is_ready(&self.http[index]));
            }
        }
    }

    /// kill -9.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.nodes[index].take() {
            child.kill().expect("the process is ours");
            child.wait().expect("the process is ours");
        }
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self, index: usize) -> Option<i32> {
        let mut child = self.nodes[index].take().expect("the node runs");
        signal(&child, "TERM");
        child.wait().expect("the process is ours").code()
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].as_ref().expect("the node runs").id()
    }

    /// Sends a signal to node `index` by name.
    pub fn signal(&self, index: usize, name: &str) {
        signal(self.nodes[index].as_ref().expect("the node runs"), name);
    }

    /// What the process of node `index` ended with, if it has ended by itself.
    pub fn exited(&mut self, index: usize) -> Option<ExitStatus> {
        let child = self.nodes[index].as_mut().expect("the node was started");
        let status = child.try_wait().expect("the process is ours")?;
        self.nodes[index] = None;
        Some(status)
    }

    /// Nodes whose process ended without being asked to.
    pub fn ended(&mut self) -> Vec<usize> {
        let ended = |node: &mut Option<Child>| {
            node.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
        };
        (0..self.len()).filter(|index| ended(&mut self.nodes[*index])).collect()
    }

    /// A command against node `index` alone.
    pub fn run_on(&self, index: usize, arguments: &[&str]) -> Output {
        run(&self.grpc[index], arguments)
    }

    /// A command that may use any node.
    pub fn run(&self, arguments: &[&str]) -> Output {
        run(&self.grpc.join(","), arguments)
    }

    /// The JSON that a command prints on node `index`.
    pub fn json_on(&self, index: usize, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--format", "json"]].concat();
        parse(&arguments, self.run_on(index, &arguments))
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--format", "json"]].concat();
        parse(&arguments, self.run(&arguments))
    }

    /// The matrix of one series at node `index`.
    pub fn heat(&self, index: usize, series: &str, more: &[&str]) -> Value {
        let arguments = [&["heat", "--last", "1h", "--series", series], more].concat();
        self.json_on(index, &arguments)
    }

    /// One number of `/metrics` at node `index`; `sample` is its name with its labels.
    pub fn metric(&self, index: usize, sample: &str) -> Option<f64> {
        let page = http_get(&self.http[index], "/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    }

    pub fn total(&self, index: usize, series: &str, more: &[&str]) -> u64 {
        self.heat(index, series, more)["total"].as_u64().expect("a matrix has a total")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.nodes.len() {
            self.kill(index);
            if std::thread::panicking() {
                eprintln!("--- node {} said:\n{}", index + 1, self.log(index));
            }
        }
    }
}

/// Whether `/readyz` answers 200.
pub fn is_ready(address: &str) -> bool {
    http_answer(address, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The body that HTTP answers with; chunked answers are joined.
pub fn http_get(address: &str, path: &str) -> String {
    let answer = http_answer(address, path).expect("the node answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    body.to_owned()
}

/// The status line and headers that HTTP answers with.
pub fn http_head(address: &str, path: &str) -> String {
    let answer = http_answer(address, path).expect("the node answers");
    answer.split_once("\r\n\r\n").expect("an answer has a head").0.to_owned()
}

/// All that HTTP answers with, whatever its status.
pub fn http_answer(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // Version 1.0: an answer in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.replacen("HTTP/1.0", "HTTP/1.1", 1))
}

/// The library that gives a process another clock; `None` where it is not installed.
pub fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let folders = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    folders.chain(["/usr/lib/faketime/libfaketimeMT.so.1".into()]).find(|path| path.exists())
}

/// Variables that set a node's time of day apart with that library; timeouts and leases are
/// measured by the monotonic clock, which stays as it is.
pub fn clock_apart(library: &Path, seconds: f64) -> Vec<(OsString, OsString)> {
    vec![
        ("LD_PRELOAD".into(), library.into()),
        ("FAKETIME".into(), format!("{seconds:+.3}s").into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("NO_FAKE_STAT".into(), "1".into()),
    ]
}

/// Sends a signal by name.
pub fn signal(child: &Child, name: &str) {
    signal_pid(child.id(), name);
}

/// Sends a signal by name to a process that this test started.
pub fn signal_pid(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()
        .expect("kill is part of every system this runs on");
    assert!(sent.success(), "the process is ours");
}

fn run(nodes: &str, arguments: &[&str]) -> Output {
    Command::new(KEYVIZ)
        .args(arguments)
        .args(["--node", nodes])
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn parse(arguments: &[&str], output: Output) -> Value {
    assert!(
        output.status.success(),
        "{arguments:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("--format json prints JSON")
}

/// Waits until `check` holds.
pub fn eventually(claim: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "in vain: {claim}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn write_file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("the temporary folder takes a file");
    path
}
