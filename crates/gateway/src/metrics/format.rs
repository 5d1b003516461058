//! The text formats of metrics, and the choice between them by `Accept`.

/// A text format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format that a client prefers according to its `Accept` headers. A client gets OpenMetrics
    /// only if it names that format in the version that the gateway has: `*/*` means the text format.
    pub(crate) fn preferred<'a>(accept: impl Iterator<Item = &'a str>) -> Format {
        let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
        for range in accept.flat_map(|value| value.split(',')).filter_map(MediaRange::parse) {
            match range.name.as_str() {
                "application/openmetrics-text" if range.is_version("1.0.0") => {
                    open_metrics = open_metrics.max(range.quality);
                }
                "text/plain" if range.is_version("0.0.4") => text = text.max(range.quality),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Format::OpenMetrics } else { Format::Text }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Converts `text` from OpenMetrics to this format.
    pub(super) fn of_open_metrics(self, text: String) -> String {
        match self {
            Format::Text => to_text(&text),
            Format::OpenMetrics => text,
        }
    }
}

/// An entry of `Accept` (RFC 9110, section 12.5.1).
struct MediaRange<'a> {
    name: String,
    version: Option<&'a str>,
    quality: f32,
}

impl MediaRange<'_> {
    /// Parses an entry. Returns `None` for one with a malformed quality, which is then ignored.
    fn parse(entry: &str) -> Option<MediaRange<'_>> {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let mut range = MediaRange { name, version: None, quality: 1.0 };
        for (parameter, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim();
            if parameter.trim().eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_matches('"'));
            } else if parameter.trim().eq_ignore_ascii_case("q") {
                range.quality = value.parse::<f32>().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
            }
        }
        Some(range)
    }

    /// Returns whether the entry allows `version`: it names that version, or none.
    fn is_version(&self, version: &str) -> bool {
        self.version.is_none_or(|named| named == version)
    }
}

/// Converts OpenMetrics to the text format of Prometheus. For the metrics of a gateway, the formats differ in
/// their comments alone: the text format has no `UNIT` and no `EOF`, it names a family as its samples are
/// named, with the suffix of counters and infos, and an info is a gauge.
fn to_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut add = |parts: &[&str]| {
        text.extend(parts.iter().copied());
        text.push('\n');
    };
    // `HELP` comes before the type that decides on the suffix.
    let mut help = None;
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            add(&[line]);
            continue;
        };
        match comment.split_once(' ') {
            Some(("HELP", rest)) => help = rest.split_once(' '),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    other => ("", other),
                };
                if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                    add(&["# HELP ", name, suffix, " ", help]);
                }
                add(&["# TYPE ", name, suffix, " ", kind]);
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        // The headers that Prometheus 2.45 and 3.0 send, in this order.
        let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.75,application/openmetrics-text;\
                            version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
                            escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus_2, Format::OpenMetrics),
            (prometheus_3, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.1", Format::OpenMetrics),
            ("text/plain;q=0.5, application/openmetrics-text;q=0.5", Format::OpenMetrics),
            ("text/plain;q=0.6, application/openmetrics-text;q=0.5", Format::Text),
            ("text/plain;version=1.0.0, application/openmetrics-text;q=0.5", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=2", Format::Text),
            ("application/openmetrics-text;q=NaN", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            ("text/html,application/xml;q=0.9,*/*;q=0.8", Format::Text),
            ("", Format::Text),
            (";;,=,q=", Format::Text),
        ] {
            assert_eq!(Format::preferred([accept].into_iter()), format, "{accept}");
        }
        let apart = ["text/plain;q=0.1", "application/openmetrics-text;q=0.2"];
        assert_eq!(Format::preferred(apart.into_iter()), Format::OpenMetrics);
        assert_eq!(Format::preferred([].into_iter()), Format::Text);
    }

    #[test]
    fn the_text_format_names_families_as_their_samples() {
        let open_metrics = "# HELP a_build Build of it.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
                            # HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                            a_seconds_total{b=\"# TYPE c\"} 0.5\n\
                            # HELP a_wait Wait.\n# TYPE a_wait histogram\na_wait_sum 1.0\na_wait_count 1\n# EOF\n";
        let text = "# HELP a_build_info Build of it.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
                    # HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\n\
                    a_seconds_total{b=\"# TYPE c\"} 0.5\n\
                    # HELP a_wait Wait.\n# TYPE a_wait histogram\na_wait_sum 1.0\na_wait_count 1\n";
        assert_eq!(Format::Text.of_open_metrics(open_metrics.to_owned()), text);
        assert_eq!(Format::OpenMetrics.of_open_metrics(open_metrics.to_owned()), open_metrics);
    }
}
