//! What a status that a call came back with was made of.

use std::error::Error as _;

use tonic::Status;

/// What a status was made of, outermost first; nothing if the other side sent it.
pub fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |error: &&(dyn std::error::Error + 'static)| {
        (*error).source()
    })
}

/// The status and its innermost cause, for people.
pub fn describe(status: &Status) -> String {
    match status.source() {
        Some(source) => {
            let cause = innermost(source);
            if status.message().contains(&cause) {
                status.message().to_owned()
            } else {
                format!("{}: {cause}", status.message())
            }
        }
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}

/// The innermost cause of an error, which is what a person needs to know of a failed connection.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
