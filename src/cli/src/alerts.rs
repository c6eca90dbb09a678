//! `alerts`: checks a file of rules.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::CliError;
use crate::flags::alert_flags::read_rules;
use crate::terminal::{output, text};
use keyviz_node::alerts::{Rule, RulesError, parse_rules};

/// `alerts`.
#[derive(Args, Debug)]
pub struct AlertsArgs {
    #[command(subcommand)]
    command: AlertsCommand,
}

#[derive(Subcommand, Debug)]
enum AlertsCommand {
    /// Check a file of rules, and say in words what they alert on
    Check(CheckArgs),
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// The file, YAML; default: the rules that are shipped
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Rules that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .file.display())]
pub struct BadRules {
    file: PathBuf,
    reason: RulesError,
}

/// Runs `alerts`.
pub fn run(args: AlertsArgs) -> Result<(), CliError> {
    let AlertsCommand::Check(CheckArgs { file }) = args.command;
    let rules = read_rules(&file).and_then(|rules| parse_rules(&rules));
    let rules = match rules {
        Ok(rules) => rules,
        Err(reason) => return Err(BadRules { file, reason }.into()),
    };
    let mut out = output::stdout();
    for rule in &rules {
        writeln!(out, "{}", words(rule))?;
    }
    writeln!(out, "{} rules", rules.len())?;
    out.flush()?;
    Ok(())
}

fn words(rule: &Rule) -> String {
    let keys = match (&rule.range.start[..], rule.range.end.as_deref()) {
        ([], None) => "all keys".to_owned(),
        (start, None) => format!("keys from {}", text::preview(start)),
        (start, Some(end)) => {
            format!("keys from {} to {}", text::preview(start), text::preview(end))
        }
    };
    let of = if rule.each_route { format!("each route of {keys}") } else { keys };
    let rate = rule.above_rate.map(|rate| format!("more than {rate}/s"));
    let share = rule.above_share.map(|share| format!("more than {:.0}% of all", share * 100.0));
    let level = rate.into_iter().chain(share).collect::<Vec<_>>().join(" and ");
    let columns = match rule.for_columns {
        1 => "1 column".to_owned(),
        columns => format!("{columns} columns"),
    };
    format!("{} ({}): {of}, {:?}, {level}, for {columns}", rule.name, rule.severity, rule.series)
}
