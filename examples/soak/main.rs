//! Three `keyviz serve` processes through cycles of load and idleness, with routes split and
//! merged, a short step and a history budget that wraps: memory, files, tasks and disk must stay
//! flat.
//!
//! ```text
//! cargo build --release && cargo run --release --example soak -- 20m 400 docs/images/soak.svg
//! ```
//!
//! Arguments: how long, operations a second under load, and the picture to draw. Samples go to the
//! standard output as CSV, and at the end the growth of each curve: the mean of the last quarter
//! over that of the second, so a run should be a multiple of four cycles. Needs Linux.

mod plot;

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NODES: usize = 3;
const STEP: Duration = Duration::from_secs(2);
const LOAD: Duration = Duration::from_secs(40);
const CYCLE: Duration = Duration::from_secs(60);
const KEYS: usize = 20_000;

/// What is measured, and how much a number on the picture stands for.
const CURVES: [(&str, f64); 5] = [
    ("resident memory, MiB", 1048576.0),
    ("open files and sockets", 1.0),
    ("threads", 1.0),
    ("tasks", 1.0),
    ("disk, MiB", 1048576.0),
];

/// Seconds since the start, and of each node each curve.
type Sample = (f64, [[f64; CURVES.len()]; NODES]);

struct Node {
    child: Child,
    grpc: String,
    http: String,
    data: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let lasting = humantime::parse_duration(&arguments.next().unwrap_or("20m".into()))?;
    let rate = arguments.next().unwrap_or("400".into());
    let picture = arguments.next();
    let here = std::env::current_exe()?;
    let keyviz =
        here.ancestors().nth(2).ok_or("an example lies in a target folder")?.join("keyviz");
    let folder = tempfile::tempdir()?;
    let nodes = start(&keyviz, folder.path())?;
    let all = nodes.iter().map(|node| node.grpc.as_str()).collect::<Vec<_>>().join(",");

    println!("seconds,node,rss_bytes,files,threads,tasks,disk_bytes");
    let began = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut cycle = 0;
    while began.elapsed() < lasting {
        let cycle_began = Instant::now();
        let mut load = load(&keyviz, &all, &rate, cycle).spawn()?;
        let mut split = false;
        while cycle_began.elapsed() < CYCLE {
            std::thread::sleep(STEP);
            if !split && cycle_began.elapsed() > LOAD / 2 {
                split = true;
                if !split_and_merge(&keyviz, &all, cycle)? {
                    eprintln!("no route was split in cycle {cycle}");
                }
            }
            let sample = sample(&nodes)?;
            let at = began.elapsed().as_secs_f64();
            for (node, values) in sample.iter().enumerate() {
                let values: Vec<String> = values.iter().map(|value| format!("{value}")).collect();
                println!("{at:.1},{},{}", node + 1, values.join(","));
            }
            samples.push((at, sample));
        }
        if !load.wait()?.success() {
            eprintln!("the load of cycle {cycle} had errors");
        }
        cycle += 1;
    }
    report(&samples);
    if let Some(path) = picture {
        std::fs::write(&path, plot::svg(&samples))?;
    }
    Ok(())
}

/// The load of a cycle, over all nodes.
fn load(keyviz: &Path, all: &str, rate: &str, cycle: usize) -> Command {
    let mut command = Command::new(keyviz);
    command.args(["load", "--node", all, "--read-ratio", "0.5", "--rate", rate]);
    command.args([
        "--keys",
        &KEYS.to_string(),
        "--clients",
        "16",
        "--duration",
        &format!("{}s", LOAD.as_secs()),
    ]);
    command.args(["--pattern", ["uniform", "zipf", "sequential"][cycle % 3]]);
    command.args(["--seed", &cycle.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Splits the busiest route at a key of the load, and merges the two again. False: that cannot be.
fn split_and_merge(keyviz: &Path, all: &str, turn: usize) -> Result<bool, Box<dyn Error>> {
    let routes = |arguments: &[&str]| {
        Command::new(keyviz).arg("routes").args(arguments).args(["--node", all]).output()
    };
    let list = || -> Result<Vec<(u64, u64)>, Box<dyn Error>> {
        let listed = routes(&["list", "--format", "json"])?.stdout;
        let listed = serde_json::from_slice::<serde_json::Value>(&listed)?;
        let number = |route: &serde_json::Value, name: &str| route[name].as_u64().unwrap_or(0);
        let of = |route| (number(route, "route_id"), number(route, "writes"));
        Ok(listed["routes"].as_array().ok_or("no routes")?.iter().map(of).collect())
    };
    let before = list()?;
    let busiest = before.iter().max_by_key(|(_, writes)| *writes).ok_or("there is no route")?;
    let key = format!("key/{:08}", 997 * (turn + 1) % KEYS);
    if !routes(&["split", &busiest.0.to_string(), &key])?.status.success() {
        return Ok(false);
    }
    let is_new = |id: &u64| before.iter().all(|(old, _)| old != id);
    let ids = list()?.into_iter().map(|(id, _)| id);
    let children: Vec<String> = ids.filter(is_new).map(|id| id.to_string()).collect();
    let [left, right] = children.as_slice() else { return Err("a split makes two".into()) };
    Ok(routes(&["merge", left, right])?.status.success())
}

fn start(keyviz: &Path, folder: &Path) -> Result<Vec<Node>, Box<dyn Error>> {
    let listeners: Vec<TcpListener> =
        (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses: Vec<String> = listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.to_string()))
        .collect::<Result<_, _>>()?;
    drop(listeners);
    let members: Vec<String> =
        (0..NODES).map(|node| format!("{}={}", node + 1, addresses[node])).collect();
    let mut nodes = Vec::new();
    for node in 0..NODES {
        let (grpc, http) = (addresses[node].clone(), addresses[NODES + node].clone());
        let data = folder.join(format!("node-{}", node + 1));
        let mut command = Command::new(keyviz);
        command.arg("serve").args(["--id", &(node + 1).to_string()]);
        command.args(["--listen", &grpc, "--http", &http]).arg("--data").arg(&data);
        command.args(["--bootstrap", &members.join(","), "--groups", "4"]);
        command.args([
            "--keyviz-step",
            "1s",
            "--keyviz-history-bytes",
            "4MiB",
            "--keyviz-history-columns",
            "300",
        ]);
        command.args(["--cache-bytes", "32MiB"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        nodes.push(Node { child: command.spawn()?, grpc, http, data });
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while !nodes.iter().all(|node| get(&node.http, "/readyz").is_ok()) {
        if Instant::now() > deadline {
            return Err("the cluster does not become ready".into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(nodes)
}

/// The body of an answer with status 200.
fn get(address: &str, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
    if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(head.to_owned().into()) }
}

fn sample(nodes: &[Node]) -> Result<[[f64; CURVES.len()]; NODES], Box<dyn Error>> {
    let mut sampled = [[0.0; CURVES.len()]; NODES];
    for (node, values) in nodes.iter().zip(&mut sampled) {
        let metrics = get(&node.http, "/metrics")?;
        let metric = |name: &str| -> Result<f64, Box<dyn Error>> {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            Ok(line.ok_or(format!("no metric {name}"))?.trim().parse()?)
        };
        *values = [
            metric("keyviz_process_resident_bytes ")?,
            metric("keyviz_process_open_fds ")?,
            metric("keyviz_process_threads ")?,
            metric("keyviz_process_tasks ")?,
            disk(&node.data)?,
        ];
    }
    Ok(sampled)
}

/// Bytes that the files of a folder take on the disk.
fn disk(folder: &Path) -> std::io::Result<f64> {
    let mut bytes = 0.0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += disk(&entry.path())?,
            Ok(meta) => bytes += (meta.blocks() * 512) as f64,
            // Gone since it was listed.
            Err(_) => {}
        }
    }
    Ok(bytes)
}

/// Prints how each curve grew from the second quarter of the run to the last.
fn report(samples: &[Sample]) {
    let quarter = samples.len() / 4;
    let mean = |from: usize, to: usize, node: usize, curve: usize| {
        let part = &samples[from..to];
        part.iter().map(|(_, values)| values[node][curve]).sum::<f64>() / part.len().max(1) as f64
    };
    for (curve, (name, unit)) in CURVES.iter().enumerate() {
        for node in 0..NODES {
            let early = mean(quarter, 2 * quarter, node, curve);
            let late = mean(3 * quarter, samples.len(), node, curve);
            eprintln!(
                "{name:>22}, node {}: {:8.1} in the second quarter, {:8.1} in the last: {:+.1} %",
                node + 1,
                early / unit,
                late / unit,
                (late / early - 1.0) * 100.0
            );
        }
    }
}
