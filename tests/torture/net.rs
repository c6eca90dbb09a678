//! The network between the nodes: a TCP proxy in front of each, through which the other nodes
//! reach it, and which can hold, delay or break what flows from one node to another.
//!
//! TCP loses nothing within a connection, so a link is "cut" by holding its bytes; healing either
//! lets them go, which is a long delay, or breaks the connections, which loses them. Each direction
//! of a pair of nodes is held by itself, whichever of the two made the connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What happens to bytes from one node to another.
#[derive(Clone, Copy, Default)]
struct Flow {
    held: bool,
    delay: Duration,
    /// Connections made while this was smaller are broken.
    breaks: u64,
}

/// Chunks of at most 64 KiB that a delayed link carries at once.
const IN_FLIGHT: usize = 256;

/// The links between some nodes, numbered from 0.
#[derive(Clone)]
pub struct Net {
    nodes: usize,
    flows: Arc<Vec<watch::Sender<Flow>>>,
    pids: Arc<Mutex<Vec<Option<u32>>>>,
}

impl Net {
    /// Links between at most `nodes` nodes.
    pub fn new(nodes: usize) -> Self {
        Net {
            nodes,
            flows: Arc::new((0..nodes * nodes).map(|_| watch::Sender::default()).collect()),
            pids: Arc::new(Mutex::new(vec![None; nodes])),
        }
    }

    /// A proxy for node `to`, which listens at `target`; the address to reach it under.
    pub async fn stand_before(&self, to: usize, target: &str) -> String {
        assert!(to < self.nodes, "there are links for {} nodes", self.nodes);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        tokio::spawn(self.clone().accept(listener, to, target.to_owned()));
        address
    }

    /// Tells which process a node is, by which its connections are known.
    pub fn set_pid(&self, node: usize, pid: u32) {
        self.pids.lock().expect("no panic under it")[node] = Some(pid);
    }

    pub fn hold(&self, from: usize, to: usize) {
        self.flow(from, to).send_modify(|flow| flow.held = true);
    }

    pub fn release(&self, from: usize, to: usize) {
        self.flow(from, to).send_modify(|flow| flow.held = false);
    }

    pub fn delay(&self, from: usize, to: usize, delay: Duration) {
        self.flow(from, to).send_modify(|flow| flow.delay = delay);
    }

    /// Breaks every connection between two nodes.
    pub fn break_between(&self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.flow(from, to).send_modify(|flow| flow.breaks += 1);
        }
    }

    pub fn heal(&self) {
        for flow in self.flows.iter() {
            flow.send_modify(|flow| *flow = Flow { breaks: flow.breaks, ..Flow::default() });
        }
    }

    fn flow(&self, from: usize, to: usize) -> &watch::Sender<Flow> {
        &self.flows[from * self.nodes + to]
    }

    async fn accept(self, listener: TcpListener, to: usize, target: String) {
        let port = listener.local_addr().expect("it is bound").port();
        loop {
            let Ok((client, peer)) = listener.accept().await else { continue };
            let pids = self.pids.lock().expect("no panic under it").clone();
            // A process that is gone again needs no connection.
            let Some(from) = owner(peer.port(), port, &pids) else { continue };
            let (there, back) = (self.flow(from, to), self.flow(to, from));
            tokio::spawn(serve(client, target.clone(), there.subscribe(), back.subscribe()));
        }
    }
}

async fn serve(
    client: TcpStream,
    target: String,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    for stream in [&client, &server] {
        if stream.set_nodelay(true).is_err() {
            return;
        }
    }
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    tokio::select! {
        () = pump(client_reads, server_writes, there) => {}
        () = pump(server_reads, client_writes, back) => {}
    }
}

/// Carries bytes until either side ends or the link is broken.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, flow: watch::Receiver<Flow>) {
    let born = flow.borrow().breaks;
    let (queue, mut chunks) = mpsc::channel::<(Instant, Bytes)>(IN_FLIGHT);
    let reading = async {
        loop {
            let mut bytes = BytesMut::with_capacity(64 * 1024);
            match from.read_buf(&mut bytes).await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
            if queue.send((Instant::now(), bytes.freeze())).await.is_err() {
                return;
            }
        }
    };
    let mut watched = flow.clone();
    let writing = async {
        while let Some((read_at, bytes)) = chunks.recv().await {
            wait_for_turn(&mut watched, read_at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let mut broken = flow.clone();
    tokio::select! {
        () = reading => {}
        () = writing => {}
        _ = broken.wait_for(|flow| flow.breaks != born) => {}
    }
}

/// Returns when bytes read at `read_at` may go on.
async fn wait_for_turn(flow: &mut watch::Receiver<Flow>, read_at: Instant) {
    loop {
        let now = *flow.borrow_and_update();
        let due = read_at + now.delay;
        if !now.held && due <= Instant::now() {
            return;
        }
        let sleep = async {
            if now.held {
                std::future::pending().await
            } else {
                tokio::time::sleep_until(due).await
            }
        };
        tokio::select! {
            () = sleep => return,
            changed = flow.changed() => if changed.is_err() { return },
        }
    }
}

/// Which of the processes `pids` holds the connection from `local` to `remote`, both ports of
/// loopback: found as Linux shows sockets, by inode.
fn owner(local: u16, remote: u16, pids: &[Option<u32>]) -> Option<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("this suite needs Linux's /proc");
    let inode = table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let port = |field: &str| u16::from_str_radix(field.rsplit(':').next()?, 16).ok();
        let (from, to) = (port(fields.nth(1)?)?, port(fields.next()?)?);
        (from == local && to == remote).then(|| fields.nth(6)).flatten()
    })?;
    let name = format!("socket:[{inode}]");
    pids.iter().position(|pid| {
        let Some(files) = pid.and_then(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok())
        else {
            return false;
        };
        let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        targets.into_iter().any(|target| target.as_os_str() == name.as_str())
    })
}
