use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;
use tonic::codegen::http::HeaderValue;

use super::*;
use keyviz_proto as proto;
use keyviz_security::SecretFile;

fn security(token: Option<&str>, secret: Option<&str>) -> Security {
    let admin_token = token.map(file);
    Security { admin_token, cluster_secret: secret.map(file), ..Security::default() }
}

fn file(text: &str) -> SecretFile {
    SecretFile::fixed("secret", text, "test").expect("a secret")
}

fn gate(token: Option<&str>, secret: Option<&str>) -> Arc<Gate> {
    Gate::new(security(token, secret)).expect("something is set up")
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse().expect("a header"), HeaderValue::from_static(value)))
        .collect()
}

fn caller(certificate: CallerCertificate) -> Caller {
    Caller { address: ([127, 0, 0, 1], 9).into(), certificate, connection: Default::default() }
}

/// The path of every gRPC call.
fn served() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).expect("made by the build");
    let services = files.file.iter().flat_map(|file| &file.service);
    let paths = services.flat_map(|service| {
        let path = |method: &str| format!("/keyviz.v1.{}/{method}", service.name());
        service.method.iter().map(move |method| path(method.name())).collect::<Vec<_>>()
    });
    paths.collect()
}

#[test]
fn every_call_is_placed_and_nothing_else_is() {
    let of_nodes = |path: &str| {
        let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        calls::SERVICES.iter().any(|(name, need)| *name == service && *need == Need::Node)
    };
    let clients = served().into_iter().filter(|path| !of_nodes(path));
    let placed: BTreeSet<String> = calls::GRPC.iter().map(|call| call.name.to_owned()).collect();
    assert_eq!(placed.len(), calls::GRPC.len(), "a call is placed twice");
    // A call that is missing on the left has to be placed in calls.rs.
    assert_eq!(placed, clients.collect());
    for path in served().iter().filter(|path| of_nodes(path)) {
        assert_eq!(calls::of_grpc(path).need, Need::Node, "{path}");
    }
    for odd in ["", "/", "keyviz.v1.Kv/Put", "//keyviz.v1.Kv/Put", "/keyviz.v1.kv/Put", "/x.Y/Z"] {
        assert_eq!(calls::of_grpc(odd).need, Need::Node, "{odd:?}");
    }
}

#[test]
fn what_changes_the_cluster_is_audited_and_needs_an_operator() {
    for call in calls::GRPC.iter().chain(calls::HTTP) {
        let above = matches!(call.need, Need::Operator | Need::Admin | Need::AdminOrNode);
        let only_reads = call.name.ends_with("/Verify");
        assert_eq!(call.audited, above && !only_reads, "{}", call.name);
    }
}

/// What each role may do, with all four kinds of tokens.
#[test]
fn a_role_may_do_what_is_its_own_and_what_is_below() {
    use Code::{PermissionDenied, Unauthenticated};

    let security = Security {
        admin_token: Some(file("the-admin")),
        operator_token: Some(file("the-operator")),
        viewer_token: Some(file("the-viewer\nanother-viewer\n")),
        store_token: Some(file("the-store")),
        ..Security::default()
    };
    let gate = Gate::new(security).expect("tokens are asked for");
    let tokens = ["the-store", "the-viewer", "another-viewer", "the-operator", "the-admin"];
    for (need, may) in [
        (Need::Nothing, [true, true, true, true, true]),
        (Need::Store, [true, false, false, false, true]),
        (Need::Known, [true, true, true, true, true]),
        (Need::Viewer, [false, true, true, true, true]),
        (Need::Operator, [false, false, false, true, true]),
        (Need::Admin, [false, false, false, false, true]),
        (Need::AdminOrNode, [false, false, false, false, true]),
    ] {
        for (token, may) in tokens.iter().zip(may) {
            let mut headers = HeaderMap::new();
            let bearer = HeaderValue::from_str(&format!("Bearer {token}")).expect("a header");
            headers.insert(AUTHORIZATION, bearer);
            let answer = gate.admit(need, None, &headers).map(|_| ()).map_err(|e| e.code());
            let expected = if may { Ok(()) } else { Err(PermissionDenied) };
            assert_eq!(answer, expected, "{need:?} with {token}");
        }
        for stranger in [&[][..], &[("authorization", "Bearer none-of-them")]] {
            let answer = gate.admit(need, None, &headers(stranger)).map_err(|e| e.code());
            let expected =
                if need == Need::Nothing { Ok(Who::Anybody) } else { Err(Unauthenticated) };
            assert_eq!(answer, expected, "{need:?} without a token");
        }
    }
    let viewer = headers(&[("authorization", "Bearer another-viewer")]);
    let who = gate.admit(Need::Viewer, None, &viewer).expect("a viewer");
    assert_eq!(who, Who::Token { role: Role::Viewer, line: 2 });
    let status = gate.admit(Need::Operator, None, &viewer).expect_err("a viewer changes nothing");
    let words = "this needs the operator or admin token, and the token given is that of the role \
                 viewer";
    assert_eq!(status.message(), words);
}

/// As in versions that had one token: what it guarded it guards, and what was open is open.
#[test]
fn the_admin_token_alone_guards_what_it_did() {
    let gate = gate(Some("right-token"), None);
    let none = HeaderMap::new();
    for call in calls::GRPC {
        let open = matches!(call.need, Need::Store | Need::Known);
        assert_eq!(gate.admit(call.need, None, &none).is_ok(), open, "{}", call.name);
    }
}

#[test]
fn a_token_is_asked_for_and_compared_whole() {
    let gate = gate(Some("right-token"), None);
    let ask = |pairs: &[_]| {
        gate.admit(Need::Admin, None, &headers(pairs)).map(|_| ()).map_err(|e| e.code())
    };
    assert_eq!(ask(&[("authorization", "Bearer right-token")]), Ok(()));
    assert_eq!(ask(&[("authorization", "bearer  right-token ")]), Ok(()));
    let wrong = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer right",
        "Bearer right-token2",
        "Basic right-token",
        "right-token",
        "BearerXright-token",
    ];
    for wrong in wrong {
        assert_eq!(ask(&[("authorization", wrong)]), Err(Code::Unauthenticated), "{wrong:?}");
    }
    assert_eq!(ask(&[]), Err(Code::Unauthenticated));
    assert_eq!(ask(&[("keyviz-cluster-secret", "right-token")]), Err(Code::Unauthenticated));
    assert!(gate.admit(Need::Nothing, None, &HeaderMap::new()).is_ok());
}

#[test]
fn a_node_shows_the_secret_or_its_certificate_and_never_a_wrong_secret() {
    let gate = gate(None, Some("our-secret"));
    let ask = |certificate, secret: Option<&'static str>| {
        let shown = secret.map(|secret| (SECRET_HEADER, secret));
        let headers = headers(shown.as_slice());
        let admitted = gate.admit(Need::Node, Some(&caller(certificate)), &headers);
        admitted.map(|_| ()).map_err(|e| e.code())
    };
    use CallerCertificate::{Absent, Client, Node};
    assert_eq!(ask(Absent, Some("our-secret")), Ok(()));
    assert_eq!(ask(Node, None), Ok(()));
    for (certificate, secret) in
        [(Absent, None), (Client, None), (Absent, Some("theirs")), (Node, Some("theirs"))]
    {
        assert_eq!(ask(certificate.clone(), secret), Err(Code::Unauthenticated), "{certificate:?}");
    }
}

#[test]
fn a_node_that_joins_needs_no_token_and_everybody_else_does() {
    let gate = gate(Some("right-token"), Some("our-secret"));
    let ask = |pairs: &[_]| gate.admit(Need::AdminOrNode, None, &headers(pairs)).is_ok();
    assert!(ask(&[(SECRET_HEADER, "our-secret")]));
    assert!(ask(&[("authorization", "Bearer right-token")]));
    assert!(!ask(&[(SECRET_HEADER, "theirs")]) && !ask(&[]));
    // Without a secret, to have none is not to be a node.
    let gate = super::tests::gate(Some("right-token"), None);
    assert!(gate.admit(Need::AdminOrNode, None, &HeaderMap::new()).is_err());
    assert!(gate.admit(Need::AdminOrNode, None, &headers(&[(SECRET_HEADER, "x")])).is_err());
}

#[test]
fn a_certificate_that_does_not_hold_opens_nothing() {
    let gate = gate(Some("right-token"), Some("our-secret"));
    let refused = caller(CallerCertificate::Refused("it has expired".into()));
    let all = headers(&[("authorization", "Bearer right-token"), (SECRET_HEADER, "our-secret")]);
    for need in [Need::Nothing, Need::Known, Need::Admin, Need::AdminOrNode, Need::Node] {
        let status = gate.admit(need, Some(&refused), &all).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{need:?}");
        assert!(status.message().contains("it has expired"), "{status}");
        assert!(!format!("{status:?}").contains("right-token"), "{status:?}");
    }
}
