use super::*;

/// The error message of a command line that must be refused.
fn wrong(line: &[&str]) -> String {
    let line = std::iter::once("keyviz").chain(line.iter().copied());
    let parsed =
        command().try_get_matches_from(line).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            assert_eq!(error.exit_code(), 2);
            return error.to_string();
        }
    };
    let checked = match cli.command {
        Command::Demo(args) => args.options().map(|_| ()),
        Command::Serve(args) => args.options().map(|_| ()),
        Command::Heat(args) => args.query().map(|_| ()),
        Command::Load(args) => args.options().map(|_| ()),
        _ => Ok(()),
    };
    checked.expect_err("the command line is wrong").to_string()
}

fn names(line: &[&str], flag: &str, value: &str) {
    let message = wrong(line);
    let named = format!("invalid value '{value}' for '{flag}");
    assert!(message.contains(&named), "{line:?}: {message}");
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn bad_input_is_named_with_its_flag_by_every_client_command() {
    names(&["put", "", "v"], "<KEY>", "");
    names(&["put", "hex:0", "v"], "<KEY>", "hex:0");
    names(&["put", "hex:00ff", "v"], "<KEY>", "hex:00ff");
    names(&["put", "k", "hex:g0"], "[VALUE]", "hex:g0");
    names(&["get", "k", "--consistency", "eventual"], "--consistency <CONSISTENCY>", "eventual");
    names(&["get", "k", "--format", "csv"], "--format <FORMAT>", "csv");
    names(&["delete", ""], "<KEY>", "");
    names(&["scan", "a", "--limit", "-1"], "--limit <ROWS>", "-1");
    names(&["scan", "a", "--format", "xml"], "--format <FORMAT>", "xml");
    names(&["scan", "hex:x"], "<START>", "hex:x");
    names(&["routes", "split", "0", "k"], "<ID>", "0");
    names(&["routes", "split", "1", ""], "[KEY]", "");
    names(&["routes", "merge", "1", "x"], "<RIGHT>", "x");
    names(&["routes", "watch", "--after", "-1"], "--after <VERSION>", "-1");
    names(&["cluster", "add-node", "0", "a:1"], "<ID>", "0");
    names(&["cluster", "add-node", "4", "a"], "<HOST:PORT>", "a");
    names(&["cluster", "transfer-leader", "1", "0"], "<TO>", "0");
    names(&["routes", "list", "--node", "a"], "--node", "a");
    names(&["cluster", "status", "--node", "a:1,b"], "--node", "b");
    names(&["cluster", "status", "--timeout", "0s"], "--timeout <DURATION>", "0s");
    names(&["get", "k", "--timeout", "-5s"], "--timeout <DURATION>", "-5s");
    names(&["get", "k", "--color", "sometimes"], "--color <WHEN>", "sometimes");
    assert!(wrong(&["get", "k", "--raw", "--format", "json"]).contains("--raw"));
    assert!(wrong(&["frobnicate"]).contains("frobnicate"));
}

#[test]
fn bad_input_is_named_with_its_flag_by_heat() {
    for (flag, value, name) in [
        ("--series", "ops", "--series <SERIES>"),
        ("--last", "5", "--last <DURATION>"),
        ("--last", "-5s", "--last <DURATION>"),
        ("--last", "0s", "--last <DURATION>"),
        ("--from", "99999999999999", "--from <TIME>"),
        ("--from", "yesterday", "--from <TIME>"),
        ("--to", "2026-02-30T00:00:00Z", "--to <TIME>"),
        ("--start", "hex:1", "--start <KEY>"),
        ("--end", "hex:zz", "--end <KEY>"),
        ("--end", "", "--end <KEY>"),
        ("--rows", "-1", "--rows <ROWS>"),
        ("--rows", "1025", "--rows <ROWS>"),
        ("--columns", "2049", "--columns <COLUMNS>"),
        ("--scope", "group", "--scope <SCOPE>"),
        ("--role", "leader", "--role <ROLE>"),
        ("--format", "xml", "--format <FORMAT>"),
    ] {
        names(&["heat", flag, value], name, value);
    }
    names(&["heat", "--from", "5", "--to", "5"], "--to <TIME>", "5");
    names(&["heat", "--start", "b", "--end", "b"], "--end <KEY>", "b");
    names(&["heat", "--live", "--to", "9"], "--to <TIME>", "9");
    assert!(wrong(&["heat", "--last", "1h", "--from", "5"]).contains("--from"));
}

#[test]
fn bad_input_is_named_with_its_flag_by_load() {
    for (flag, value, name) in [
        ("--pattern", "random", "--pattern <PATTERN>"),
        ("--read-ratio", "1.1", "--read-ratio <RATIO>"),
        ("--read-ratio", "-0.1", "--read-ratio <RATIO>"),
        ("--read-ratio", "NaN", "--read-ratio <RATIO>"),
        ("--keys", "0", "--keys <KEYS>"),
        ("--value-bytes", "1048577", "--value-bytes <SIZE>"),
        ("--value-bytes", "2MiB", "--value-bytes <SIZE>"),
        ("--clients", "0", "--clients <CLIENTS>"),
        ("--clients", "4097", "--clients <CLIENTS>"),
        ("--rate", "0", "--rate <OPS>"),
        ("--rate", "-1", "--rate <OPS>"),
        ("--rate", "inf", "--rate <OPS>"),
        ("--operations", "0", "--operations <N>"),
        ("--duration", "1", "--duration <DURATION>"),
        ("--seed", "x", "--seed <SEED>"),
        ("--format", "csv", "--format <FORMAT>"),
    ] {
        names(&["load", flag, value], name, value);
    }
    for speed in ["0", "-2", "fast"] {
        names(&["load", "--trace", "f", "--speed", speed], "--speed <X|max>", speed);
    }
    let long = "p".repeat(4090);
    names(&["load", "--key-prefix", &long], "--key-prefix <TEXT>", &long);
    assert!(wrong(&["load", "--speed", "max"]).contains("--trace <FILE>"));
    assert!(wrong(&["load", "--skip-bad"]).contains("--trace <FILE>"));
    for (flag, value) in [("--pattern", "zipf"), ("--rate", "5"), ("--keys", "5")] {
        let message = wrong(&["load", "--trace", "f", flag, value]);
        assert!(message.contains("cannot be used with") && message.contains(flag), "{message}");
    }
}

#[test]
fn bad_input_is_named_with_its_flag_by_serve() {
    for (flag, value, name) in [
        ("--listen", "localhost", "--listen <IP:PORT>"),
        ("--listen", "127.0.0.1:0", "--listen <IP:PORT>"),
        ("--listen", "0.0.0.0:7401", "--listen <IP:PORT>"),
        ("--advertise", "nowhere", "--advertise <HOST:PORT>"),
        ("--advertise", "0.0.0.0:7401", "--advertise <HOST:PORT>"),
        ("--http", "80", "--http <IP:PORT>"),
        ("--http", "10.0.0.1:80", "--http <IP:PORT>"),
        ("--bootstrap", "a:1", "--bootstrap <ID=HOST:PORT,...>"),
        ("--bootstrap", "0=a:1", "--bootstrap <ID=HOST:PORT,...>"),
        ("--bootstrap", "1=a", "--bootstrap <ID=HOST:PORT,...>"),
        ("--join", "a", "--join <HOST:PORT>"),
        ("--groups", "0", "--groups <N>"),
        ("--replication", "10", "--replication <N>"),
        ("--split-at", "hex:00", "--split-at <KEY,...>"),
        ("--cache-bytes", "5", "--cache-bytes <SIZE>"),
        ("--cache-bytes", "5x", "--cache-bytes <SIZE>"),
        ("--log", "==", "--log <FILTER>"),
        ("--keyviz-step", "99ms", "--keyviz-step <DURATION>"),
        ("--keyviz-step", "1000500us", "--keyviz-step <DURATION>"),
        ("--keyviz-history-columns", "0", "--keyviz-history-columns <COLUMNS>"),
        ("--keyviz-history-bytes", "1KiB", "--keyviz-history-bytes <SIZE>"),
        ("--keyviz-max-tracked-routes", "0", "--keyviz-max-tracked-routes <ROUTES>"),
        (
            "--keyviz-max-member-routes-per-slot",
            "0",
            "--keyviz-max-member-routes-per-slot <ROUTES>",
        ),
        ("--keyviz-resolution-slots", "0", "--keyviz-resolution-slots <SLOTS>"),
    ] {
        names(&["serve", "--id", "1", "--data", "d", flag, value], name, value);
    }
    names(&["serve", "--data", "d", "--id", "0"], "--id <ID>", "0");
    let enabled = ["serve", "--id", "1", "--data", "d", "--keyviz-enabled=maybe"];
    names(&enabled, "--keyviz-enabled", "maybe");
}

#[test]
fn bad_input_is_named_with_its_flag_by_demo() {
    for (flag, value, name) in [
        ("--nodes", "0", "--nodes <N>"),
        ("--nodes", "10", "--nodes <N>"),
        ("--groups", "1025", "--groups <N>"),
        ("--step", "0s", "--step <DURATION>"),
        ("--port", "0", "--port <PORT>"),
        ("--port", "65536", "--port <PORT>"),
        ("--port", "65500", "--port <PORT>"),
        ("--load", "none", "--load <PATTERN>"),
        ("--duration", "30", "--duration <DURATION>"),
    ] {
        names(&["demo", flag, value], name, value);
    }
    assert!(wrong(&["demo", "--no-load", "--load", "zipf"]).contains("--no-load"));
}

#[test]
fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
    let broken = CliError::Output(io::ErrorKind::BrokenPipe.into());
    assert_eq!(broken.exit(), Exit::BrokenPipe);
    assert_eq!(CliError::Output(io::ErrorKind::StorageFull.into()).exit(), Exit::Failed);
}

#[test]
fn an_error_names_each_of_its_causes_once() {
    let lost = || io::Error::new(io::ErrorKind::NotFound, "it is not there");
    let told = anyhow::Error::new(lost()).context("cannot open /a: it is not there");
    assert_eq!(CliError::Node(told).to_string(), "cannot open /a: it is not there");
    let told = anyhow::Error::new(lost()).context("cannot open /a");
    assert_eq!(CliError::Node(told).to_string(), "cannot open /a: it is not there");
}
