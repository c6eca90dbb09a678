//! Which file of a crate imports from which, as far as paths in the text say, and circles in that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{files, read};

/// By node: the nodes that it has an arrow to.
pub type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The modules of a crate, by path from its root (which is "").
struct Modules(BTreeMap<String, Module>);

#[derive(Default)]
struct Module {
    /// The paths in it: segments from `crate`, `self` or `super`.
    paths: BTreeSet<Vec<String>>,
    /// Names that it imports or re-exports, and from where.
    names: BTreeMap<String, Vec<String>>,
}

/// The files of a crate that import from each other, without what only tests import.
pub fn imports(src: &Path) -> Arrows {
    let mut modules = Modules(BTreeMap::new());
    for file in files(src, &[".rs"]) {
        let name = file.strip_prefix(src).expect("it lies in it").with_extension("");
        let name = name.to_string_lossy().replace('/', "::");
        let name = name.strip_suffix("::mod").unwrap_or(&name).to_owned();
        let name = if name == "lib" { String::new() } else { name };
        let text = read(&file);
        // What only tests are built with may import as it likes.
        let last = name.rsplit("::").next().unwrap_or_default();
        let of_tests = ["tests", "fuzzing", "testing", "simulation"].iter();
        if of_tests.clone().any(|part| name.split("::").any(|name| name == *part))
            || ["_tests", "_loom", "model"].iter().any(|ending| last.ends_with(ending))
        {
            continue;
        }
        modules.0.insert(name, Module::of(&text));
    }
    modules.arrows()
}

impl Module {
    fn of(text: &str) -> Self {
        let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code: Vec<&str> =
            text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let code = code.join(" ");
        let mut module = Module::default();
        for (at, _) in code.match_indices("use ") {
            let Some((tree, _)) = code[at + 4..].split_once(';') else { continue };
            let before = code[..at].trim_end();
            let passed_on = before.ends_with("pub") || before.ends_with("pub(crate)");
            if !["crate::", "super::", "self::"].iter().any(|root| tree.starts_with(root))
                && !tree.contains("::")
            {
                continue;
            }
            leaves(&mut Vec::new(), tree, &mut |path, known_as| {
                module.names.insert(known_as.to_owned(), path.to_vec());
                // What is only passed on is not used here.
                if !passed_on {
                    module.paths.insert(path.to_vec());
                }
            });
        }
        // Paths within the code, such as `super::budget::MAX`.
        for root in ["crate::", "super::", "self::"] {
            for (at, _) in code.match_indices(root) {
                // `pub(in crate::a)` says who sees an item.
                if code[..at].ends_with("pub(in ") {
                    continue;
                }
                let before = code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let is_path = |c: char| !c.is_alphanumeric() && c != '_' && c != ':';
                let end = at + code[at..].find(is_path).unwrap_or(code.len() - at);
                // The names of a list were taken above.
                if code[end..].starts_with('{') {
                    continue;
                }
                let path = &code[at..end];
                let segments = path.split("::").filter(|segment| !segment.is_empty());
                module.paths.insert(segments.map(str::to_owned).collect());
            }
        }
        module
    }
}

/// Calls `found` with each path of a tree such as `super::{a::B, c::{self, D as E}}`.
fn leaves(before: &mut Vec<String>, tree: &str, found: &mut impl FnMut(&[String], &str)) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{')
        && !head.contains(',')
    {
        let depth = before.len();
        before.extend(head.split("::").map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned));
        let group = group.trim_end().strip_suffix('}').unwrap_or(group);
        let (mut open, mut from) = (0, 0);
        for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => open += 1,
                '}' => open -= 1,
                ',' if open == 0 => {
                    leaves(before, &group[from..at], found);
                    from = at + 1;
                }
                _ => {}
            }
        }
        before.truncate(depth);
    } else if !tree.is_empty() {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let segments = path
            .split("::")
            .map(str::trim)
            .filter(|segment| *segment != "self" || before.is_empty());
        let path: Vec<String> = before.iter().cloned().chain(segments.map(str::to_owned)).collect();
        let last = path.last().cloned().unwrap_or_default();
        found(&path, if alias.is_empty() { &last } else { alias.trim() });
    }
}

impl Modules {
    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (name, module) in &self.0 {
            let from = arrows.entry(shown(name)).or_default();
            for path in &module.paths {
                let Some(to) = self.defining(name, path, 0) else { continue };
                // An item that has its own children below it is one with them only as their parent.
                if to != *name {
                    from.insert(shown(&to));
                }
            }
        }
        arrows
    }

    /// The module that defines what `path` in `module` names; `None`: not of this crate.
    fn defining(&self, module: &str, path: &[String], depth: usize) -> Option<String> {
        let mut at = module.to_owned();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (at, rest) = (String::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    at = at.rsplit_once("::").map_or("", |(parent, _)| parent).to_owned();
                    rest = &rest[1..];
                }
            }
            first if self.0.contains_key(&join(module, first)) => {}
            _ => return None,
        }
        for (index, segment) in rest.iter().enumerate() {
            let below = join(&at, segment);
            if self.0.contains_key(&below) {
                at = below;
                continue;
            }
            // An item here, or one that this module has from elsewhere.
            let named = self.0.get(&at).and_then(|here| here.names.get(segment));
            return match named {
                Some(path) if depth < 8 && path.as_slice() != rest => {
                    let from = self.defining(&at, path, depth + 1);
                    from.or_else(|| (index == 0 && depth == 0).then(|| at.clone()))
                }
                _ => Some(at),
            };
        }
        Some(at)
    }
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

fn shown(module: &str) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.to_owned() }
}

/// A shortest circle through each node that is in one, none twice.
pub fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for start in arrows.keys() {
        let mut before: BTreeMap<&String, &String> = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([start]);
        'search: while let Some(at) = queue.pop_front() {
            for next in arrows.get(at).into_iter().flatten() {
                if next == start {
                    let mut circle = vec![start.clone(), at.clone()];
                    let mut here = at;
                    while here != start {
                        here = before[here];
                        circle.push(here.clone());
                    }
                    circle.reverse();
                    circle.dedup();
                    let mut members = circle.clone();
                    members.sort();
                    members.dedup();
                    if done.insert(members) {
                        found.push(circle);
                    }
                    break 'search;
                }
                if next != start && !before.contains_key(next) {
                    before.insert(next, at);
                    queue.push_back(next);
                }
            }
        }
    }
    found
}
