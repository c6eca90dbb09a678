//! Operations against whichever node serves them.
//!
//! One operation is a series of attempts. Each attempt asks one node: first the leader of the key's
//! group, if it is known, then the other addresses in the order given, those that recently failed
//! last. After all nodes have failed, the client waits and starts over until the deadline.
//!
//! A write is sent again only if the failed attempt certainly did nothing
//! ([`Meaning::write_again`]), so that no write happens twice. Changes of routes carry a request id
//! that the server remembers, so they may be repeated.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tonic::codegen::http::{HeaderName, HeaderValue};
use tonic::{Code, Response, Status};

use super::error::Error;
use super::failure::{self, Meaning};
use super::nodes::access::Access;
use super::nodes::address::Address;
use super::nodes::connection::{connect, is_local_timeout, local_timeout};
use super::nodes::leaders::{GroupAt, Leaders};
use keyviz_proto::metadata::REQUEST_ID;
use keyviz_security::AuthChannel;

/// The wait before the second round of attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A node that broke a connection is asked last for this long.
const DOWN_FOR: Duration = Duration::from_millis(500);
/// Credential files are read again at most this often, when the client is used.
const READ_FILES_EVERY: Duration = Duration::from_secs(1);
/// The wait after which the ranges of the groups are asked for again, where that failed.
const LEARN_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Whether a call changes anything, and whether it may be repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It changes nothing and may be repeated.
    Read,
    /// It changes something. It is repeated only if it certainly did not happen.
    Write,
    /// It changes something, and the server recognizes a repetition by its request id.
    Repeatable,
}

/// A call without its type, so that the code of the attempts is compiled once.
type Call<'a> = dyn Fn(AuthChannel) -> BoxFuture<'a, Result<(), Status>> + Send + Sync + 'a;

/// A client of one cluster. Clones share connections and hints, and are cheap.
///
/// See the [crate documentation](crate) for an example and
/// [`ClientBuilder`](crate::ClientBuilder) for the settings.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    /// The request id of all operations; `None`: each gets its own.
    request_id: Option<HeaderValue>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    nodes: Vec<Node>,
    access: Access,
    pub(crate) settings: Settings,
    hints: Mutex<Hints>,
    /// Held by the task that reads the credential files.
    files_read: Mutex<Instant>,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Longest wait for one node's answer to a read.
    pub(crate) timeout: Duration,
    /// Longest time of an operation with all its attempts; `None`: one round of attempts.
    pub(crate) deadline: Option<Duration>,
    /// Whether operations on a key go to the leader of its group first.
    pub(crate) leader_hints: bool,
}

#[derive(Debug)]
struct Node {
    address: Address,
    state: Mutex<NodeState>,
}

#[derive(Debug, Default)]
struct NodeState {
    channel: Option<AuthChannel>,
    down_until: Option<Instant>,
}

/// What is known of leaders.
#[derive(Debug, Default)]
struct Hints {
    leaders: Option<Arc<Leaders>>,
    asked: Option<Instant>,
}

/// What to do after a failed attempt.
enum Next {
    /// Ask another node. The second field: a server refused.
    Again(Status, bool),
    Give(Error),
}

impl Client {
    pub(crate) fn of(addresses: Vec<Address>, access: Access, settings: Settings) -> Self {
        let node = |address| Node { address, state: Mutex::default() };
        let shared = Shared {
            nodes: addresses.into_iter().map(node).collect(),
            access,
            settings,
            hints: Mutex::default(),
            files_read: Mutex::new(Instant::now()),
        };
        Client { shared: Arc::new(shared), request_id: None }
    }

    /// The same client with `id` as the request id of its operations, to find them in the logs of
    /// all nodes. Without it each operation gets a random id. An id has 1 to 64 characters of
    /// `a-z A-Z 0-9 - _ . : / + =`; another one is not used.
    #[must_use]
    pub fn with_request_id(&self, id: &str) -> Self {
        Client { shared: Arc::clone(&self.shared), request_id: HeaderValue::from_str(id).ok() }
    }

    /// The same settings and credentials for this node alone.
    #[must_use]
    pub fn at(&self, address: Address) -> Self {
        self.restricted_to(vec![address])
    }

    /// The same settings and credentials for other nodes.
    #[must_use]
    pub fn restricted_to(&self, addresses: Vec<Address>) -> Self {
        let Shared { access, settings, .. } = &*self.shared;
        let client = Client::of(addresses, access.clone(), settings.clone());
        Client { request_id: self.request_id.clone(), ..client }
    }

    /// The addresses of the nodes.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.shared.nodes.iter().map(|node| &node.address)
    }

    /// The longest wait for one node's answer to a read.
    pub fn timeout(&self) -> Duration {
        self.shared.settings.timeout
    }

    /// Makes a call with a generated stub, for RPCs without a method of their own:
    ///
    /// ```no_run
    /// # async fn example(client: keyviz_client::Client) -> Result<(), keyviz_client::Error> {
    /// use keyviz_client::{Effect, proto};
    ///
    /// let status = client
    ///     .call(Effect::Read, |channel| async move {
    ///         let mut stub = proto::cluster_client::ClusterClient::new(channel);
    ///         stub.get_status(proto::GetStatusRequest {}).await
    ///     })
    ///     .await?
    ///     .into_inner();
    /// println!("{} members", status.members.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Where no node serves the call, one refuses it, or the outcome of a write is unknown.
    pub async fn call<T, F, Fut>(&self, effect: Effect, call: F) -> Result<T, Error>
    where
        T: Send,
        F: Fn(AuthChannel) -> Fut + Sync,
        Fut: Future<Output = Result<T, Status>> + Send,
    {
        self.call_where(effect, call).await.map(|(_, answer)| answer)
    }

    /// As [`Client::call`]; also says which node answered.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_where<T, F, Fut>(
        &self,
        effect: Effect,
        call: F,
    ) -> Result<(&Address, T), Error>
    where
        T: Send,
        F: Fn(AuthChannel) -> Fut + Sync,
        Fut: Future<Output = Result<T, Status>> + Send,
    {
        let (node, answer) = self.answered(effect, None, &call).await?;
        Ok((&self.shared.nodes[node].address, answer))
    }

    /// A call about one key: the leader of its group is asked first.
    pub(crate) async fn keyed<T, F, Fut>(
        &self,
        effect: Effect,
        key: &[u8],
        call: F,
    ) -> Result<T, Error>
    where
        T: Send,
        F: Fn(AuthChannel) -> Fut + Sync,
        Fut: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let hint = self.leaders().await;
        let hint = hint.as_ref().and_then(|leaders| Some((leaders, leaders.group_of(key)?)));
        let hint = hint.map(|(leaders, group)| (&**leaders, group));
        let (node, answer) = self.answered(effect, hint, &call).await?;
        let (said, answer, _) = answer.into_parts();
        if let Some((leaders, group)) = hint {
            leaders.answered(group, node, &said);
        }
        Ok(answer)
    }

    /// Makes the attempts of a call. Returns the node that answered, and its answer.
    async fn answered<T, F, Fut>(
        &self,
        effect: Effect,
        hint: Option<(&Leaders, GroupAt)>,
        call: &F,
    ) -> Result<(usize, T), Error>
    where
        T: Send,
        F: Fn(AuthChannel) -> Fut + Sync,
        Fut: Future<Output = Result<T, Status>> + Send,
    {
        let answer = Mutex::new(None);
        let kept = &answer;
        let attempt = move |channel| {
            let attempt = async move {
                *kept.lock() = Some(call(channel).await?);
                Ok(())
            };
            attempt.boxed()
        };
        let node = self.attempts(effect, hint, &attempt).await?;
        Ok((node, answer.into_inner().expect("an attempt without an error keeps its answer")))
    }

    fn attempts<'a>(
        &'a self,
        effect: Effect,
        hint: Option<(&'a Leaders, GroupAt)>,
        call: &'a Call<'a>,
    ) -> BoxFuture<'a, Result<usize, Error>> {
        async move {
            let shared = &self.shared;
            let started = Instant::now();
            let deadline = shared.settings.deadline.map(|longest| started + longest);
            let id = self.request_id.clone().unwrap_or_else(random_id);
            let mut pause = FIRST_PAUSE;
            loop {
                let leader = hint.and_then(|(leaders, group)| leaders.leader(group));
                let (mut tried, mut refused) = (Vec::new(), None);
                for node in shared.order(leader) {
                    let wait = shared.wait(effect, deadline);
                    if wait.is_zero() {
                        break;
                    }
                    let status = match shared.attempt(node, wait, &id, call).await {
                        Ok(()) => return Ok(node),
                        Err(status) => status,
                    };
                    if let Some((leaders, group)) = hint {
                        leaders.failed(group, node);
                    }
                    let address = &shared.nodes[node].address;
                    match after(effect, address, status) {
                        Next::Give(error) => return Err(error),
                        Next::Again(status, true) => {
                            let (address, status) = (address.clone(), Box::new(status));
                            refused = Some(Error::Refused { address, status });
                        }
                        Next::Again(status, false) => {
                            tried.push((address.clone(), failure::reason(&status)));
                        }
                    }
                }
                let over = deadline.is_none_or(|deadline| Instant::now() + pause >= deadline);
                if over {
                    return Err(refused.unwrap_or(Error::NoNode(tried)));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        .boxed()
    }

    /// Where the groups lie and who leads them, once known.
    fn leaders(&self) -> BoxFuture<'_, Option<Arc<Leaders>>> {
        async move {
            if !self.shared.settings.leader_hints || self.shared.nodes.len() < 2 {
                return None;
            }
            {
                let mut hints = self.shared.hints.lock();
                let due = hints.asked.is_none_or(|asked| asked.elapsed() > LEARN_AGAIN_AFTER);
                if hints.leaders.is_some() || !due {
                    return hints.leaders.clone();
                }
                // One task asks; the others go without hints meanwhile.
                hints.asked = Some(Instant::now());
            }
            let routes = self.routes().await.ok()?;
            let addresses = self.addresses().cloned().collect::<Vec<_>>();
            let leaders = Arc::new(Leaders::of(&addresses, &routes.routes));
            self.shared.hints.lock().leaders = Some(Arc::clone(&leaders));
            Some(leaders)
        }
        .boxed()
    }
}

impl Shared {
    /// Nodes in the order in which they are asked: the leader, those that are up, the others.
    fn order(&self, leader: Option<usize>) -> Vec<usize> {
        let now = Instant::now();
        let down = |node: &usize| {
            self.nodes[*node].state.lock().down_until.is_some_and(|until| until > now)
        };
        let (last, first): (Vec<usize>, Vec<usize>) = (0..self.nodes.len()).partition(down);
        let leader = leader.filter(|leader| first.contains(leader));
        let rest = first.into_iter().chain(last).filter(|node| Some(*node) != leader);
        leader.into_iter().chain(rest).collect()
    }

    /// How long one node may take. A write waits until the deadline: an early end of the wait would
    /// leave its outcome unknown.
    fn wait(&self, effect: Effect, deadline: Option<Instant>) -> Duration {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match (effect, left) {
            (_, None) => self.settings.timeout,
            (Effect::Read, Some(left)) => left.min(self.settings.timeout),
            (Effect::Write | Effect::Repeatable, Some(left)) => left,
        }
    }

    async fn attempt<'a>(
        &'a self,
        node: usize,
        wait: Duration,
        id: &HeaderValue,
        call: &'a Call<'a>,
    ) -> Result<(), Status> {
        self.follow_files().await;
        let node = &self.nodes[node];
        let answer = async {
            let channel = node.channel(&self.access, wait).await?;
            let channel = channel.with_header(HeaderName::from_static(REQUEST_ID), id.clone());
            match tokio::time::timeout(wait, call(channel)).await {
                Ok(answer) => answer,
                Err(_) => Err(local_timeout(wait)),
            }
        };
        let answer = answer.await;
        if let Err(status) = &answer {
            tracing::debug!(address = %node.address, ?id, code = ?status.code(), "attempt failed");
            // A status with a source was made on this side: the connection broke, or the wait
            // ended.
            if std::error::Error::source(status).is_some() {
                node.failed(status);
            }
        }
        answer
    }

    /// Takes over credential files that have changed.
    async fn follow_files(&self) {
        if !self.access.has_files() {
            return;
        }
        {
            let mut read = self.files_read.lock();
            if read.elapsed() < READ_FILES_EVERY {
                return;
            }
            *read = Instant::now();
        }
        let access = self.access.clone();
        let reloaded = tokio::task::spawn_blocking(move || access.reload()).await;
        match reloaded {
            Ok(Ok(true)) => {
                // The next calls use connections that were made with the new certificates.
                self.nodes.iter().for_each(|node| node.state.lock().channel = None);
            }
            Ok(Err(error)) => tracing::warn!("{error}; the previous credentials stay in force"),
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}

impl Node {
    /// The connection of this node, made now if there is none.
    async fn channel(&self, access: &Access, wait: Duration) -> Result<AuthChannel, Status> {
        let known = self.state.lock().channel.clone();
        match known {
            Some(channel) => Ok(channel),
            None => {
                let channel = connect(&self.address, access, wait).await?;
                let mut state = self.state.lock();
                state.down_until = None;
                Ok(state.channel.get_or_insert(channel).clone())
            }
        }
    }

    fn failed(&self, status: &Status) {
        let mut state = self.state.lock();
        // A slow answer does not make the connection bad.
        if !is_local_timeout(status) {
            state.channel = None;
        }
        state.down_until = Some(Instant::now() + DOWN_FOR);
    }
}

fn after(effect: Effect, address: &Address, status: Status) -> Next {
    let meaning = Meaning::of(&status);
    let from_server = std::error::Error::source(&status).is_none()
        && meaning != Meaning::NotSent
        && !is_local_timeout(&status);
    // A change of routes that was decided on another catalog version did not happen, and would be
    // refused again.
    let outdated = effect == Effect::Repeatable && from_server && status.code() == Code::Aborted;
    let again = match effect {
        Effect::Read | Effect::Repeatable => {
            meaning.read_again(&status) || is_local_timeout(&status)
        }
        Effect::Write => meaning.write_again(),
    };
    if again && !outdated {
        return Next::Again(status, from_server);
    }
    let address = address.clone();
    Next::Give(match (effect, meaning) {
        (Effect::Write | Effect::Repeatable, Meaning::Unknown) if !outdated => {
            Error::Unknown { address, reason: failure::reason(&status) }
        }
        _ => Error::Refused { address, status: Box::new(status) },
    })
}

/// A request id of one operation.
fn random_id() -> HeaderValue {
    HeaderValue::from_str(&format!("{:016x}", rand::random::<u64>())).expect("hex is ASCII")
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
