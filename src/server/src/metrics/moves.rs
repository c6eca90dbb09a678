//! Moves of routes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;

use keyviz_catalog::RouteMoves;
use keyviz_kv::MoveCounters;

use super::gauges::gauges;
use super::page::Page;

const PHASES: [&str; 4] = ["copying", "sealing", "cleaning", "abandoning"];

/// What this node moved as the driver of moves.
pub(super) fn counters(moved: &MoveCounters, page: &mut Page<'_>) -> fmt::Result {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let help = "Routes that this node moved to another group";
    page.counter("moves_completed", help, read(&moved.moved))?;
    page.counter("moves_abandoned", "Moves that this node took back", read(&moved.abandoned))?;
    page.counter("move_rows", "Rows that this node copied for moves", read(&moved.rows))?;
    page.counter(
        "move_bytes",
        "Bytes of rows that this node copied for moves",
        read(&moved.bytes),
    )?;
    let time = |counter| Duration::from_micros(read(counter));
    let help = "Time for which ranges were with neither group, in moves of this node";
    page.seconds("move_sealed_seconds", help, time(&moved.sealed_us))?;
    let help = "The longest such time, in milliseconds";
    page.gauge("move_sealed_longest_ms", help, read(&moved.longest_sealed_us) / 1_000)
}

/// Moves under way by phase, as applied here.
pub(super) fn phases(moves: &RouteMoves, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let count = |phase| moves.under_way().iter().filter(|now| now.phase.name() == phase).count();
    let by_phase = PHASES.map(|phase| ([("phase", phase.to_owned())], count(phase) as u64));
    gauges(encoder, "moves_under_way", "Moves of routes under way, by phase", by_phase.into_iter())
}
