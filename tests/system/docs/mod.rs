//! The documentation is true: links lead somewhere, flags and messages exist, samples run.

mod client;
mod configuration;
mod links;
mod messages;
mod samples;
mod typed;

use std::path::{Path, PathBuf};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README and the pages under `docs/`.
fn pages() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root("docs")).expect("there are docs");
    let pages = folder.map(|entry| entry.expect("it is readable").path());
    let mut pages: Vec<PathBuf> =
        pages.filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    pages.push(root("README.md"));
    pages.sort();
    pages
}

/// The files below a folder with this ending.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("it is readable").path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}
