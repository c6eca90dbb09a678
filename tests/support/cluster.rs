//! Clusters of real processes of the `keyviz` binary on loopback.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The binary under test.
pub const KEYVIZ: &str = env!("CARGO_BIN_EXE_keyviz");

/// Long enough for an election on a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ports for nodes: below those that the system gives to outgoing connections (on Linux from 32768
/// on), one of which would otherwise take a node's port while that node is down.
const PORTS: std::ops::Range<u32> = 12_000..31_000;

/// Addresses that are free now. This process gets each of them only once.
pub fn free_addresses(count: usize) -> Vec<String> {
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let mut listeners = Vec::new();
    while listeners.len() < count {
        // Other processes begin at another number. Relaxed: the turns only have to be distinct.
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
    /// The address at which the other nodes reach each node: its own, or that of a proxy.
    pub advertised: Vec<String>,
    pub flags: Vec<String>,
    /// Variables added to each node's environment.
    pub environment: Vec<Vec<(OsString, OsString)>>,
    /// Nodes that joined, and through which address.
    pub joined: BTreeMap<usize, String>,
    /// The folders have nodes already, so nodes are started without `--bootstrap`.
    pub restarts_only: bool,
    pub(super) nodes: Vec<Option<Child>>,
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

    /// The flags without those for bootstrap.
    fn flags_for_all(&self) -> Vec<String> {
        let pairs = self.flags.chunks(2);
        let bootstrap = ["--groups", "--split-at", "--replication"];
        let kept = pairs.filter(|pair| !bootstrap.contains(&pair[0].as_str()));
        kept.flatten().cloned().collect()
    }

    /// Starts node `index`; its standard error goes to a file beside its folder.
    pub fn spawn(&mut self, index: usize) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path(index))
            .expect("the temporary folder takes a file");
        self.spawn_saying_to(index, log.into());
    }

    /// Starts node `index` with this standard error.
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

/// The whole answer, whatever its status.
pub fn http_answer(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // Version 1.0: an answer in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.replacen("HTTP/1.0", "HTTP/1.1", 1))
}

/// Waits until `check` holds.
pub fn eventually(claim: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "in vain: {claim}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
