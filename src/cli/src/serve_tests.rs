use clap::Parser;

use super::run::exposure;
use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    serve: ServeArgs,
}

fn options(flags: &[&str]) -> Result<ServeOptions, String> {
    let fixed = ["serve", "--id", "2", "--data", "d", "--listen", "127.0.0.1:7402"];
    let line =
        Line::try_parse_from(fixed.iter().chain(flags)).map_err(|error| error.to_string())?;
    line.serve.options().map_err(|error| error.to_string())
}

const LIST: &str = "1=127.0.0.1:7401,2=127.0.0.1:7402,3=127.0.0.1:7403";

#[test]
fn defaults_are_those_of_the_help() {
    let options = options(&[]).expect("it is right");
    assert_eq!(options.start, Start::Resume);
    assert_eq!(options.keyviz, KeyvizOptions::DEFAULT);
    assert_eq!(options.storage, StorageFlags::DEFAULT);
    assert_eq!(options.advertise.as_str(), "127.0.0.1:7402");
    assert_eq!((options.http, options.insecure, options.log.as_str()), (None, false, DEFAULT_LOG));
}

#[test]
fn replicas_are_verified_once_a_day_unless_said_otherwise() {
    let every = |flags: &[&str]| options(flags).map(|options| options.verify_every.as_secs());
    let default = options(&[]).expect("it is right");
    assert_eq!((default.verify_every.as_secs(), default.verify_bytes_per_s), (86_400, 4 << 20));
    assert_eq!(every(&["--verify-every", "0s"]), Ok(0));
    assert_eq!(every(&["--verify-every", "1s"]), Ok(1));
    let error = every(&["--verify-every", "20ms"]).unwrap_err();
    assert!(error.contains("'--verify-every <DURATION>'"), "{error}");
    let error = options(&["--verify-rate", "1KiB"]).unwrap_err();
    assert!(error.contains("'--verify-rate <SIZE>'"), "{error}");
}

#[test]
fn a_bootstrap_is_the_same_on_every_member() {
    let flags = ["--bootstrap", LIST, "--split-at", "m,hex:62,c", "--groups", "2"];
    let Start::Bootstrap(bootstrap) = options(&flags).expect("it is right").start else {
        panic!("it is a bootstrap");
    };
    assert_eq!(bootstrap.members.len(), 3);
    assert_eq!(bootstrap.members[&3].as_str(), "127.0.0.1:7403");
    assert_eq!((bootstrap.groups, bootstrap.replication), (2, 3));
    assert_eq!(bootstrap.split_at, ["b", "c", "m"]);
}

#[test]
fn a_small_cluster_has_as_many_replicas_as_members() {
    let flags = ["--bootstrap", "2=127.0.0.1:7402"];
    let Start::Bootstrap(bootstrap) = options(&flags).expect("it is right").start else {
        panic!("it is a bootstrap");
    };
    assert_eq!((bootstrap.groups, bootstrap.replication), (DEFAULT_GROUPS, 1));
    let error = options(&["--bootstrap", LIST, "--replication", "5"]).unwrap_err();
    assert_eq!(error, "invalid value '5' for '--replication <N>': there are only 3 members");
}

#[test]
fn a_bootstrap_that_contradicts_itself_is_refused() {
    let error = |list: &str| options(&["--bootstrap", list]).unwrap_err();
    let list = |entry: &str, reason: &str| {
        format!("invalid value '{entry}' for '--bootstrap <ID=HOST:PORT,...>': {reason}")
    };
    assert_eq!(error("2=a:1,3=a:1"), list("3=a:1", "node 2 has this address too"));
    assert_eq!(error("2=a:1,2=b:1"), list("2=b:1", "this id is in the list twice"));
    assert_eq!(
        error("1=127.0.0.1:7402"),
        "invalid value '2' for '--id <ID>': this node is not in the list of --bootstrap"
    );
    assert_eq!(
        error("2=other:7402"),
        "invalid value '127.0.0.1:7402' for '--advertise <HOST:PORT>': \
        --bootstrap gives this node as other:7402"
    );
    let error = options(&["--bootstrap", LIST, "--split-at", "a,b,a"]).unwrap_err();
    let twice = "invalid value 'a' for '--split-at <KEY,...>': this key is in the list twice";
    assert_eq!(error, twice);
}

#[test]
fn flags_of_a_bootstrap_need_one() {
    for flags in [["--groups", "2"], ["--replication", "1"], ["--split-at", "a"]] {
        for start in [&[][..], &["--join", "a:1"]] {
            let error = options(&[&flags, start].concat()).unwrap_err();
            assert!(error.contains("needs '--bootstrap") && error.contains(flags[0]), "{error}");
        }
    }
    assert!(options(&["--bootstrap", LIST, "--join", "a:1"]).unwrap_err().contains("--join"));
    let joined = options(&["--join", "a:1"]).expect("it is right").start;
    assert_eq!(joined, Start::Join("a:1".parse().expect("it is an address")));
}

#[test]
fn listening_beyond_loopback_is_asked_for_in_words() {
    let anywhere = ["--http", "0.0.0.0:7501"];
    assert!(options(&anywhere).unwrap_err().contains("--insecure"));
    assert!(options(&[&anywhere[..], &["--insecure"]].concat()).expect("it is right").insecure);
}

#[test]
fn tls_and_a_token_open_the_other_addresses() {
    let anywhere = ["--http", "0.0.0.0:7501"];
    let tls = ["--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"];
    let token = ["--admin-token-file", "t"];
    let refusal = |flags: &[&str]| options(&[&anywhere[..], flags].concat()).unwrap_err();
    assert!(refusal(&tls).contains("--admin-token-file"), "{}", refusal(&tls));
    assert!(refusal(&token).contains("--tls-cert"), "{}", refusal(&token));
    let all = options(&[&anywhere[..], &tls, &token].concat()).expect("it is right");
    assert!(!all.insecure && all.security.tls.is_some());
    for half in [&tls[..2], &tls[2..4], &tls[4..], &tls[..4], &tls[2..]] {
        assert!(options(half).unwrap_err().contains("required"), "{half:?}");
    }
}

#[test]
fn a_start_says_what_protects_the_node() {
    let said = |flags: &[&str]| {
        let options = options(flags).expect("it is right");
        exposure(&options.security, options.insecure)
    };
    let tls = ["--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"];
    let nothing = "nothing is encrypted or authenticated: whoever can connect may read and write \
                   all data, change members and pass for a node";
    assert_eq!(said(&[]), format!("{nothing}; listening on loopback only"));
    assert_eq!(said(&["--insecure"]), format!("{nothing} (--insecure)"));
    assert_eq!(
        said(&[&tls[..], &["--admin-token-file", "t"]].concat()),
        "TLS on both ports; changes, heatmaps and /api/ ask for the admin token; \
         nodes show a certificate"
    );
    let token_only = said(&["--admin-token-file", "t"]);
    assert!(
        token_only.contains("plain text") && token_only.contains("follows from the admin token")
    );
}

#[test]
fn the_visualizer_can_be_switched_off() {
    let enabled = |flag: &str| options(&[flag]).expect("it is right").keyviz.enabled;
    assert!(!enabled("--keyviz-enabled=false"));
    assert!(enabled("--keyviz-enabled=true"));
    assert!(enabled("--keyviz-enabled"));
    let step = options(&["--keyviz-step", "1m 30s"]).expect("it is right").keyviz.step;
    assert_eq!(step, Duration::from_secs(90));
}

/// Set for the process that a test starts: the folder of its node.
const CHILD: &str = "KEYVIZ_TEST_CHILD_FOLDER";

/// Not a test by itself: the process of the next one, which serves as the command does.
#[test]
fn child_whose_control_loop_panics() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = folder.into_string().expect("it is text");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let listen = free.local_addr().expect("a bound socket has an address").to_string();
    drop(free);
    let members = format!("1={listen}");
    let flags = ["--id", "1", "--data", &folder, "--listen", &listen, "--bootstrap", &members];
    let line = Line::try_parse_from(["serve"].iter().chain(&flags)).expect("the flags are right");
    let options = line.serve.options().expect("they fit together");
    let wrap: keyviz_node::LoopWrap = std::sync::Arc::new(|which, running| match which {
        "members" => Box::pin(async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            panic!("put in by a test");
        }),
        _ => running,
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let error = runtime.block_on(run_serve(options, Some(wrap))).expect_err("a loop has ended");
    crate::terminal::talk::say!("keyviz: {error}");
    crate::terminal::talk::finish();
    std::process::exit(error.exit() as i32);
}

#[test]
fn the_process_of_a_node_whose_control_loop_panics_names_it_and_exits_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["serve::tests::child_whose_control_loop_panics", "--exact", "--nocapture"])
        .env(CHILD, folder.path().join("data"))
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(1), "{said}");
    assert!(said.contains("keyviz: the control loop \"members\" panicked: put in"), "{said}");
}
