//! Which nodes a command asks, from its flags.

use std::time::Duration;

use clap::Args;

use super::access::AccessArgs;
use super::values::{self, Address, ValueError};

pub use keyviz_client::{
    CONNECT_TIMEOUT, CallError, Client, Effect, MAX_ANSWER_BYTES, Nodes, connect, endpoint,
    local_timeout,
};

/// gRPC address of a node where nothing else was said.
pub const DEFAULT_NODE: &str = "127.0.0.1:7401";
/// Longest wait for the answer of one node.
pub const DEFAULT_TIMEOUT: &str = "10s";

/// Which nodes to ask, and how long to wait.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// gRPC addresses of nodes; the next one is tried where one does not answer
    #[arg(
        long = "node",
        env = "KEYVIZ_NODE",
        value_name = "HOST:PORT[,HOST:PORT...]",
        value_delimiter = ',',
        default_value = DEFAULT_NODE,
        help_heading = "Connection"
    )]
    pub nodes: Vec<Address>,
    /// Longest wait for one node's answer, such as 500ms or 30s
    #[arg(
        long,
        env = "KEYVIZ_TIMEOUT",
        value_name = "DURATION",
        default_value = DEFAULT_TIMEOUT,
        value_parser = timeout,
        help_heading = "Connection"
    )]
    pub timeout: Duration,
    /// TLS and token.
    #[command(flatten)]
    pub access: AccessArgs,
}

fn timeout(text: &str) -> Result<Duration, ValueError> {
    values::duration_in(text, Duration::from_millis(1), Duration::from_secs(3600))
}

impl From<NodeArgs> for Client {
    fn from(args: NodeArgs) -> Self {
        Client::new(args.nodes, args.timeout).with_access(args.access.open())
    }
}
