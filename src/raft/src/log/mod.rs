//! The replicated logs of all groups of a node: their encoding, the thread that makes them durable,
//! and the log storage of one group for openraft.

mod blocks;
pub(super) mod record;
mod shared;
mod stats;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use blocks::{LogExtent, check as check_log, groups as log_groups};
pub use record::CorruptLog;
pub(crate) use record::{purged_record, vote_record};
pub(crate) use shared::CacheBudget;
pub use stats::{BATCH_BUCKETS, SYNC_BUCKETS, WriterStats};
pub(crate) use store::GroupLog;
#[cfg(test)]
pub(crate) use tests::format_samples;
pub(crate) use writer::{Op, Writer, stopped};
