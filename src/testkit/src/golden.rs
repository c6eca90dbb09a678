//! The bytes in `docs/format.md`, to compare with those that the code writes.

/// The bytes of a `golden` block of `docs/format.md`, as hexadecimal digits.
///
/// # Panics
/// If the page has no such block.
pub fn golden(name: &str) -> String {
    let page = include_str!("../../../docs/format.md");
    let fence = format!("```golden {name}\n");
    let block = page.split_once(&fence).unwrap_or_else(|| panic!("no block {name} in the page")).1;
    let block = block.split_once("```").expect("a block ends").0;
    block.split_whitespace().collect()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
