//! `routes split --auto`: the key that halves the load of a route.
//!
//! Only counts of single ranges decide. Counts of several ranges together (blocks) are on neither
//! side and are reported separately. The column in progress is included: the sampler resolves a
//! newly hot range within seconds.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::super::client::Client;
use super::super::data::kv::OneFormat;
use super::super::terminal::{notation, output, text};
use super::super::{CliError, heat};
use super::load::{self, InRoute};
use keyviz_catalog::{SplitChoiceError, split_key_that_halves};
use keyviz_core::sampler::REFINE_EVERY;
use keyviz_json::key_text;
use keyviz_proto as proto;
use keyviz_types::KeyRange;

/// A flush, a plan and a flush after it.
const UNTIL_RESOLVED: Duration = REFINE_EVERY.saturating_add(Duration::from_secs(3));

/// A key and the load on both sides of it.
#[derive(Debug)]
pub(super) struct Halves {
    route_id: u64,
    /// First key of the right half.
    pub(super) key: Bytes,
    left: u64,
    right: u64,
    in_blocks: u64,
}

#[derive(Serialize)]
struct HalvesJson<'a> {
    route_id: u64,
    key: &'a str,
    left: u64,
    right: u64,
    in_blocks: u64,
}

impl fmt::Display for Halves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "splitting route {} at {}: {} reads and writes before it, {} from it on",
            self.route_id,
            notation::shown(&self.key),
            text::thousands(self.left),
            text::thousands(self.right),
        )?;
        match self.in_blocks {
            0 => Ok(()),
            more => write!(f, "; {} more were counted for larger ranges", text::thousands(more)),
        }
    }
}

impl Halves {
    /// Prints what would be split.
    pub(super) fn print(&self, format: OneFormat) -> Result<(), CliError> {
        let mut out = output::stdout();
        match format {
            OneFormat::Json => {
                let Halves { route_id, left, right, in_blocks, .. } = *self;
                let key = &key_text(&self.key);
                let json = HalvesJson { route_id, key, left, right, in_blocks };
                output::json_line(&mut out, &json)?;
            }
            OneFormat::Table => writeln!(out, "nothing is split (--dry-run): {self}")?,
        }
        out.flush()?;
        Ok(())
    }
}

/// The key that halves the load of a listed route in the last `window`.
///
/// # Errors
/// Where there is no such key, with when to try again.
pub(super) async fn choose(
    client: &Client,
    list: proto::ListRoutesResponse,
    route_id: u64,
    window: Duration,
) -> Result<Halves, CliError> {
    let Some(route) = list.routes.into_iter().find(|route| route.route_id == route_id) else {
        return Err(CliError::NoSuchRoute { id: route_id, version: list.catalog_version });
    };
    let range = KeyRange { start: route.start.clone(), end: route.end.clone() };
    if notation::is_one_key(&range.start, range.end.as_deref()) {
        return Err(CliError::NoSplitKey(one_key(route_id, &range.start)));
    }
    let loads = load::in_route(client, route.start, route.end, window).await?;
    let choice = split_key_that_halves(&range, loads.to_halve())
        .map_err(|error| CliError::NoSplitKey(no_choice(route_id, &error, &loads)))?;
    let (left, right) = loads.halves(&choice.key);
    Ok(Halves { route_id, key: choice.key, left, right, in_blocks: loads.in_blocks })
}

/// Why no key halves the load of a route.
fn no_choice(route_id: u64, error: &SplitChoiceError, loads: &InRoute) -> String {
    let mut loaded = loads.counted.iter().filter(|(_, load)| *load > 0).map(|(range, _)| range);
    let hottest = loaded.next().filter(|first| loaded.all(|range| range == *first));
    let single = hottest.filter(|range| notation::is_one_key(&range.start, range.end.as_deref()));
    if let Some(range) = single {
        let key = notation::shown(&range.start);
        return format!(
            "route {route_id}: all reads and writes were of one key, {key}, which no split \
             divides; spread its load over several keys"
        );
    }
    let counted = loads.in_blocks > 0 || *error == SplitChoiceError::OneSubRange;
    if !counted {
        return format!("route {route_id}: {error}");
    }
    let seconds = u64::try_from(UNTIL_RESOLVED.as_millis()).unwrap_or(u64::MAX);
    format!(
        "route {route_id}: its load was counted for one range so far. While there is load, the \
         sampler looks closer every {}: try again at {}, or name a key",
        text::duration(REFINE_EVERY),
        text::time_utc(heat::now_ms().saturating_add(seconds)),
    )
}

fn one_key(route_id: u64, key: &[u8]) -> String {
    let key = notation::shown(key);
    format!("route {route_id} holds one key, {key}; spread its load over several keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(counted: &[(&'static str, &'static str, u64)], in_blocks: u64) -> InRoute {
        let range = |&(start, end, load): &(&'static str, &'static str, u64)| {
            (KeyRange::from(start.as_bytes()..end.as_bytes()), load)
        };
        let counted: Vec<_> = counted.iter().map(range).collect();
        InRoute { weighed: counted.clone(), counted, in_blocks }
    }

    #[test]
    fn a_route_that_cannot_be_halved_yet_says_when_it_can() {
        let said = no_choice(3, &SplitChoiceError::OneSubRange, &loads(&[("a", "m", 9)], 0));
        assert!(said.contains("try again at ") && said.contains("every 2s"), "{said}");
        let said = no_choice(3, &SplitChoiceError::NoLoad, &loads(&[("a", "m", 0)], 700));
        assert!(said.contains("try again at "), "counted, but for more than the route: {said}");
        let said = no_choice(3, &SplitChoiceError::NoLoad, &loads(&[("a", "m", 0)], 0));
        assert!(said.contains("no load was observed"), "{said}");
    }

    #[test]
    fn a_route_whose_load_is_of_one_key_says_so() {
        assert!(one_key(3, b"k").starts_with("route 3 holds one key, k;"));
        let words =
            |counted: &[_]| no_choice(7, &SplitChoiceError::OneSubRange, &loads(counted, 0));
        assert!(words(&[("k", "k\0", 9), ("k", "k\0", 9)]).contains("of one key, k,"));
        assert!(!words(&[("k", "m", 9)]).contains("one key"));
        assert!(!words(&[("a", "b", 9), ("k", "k\0", 9)]).contains("one key"));
    }
}
