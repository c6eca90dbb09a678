//! From the flags of `serve` to a node that runs, and to its end.

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::super::CliError;
use super::super::otlp;
use super::super::running::{self, Reloads, RunningNode, Signals};
use super::ServeOptions;
use crate::terminal::talk::say;
use keyviz_node::LoopWrap;
use keyviz_security::SecurityConfig;

/// A start that is called off has this long to end in order.
const END_START_WITHIN: Duration = Duration::from_secs(3);

/// Runs one node until SIGINT or SIGTERM; a second signal ends the wait for a clean stop.
///
/// # Errors
/// If the node cannot be started, a control loop ends, or it fails to stop cleanly.
pub async fn run_serve(options: ServeOptions, wrap: Option<LoopWrap>) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let spans = options.otlp.as_ref().map(|to| otlp::layer(to, options.id)).transpose();
    let spans = spans.context("spans cannot be exported").map_err(CliError::Node)?;
    running::log_to_stderr(&options.log, options.log_format, spans).map_err(CliError::Node)?;
    let mut reloads = Reloads::new()?;
    let (insecure, security) = (options.insecure, options.security.clone());
    let (id, address, http) = (options.id, options.advertise.clone(), options.http);
    let started = start_unless_signalled(options, &mut signals, wrap).await;
    let Some(node) = started.map_err(CliError::Node)? else { return Ok(()) };
    say!("keyviz: node {id} serves gRPC on {address}");
    if let Some(http) = http {
        let scheme = if security.tls.is_some() { "https" } else { "http" };
        say!("keyviz: heatmap page on {scheme}://{http}/");
    }
    say!("keyviz: {}", exposure(&security, insecure));
    let failure = loop {
        tokio::select! {
            failure = node.failed() => break Some(failure),
            () = signals.next() => break None,
            () = reloads.next() => node.reload_security().await,
        }
    };
    say!("keyviz: node {id} stops");
    let stopped = tokio::select! {
        stopped = node.shutdown() => stopped.map_err(CliError::Node),
        () = signals.next() => {
            Err(CliError::Node(anyhow::anyhow!("stopped before everything was written")))
        }
    };
    match failure {
        Some(failure) => Err(CliError::Node(failure)),
        None => stopped,
    }
}

/// Starts the node. `None` if a signal came before it had started. Such a start has
/// [`END_START_WITHIN`] to end in order; after that, or a second signal, the process ends as one
/// that is killed, which a storage survives.
async fn start_unless_signalled(
    options: ServeOptions,
    signals: &mut Signals,
    wrap: Option<LoopWrap>,
) -> anyhow::Result<Option<RunningNode>> {
    let id = options.id;
    let stop = CancellationToken::new();
    // On a thread of its own: a start that hangs must not block signals.
    let stopped = stop.clone().cancelled_owned();
    let runtime = tokio::runtime::Handle::current();
    let start = tokio::task::spawn_blocking(move || {
        runtime.block_on(RunningNode::start(options, stopped, wrap))
    });
    tokio::pin!(start);
    let ended = tokio::select! {
        started = &mut start => return started?,
        () = signals.next() => {
            say!("keyviz: node {id} ends while it starts");
            stop.cancel();
            tokio::select! {
                started = tokio::time::timeout(END_START_WITHIN, &mut start) => started.ok(),
                () = signals.next() => None,
            }
        }
    };
    match ended {
        Some(started) => match started?? {
            // It had just started.
            Some(node) => node.shutdown().await.map(|()| None),
            None => Ok(None),
        },
        None => Ok(None),
    }
}

/// Describes the protection of the node, for its operator.
pub(super) fn exposure(security: &SecurityConfig, insecure: bool) -> String {
    let SecurityConfig { tls, admin_token, cluster_secret, .. } = security;
    let meant = if insecure { " (--insecure)" } else { "; listening on loopback only" };
    if tls.is_none() && admin_token.is_none() && cluster_secret.is_none() {
        return format!(
            "nothing is encrypted or authenticated: whoever can connect may read and write all \
             data, change members and pass for a node{meant}"
        );
    }
    let tls_words = match tls {
        Some(_) => "TLS on both ports",
        None => "no TLS: token, secret and data travel in plain text",
    };
    let by_role = security.operator_token.is_some() || security.viewer_token.is_some();
    let token_words = match admin_token {
        Some(_) if by_role => "changes, heatmaps and /api/ ask for the token of a role",
        Some(_) => "changes, heatmaps and /api/ ask for the admin token",
        None => "no admin token: whoever can connect may change routes and members",
    };
    let node_words = match (tls, cluster_secret) {
        (Some(_), Some(_)) => "nodes show a certificate or the cluster secret",
        (Some(_), None) => "nodes show a certificate",
        (None, Some(_)) => "nodes show the cluster secret",
        (None, None) if admin_token.is_some() => "nodes show what follows from the admin token",
        (None, None) => "nodes are not authenticated (--cluster-secret-file)",
    };
    let store_words = match security.store_token {
        Some(_) => "; keys ask for the store token",
        None => "",
    };
    let meant = if tls.is_some() && admin_token.is_some() { "" } else { meant };
    format!("{tls_words}; {token_words}{store_words}; {node_words}{meant}")
}
