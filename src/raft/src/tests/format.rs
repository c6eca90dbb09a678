//! `docs/format.md` and the code say the same bytes.

use crate::log::format_samples as log_samples;
use crate::storage::format_samples as storage_samples;

use keyviz_testkit::golden::{golden, hex};

#[test]
fn format_the_page_has_the_bytes_that_the_code_writes() {
    let samples = log_samples().into_iter().chain(storage_samples());
    let wrong: Vec<String> = samples
        .filter(|(name, bytes)| golden(name) != hex(bytes))
        .map(|(name, bytes)| format!("{name}: the code writes {}", hex(&bytes)))
        .collect();
    assert!(wrong.is_empty(), "docs/format.md differs:\n{}", wrong.join("\n"));
}
