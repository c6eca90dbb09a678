//! The shape of the source: which crate may use which, no file that imports itself by way of
//! others, no long file and no long line. What breaks a rule is named.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use imports::{circles, imports};

/// The crates from the bottom up: name, folder, and the crates that it may use.
const CRATES: &[(&str, &str, &[&str])] = &[
    ("testkit", "src/testkit", &[]),
    ("types", "src/types", &[]),
    ("core", "src/keyviz", &["types"]),
    ("catalog", "src/catalog", &["types"]),
    ("directory", "src/directory", &["types"]),
    ("proto", "src/proto", &[]),
    ("json", "src/json", &["proto"]),
    ("security", "src/security", &[]),
    ("backup", "src/backup", &["proto"]),
    ("client", "src/client", &["types", "proto", "json", "security"]),
    ("raft", "src/raft", &["types", "proto", "security"]),
    ("catalog-group", "src/catalog_group", &["types", "catalog", "raft"]),
    ("kv", "src/kv", &["types", "core", "directory", "raft"]),
    ("fanout", "src/fanout", &["types", "core", "catalog", "directory"]),
    (
        "peer",
        "src/peer",
        &[
            "types",
            "core",
            "catalog",
            "directory",
            "proto",
            "security",
            "raft",
            "catalog-group",
            "kv",
            "fanout",
        ],
    ),
    (
        "server",
        "src/server",
        &[
            "types",
            "core",
            "catalog",
            "directory",
            "proto",
            "json",
            "security",
            "backup",
            "raft",
            "catalog-group",
            "kv",
            "fanout",
            "peer",
        ],
    ),
    (
        "node",
        "src/node",
        &[
            "types",
            "core",
            "catalog",
            "directory",
            "proto",
            "json",
            "security",
            "backup",
            "raft",
            "catalog-group",
            "kv",
            "fanout",
            "peer",
            "server",
        ],
    ),
    (
        "cli",
        "src/cli",
        &[
            "types", "core", "catalog", "proto", "json", "security", "backup", "client", "raft",
            "kv", "node",
        ],
    ),
];

/// Crates whose files still import in circles.
const CIRCLES_NOT_YET: &[&str] = &[];

const MAX_FILES: usize = 20;
const MAX_LINES: usize = 500;
const MAX_COLUMNS: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder whose names end so, in order.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("it is readable").path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().expect("it has a name").to_string_lossy();
        if path.is_dir() {
            if !matches!(&*name, "target" | ".git" | "node_modules") {
                found.extend(files(&path, endings));
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The path as one writes it at the root.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The crates of the workspace that a manifest names in a section.
fn named_in(manifest: &str, section: &str) -> BTreeSet<String> {
    let mut within = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            within = line == format!("[{section}]");
        } else if within && let Some(name) = line.strip_prefix("keyviz-") {
            let end = name.find(['.', ' ', '=']).unwrap_or(name.len());
            names.insert(name[..end].to_owned());
        }
    }
    names
}

#[test]
fn structure_every_crate_uses_only_crates_below_it() {
    let mut wrong = Vec::new();
    let mut arrows = BTreeMap::new();
    for (at, (name, folder, may_use)) in CRATES.iter().enumerate() {
        let below: BTreeSet<&str> = CRATES[..at].iter().map(|(name, ..)| *name).collect();
        for used in *may_use {
            assert!(
                below.contains(used),
                "the table lets {name} use {used}, which is not below it"
            );
        }
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        let mut used = named_in(&manifest, "dependencies");
        // For the targets of fuzz/ alone.
        used.remove("testkit");
        for used in used.iter().filter(|used| !may_use.contains(&used.as_str())) {
            wrong.push(format!("{folder}/Cargo.toml: keyviz-{name} must not use keyviz-{used}"));
        }
        let in_tests = named_in(&manifest, "dev-dependencies");
        for used in in_tests.iter().filter(|used| !below.contains(used.as_str())) {
            wrong.push(format!("{folder}/Cargo.toml: keyviz-{used} is above keyviz-{name}"));
        }
        for file in files(&root().join(folder).join("src"), &[".rs"]) {
            for (number, line) in read(&file).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for named in code.split("keyviz_").skip(1).filter(|_| code.contains("::")) {
                    let end = named.find(|c: char| !c.is_ascii_lowercase() && c != '_');
                    let named = named[..end.unwrap_or(named.len())].replace('_', "-");
                    let known = CRATES.iter().any(|(other, ..)| *other == named);
                    let may = may_use.contains(&named.as_str()) || in_tests.contains(&named);
                    if known && !may && named != *name && named != "testkit" {
                        let at = format!("{}:{}", shown(&file), number + 1);
                        wrong.push(format!("{at}: keyviz-{name} must not use keyviz-{named}"));
                    }
                }
            }
        }
        arrows.insert((*name).to_owned(), used);
    }
    let listed = CRATES.iter().map(|(_, folder, _)| (*folder).to_owned()).collect::<BTreeSet<_>>();
    for manifest in files(&root().join("src"), &["Cargo.toml"]) {
        let folder = shown(manifest.parent().expect("it is in a folder"));
        if !listed.contains(&folder) {
            wrong.push(format!("{folder} is a crate that this test does not know"));
        }
    }
    for circle in circles(&arrows) {
        wrong.push(format!("crates use each other in a circle: {}", circle.join(" -> ")));
    }
    assert!(wrong.is_empty(), "arrows that must not be:\n{}", wrong.join("\n"));
}

#[test]
fn structure_no_file_imports_itself_by_way_of_others() {
    let mut wrong = Vec::new();
    for (name, folder, _) in CRATES {
        let found = circles(&imports(&root().join(folder).join("src")));
        let lines = found.iter().map(|circle| format!("{folder}: {}", circle.join(" -> ")));
        let lines: Vec<String> = lines.collect();
        match CIRCLES_NOT_YET.contains(name) {
            true if lines.is_empty() => {
                wrong.push(format!("{name} has no circle any more: take it off the list"));
            }
            true => lines.iter().for_each(|line| println!("not yet: {line}")),
            false => wrong.extend(lines),
        }
    }
    assert!(wrong.is_empty(), "files that import in a circle:\n{}", wrong.join("\n"));
}

/// `println!` and its like panic where stdout or stderr fails: commands write with `writeln!` and
/// say with `say!`, nodes log.
#[test]
fn structure_nothing_prints_in_a_way_that_can_panic() {
    let mut wrong = Vec::new();
    for file in files(&root().join("src"), &[".rs"]) {
        let path = shown(&file);
        // Examples print for the reader who runs them.
        let of_tests = [
            "build.rs",
            "_tests.rs",
            "/tests.rs",
            "/tests/",
            "/simulation/",
            "/testkit/",
            "/examples/",
        ];
        if of_tests.iter().any(|part| path.contains(part)) {
            continue;
        }
        let text = read(&file);
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            if ["print!(", "println!(", "dbg!("].iter().any(|call| line.contains(call)) {
                wrong.push(format!("{path}:{}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "these may panic where nobody reads:\n{}", wrong.join("\n"));
}

#[test]
fn structure_no_file_is_longer_than_500_lines() {
    let mut wrong = Vec::new();
    for folder in ["src", "web", "tests"] {
        for file in files(&root().join(folder), &[".rs", ".js", ".css", ".html"]) {
            let lines = read(&file).lines().count();
            if lines > MAX_LINES {
                wrong.push(format!("{} has {lines} lines", shown(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "files over {MAX_LINES} lines:\n{}", wrong.join("\n"));
}

#[test]
fn structure_no_folder_holds_more_than_20_files_of_source() {
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    for (.., folder, _) in CRATES {
        for file in files(&root().join(folder).join("src"), &[".rs"]) {
            let name = file.file_name().expect("it has a name").to_string_lossy();
            // Tests lie beside what they test, and do not count.
            let of_tests = name == "tests.rs" || name.ends_with("_tests.rs");
            let folder = shown(file.parent().expect("it lies in a folder"));
            *held.entry(folder).or_default() += usize::from(!of_tests);
        }
    }
    let large = held.into_iter().filter(|(_, count)| *count > MAX_FILES);
    let wrong: Vec<String> =
        large.map(|(folder, count)| format!("{folder}: {count} files")).collect();
    assert!(wrong.is_empty(), "folders of over {MAX_FILES} files:\n{}", wrong.join("\n"));
}

#[test]
fn structure_no_line_is_wider_than_100_columns() {
    let mut wrong = Vec::new();
    for file in files(root(), &[".rs", ".md", ".js", ".proto", ".toml"]) {
        let path = shown(&file);
        let text = read(&file);
        let wide = text.lines().enumerate().find(|(_, line)| {
            // A table's row and an address cannot be broken.
            let whole = path.ends_with(".md") && line.starts_with('|') || line.contains("https://");
            line.chars().count() > MAX_COLUMNS && !whole
        });
        let Some((at, line)) = wide else { continue };
        wrong.push(format!("{path}:{}: {} columns", at + 1, line.chars().count()));
    }
    assert!(wrong.is_empty(), "lines over {MAX_COLUMNS} columns:\n{}", wrong.join("\n"));
}
