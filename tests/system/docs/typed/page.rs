//! The command lines of a page, as a reader would type them.

/// One command, with its continuation lines joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Typed {
    /// The heading of the second level that it stands under.
    pub(super) section: String,
    /// The line of the page, from 1.
    pub(super) at: usize,
    /// The command without its comment.
    pub(super) text: String,
    /// The exit code that its comment gives: `# exit code 5`; else 0.
    pub(super) exit: i32,
}

/// Programs that a block of commands may begin with. Other blocks show output.
const PROGRAMS: &[&str] = &[
    "$",
    "(umask",
    "cargo",
    "curl",
    "deploy/certificates.sh",
    "docker",
    "export",
    "install",
    "keyviz",
    "kubectl",
    "mv",
    "openssl",
    "systemctl",
    "useradd",
];

/// All commands of a page.
pub(super) fn commands(page: &str) -> Vec<Typed> {
    let mut found = Vec::new();
    let mut section = String::new();
    let mut block: Option<Vec<(usize, &str)>> = None;
    for (number, line) in page.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ").filter(|_| block.is_none()) {
            heading.clone_into(&mut section);
        }
        match (&mut block, line.starts_with("```")) {
            (None, true) if matches!(line, "```" | "```sh") => block = Some(Vec::new()),
            // Something else than commands.
            (None, true) => block = Some(vec![(0, "text")]),
            (Some(lines), true) => {
                found.extend(block_commands(&section, lines));
                block = None;
            }
            (Some(lines), false) => lines.push((number + 1, line)),
            (None, false) => {}
        }
    }
    found
}

fn block_commands(section: &str, lines: &[(usize, &str)]) -> Vec<Typed> {
    let first = lines.first().and_then(|(_, line)| line.split_whitespace().next());
    if !first.is_some_and(|word| PROGRAMS.contains(&word)) {
        return Vec::new();
    }
    let prompts = first == Some("$");
    let mut found: Vec<Typed> = Vec::new();
    let mut goes_on = false;
    for (at, line) in lines {
        let typed = match (goes_on, prompts) {
            (true, _) | (false, false) => line.trim(),
            (false, true) => match line.strip_prefix("$ ") {
                Some(typed) => typed.trim(),
                None => continue,
            },
        };
        let (text, comment) = typed.split_once(" #").unwrap_or((typed, ""));
        let text = text.trim();
        let continues = text.strip_suffix('\\');
        let text = continues.unwrap_or(text).trim();
        let exit = comment.split_once("exit code ").map_or("0", |(_, code)| code);
        let digits: String = exit.chars().take_while(char::is_ascii_digit).collect();
        let exit: i32 = digits.parse().expect("an exit code is a number");
        if goes_on {
            let last = found.last_mut().expect("it continues one");
            last.text = format!("{} {text}", last.text);
            last.exit = last.exit.max(exit);
        } else if !text.is_empty() && !text.starts_with('#') {
            found.push(Typed { section: section.to_owned(), at: *at, text: text.to_owned(), exit });
        }
        goes_on = continues.is_some();
    }
    found
}

#[test]
fn commands_are_told_from_what_they_print() {
    let page = "## One\n```\nkeyviz get a   # a comment\nkeyviz serve --id 1 \\\n  --data D\n```\n\
                ```\nnode 1 says\n```\n## Two\n```sh\n\
                $ keyviz x     # exit code 5: why\nsaid\n```\n";
    let found = commands(page);
    let told: Vec<(&str, &str, i32)> =
        found.iter().map(|typed| (&*typed.section, &*typed.text, typed.exit)).collect();
    let expected = [
        ("One", "keyviz get a", 0),
        ("One", "keyviz serve --id 1 --data D", 0),
        ("Two", "keyviz x", 5),
    ];
    assert_eq!(told, expected);
}
