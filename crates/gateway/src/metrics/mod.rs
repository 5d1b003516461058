//! Metrics in the two text formats that Prometheus reads.
//!
//! Names follow Prometheus' rules: a unit is at the end of the name, followed by `_total` for counters.
//! Labels have few values: no text from a client becomes a label.
//!
//! This room imports no other room of the gateway.

mod format;
#[cfg(target_os = "linux")]
mod process;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

pub(crate) use self::format::Format;

/// Upper bounds of the latency buckets, in seconds: from imperceptible latencies to unacceptable ones.
/// Finals should come within 2 s.
const LATENCIES: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 10.0, 30.0];

/// Metrics by one label.
pub(crate) type By<C> = Family<[(&'static str, &'static str); 1], C>;
type Seconds = Counter<f64, AtomicU64>;

/// Counters of tokens. The authority counts, and [`Metrics`] reports.
#[derive(Clone, Default)]
pub(crate) struct TokenCounters {
    /// Tokens minted, by kind.
    pub(crate) minted: By<Counter>,
    /// Requests refused, by reason.
    pub(crate) refused: By<Counter>,
}

/// Values that are measured when the metrics are read.
pub(crate) struct Gauges {
    /// Number of live sessions.
    pub(crate) sessions: usize,
    /// Length of the audio of live sessions that is not final yet.
    pub(crate) waiting: Duration,
    /// Longest current wait of any live session for a recognition thread.
    pub(crate) lateness: Duration,
}

/// Counts and times since the start of the gateway.
pub(crate) struct Metrics {
    /// Metrics of the gateway, whose names begin with `voxline`.
    registry: Registry,
    /// Metrics of the process, which have no prefix.
    process: Registry,
    pub(crate) sessions: SessionMetrics,
    pub(crate) audio: AudioMetrics,
    recogniser: RecogniserMetrics,
    latencies: LatencyMetrics,
    pub(crate) speech: SpeechMetrics,
    requests: Family<Vec<(&'static str, String)>, Counter>,
    bytes: Family<[(&'static str, &'static str); 2], Counter>,
}

/// Counts of sessions, on sockets and chunked.
pub(crate) struct SessionMetrics {
    /// Number of live ones, updated when the metrics are read.
    live: Gauge,
    pub(crate) started: By<Counter>,
    refused: By<Counter>,
    pub(crate) resumed: Counter,
}

/// Audio of clients, in seconds.
pub(crate) struct AudioMetrics {
    received: By<Seconds>,
    pub(crate) recognised: Seconds,
    pub(crate) gaps: Seconds,
    /// Audio that is not final yet, updated when the metrics are read.
    waiting: Gauge<f64, AtomicU64>,
}

/// Times of the recognition threads.
struct RecogniserMetrics {
    busy: By<Seconds>,
    wait: Histogram,
    /// Longest current wait, updated when the metrics are read.
    lateness: Gauge<f64, AtomicU64>,
}

/// Times that a client waits for a result.
struct LatencyMetrics {
    final_: Histogram,
    first_partial: Histogram,
    first_speech: Histogram,
}

/// Texts and the speech that was made of them.
pub(crate) struct SpeechMetrics {
    pub(crate) characters: By<Counter>,
    pub(crate) spoken: By<Seconds>,
}

impl SessionMetrics {
    fn new(list: &mut List) -> SessionMetrics {
        SessionMetrics {
            live: list.add("sessions", "Live sessions, on sockets and chunked", Gauge::default()),
            started: list.add(
                "sessions_started",
                "Sessions started, on sockets and chunked, by API",
                Family::default(),
            ),
            refused: list.add("sessions_refused", "Sessions refused, by reason", Family::default()),
            resumed: list.add("sessions_resumed", "Sessions resumed by another socket", Counter::default()),
        }
    }
}

impl AudioMetrics {
    fn new(list: &mut List) -> AudioMetrics {
        AudioMetrics {
            received: list.timed("audio_received", "Audio received, by API", Family::default()),
            recognised: list.timed(
                "audio_recognised",
                "Audio of sessions covered by finals",
                Counter::default(),
            ),
            gaps: list.timed("audio_gaps", "Audio that clients declared as gaps", Counter::default()),
            waiting: list.timed(
                "audio_waiting",
                "Audio of live sessions that is not final yet",
                Gauge::default(),
            ),
        }
    }
}

impl RecogniserMetrics {
    fn new(list: &mut List) -> RecogniserMetrics {
        RecogniserMetrics {
            busy: list.timed(
                "recogniser_busy",
                "Time spent by recognition threads, by kind of work",
                Family::default(),
            ),
            wait: list.timed(
                "recogniser_wait",
                "Time that live sessions waited for a recognition thread",
                latency(),
            ),
            lateness: list.timed(
                "recogniser_lateness",
                "Longest current wait of any live session for a recognition thread",
                Gauge::default(),
            ),
        }
    }
}

impl LatencyMetrics {
    fn new(list: &mut List) -> LatencyMetrics {
        LatencyMetrics {
            final_: list.timed("final_latency", "Time from the end of an utterance to its final", latency()),
            first_partial: list.timed(
                "first_partial_latency",
                "Time from the start of an utterance to its first partial",
                latency(),
            ),
            first_speech: list.timed(
                "first_speech_latency",
                "Time from a synthesis request to its first audio",
                latency(),
            ),
        }
    }
}

impl SpeechMetrics {
    fn new(list: &mut List) -> SpeechMetrics {
        SpeechMetrics {
            characters: list.add(
                "speech_characters",
                "Characters of text received for synthesis, by API",
                Family::default(),
            ),
            spoken: list.timed("speech", "Speech synthesised, by API", Family::default()),
        }
    }
}

fn latency() -> Histogram {
    Histogram::new(LATENCIES)
}

impl Metrics {
    /// Creates metrics at zero, for at most `limit` sessions and for `threads` recognition threads.
    pub(crate) fn new(limit: usize, threads: usize, tokens: &TokenCounters) -> Metrics {
        let mut list = List(Registry::with_prefix("voxline"));
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        list.0.register("build", "Version of the gateway, as a label", version);
        list.constant("sessions_limit", "Maximum number of live sessions, on sockets and chunked", limit);
        list.constant("recogniser_threads", "Number of recognition threads", threads);
        Metrics {
            sessions: SessionMetrics::new(&mut list),
            audio: AudioMetrics::new(&mut list),
            recogniser: RecogniserMetrics::new(&mut list),
            latencies: LatencyMetrics::new(&mut list),
            speech: SpeechMetrics::new(&mut list),
            requests: list.add("http_requests", "Requests, by path, method and status", Family::default()),
            bytes: list.add(
                "payload_bytes",
                "Bytes of audio and text received and of speech sent, by API",
                Family::default(),
            ),
            registry: {
                list.add("tokens_minted", "Tokens minted, by kind", tokens.minted.clone());
                list.add("tokens_refused", "Tokens and secrets refused, by reason", tokens.refused.clone());
                list.0
            },
            process: process(),
        }
    }

    /// Counts a refused session.
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.sessions.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts audio of a recording, a session or a chunk.
    pub(crate) fn receive(&self, api: &'static str, milliseconds: u64, bytes: usize) {
        self.audio.received.get_or_create(&[("api", api)]).inc_by(milliseconds as f64 / 1e3);
        self.count_bytes(api, "in", bytes);
    }

    pub(crate) fn count_bytes(&self, api: &'static str, direction: &'static str, bytes: usize) {
        self.bytes.get_or_create(&[("api", api), ("direction", direction)]).inc_by(bytes as u64);
    }

    /// Counts a turn of the recogniser that took `took`, for this kind of work.
    pub(crate) fn turn(&self, work: &'static str, took: Duration) {
        self.recogniser.busy.get_or_create(&[("work", work)]).inc_by(took.as_secs_f64());
    }

    /// Records the time that a live session has waited for a turn of the recogniser.
    pub(crate) fn live_turn_after(&self, wait: Duration) {
        self.recogniser.wait.observe(wait.as_secs_f64());
    }

    /// Records the `latency` of a final with words since its last frame arrived.
    pub(crate) fn final_after(&self, latency: Duration) {
        self.latencies.final_.observe(latency.as_secs_f64());
    }

    /// Records the `latency` of an utterance's first partial result since the utterance's first frame
    /// arrived.
    pub(crate) fn partial_after(&self, latency: Duration) {
        self.latencies.first_partial.observe(latency.as_secs_f64());
    }

    /// Records the `latency` of the first audio of a text since the text arrived.
    pub(crate) fn speech_after(&self, latency: Duration) {
        self.latencies.first_speech.observe(latency.as_secs_f64());
    }

    /// Counts a request and the status of its answer.
    pub(crate) fn count_request(&self, path: String, method: String, status: String) {
        self.requests.get_or_create(&vec![("path", path), ("method", method), ("status", status)]).inc();
    }

    /// Returns all metrics in `format`, with the current values of `gauges`.
    ///
    /// # Errors
    /// Returns [`fmt::Error`] if a metric can't be encoded.
    pub(crate) fn text(&self, gauges: &Gauges, format: Format) -> Result<String, fmt::Error> {
        self.sessions.live.set(i64::try_from(gauges.sessions).unwrap_or(i64::MAX));
        self.audio.waiting.set(gauges.waiting.as_secs_f64());
        self.recogniser.lateness.set(gauges.lateness.as_secs_f64());
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &self.process)?;
        encode_eof(&mut text)?;
        Ok(format.of_open_metrics(text))
    }
}

/// Returns the metrics of this process. Only Linux has a source of them.
fn process() -> Registry {
    #[cfg_attr(not(target_os = "linux"), expect(unused_mut, reason = "nothing to add"))]
    let mut registry = Registry::default();
    #[cfg(target_os = "linux")]
    registry.register_collector(Box::new(process::ProcessCollector::new()));
    registry
}

/// A registry that metrics are added to by name.
struct List(Registry);

impl List {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn constant(&mut self, name: &str, help: &str, value: usize) {
        self.add(name, help, Gauge::<i64>::default()).set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Adds a metric that counts seconds.
    fn timed<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }
}
