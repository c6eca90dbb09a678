//! A machine and a cluster for the tests of this layer: real folders, real gRPC on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use keyviz_types::GroupId;

/// A map: a command is `key=value`, which puts and answers the old value, or `key+value`, which
/// appends and answers the new one, so that applying twice shows.
pub(crate) struct Map;

impl Machine for Map {
    fn restore(&mut self, _: &Keyspace) -> Result<(), MachineError> {
        Ok(())
    }

    fn apply(
        &mut self,
        _: LogPosition,
        command: &Bytes,
        batch: &mut Batch<'_>,
    ) -> Result<Bytes, MachineError> {
        let Some(at) = command.iter().position(|byte| matches!(byte, b'=' | b'+')) else {
            return Ok(Bytes::from_static(b"no command"));
        };
        let key = command.slice(..at);
        let value = command.slice(at + 1..);
        let old = batch.get(&key)?.unwrap_or_default();
        if command[at] == b'=' {
            batch.put(key, value)?;
            return Ok(old);
        }
        let new = Bytes::from([&old[..], &value[..]].concat());
        batch.put(key, new.clone())?;
        Ok(new)
    }
}

pub(crate) const GROUP: GroupId = GroupId(1);

/// One node with its server.
pub(crate) struct Node {
    pub(crate) groups: Groups,
    server: JoinHandle<()>,
    stop_server: tokio::sync::oneshot::Sender<()>,
}

impl Node {
    pub(crate) fn group(&self, id: GroupId) -> Arc<Group> {
        self.groups.get(id).expect("the test opened it")
    }

    /// Stops in order.
    pub(crate) async fn stop(self) {
        self.groups.shutdown().await.unwrap();
        let _ = self.stop_server.send(());
        self.server.await.unwrap();
    }
}

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    pub(crate) addrs: BTreeMap<RaftNodeId, SocketAddr>,
    pub(crate) nodes: BTreeMap<RaftNodeId, Node>,
    pub(crate) options: GroupOptions,
    pub(crate) groups: Vec<GroupId>,
}

pub(crate) fn quick() -> GroupOptions {
    GroupOptions {
        heartbeat: Duration::from_millis(60),
        election_min: Duration::from_millis(300),
        election_max: Duration::from_millis(600),
        ..GroupOptions::default()
    }
}

impl Cluster {
    pub(crate) async fn start(size: u64, groups: &[GroupId], options: GroupOptions) -> Self {
        let mut cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            addrs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            options,
            groups: groups.to_vec(),
        };
        for node in 1..=size {
            cluster.start_node(node).await;
        }
        let members = cluster.members();
        for node in cluster.nodes.values() {
            for id in groups {
                let (group, members) = (node.group(*id), members.clone());
                // A node that is stopped meanwhile need not start the group.
                tokio::spawn(async move { group.initialize(members).await });
            }
        }
        cluster
    }

    pub(crate) fn members(&self) -> BTreeMap<RaftNodeId, Member> {
        let member = |addr: &SocketAddr| Member::grpc(addr.to_string());
        self.addrs.iter().map(|(node, addr)| (*node, member(addr))).collect()
    }

    pub(crate) fn folder(&self, node: RaftNodeId) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    /// Starts a node, on its old folder and port if it has them.
    pub(crate) async fn start_node(&mut self, node: RaftNodeId) {
        let addr = self.addrs.get(&node).copied();
        let addr = addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(addr).await.unwrap();
        self.addrs.insert(node, listener.local_addr().unwrap());
        let storage = open(self.folder(node)).await;
        let peers = Peers::anonymous(node, "test", PeersOptions::default());
        let groups = Groups::new(storage, peers, self.options);
        for id in &self.groups {
            groups.create(*id, Map).await.unwrap();
        }
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = groups.service();
        let server = tonic::transport::Server::builder().add_service(service);
        let (stop_server, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        self.nodes.insert(node, Node { groups, server, stop_server });
    }

    pub(crate) async fn stop_node(&mut self, node: RaftNodeId) {
        self.nodes.remove(&node).expect("it runs").stop().await;
    }

    /// Waits for a leader that all running nodes agree on.
    pub(crate) async fn leader(&self, id: GroupId) -> RaftNodeId {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let known: Vec<_> = self
                .nodes
                .values()
                .map(|node| node.group(id).leadership().borrow().leader.clone())
                .collect();
            if let Some(Some((leader, _))) = known.first()
                && known.iter().all(|other| *other == known[0])
                && let Some(node) = self.nodes.get(leader)
                && node.group(id).leadership().borrow().leading.is_some()
            {
                return *leader;
            }
            assert!(tokio::time::Instant::now() < deadline, "no leader of {id}: {known:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Proposes at the leader, whoever that is by now. Repeats only what was refused.
    pub(crate) async fn put(&self, id: GroupId, key: &str, value: &str) -> Proposed {
        loop {
            let leader = self.leader(id).await;
            let command = Bytes::from(format!("{key}={value}"));
            match self.nodes[&leader].group(id).propose(command).await {
                Ok(proposed) => return proposed,
                Err(error) if error.is_refusal() => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("proposing failed: {error}"),
            }
        }
    }

    /// Reads at `node`, linearizably, by way of the leader.
    pub(crate) async fn get(&self, node: RaftNodeId, id: GroupId, key: &str) -> Option<Bytes> {
        let leader = self.leader(id).await;
        let index = self.nodes[&leader].group(id).read_index().await.unwrap();
        let group = self.nodes[&node].group(id);
        group.wait_applied(index, Duration::from_secs(10)).await.unwrap();
        group.keyspace().get(key.as_bytes()).unwrap()
    }
}

/// Opens a folder that tasks of a node stopped just before may still be letting go of: of its lock
/// or of the database's own.
async fn open(dir: PathBuf) -> Storage {
    let mut tries = 0;
    loop {
        match Storage::open(&dir, StorageOptions::default()) {
            Ok(storage) => return storage,
            Err(error) if tries == 500 => panic!("{} stays locked: {error}", dir.display()),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All rows of a group on a node.
pub(crate) fn rows(group: &Group) -> Vec<KeyValue> {
    let all = PageLimit { rows: usize::MAX, bytes: usize::MAX };
    group.keyspace().scan(Bound::Unbounded, Bound::Unbounded, all).unwrap().rows
}
