//! The command lines of README, of "Getting started", of the handbook and of "Autopilot", read from
//! the pages and typed line by line on fresh nodes, with and without TLS, token and secret.
//!
//! What stands between the lines in words (start node 3 again, stop the process) is done by
//! [`before`] and [`after`]; each names the line that it belongs to, and every one of them has to
//! be met, so that a page cannot change without this file.

mod page;
mod world;

use std::collections::BTreeSet;
use std::process::Command;

use page::{Typed, commands};
use world::{World, argument, copy};

use super::{read, root};
use crate::support::{eventually, stderr};

/// Lines with something to do before or after them, as they begin.
const STEPS: &[&str] = &[
    "openssl rand -hex 32 > pki/cluster-secret",
    "keyviz routes split --auto ID",
    "keyviz routes move ID 2",
    "keyviz serve --id 1 --listen 127.0.0.1:8401",
    "keyviz serve --id 4 ",
    "keyviz cluster add-node 4 ",
    "keyviz cluster status",
    "keyviz cluster remove-node 4",
    "keyviz cluster remove-node 2",
    "keyviz cluster remove-node 3",
    "keyviz serve --id 6 ",
    "keyviz cluster replace-node 3 --with 6",
    "keyviz salvage ",
    "(umask 077; openssl rand -hex 32 > pki/admin-token.next)",
    "deploy/certificates.sh pki node node1 node1.example.net",
    "keyviz serve --id 3 --data /var/lib/keyviz --listen 10.0.2.3:7401",
    "keyviz cluster add-node 3 10.0.2.3:7401",
    "keyviz backup ",
    "keyviz restore ",
    "keyviz serve --id 1 --data /var/lib/keyviz",
];

/// The same line for another node of the list.
fn for_node(text: &str, id: u64) -> String {
    let text = text.replace("--id 1", &format!("--id {id}"));
    let (flags, list) = text.split_once("--bootstrap").unwrap_or((&text, ""));
    let mut flags = flags.to_owned();
    for (one, other) in [
        ("127.0.0.1:8401", format!("127.0.0.1:840{id}")),
        ("127.0.0.1:8501", format!("127.0.0.1:850{id}")),
        ("10.0.1.1:7401", format!("10.0.1.{id}:7401")),
        ("10.0.1.1:7501", format!("10.0.1.{id}:7501")),
    ] {
        flags = flags.replace(one, &other);
    }
    if list.is_empty() { flags } else { format!("{flags}--bootstrap{list}") }
}

/// What the page says in words in front of a line; the line as it is to be typed.
fn before(world: &mut World, typed: &Typed) -> Option<String> {
    let text = typed.text.as_str();
    match text {
        _ if text.starts_with("keyviz routes split --auto ID") => {
            // The route that has load is the one of the workload's keys.
            let load = world.sh("keyviz load --duration 2s --rate 300 --key-prefix key/");
            assert!(load.status.success(), "{}", stderr(&load));
            let routes = world.sh("keyviz routes list --format json");
            let routes: serde_json::Value =
                serde_json::from_slice(&routes.stdout).expect("--format json prints JSON");
            let mut routes = routes["routes"].as_array().expect("routes").iter();
            let route = routes.rfind(|route| route["start"].as_str() <= Some("key/"));
            return Some(text.replace("ID", &route.expect("one holds it")["route_id"].to_string()));
        }
        _ if text.starts_with("keyviz routes move ID 2") => {
            let routes = world.sh("keyviz routes list --format json");
            let routes: serde_json::Value =
                serde_json::from_slice(&routes.stdout).expect("--format json prints JSON");
            let mut routes = routes["routes"].as_array().expect("routes").iter();
            let route = routes.find(|route| route["group_id"] != 2).expect("one of group 1");
            return Some(text.replace("ID", &route["route_id"].to_string()));
        }
        "keyviz cluster status" if typed.section == "Scale" => {
            let fifth = text_of_fifth();
            world.type_in(&Typed { text: fifth, ..typed.clone() }).expect("node 5 starts");
            world.await_member(5, "10.0.0.5:7401");
        }
        "keyviz cluster remove-node 2" => {
            // Three nodes again, of which one does not answer.
            let gone = world.sh("keyviz cluster remove-node 5");
            assert!(gone.status.success(), "{}", stderr(&gone));
            world.stop_typed("10.0.0.5:7401");
            world.cluster().kill(2);
            eventually("it is noticed", || world.members_that_answer() == [1, 2]);
        }
        "keyviz cluster remove-node 3" => {
            world.cluster().spawn(2);
            eventually("all members answer", || world.members_that_answer() == [1, 2, 3]);
        }
        "keyviz cluster replace-node 3 --with 6" => world.cluster().kill(2),
        _ if text.starts_with("keyviz salvage ") => {
            let cluster = world.cluster();
            (0..3).for_each(|index| assert_eq!(cluster.stop(index), Some(0)));
        }
        _ if text.starts_with("keyviz serve --id 3 ") => {
            assert_eq!(world.cluster().stop(2), Some(0));
        }
        "(umask 077; openssl rand -hex 32 > pki/admin-token.next)" => {
            // The nodes that the token is changed on.
            world.cluster();
        }
        _ if text.starts_with("keyviz backup ") => {
            world.cluster();
            let put = world.sh("keyviz put kept before");
            assert!(put.status.success(), "{}", stderr(&put));
        }
        _ if text.starts_with("keyviz restore ") => {
            world.machines = "restored";
            let mut backups = std::fs::read_dir(world.path("backups")).expect("a folder");
            let backup = backups.next().expect("there is one").expect("it is readable").path();
            let name = "taken.backup";
            copy(&backup, &world.path("work").join(name));
            let from = argument(text, "--from").expect("a file");
            return Some(text.replace(from, name));
        }
        _ => {}
    }
    None
}

fn text_of_fifth() -> String {
    "keyviz serve --id 5 --listen 10.0.0.5:7401 --http 10.0.0.5:7501 --data /var/lib/keyviz --join \
     10.0.0.1:7401"
        .to_owned()
}

/// What the page says in words after a line.
fn after(world: &mut World, typed: &Typed) {
    let text = typed.text.as_str();
    match text {
        "openssl rand -hex 32 > pki/cluster-secret" => {
            copy(&world.path("work/pki/admin-token"), &world.path("home/.keyviz-token"));
        }
        _ if text.starts_with("keyviz serve --id 1 --listen 127.0.0.1:8401") => {
            for id in [2, 3] {
                let line = Typed { text: for_node(text, id), ..typed.clone() };
                world.type_in(&line).expect("the other first members start");
            }
            for id in [1, 2, 3] {
                world.await_member(id, &format!("127.0.0.1:840{id}"));
            }
        }
        _ if text.starts_with("keyviz serve --id 4 ") => {
            world.await_member(4, "10.0.0.4:7401");
            // The sample of the next line shows other ports.
            let address = world.here("10.0.0.4:7401");
            world.alias("127.0.0.1:20504", &address);
        }
        "keyviz cluster remove-node 4" => world.stop_typed("10.0.0.4:7401"),
        _ if text.starts_with("keyviz serve --id 6 ") => world.await_member(6, "10.0.0.6:7401"),
        "(umask 077; openssl rand -hex 32 > pki/admin-token.next)" => {
            let next = world.path("work/pki/admin-token.next");
            copy(&next, &world.path("work/admin-token.next"));
        }
        "deploy/certificates.sh pki node node1 node1.example.net"
            if world.secured && typed.section == "Rotate credentials" =>
        {
            // The new token alone is in force now.
            copy(&world.path("work/admin-token.next"), &world.path("home/.keyviz-token"));
            eventually("the new token is taken", || {
                world.sh("keyviz heat --last 5m").status.success()
            });
            eventually("the old token is refused", || {
                let old = "keyviz heat --last 5m --token-file pki/admin-token";
                world.sh(old).status.code() == Some(5)
            });
        }
        _ if text.starts_with("keyviz serve --id 3 ") => world.await_member(3, "10.0.2.3:7401"),
        _ if text.starts_with("keyviz restore ") => {
            for id in [2, 3] {
                let line = Typed { text: for_node(text, id), ..typed.clone() };
                world.type_in(&line).expect("the folders of the others are made too");
            }
        }
        _ if text.starts_with("keyviz serve --id 1 --data /var/lib/keyviz") => {
            for id in [2, 3] {
                let line = Typed { text: for_node(text, id), ..typed.clone() };
                world.type_in(&line).expect("the others start too");
            }
            for id in [1, 2, 3] {
                world.await_member(id, &format!("10.0.1.{id}:7401"));
            }
            let node = world.here("10.0.1.1:7401");
            eventually("what the backup holds is there", || {
                world.sh(&format!("keyviz get kept --node {node}")).stdout == b"before\n"
            });
        }
        _ => {}
    }
}

/// Types a page; the steps that were met.
fn type_page(world: &mut World, file: &str, met: &mut BTreeSet<&'static str>) {
    let mut section = String::new();
    for typed in commands(&read(root(file))) {
        if typed.section != section {
            world.next_section();
            section.clone_from(&typed.section);
        }
        met.extend(STEPS.iter().filter(|step| typed.text.starts_with(**step)));
        let text = before(world, &typed).unwrap_or_else(|| typed.text.clone());
        let line = Typed { text, ..typed.clone() };
        println!("{file}:{}: {}", typed.at, line.text);
        if let Err(why) = world.type_in(&line) {
            panic!("{file}:{}: {}: {why}", typed.at, typed.text);
        }
        after(world, &line);
    }
}

fn type_pages(secured: bool) {
    if !Command::new("openssl").arg("version").output().is_ok_and(|said| said.status.success()) {
        println!("skipped: openssl is not installed");
        return;
    }
    let mut world = World::new(secured);
    let mut met = BTreeSet::new();
    for file in ["docs/operations.md", "docs/autopilot.md"] {
        world.next_section();
        type_page(&mut world, file, &mut met);
    }
    if secured {
        println!("{} lines were typed", world.ran);
        return;
    }
    for file in ["README.md", "docs/getting-started.md"] {
        world.next_section();
        type_page(&mut world, file, &mut met);
    }
    println!("{} lines were typed", world.ran);
    let missed: Vec<_> = STEPS.iter().filter(|step| !met.contains(*step)).collect();
    assert!(missed.is_empty(), "no page has these lines any more: {missed:?}");
}

#[test]
fn every_command_line_of_the_pages_works_as_it_is_written() {
    type_pages(false);
}

#[test]
fn every_command_line_of_the_handbook_works_with_tls_token_and_secret() {
    type_pages(true);
}

#[test]
fn a_command_that_stopped_working_is_found() {
    let mut world = World::new(false);
    let typed = |text: &str| Typed { section: "S".into(), at: 1, text: text.into(), exit: 0 };
    world.type_in(&typed("keyviz put user/42 hello")).expect("it works");
    world.type_in(&typed("keyviz get user/42")).expect("it works");
    for wrong in ["keyviz cluster statsu", "keyviz get user/43", "keyviz heat --latest 5m"] {
        world.type_in(&typed(wrong)).expect_err(wrong);
    }
}
