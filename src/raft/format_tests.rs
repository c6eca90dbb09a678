//! `docs/format.md` and the code say the same bytes.

use super::log::format_samples as log_samples;
use super::storage::format_samples as storage_samples;

/// The bytes of a `golden` block of `docs/format.md`, as hexadecimal digits.
pub(crate) fn golden(name: &str) -> String {
    let page = include_str!("../../docs/format.md");
    let fence = format!("```golden {name}\n");
    let block = page.split_once(&fence).unwrap_or_else(|| panic!("no block {name} in the page")).1;
    let block = block.split_once("```").expect("a block ends").0;
    block.split_whitespace().collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn format_the_page_has_the_bytes_that_the_code_writes() {
    let samples = log_samples().into_iter().chain(storage_samples());
    let wrong: Vec<String> = samples
        .filter(|(name, bytes)| golden(name) != hex(bytes))
        .map(|(name, bytes)| format!("{name}: the code writes {}", hex(&bytes)))
        .collect();
    assert!(wrong.is_empty(), "docs/format.md differs:\n{}", wrong.join("\n"));
}
