//! The audit log: one line for each change that a client asks for.
//!
//! Lines have the target `keyviz::audit` and the fields `who` (the role and the line of its token
//! file, or what else let the call in), `from`, `call`, `what`, `outcome` and `request`. Ids name
//! what was changed, never keys. Calls that the gate refuses are not among them: the gate counts
//! and logs those, at a bounded rate.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;

use tonic::codegen::http::Response;
use tonic::{Code, Status};

use keyviz_peer::request_id::CURRENT;

use crate::calls::Call;

tokio::task_local! {
    /// What the call under way changes, as its handler says.
    static WHAT: RefCell<String>;
}

/// Says what the call under way changes. Outside an audited call nobody listens.
pub(crate) fn note(what: impl fmt::Display) {
    let _ = WHAT.try_with(|noted| *noted.borrow_mut() = what.to_string());
}

/// What lets a call in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// A token of a role.
    Token {
        /// The role.
        role: Role,
        /// The line of its file that has the token, without blank lines.
        line: usize,
    },
    /// A node's certificate or the cluster secret.
    Node,
    /// Nothing is asked for.
    Anybody,
}

/// Whose token it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Role {
    /// Reads and writes keys.
    Store,
    /// Looks at heatmaps and status.
    Viewer,
    /// Changes routes and leaders.
    Operator,
    /// Changes members and backs up.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Store => "store",
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Token { role, line } => write!(f, "{role} (token {line})"),
            Who::Node => f.write_str("a node"),
            Who::Anybody => f.write_str("anybody (no token is asked for)"),
        }
    }
}

/// Serves an audited call and logs what became of it.
pub(crate) async fn audited<B, E>(
    call: Call,
    who: Who,
    from: Option<IpAddr>,
    serve: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    let (served, what) = WHAT
        .scope(RefCell::default(), async {
            let served = serve.await;
            (served, WHAT.with(RefCell::take))
        })
        .await;
    let outcome = match &served {
        Ok(response) => outcome(response),
        Err(_) => "failed".to_owned(),
    };
    let request = CURRENT.try_with(|id| id.to_str().unwrap_or_default().to_owned());
    let from = from.map_or_else(|| "somewhere".to_owned(), |from| from.to_string());
    tracing::info!(
        target: "keyviz::audit",
        %who,
        %from,
        call = call.name,
        what,
        outcome,
        request = request.unwrap_or_default(),
        "audit"
    );
    served
}

fn outcome<B>(response: &Response<B>) -> String {
    let grpc = Status::from_header_map(response.headers()).map(|status| status.code());
    match grpc.or_else(|| response.extensions().get::<Code>().copied()) {
        None | Some(Code::Ok) => "done".to_owned(),
        Some(code) => format!("refused or failed: {}", screaming(&format!("{code:?}"))),
    }
}

/// `NotFound` as `NOT_FOUND`.
fn screaming(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}
