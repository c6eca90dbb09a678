//! Limits that several layers enforce.

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 4_096;

/// First byte of keys reserved for the system.
pub const RESERVED_PREFIX: u8 = 0x00;
