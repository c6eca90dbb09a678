use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;
use tonic::codegen::http::HeaderValue;

use super::*;
use keyviz_proto as proto;
use keyviz_security::SecretFile;

fn security(token: Option<&str>, secret: Option<&str>) -> Security {
    let file = |text: &str| SecretFile::fixed("secret", text, "test").expect("a secret");
    Security {
        tls: None,
        admin_token: token.map(file),
        cluster_secret: secret.map(file),
        connections: Default::default(),
    }
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

/// Every call of every service, with what it needs. A call that is added has to be added here too.
#[test]
fn every_call_has_its_need() {
    let files = FileDescriptorSet::decode(proto::DESCRIPTOR_SET).expect("made by the build");
    let mut open = BTreeSet::new();
    for service in files.file.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let path = format!("/keyviz.v1.{}/{}", service.name(), method.name());
            match (service.name(), Need::of(&path)) {
                (_, Need::Nothing) => {
                    open.insert(path);
                }
                ("RaftTransport" | "KvPeer" | "KeyVizPeer" | "ClusterPeer", need) => {
                    assert_eq!(need, Need::Node, "{path}");
                }
                ("Cluster", Need::TokenOrNode) => assert_eq!(method.name(), "AddNode"),
                ("Routes" | "KeyViz" | "Cluster" | "Backup", need) => {
                    assert_eq!(need, Need::Token, "{path}");
                }
                (other, need) => panic!("{other} is not known here: {path} needs {need:?}"),
            }
        }
    }
    let kv = ["Put", "Get", "Delete", "DeleteRange", "Scan", "Batch", "CompareAndSwap"];
    let expected: BTreeSet<String> = kv
        .iter()
        .map(|method| format!("/keyviz.v1.Kv/{method}"))
        .chain(
            ["ListRoutes", "WatchRoutes", "RouteHistory"].map(|m| format!("/keyviz.v1.Routes/{m}")),
        )
        .chain(["/keyviz.v1.Cluster/GetStatus".to_owned()])
        .collect();
    assert_eq!(open, expected);
    for odd in ["", "/", "keyviz.v1.Kv/Put", "//keyviz.v1.Kv/Put", "/keyviz.v1.kv/Put", "/x.Y/Z"] {
        assert_eq!(Need::of(odd), Need::Node, "{odd:?}");
    }
}

#[test]
fn a_token_is_asked_for_and_compared_whole() {
    let gate = gate(Some("right-token"), None);
    let ask = |pairs: &[_]| gate.admit(Need::Token, None, &headers(pairs)).map_err(|e| e.code());
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
        gate.admit(Need::Node, Some(&caller(certificate)), &headers).map_err(|e| e.code())
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
    let ask = |pairs: &[_]| gate.admit(Need::TokenOrNode, None, &headers(pairs)).is_ok();
    assert!(ask(&[(SECRET_HEADER, "our-secret")]));
    assert!(ask(&[("authorization", "Bearer right-token")]));
    assert!(!ask(&[(SECRET_HEADER, "theirs")]) && !ask(&[]));
    // Without a secret, to have none is not to be a node.
    let gate = super::tests::gate(Some("right-token"), None);
    assert!(gate.admit(Need::TokenOrNode, None, &HeaderMap::new()).is_err());
    assert!(gate.admit(Need::TokenOrNode, None, &headers(&[(SECRET_HEADER, "x")])).is_err());
}

#[test]
fn a_certificate_that_does_not_hold_opens_nothing() {
    let gate = gate(Some("right-token"), Some("our-secret"));
    let refused = caller(CallerCertificate::Refused("it has expired".into()));
    let all = headers(&[("authorization", "Bearer right-token"), (SECRET_HEADER, "our-secret")]);
    for need in [Need::Nothing, Need::Token, Need::TokenOrNode, Need::Node] {
        let status = gate.admit(need, Some(&refused), &all).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{need:?}");
        assert!(status.message().contains("it has expired"), "{status}");
        assert!(!format!("{status:?}").contains("right-token"), "{status:?}");
    }
}
