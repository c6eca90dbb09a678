//! The two forms of `/metrics`: OpenMetrics 1.0.0 and the plain text of Prometheus, 0.0.4.
//!
//! They differ in how a counter is announced: OpenMetrics names it without `_total`, which the
//! plain form takes for a metric without help or type. OpenMetrics ends with a mark and has types
//! that the plain form does not know.

/// A text format that a scraper requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TextForm {
    /// Of those who ask for it.
    OpenMetrics,
    /// Of all others.
    Plain,
}

impl TextForm {
    /// The format that an `Accept` header requests; OpenMetrics if both are equally wanted.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        let quality = |wanted: &str| {
            let ranges = accept.unwrap_or_default().split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next()?;
                if !name.eq_ignore_ascii_case(wanted) {
                    return None;
                }
                let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
                Some(quality.unwrap_or(1.0))
            });
            ranges.fold(0.0, f32::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") {
            TextForm::OpenMetrics
        } else {
            TextForm::Plain
        }
    }

    /// Its media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            TextForm::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            TextForm::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The plain form of a page in OpenMetrics.
pub(super) fn plain(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + page.len() / 16);
    let mut help: Option<(&str, &str)> = None;
    for line in page.lines() {
        if let Some(named) = line.strip_prefix("# HELP ") {
            help = named.split_once(' ');
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                text += &format!("# HELP {name}{suffix} {words}\n");
            }
            text += &format!("# TYPE {name}{suffix} {kind}\n");
            continue;
        }
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_asks_for_and_who_asks_for_nothing_the_plain_form() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for open in [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0, text/plain",
            prometheus,
        ] {
            assert_eq!(TextForm::accepted(Some(open)), TextForm::OpenMetrics, "{open}");
        }
        for plain in [
            "*/*",
            "text/plain",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;q=0.9, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
            "",
        ] {
            assert_eq!(TextForm::accepted(Some(plain)), TextForm::Plain, "{plain}");
        }
        assert_eq!(TextForm::accepted(None), TextForm::Plain);
    }

    #[test]
    fn in_the_plain_form_each_sample_has_the_name_that_was_announced() {
        let page = "# HELP a Things.\n# TYPE a counter\na_total 1\n\
                    # HELP b Time.\n# TYPE b histogram\n# UNIT b seconds\nb_sum 1.0\n\
                    b_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n\
                        # HELP b Time.\n# TYPE b histogram\nb_sum 1.0\nb_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(plain(page), expected);
    }
}
