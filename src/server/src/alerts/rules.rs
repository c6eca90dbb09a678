//! Rules of alerts, from a file.

use bytes::Bytes;
use serde::Deserialize;

use keyviz_core::Series;
use keyviz_json::parse_key;
use keyviz_types::KeyRange;

/// Rules of `--alert-rules default`.
pub const DEFAULT_RULES: &str = include_str!("../../../../deploy/alerts/default.yml");
/// Most rules of a file.
pub const MAX_RULES: usize = 256;
/// Most bytes of a file.
pub const MAX_RULES_BYTES: usize = 1 << 20;
/// Most columns that a rule looks at.
pub const MAX_FOR_COLUMNS: u32 = 240;

/// One rule.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(try_from = "RawRule")]
pub struct Rule {
    /// Names its alerts.
    pub name: String,
    /// The keys that it is about.
    pub range: KeyRange,
    /// Each route of them by itself.
    pub each_route: bool,
    /// What is counted.
    pub series: Series,
    /// More than this a second.
    pub above_rate: Option<f64>,
    /// More than this share of the cluster's.
    pub above_share: Option<f64>,
    /// In so many columns in a row.
    pub for_columns: u32,
    /// A label.
    pub severity: String,
    /// An annotation.
    pub summary: String,
}

/// Why a rule is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum RuleError {
    #[error("name {0:?} is not 1 to 64 letters, digits, - and _")]
    Name(String),
    #[error("rule {0}: prefix and start or end exclude each other")]
    TwoRanges(String),
    #[error("rule {name}: {field} is no key: {reason}")]
    Key { name: String, field: &'static str, reason: String },
    #[error("rule {0}: the end of the keys is not after their start")]
    EmptyRange(String),
    #[error("rule {name}: series {series:?} is none of reads, writes, read-bytes, write-bytes")]
    Series { name: String, series: String },
    #[error("rule {name}: each {each:?} is neither route nor all")]
    Each { name: String, each: String },
    #[error("rule {0}: above_rate or above_share is missing")]
    NoLevel(String),
    #[error("rule {0}: above_rate is not a number above 0")]
    Rate(String),
    #[error("rule {0}: above_share is not between 0 and 1")]
    Share(String),
    #[error("rule {0}: for_columns is not 1 to {MAX_FOR_COLUMNS}")]
    Columns(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: String,
    prefix: Option<String>,
    start: Option<String>,
    end: Option<String>,
    each: Option<String>,
    series: String,
    above_rate: Option<f64>,
    above_share: Option<f64>,
    for_columns: Option<u32>,
    severity: Option<String>,
    summary: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    rules: Vec<Rule>,
}

impl TryFrom<RawRule> for Rule {
    type Error = RuleError;

    fn try_from(raw: RawRule) -> Result<Self, RuleError> {
        let name = raw.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(RuleError::Name(name));
        }
        let series = match &*raw.series {
            "reads" => Series::Reads,
            "writes" => Series::Writes,
            "read-bytes" => Series::ReadBytes,
            "write-bytes" => Series::WriteBytes,
            _ => return Err(RuleError::Series { name, series: raw.series }),
        };
        let each_route = match raw.each.as_deref() {
            None | Some("all") => false,
            Some("route") => true,
            Some(each) => return Err(RuleError::Each { each: each.to_owned(), name }),
        };
        let key = |field, text: Option<String>| -> Result<Option<Bytes>, RuleError> {
            let key = text.map(|text| parse_key(&text)).transpose();
            key.map_err(|error| RuleError::Key {
                name: name.clone(),
                field,
                reason: error.to_string(),
            })
        };
        let (prefix, start, end) =
            (key("prefix", raw.prefix)?, key("start", raw.start)?, key("end", raw.end)?);
        let range = match prefix {
            Some(_) if start.is_some() || end.is_some() => return Err(RuleError::TwoRanges(name)),
            Some(prefix) => KeyRange { end: after(&prefix), start: prefix },
            None => KeyRange { start: start.unwrap_or_default(), end },
        };
        if range.is_empty() {
            return Err(RuleError::EmptyRange(name));
        }
        if raw.above_rate.is_none() && raw.above_share.is_none() {
            return Err(RuleError::NoLevel(name));
        }
        if raw.above_rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err(RuleError::Rate(name));
        }
        if raw.above_share.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
            return Err(RuleError::Share(name));
        }
        let for_columns = raw.for_columns.unwrap_or(1);
        if !(1..=MAX_FOR_COLUMNS).contains(&for_columns) {
            return Err(RuleError::Columns(name));
        }
        Ok(Rule {
            range,
            each_route,
            series,
            above_rate: raw.above_rate,
            above_share: raw.above_share,
            for_columns,
            severity: raw.severity.unwrap_or_else(|| "warning".to_owned()),
            summary: raw.summary.unwrap_or_default(),
            name,
        })
    }
}

/// The first key after all that begin with `prefix`; `None`: there is none.
fn after(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte < 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// Why a file of rules is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// It is large.
    #[error("the file has {0} bytes; it has at most {MAX_RULES_BYTES}")]
    TooLarge(usize),
    /// It is no YAML, or says what is not understood.
    #[error("line {line}, column {column}: {reason}")]
    Parse {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// No place is known.
    #[error("{0}")]
    Other(String),
    /// Too many rules.
    #[error("{0} rules; there are at most {MAX_RULES}")]
    TooMany(usize),
    /// A name twice.
    #[error("two rules have the name {0}")]
    Twice(String),
}

/// The rules in a text.
///
/// # Errors
/// Names the line and the column, where they are known.
pub fn parse_rules(text: &str) -> Result<Vec<Rule>, RulesError> {
    if text.len() > MAX_RULES_BYTES {
        return Err(RulesError::TooLarge(text.len()));
    }
    let RawRules { rules } = serde_norway::from_str(text).map_err(|error| {
        let said = error.to_string();
        match error.location() {
            Some(at) => {
                let place = format!(" at line {} column {}", at.line(), at.column());
                let reason = said.replace(&place, "");
                RulesError::Parse { line: at.line(), column: at.column(), reason }
            }
            None => RulesError::Other(said),
        }
    })?;
    if rules.len() > MAX_RULES {
        return Err(RulesError::TooMany(rules.len()));
    }
    let mut names: Vec<&str> = rules.iter().map(|rule| &*rule.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(RulesError::Twice(pair[0].to_owned())),
        None => Ok(rules),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_sound() {
        let rules = parse_rules(DEFAULT_RULES).expect("they are shipped");
        assert_eq!(rules.len(), 2);
        assert!(rules.iter().all(|rule| rule.each_route && rule.range == KeyRange::all()));
    }

    #[test]
    fn a_rule_has_a_prefix_or_a_range() {
        let rules = "rules:\n- {name: a, prefix: 'user/', series: reads, above_rate: 1}\n\
                     - {name: b, start: hex:ff, series: writes, above_share: 0.5, \
                     for_columns: 3}\n";
        let rules = parse_rules(rules).expect("they are sound");
        assert_eq!(rules[0].range.end, Some(Bytes::from("user0")));
        assert_eq!((&rules[1].range.start[..], rules[1].for_columns), (&b"\xff"[..], 3));
        assert_eq!(after(b"\xff"), None);
    }

    #[test]
    fn a_bad_rule_is_refused_with_line_and_column() {
        let refused = |text: &str| parse_rules(text).expect_err(text).to_string();
        for (text, words) in [
            ("rules:\n- name: a\n  colour: red\n", "line 3, column 3: "),
            ("rules: [\n", "line 2, column 1: "),
            ("rules:\n- {name: a b, series: reads, above_rate: 1}", "letters, digits"),
            ("rules:\n- {name: a, series: red, above_rate: 1}", "none of reads"),
            ("rules:\n- {name: a, series: reads}", "above_rate or above_share"),
            ("rules:\n- {name: a, series: reads, above_rate: -1}", "above_rate is not"),
            ("rules:\n- {name: a, series: reads, above_share: 1.5}", "above_share is not"),
            ("rules:\n- {name: a, series: reads, above_rate: 1, for_columns: 0}", "for_columns"),
            ("rules:\n- {name: a, series: reads, above_rate: 1, start: b, end: a}", "not after"),
            ("rules:\n- {name: a, series: reads, above_rate: 1, prefix: b, end: a}", "exclude"),
            ("rules:\n- {name: a, series: reads, above_rate: 1, prefix: 'hex:1'}", "no key"),
            ("rules:\n- {name: a, series: reads, above_rate: 1, each: node}", "neither route"),
            (
                "rules:\n- {name: a, series: reads, above_rate: 1}\n\
                 - {name: a, series: reads, above_rate: 1}",
                "two rules",
            ),
        ] {
            let said = refused(text);
            assert!(said.contains(words), "{text:?}: {said}");
        }
        assert!(refused("rules:\n- {name: a, series: red, above_rate: 1}").starts_with("line 2"));
    }
}
