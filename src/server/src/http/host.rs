//! The names of a node, as browsers send them.
//!
//! A page of any site can have its name point to 127.0.0.1 and then counts as of one origin with
//! this node (DNS rebinding). Where a node listens on loopback and asks for no token, nothing but
//! the name gives such a page away: so a request is taken only under a name that the node is called
//! by. And whatever a page elsewhere is called, it changes nothing here: a change comes from a page
//! of this node, whose `Origin` is the node's own name, or from no page at all.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

use super::reply::problem;

/// The names that a node answers to over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Without ports, in lower case.
    known: Vec<String>,
    /// Whether others are refused.
    strict: bool,
}

/// Host and port of an authority; IPv6 without brackets.
fn parts(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, port.strip_prefix(':'));
    }
    match authority.split_once(':') {
        // More than one colon: an IPv6 address without brackets.
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        Some(_) => (authority, None),
        None => (authority, None),
    }
}

fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

impl Names {
    /// The node listens at `listen` (`ip:port`, or empty); `others` are more names for it, each
    /// with or without a port.
    pub(crate) fn new<'a>(
        listen: &str,
        has_token: bool,
        others: impl IntoIterator<Item = &'a str>,
    ) -> Arc<Self> {
        let (listens, _) = parts(listen);
        let on_loopback = listens.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let mut known = vec!["localhost".to_owned(), plain(listens)];
        known.extend(others.into_iter().map(|name| plain(parts(name).0)));
        known.retain(|name| !name.is_empty());
        known.dedup();
        Arc::new(Names { known, strict: on_loopback && !has_token })
    }

    fn knows(&self, host: &str) -> bool {
        let host = plain(host);
        let loopback = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        loopback || host.ends_with(".localhost") || self.known.contains(&host)
    }

    /// Whether a request is accepted, by its headers.
    pub(crate) fn admit(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Misdirected> {
        let named = headers.get_all(header::HOST).iter();
        let mut named: Vec<&str> =
            named.map(|host| host.to_str().unwrap_or("that is not text")).collect();
        named.extend(uri.authority().map(|authority| authority.as_str()));
        if let Some(foreign) = named.iter().find(|name| !self.knows(parts(name).0))
            && self.strict
        {
            return Err(Misdirected::Host((*foreign).to_owned()));
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if changes && let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or("that is not text");
            let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
            let own = named.iter().any(|name| name.eq_ignore_ascii_case(authority))
                || self.called_by_flag(parts(authority).0);
            if authority.is_empty() || !own {
                return Err(Misdirected::Origin(origin.to_owned()));
            }
        }
        Ok(())
    }

    /// A proxy may call the node otherwise than the page that it serves.
    fn called_by_flag(&self, host: &str) -> bool {
        let host = plain(host);
        host.parse::<IpAddr>().is_err() && host != "localhost" && self.known.contains(&host)
    }
}

/// Why a request is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Misdirected {
    #[error(
        "this node is not called {0:?}: without an admin token it answers under the names of this \
         machine alone, and those of --advertise and --http-host"
    )]
    Host(String),
    #[error(
        "nothing is changed for a page of {0:?}, which is not of this node; behind a proxy, \
         --http-host names what the page is called there"
    )]
    Origin(String),
}

/// Refuses requests for another host or from another site.
pub(crate) async fn check(
    State(names): State<Arc<Names>>,
    request: Request,
    next: Next,
) -> Response {
    // Probes may use any name; their answers reveal nothing.
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    match names.admit(request.method(), request.uri(), request.headers()) {
        Err(why) if !probe => {
            tracing::debug!("refused a request: {why}");
            let mut response = problem(&Status::permission_denied(why.to_string()));
            if matches!(why, Misdirected::Host(_)) {
                *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
            }
            response
        }
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(names: &Names, method: Method, host: &str, origin: Option<&str>) -> Option<bool> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a header"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().expect("a header"));
        }
        match names.admit(&method, &Uri::from_static("/api/v1/matrix"), &headers) {
            Ok(()) => Some(true),
            Err(Misdirected::Host(_)) => Some(false),
            Err(Misdirected::Origin(_)) => None,
        }
    }

    #[test]
    fn on_loopback_without_a_token_only_the_names_of_the_node_are_taken() {
        let names = Names::new("127.0.0.1:7501", false, ["db.example:7401", "Page.Example"]);
        for own in [
            "localhost:7501",
            "LOCALHOST",
            "localhost.",
            "127.0.0.1:7501",
            "127.0.0.2",
            "[::1]:7501",
            "db.example:7501",
            "page.example",
            "x.localhost",
        ] {
            assert_eq!(asks(&names, Method::GET, own, None), Some(true), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:7501",
            "127.0.0.1.evil.example",
            "localhost.evil.example:7501",
            "10.0.0.1",
            "[2001:db8::1]:7501",
            "",
            "evil.example:80:80",
        ] {
            assert_eq!(asks(&names, Method::GET, foreign, None), Some(false), "{foreign}");
        }
        for lenient in [
            Names::new("127.0.0.1:7501", true, []),
            Names::new("0.0.0.0:7501", false, []),
            Names::new("[2001:db8::1]:7501", false, []),
        ] {
            assert_eq!(asks(&lenient, Method::GET, "evil.example", None), Some(true));
        }
        let v6 = Names::new("[::1]:7501", false, []);
        assert_eq!(asks(&v6, Method::GET, "evil.example", None), Some(false));
    }

    #[test]
    fn a_change_comes_from_a_page_of_the_node_or_from_none() {
        let strict = Names::new("127.0.0.1:7501", false, ["page.example"]);
        let open = Names::new("0.0.0.0:7501", true, []);
        for names in [&strict, &open] {
            let host = "localhost:7501";
            let change = |origin| asks(names, Method::POST, host, origin);
            assert_eq!(change(None), Some(true));
            assert_eq!(change(Some("http://localhost:7501")), Some(true));
            assert_eq!(change(Some("http://LOCALHOST:7501")), Some(true));
            for foreign in [
                "null",
                "",
                "http://evil.example",
                "http://localhost:8080",
                "http://localhost",
                "http://localhost:7501.evil.example",
                "localhost:7501",
            ] {
                assert_eq!(change(Some(foreign)), None, "{foreign}");
                // Reading is what the browser's own rule keeps from it.
                assert_eq!(asks(names, Method::GET, host, Some(foreign)), Some(true));
            }
        }
        assert_eq!(
            asks(&strict, Method::POST, "localhost:7501", Some("https://page.example")),
            Some(true)
        );
    }
}
