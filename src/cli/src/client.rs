//! The connection flags of client commands.

use std::time::Duration;

use clap::Args;

use super::flags::access::AccessArgs;
use super::flags::values::{self, Address, ValueError};

use keyviz_client::Access;

pub use keyviz_client::{
    Client, Effect, Error as CallError, MAX_ANSWER_BYTES, Nodes, local_timeout,
};

/// Default of `--node`.
pub const DEFAULT_NODE: &str = "127.0.0.1:7401";
/// Default of `--timeout`.
pub const DEFAULT_TIMEOUT: &str = "10s";

/// The nodes to ask, and how long to wait.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// gRPC addresses of nodes; if one does not answer, the next one is tried
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

impl NodeArgs {
    /// A client that asks each node once, in the order given: a command fails early.
    ///
    /// # Errors
    /// Where a certificate or token cannot be used.
    pub fn client(&self) -> Result<Client, CallError> {
        client(&self.nodes, self.access.open()?, self.timeout)
    }
}

/// A client of a command.
pub fn client(nodes: &[Address], access: Access, timeout: Duration) -> Result<Client, CallError> {
    let nodes = nodes.iter().map(Address::as_str);
    Client::builder().nodes(nodes).access(access).timeout(timeout).single_pass().build()
}
