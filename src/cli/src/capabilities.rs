//! `capabilities`: what a node and its cluster can do.

use std::io::Write;

use clap::Args;
use comfy_table::{Table, presets};

use super::CliError;
use super::client::NodeArgs;
use super::data::kv::OneFormat;
use super::terminal::{output, text};
use keyviz_json::CapabilitiesJson;
use keyviz_proto as proto;

/// `capabilities`.
#[derive(Args, Debug)]
pub struct CapabilitiesArgs {
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    format: OneFormat,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// Runs `capabilities`.
pub async fn run(args: CapabilitiesArgs) -> Result<(), CliError> {
    let said = args.nodes.client()?.capabilities().await?;
    let mut out = output::stdout();
    match args.format {
        OneFormat::Json => output::json_line(&mut out, &CapabilitiesJson::from(&said))?,
        OneFormat::Table => {
            writeln!(out, "{}\n", table(&said).trim_fmt())?;
            words(&said).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// A line for each feature: whether the node asked, and all members, can do it.
fn table(said: &proto::Capabilities) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["FEATURE", "NODE", "CLUSTER", "NOT ON"]);
    let members = || said.members.iter().filter(|member| member.ok);
    let mut features: Vec<&String> =
        said.node.iter().chain(members().flat_map(|member| &member.can)).collect();
    features.sort_unstable();
    features.dedup();
    for feature in features {
        let yes = |can: bool| if can { "yes" } else { "no" };
        let without = members().filter(|member| !member.can.contains(feature));
        let without: Vec<String> = without.map(|member| member.id.to_string()).collect();
        table.add_row([
            text::preview(feature.as_bytes()).into_owned(),
            yes(said.node.contains(feature)).to_owned(),
            yes(said.cluster.contains(feature)).to_owned(),
            without.join(", "),
        ]);
    }
    table
}

fn words(said: &proto::Capabilities) -> Vec<String> {
    let member = |member: &proto::MemberCapabilities| match member.ok {
        true => format!("node {}: version {}", member.id, text::inert(&member.version)),
        false => format!("node {} did not answer: {}", member.id, text::inert(&member.error)),
    };
    said.members.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_a_member_lacks_is_not_one_of_the_cluster() {
        let member = |id, can: &[&str]| proto::MemberCapabilities {
            id,
            ok: true,
            version: "0.1.0".to_owned(),
            can: can.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        let silent =
            proto::MemberCapabilities { id: 3, error: "\x1b[2J".to_owned(), ..Default::default() };
        let said = proto::Capabilities {
            node: vec!["blocks".to_owned(), "roles".to_owned()],
            cluster: vec!["blocks".to_owned()],
            members: vec![member(1, &["blocks", "roles"]), member(2, &["blocks", "new"]), silent],
            ..Default::default()
        };
        let table = table(&said).to_string();
        let row = |name: &str| {
            let line = table.lines().find(|line| line.contains(name)).expect(name);
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("blocks"), ["yes", "yes"]);
        assert_eq!(row("roles"), ["yes", "no", "2"]);
        assert_eq!(row("new"), ["no", "no", "1"]);
        let words = words(&said);
        assert_eq!(words[0], "node 1: version 0.1.0");
        assert!(words[2].starts_with("node 3 did not answer") && !words[2].contains('\x1b'));
    }
}
