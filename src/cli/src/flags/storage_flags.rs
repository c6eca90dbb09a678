//! Limits on memory and disk: flags shared by `serve` and `demo`.

use clap::Args;

use super::keyviz_flags::{SizeError, size_in};
use keyviz_raft::{GroupOptions, StorageOptions};

/// Default memory for cached pages.
pub const DEFAULT_CACHE_BYTES: u64 = keyviz_node::DEFAULT_CACHE_BYTES;

/// The limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageFlags {
    /// Memory for cached pages.
    pub cache_bytes: u64,
    /// Memory for recent log entries.
    pub log_cache_bytes: u64,
    /// Bytes of requests in progress.
    pub queue_bytes: u64,
    /// Bytes of the disk to keep free; `None`: by its size.
    pub min_free_bytes: Option<u64>,
}

impl StorageFlags {
    /// The defaults of `serve`.
    pub const DEFAULT: StorageFlags = StorageFlags {
        cache_bytes: DEFAULT_CACHE_BYTES,
        log_cache_bytes: StorageOptions::LOG_CACHE_BYTES,
        queue_bytes: GroupOptions::QUEUE_BYTES,
        min_free_bytes: None,
    };
}

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Memory and disk")]
pub struct StorageArgs {
    /// Memory for cached pages of each node, in bytes or as KiB, MiB or GiB; at least 1MiB
    /// [default: 48MiB; demo: 8MiB]
    #[arg(long, env = "KEYVIZ_CACHE_BYTES", value_name = "SIZE", value_parser = cache_bytes)]
    cache_bytes: Option<u64>,
    /// Memory for recent log entries, over all groups of a node
    #[arg(
        long,
        env = "KEYVIZ_LOG_CACHE_BYTES",
        value_name = "SIZE",
        default_value = "16MiB",
        value_parser = cache_bytes
    )]
    log_cache_bytes: u64,
    /// Maximum bytes of writes in progress on a node; above it writes are refused with
    /// RESOURCE_EXHAUSTED; at least 16MiB
    #[arg(
        long,
        env = "KEYVIZ_QUEUE_BYTES",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = queue_bytes
    )]
    queue_bytes: u64,
    /// Bytes of the disk to keep free: below, the node is read-only until there is space; 0: never
    /// refuse [default: 256MiB, or an eighth of the disk if that is less]
    #[arg(long, env = "KEYVIZ_MIN_FREE_BYTES", value_name = "SIZE", value_parser = min_free_bytes)]
    min_free_bytes: Option<u64>,
}

fn cache_bytes(text: &str) -> Result<u64, SizeError> {
    size_in(text, 1 << 20, 1 << 40)
}

fn queue_bytes(text: &str) -> Result<u64, SizeError> {
    size_in(text, 16 << 20, 1 << 40)
}

fn min_free_bytes(text: &str) -> Result<u64, SizeError> {
    size_in(text, 0, 1 << 50)
}

impl StorageArgs {
    /// The limits, with `cache_bytes` as the default of the cache.
    pub fn flags(&self, cache_bytes: u64) -> StorageFlags {
        StorageFlags {
            cache_bytes: self.cache_bytes.unwrap_or(cache_bytes),
            log_cache_bytes: self.log_cache_bytes,
            queue_bytes: self.queue_bytes,
            min_free_bytes: self.min_free_bytes,
        }
    }
}

impl From<&StorageFlags> for StorageOptions {
    fn from(flags: &StorageFlags) -> Self {
        StorageOptions {
            cache_bytes: flags.cache_bytes,
            log_cache_bytes: flags.log_cache_bytes,
            min_free_bytes: flags.min_free_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::text;

    #[test]
    fn the_defaults_that_the_help_tells_are_those_that_are_used() {
        assert_eq!(text::short_bytes(DEFAULT_CACHE_BYTES), "48.0 MiB");
        assert_eq!(text::short_bytes(GroupOptions::QUEUE_BYTES), "64.0 MiB");
        assert_eq!(text::short_bytes(StorageOptions::LOG_CACHE_BYTES), "16.0 MiB");
    }
}
