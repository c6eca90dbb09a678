//! Says which commit the command is of.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    tell_commit();
}

/// Sets `KEYVIZ_COMMIT` for the compiler: as the environment says, else as git does, else
/// `unknown`.
fn tell_commit() {
    const VARIABLE: &str = "KEYVIZ_COMMIT";
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let given = std::env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(commit_of_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={VARIABLE}={commit}");
}

/// `None` where there is no git, or where the repository around this folder is another one.
fn commit_of_git() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    for name in ["HEAD", "logs/HEAD"] {
        // A commit changes one of them. A path that does not exist would run this script always.
        let path = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists());
        path.into_iter().for_each(|path| println!("cargo::rerun-if-changed={path}"));
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().to_owned())
}
