//! The messages in `docs/troubleshooting.md` are those of the program.

use super::{files, read, root};

/// Text without line breaks and the escapes of Rust's strings.
fn flat(text: &str) -> String {
    let joined = text.replace("\\\n", " ").replace('"', "");
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_message_of_the_troubleshooting_page_is_in_the_source() {
    let mut sources = Vec::new();
    files(&root("src"), ".rs", &mut sources);
    let sources: Vec<String> = sources.iter().map(|path| flat(&read(path))).collect();
    let page = read(root("docs/troubleshooting.md"));
    let (mut seen, mut wrong) = (0, Vec::new());
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let message = row.trim_start_matches("| ").split(" | ").next().unwrap_or_default();
        for quoted in message.split('`').skip(1).step_by(2) {
            if quoted.starts_with('/') || quoted.starts_with("keyviz_") {
                continue;
            }
            seen += 1;
            for part in quoted.split("...").map(|part| part.trim_matches([' ', ':', ';'])) {
                // Short words, such as those between two values, are everywhere.
                let known = part.len() < 4 || sources.iter().any(|source| source.contains(part));
                if !known {
                    wrong.push(format!("{part:?} of {quoted:?}"));
                }
            }
        }
    }
    assert!(seen >= 40, "only {seen} messages were found");
    assert!(wrong.is_empty(), "the source has no such message:\n{}", wrong.join("\n"));
}
