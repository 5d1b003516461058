//! The metrics for an operator.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use tokio::time::timeout;
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use crate::stream::audio;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::minted;

/// `Accept` of a client that reads OpenMetrics alone.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Returns the content type and the text of `/metrics` for a client that accepts `accept`.
async fn read(server: &Server, accept: Option<&str>) -> (String, String) {
    let mut request = http_client().unwrap().get(url(server, "/metrics"));
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["vary"], "accept");
    let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (content_type, answer.text().await.unwrap())
}

/// Returns all samples by name and labels, parsed as by an independent reader of the format.
async fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let (content_type, text) = read(server, Some(OPEN_METRICS)).await;
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"), "{text}");
    samples(&text)
}

fn samples(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    samples.map(sample).collect()
}

#[tokio::test]
async fn what_happened_is_counted() {
    let options = Options { max_sessions: 1, ..Options::default() };
    let server =
        Server::with(Arc::new(DigestRecognizer::new(8_000)), Setup { options, ..Setup::default() }).await;
    let at_first = scrape(&server).await;
    assert_eq!((at_first["voxline_sessions"], at_first["voxline_sessions_limit"]), (0.0, 1.0));

    let http = http_client().unwrap();
    let token = server.tokens().token().await.unwrap();
    // Of 2.75 seconds of audio, 2.5 become final. A gap of one second lies between.
    let (mut socket, ready) = Socket::start(&server, &token).await;
    let pcm = audio(100_000);
    socket.audio(&pcm, 0, 32_000);
    socket.gap(32_000, 48_000);
    socket.audio(&pcm, 48_000, 60_000);
    while socket.final_ < 56_000 {
        socket.hear("ack").await;
    }
    let meanwhile = scrape(&server).await;
    assert_eq!(meanwhile["voxline_sessions"], 1.0);
    assert_eq!(meanwhile["voxline_audio_waiting_seconds"], 0.25);
    let upgrade = http.get(url(&server, "/asr_stream/ws")).bearer_auth(minted(&server).expose_secret());
    let upgrade = upgrade.header("upgrade", "websocket").header("connection", "upgrade");
    let upgrade =
        upgrade.header("sec-websocket-version", "13").header("sec-websocket-protocol", "voxline.asr.v1");
    let refused = upgrade.send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "5");
    let (socket, _) = Socket::resume(&server, &token, &ready, 0).await;
    socket.end(60_000).await;

    let asr = |token: &str| {
        let request = http.post(url(&server, "/asr")).header("content-type", "audio/wave");
        request.bearer_auth(token).body(wav(1, 16_000, 24_000)).send()
    };
    let good = minted(&server);
    assert_eq!(asr(good.expose_secret()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(asr("wrong").await.unwrap().status(), StatusCode::UNAUTHORIZED);

    let counted = scrape(&server).await;
    let expected = [
        (r#"voxline_sessions_started_total{api="stream"}"#, 1.0),
        (r#"voxline_sessions_resumed_total"#, 1.0),
        (r#"voxline_sessions_refused_total{reason="full"}"#, 1.0),
        (r#"voxline_audio_received_seconds_total{api="stream"}"#, 2.75),
        (r#"voxline_audio_received_seconds_total{api="asr"}"#, 1.5),
        (r#"voxline_audio_recognised_seconds_total"#, 2.75),
        (r#"voxline_audio_gaps_seconds_total"#, 1.0),
        (r#"voxline_audio_waiting_seconds"#, 0.0),
        // Four results of half a second before the gap, one after it, and the rest.
        (r#"voxline_final_latency_seconds_count"#, 6.0),
        // One access token for the client and two for the requests of this test, each granted with a
        // refresh token.
        (r#"voxline_tokens_minted_total{kind="access"}"#, 3.0),
        (r#"voxline_tokens_minted_total{kind="refresh"}"#, 3.0),
        (r#"voxline_tokens_refused_total{reason="token"}"#, 1.0),
        (r#"voxline_http_requests_total{path="/asr",method="POST",status="200"}"#, 1.0),
        (r#"voxline_http_requests_total{path="/asr",method="POST",status="401"}"#, 1.0),
        (r#"voxline_http_requests_total{path="/asr_stream/ws",method="GET",status="101"}"#, 2.0),
    ];
    for (name, value) in expected {
        // Seconds are summed in floating point.
        let told = counted.get(name).copied().unwrap_or(f64::NAN);
        assert!((told - value).abs() < 1e-6, "{name} is {told} and not {value}, of {counted:#?}");
    }
    for name in [
        r#"voxline_payload_bytes_total{api="stream",direction="in"}"#,
        r#"voxline_recogniser_busy_seconds_total{work="live"}"#,
        r#"voxline_recogniser_busy_seconds_total{work="recording"}"#,
        "voxline_recogniser_wait_seconds_count",
    ] {
        assert!(counted[name] > 0.0, "{name} of {counted:#?}");
    }
    let gone = async { while scrape(&server).await["voxline_sessions"] > 0.0 {} };
    timeout(Duration::from_secs(20), gone).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn the_format_is_the_one_that_the_reader_asks_for() {
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    // One request is counted, so that the requests counted differ in no name below.
    read(&server, None).await;
    let (content_type, text) = read(&server, None).await;
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    assert_eq!(read(&server, Some("text/plain;version=0.0.4;q=0.5,*/*;q=0.1")).await.0, content_type);
    // Both formats have the same samples.
    let names = |samples: BTreeMap<String, f64>| samples.into_keys().collect::<Vec<_>>();
    assert_eq!(names(samples(&text)), names(scrape(&server).await));
    server.stop().await;
}

#[tokio::test]
async fn the_build_and_the_process_are_told() {
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let told = scrape(&server).await;
    assert_eq!(told[concat!("voxline_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")], 1.0);
    if !cfg!(target_os = "linux") {
        assert!(!told.keys().any(|name| name.starts_with("process_")), "{told:#?}");
        return server.stop().await;
    }
    let started = UNIX_EPOCH + Duration::from_secs_f64(told["process_start_time_seconds"]);
    // The kernel makes this directory when somebody first looks for it, after the start of the process.
    let looked_at: SystemTime = fs::metadata("/proc/self").unwrap().modified().unwrap();
    let since = looked_at.duration_since(started - Duration::from_secs(2)).expect("it began before");
    assert!(since < Duration::from_secs(3600), "{since:?}");
    let (resident, size) = (told["process_resident_memory_bytes"], told["process_virtual_memory_bytes"]);
    assert!(1e6 < resident && resident < size, "{resident} of {size}");
    assert!(told["process_open_fds"] < told["process_max_fds"], "{told:#?}");

    // Hold more files, and spend processor time, until the next report shows both.
    let files: Vec<_> = (0..100).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
    let later = scrape(&server).await;
    assert!(later["process_open_fds"] >= 100.0, "{later:#?}");
    drop(files);
    while scrape(&server).await["process_cpu_seconds_total"] < told["process_cpu_seconds_total"] + 0.01 {}
    assert_eq!(later["process_start_time_seconds"], told["process_start_time_seconds"]);
    server.stop().await;
}

/// A metric family of the text format.
struct Family {
    name: String,
    help: String,
    kind: String,
    /// Names of the samples, each with its labels.
    samples: Vec<(String, String)>,
}

/// Parses the text format of Prometheus, version 0.0.4.
fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# HELP ") {
            let (name, help) = comment.split_once(' ').unwrap();
            let (name, help) = (name.to_owned(), help.to_owned());
            families.push(Family { name, help, kind: String::new(), samples: Vec::new() });
        } else if let Some(comment) = line.strip_prefix("# TYPE ") {
            let (name, kind) = comment.split_once(' ').unwrap();
            let family = families.last_mut().expect("HELP comes first");
            assert_eq!((family.name.as_str(), family.kind.as_str()), (name, ""), "{line}");
            kind.clone_into(&mut family.kind);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let family = families.last_mut().expect("HELP comes first");
            let labels = labels.strip_suffix('}').unwrap().to_owned();
            family.samples.push((name.to_owned(), labels));
        }
    }
    families
}

/// Returns what `promtool check metrics` would say: the rules of Prometheus' package `promlint`.
fn lint(families: &[Family]) -> Vec<String> {
    const UNITS: [(&str, &[&str]); 8] = [
        ("seconds", &["minutes", "hours", "days", "weeks"]),
        ("bytes", &["bits"]),
        ("celsius", &["kelvins", "fahrenheit", "rankine"]),
        ("meters", &["inches", "yards", "miles"]),
        ("grams", &["pounds", "ounces"]),
        ("joules", &["calories"]),
        ("amperes", &[]),
        ("volts", &[]),
    ];
    const PREFIXES: [&str; 18] = [
        "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega", "mibi",
        "giga", "gibi", "tera", "tebi", "peta", "pebi",
    ];
    const ABBREVIATIONS: [&str; 14] =
        ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];
    const TYPES: [&str; 4] = ["counter", "gauge", "histogram", "summary"];
    let mut said = Vec::new();
    let mut series = BTreeSet::new();
    let mut names = BTreeSet::new();
    for Family { name, help, kind, samples } in families {
        let mut say = |what: &str| said.push(format!("{name}: {what}"));
        if !names.insert(name) {
            say("is described twice");
        }
        if help.trim().is_empty() {
            say("no help text");
        }
        if !TYPES.contains(&kind.as_str()) {
            say("no type of this format");
        }
        if samples.is_empty() {
            say("no samples");
        }
        let is_histogram = kind == "histogram";
        match (kind == "counter", name.ends_with("_total")) {
            (true, false) => say("counter metrics should have \"_total\" suffix"),
            (false, true) => say("non-counter metrics should not have \"_total\" suffix"),
            _ => {}
        }
        if ["_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix)) {
            say("has a suffix of the samples of a histogram");
        }
        for part in name.split('_') {
            if ABBREVIATIONS.contains(&part) {
                say("metric names should not contain abbreviated units");
            }
            if TYPES.contains(&part) {
                say("metric name should not include a type");
            }
            for (base, others) in UNITS {
                let is_scaled = || PREFIXES.iter().any(|prefix| part.strip_prefix(*prefix) == Some(base));
                if others.contains(&part) || is_scaled() {
                    say(&format!("use base unit {base} instead of {part}"));
                }
            }
        }
        let is_plain =
            |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_plain(name) {
            say("metric names should be in snake case, without colons");
        }
        for (sample, labels) in samples {
            let suffix = sample.strip_prefix(name.as_str());
            let is_ours = match suffix {
                Some("") => !is_histogram,
                Some("_bucket" | "_sum" | "_count") => is_histogram,
                _ => false,
            };
            if !is_ours {
                say(&format!("{sample} is no sample of it"));
            }
            if !series.insert((sample, labels)) {
                say(&format!("{sample}{{{labels}}} comes twice"));
            }
            for (label, _) in labels.split(',').filter_map(|label| label.split_once('=')) {
                if !is_plain(label) || label.starts_with("__") || label == "quantile" {
                    say(&format!("label {label} is reserved, or not in snake case"));
                }
                if label == "le" && suffix != Some("_bucket") {
                    say("label le is reserved for buckets");
                }
            }
        }
    }
    said
}

#[tokio::test]
async fn a_linter_of_metrics_finds_nothing_to_say() {
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let http = http_client().unwrap();
    // Use everything that has labels, since a family without samples isn't reported.
    let good = minted(&server);
    for (token, status) in [(good.expose_secret(), StatusCode::OK), ("wrong", StatusCode::UNAUTHORIZED)] {
        let request = http.post(url(&server, "/asr")).header("content-type", "audio/wave");
        let answer = request.bearer_auth(token).body(wav(1, 16_000, 24_000)).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    let (_, text) = read(&server, None).await;
    let families = families(&text);
    let said = lint(&families);
    assert!(said.is_empty(), "{said:#?}\n{text}");
    let named = |name: &str| families.iter().any(|family| family.name == name);
    for name in ["voxline_build_info", "voxline_tokens_minted_total", "voxline_http_requests_total"] {
        assert!(named(name), "{text}");
    }
    assert_eq!(named("process_cpu_seconds_total"), cfg!(target_os = "linux"));
    server.stop().await;
}

#[test]
fn the_linter_finds_what_it_should() {
    let said = |text: &str| lint(&families(text));
    let good = "# HELP a_seconds Time.\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"+Inf\"} 1\n\
                a_seconds_sum 0.5\na_seconds_count 1\n# HELP c_total C.\n# TYPE c_total counter\nc_total 1\n";
    assert_eq!(said(good), [""; 0]);
    for bad in [
        "# HELP a  \n# TYPE a gauge\na 1\n",
        "# HELP a A.\n# TYPE a counter\na 1\n",
        "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a A.\n# TYPE a info\na 1\n",
        "# HELP a_milliseconds A.\n# TYPE a_milliseconds gauge\na_milliseconds 1\n",
        "# HELP a_hours A.\n# TYPE a_hours gauge\na_hours 1\n",
        "# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n",
        "# HELP a_count A.\n# TYPE a_count gauge\na_count 1\n",
        "# HELP a_gauge A.\n# TYPE a_gauge gauge\na_gauge 1\n",
        "# HELP aB A.\n# TYPE aB gauge\naB 1\n",
        "# HELP a:b A.\n# TYPE a:b gauge\na:b 1\n",
        "# HELP a A.\n# TYPE a gauge\na{le=\"1\"} 1\n",
        "# HELP a A.\n# TYPE a gauge\na{__b=\"1\"} 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1\na 1\n",
        "# HELP a A.\n# TYPE a gauge\n",
    ] {
        assert_eq!(said(bad).len(), 1, "{bad}{:?}", said(bad));
    }
}
