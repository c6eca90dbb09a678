//! `docs/configuration.md` has every flag, variable and default that `--help` has, and no others.

use std::collections::BTreeMap;
use std::process::Command;

use super::{read, root};
use crate::support::KEYVIZ;

/// A flag: its variable and its default, both empty where it has none.
type Flags = BTreeMap<String, (String, String)>;

fn help(command: &[&str]) -> String {
    let output = Command::new(KEYVIZ).args(command).arg("--help").output().expect("it starts");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).expect("help is text")
}

/// The subcommands in a help text.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| line.starts_with("  "));
    // A description that is wrapped is indented further.
    let names = lines.filter(|line| !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn within<'a>(text: &'a str, from: &str, to: char) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(found, _)| found)
}

/// The flags in a help text.
fn flags(help: &str) -> Flags {
    let mut found = Flags::new();
    let mut entries: Vec<String> = Vec::new();
    for line in help.lines() {
        let begins = line.trim_start().starts_with('-') && line.starts_with("  ");
        let indent = line.len() - line.trim_start().len();
        if begins && indent <= 6 {
            entries.push(line.to_owned());
        } else if line.starts_with("        ")
            && let Some(entry) = entries.last_mut()
        {
            entry.push(' ');
            entry.push_str(line.trim());
        } else if !line.is_empty() && !line.starts_with(' ') {
            entries.push(String::new());
        }
    }
    for entry in entries {
        let Some(at) = entry.find("--") else { continue };
        let name: String =
            entry[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
        if matches!(&*name, "--help" | "--version" | "--color") {
            continue;
        }
        let variable = within(&entry, "[env: ", '=').unwrap_or_default();
        let default = within(&entry, "[default: ", ']').unwrap_or_default();
        found.insert(name, (variable.to_owned(), default.to_owned()));
    }
    found
}

/// The flags in the tables of a section of the page.
fn documented(page: &str, heading: &str) -> Option<Flags> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let bare = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let rows = section.lines().filter(|line| line.starts_with("| `--"));
    let rows = rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(cells.len() >= 4, "not flag, variable, default and meaning: {row}");
        let flag = cells[0].trim_start_matches("| ").trim_matches('`');
        let flag = flag.split(' ').next().unwrap_or_default().to_owned();
        (flag.trim_matches('`').to_owned(), (bare(cells[1]), bare(cells[2])))
    });
    Some(rows.collect())
}

#[test]
fn every_flag_variable_and_default_is_that_of_the_help() {
    let page = read(root("docs/configuration.md"));
    let connection = documented(&page, "Connection flags").expect("a section");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    let mut queue: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = queue.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let help = help(&words);
        for name in commands(&help) {
            queue.push(path.iter().cloned().chain([name]).collect());
        }
        let mut known = flags(&help);
        if known.contains_key("--node") {
            for (flag, of_page) in &connection {
                let of_help = known.remove(flag);
                if of_help.as_ref() != Some(of_page) {
                    wrong.push(format!("{words:?} {flag}: the help has {of_help:?}"));
                }
            }
        }
        if known.is_empty() {
            continue;
        }
        seen += known.len();
        let heading = format!("`keyviz {}`", words.join(" "));
        let Some(mut on_page) = documented(&page, &heading) else {
            wrong.push(format!("there is no section {heading}"));
            continue;
        };
        for (flag, of_help) in known {
            let of_page = on_page.remove(&flag);
            if of_page.as_ref() != Some(&of_help) {
                wrong.push(format!(
                    "{heading} {flag}: the help has {of_help:?}, the page {of_page:?}"
                ));
            }
        }
        wrong.extend(on_page.keys().map(|flag| format!("{heading} {flag}: the help has it not")));
    }
    assert!(seen >= 100, "only {seen} flags were found");
    assert!(wrong.is_empty(), "docs/configuration.md differs:\n{}", wrong.join("\n"));
}
