//! Starting, watching and stopping the cluster of `demo`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::CliError;
use super::super::load::{LoadError, LoadReport, Progress, latency_words, run};
use super::super::running::{self, RunningNode, Signals};
use super::watch::Watch;
use super::{DemoOptions, LOG, LogFormat};
use crate::terminal::output::ColorDepth;
use crate::terminal::talk::say;
use crate::terminal::text::thousands;
use keyviz_node::LoopWrap;

/// Attempts at removing the temporary folder.
const REMOVALS: u32 = 20;
/// Time between two attempts.
const REMOVE_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Runs the cluster until Ctrl-C or the end of its time, and stops it cleanly.
///
/// # Errors
/// If a node cannot be started or stopped, a control loop of one ends, or the heatmap cannot be
/// drawn.
pub async fn run_demo(
    options: DemoOptions,
    color: ColorDepth,
    wrap: Option<LoopWrap>,
) -> Result<(), CliError> {
    if !io::stdout().is_terminal() {
        // Log lines would corrupt a drawing in place.
        running::log_to_stderr(LOG, LogFormat::Text, None).map_err(CliError::Node)?;
    }
    let mut signals = Signals::new()?;
    if let Some(data) = options.data.clone() {
        return run_in(&data, &options, color, &mut signals, wrap).await;
    }
    let temporary = tempfile::Builder::new().prefix("keyviz-demo-").tempdir()?;
    let ran = run_in(temporary.path(), &options, color, &mut signals, wrap).await;
    remove(temporary).await;
    ran
}

/// Removes the nodes' folders. The storage engine may still write its last file after a node has
/// stopped, which makes the removal of its folder fail for a moment.
async fn remove(temporary: tempfile::TempDir) {
    let path = temporary.keep();
    for _ in 0..REMOVALS {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tokio::time::sleep(REMOVE_AGAIN_AFTER).await;
            }
            _ => return,
        }
    }
    say!("keyviz: cannot remove {}", path.display());
}

async fn run_in(
    data: &Path,
    options: &DemoOptions,
    color: ColorDepth,
    signals: &mut Signals,
    wrap: Option<LoopWrap>,
) -> Result<(), CliError> {
    let starts = options
        .members(data)
        .into_iter()
        .map(|member| RunningNode::start(member, std::future::pending(), wrap.clone()));
    let (nodes, failed): (Vec<_>, Vec<_>) =
        futures::future::join_all(starts).await.into_iter().partition(Result::is_ok);
    let nodes: Vec<RunningNode> = nodes.into_iter().flatten().flatten().collect();
    if let Some(Err(error)) = failed.into_iter().next() {
        // The first reason is reported; running nodes are stopped anyway.
        let _ = stop(nodes).await;
        return Err(CliError::Node(error));
    }
    let shown = show(options, color, signals, &nodes).await;
    let stopped = tokio::select! {
        stopped = stop(nodes) => stopped,
        () = signals.next() => {
            Err(CliError::Node(anyhow::anyhow!("stopped before everything was written")))
        }
    };
    shown.and(stopped)
}

async fn stop(nodes: Vec<RunningNode>) -> Result<(), CliError> {
    let stops = nodes.into_iter().map(RunningNode::shutdown);
    let stopped = futures::future::join_all(stops).await.into_iter().collect::<Result<(), _>>();
    stopped.map_err(CliError::Node)
}

/// Waits until a node cannot go on: one of its control loops ended.
async fn failed(nodes: &[RunningNode]) -> CliError {
    let failures = nodes.iter().map(|node| Box::pin(node.failed()));
    let (failure, at, _) = futures::future::select_all(failures).await;
    CliError::Node(failure.context(format!("node {} stopped", at + 1)))
}

/// Workload and heatmap on a running cluster, until Ctrl-C, the end of its time, or a node that
/// cannot go on.
async fn show(
    options: &DemoOptions,
    color: ColorDepth,
    signals: &mut Signals,
    nodes: &[RunningNode],
) -> Result<(), CliError> {
    let progress = Arc::new(Progress::default());
    let workload = options.load.map(|pattern| {
        let load = run(options.workload(pattern), options.addresses(), progress.clone());
        tokio::spawn(load)
    });
    let mut watch = Watch::new(options, color, &progress)?;
    let looked = tokio::select! {
        looked = watch.until_the_end(signals) => looked,
        failure = failed(nodes) => Err(failure),
    };
    progress.stop();
    let report = match workload {
        Some(workload) => workload.await.map_err(LoadError::from)?,
        None => Ok(LoadReport::default()),
    };
    watch.leave_screen();
    looked?;
    watch.last_picture().await?;
    let report = report?;
    if options.load.is_some() {
        let findings = report.findings();
        let errors = thousands(report.errors);
        say!(
            "keyviz: {} writes, {} reads, {errors} errors, p99 {}",
            thousands(report.writes_acked),
            thousands(report.reads_ok + report.scans_ok),
            latency_words(report.p99_us),
        );
        if !findings.is_clean() {
            return Err(CliError::LoadFindings(findings));
        }
    }
    Ok(())
}
