//! The causes of a status.

use std::error::Error as _;

use tonic::Status;

/// The causes of a status, outermost first; none if the other side sent the status.
pub fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |error: &&(dyn std::error::Error + 'static)| {
        (*error).source()
    })
}

/// The status and its innermost cause, as text.
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

/// The innermost cause of an error, which explains a failed connection best.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
