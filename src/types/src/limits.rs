//! Limits that more than one layer keeps.

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 4_096;

/// First byte of keys that belong to the system.
pub const RESERVED_PREFIX: u8 = 0x00;
