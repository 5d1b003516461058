//! Scores of a recogniser, as text and as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::corpus::Item;
use super::latency::Latencies;
use voxline_engines::wer::{Step, WordErrors, align, normal};

/// Recognition result of a recording.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) text: String,
    /// Length of the recording.
    pub(super) length: Duration,
    /// Latency of each utterance's text.
    pub(super) waits: Latencies,
    /// Latency of the first partial result of each utterance.
    pub(super) first_partials: Latencies,
}

impl Heard {
    pub(super) fn add(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text += text;
    }
}

/// Cost of recognising all recordings, as far as measured.
pub(super) struct Cost {
    /// Time to load the recogniser.
    pub(super) loading: Option<Duration>,
    /// CPU time of the process since then.
    pub(super) cpu: Option<Duration>,
    pub(super) wall: Option<Duration>,
}

/// All measurements: `heard` in each recording of `corpus`.
pub(super) struct Score<'a> {
    /// Name of the recogniser, if it is in this process.
    pub(super) model: Option<&'a str>,
    pub(super) language: Option<&'a str>,
    pub(super) threads: usize,
    pub(super) live: bool,
    pub(super) cost: Cost,
    pub(super) corpus: &'a [Item],
    pub(super) heard: Vec<Heard>,
}

impl Score<'_> {
    /// Returns a summary; if `verbose`, also a line for each recording.
    pub(super) fn text(&self, verbose: bool) -> String {
        let mut text = String::new();
        for (item, heard) in self.corpus.iter().zip(&self.heard).filter(|_| verbose) {
            let WordErrors { errors, words, .. } = WordErrors::between(&item.said, &heard.text);
            let shown = if errors == 0 {
                String::new()
            } else {
                format!(": {}", difference(&item.said, &heard.text))
            };
            let _ = writeln!(text, "{}: {errors} of {words} words{shown}", item.name);
        }
        let all = self.errors();
        let WordErrors { errors, missing, extra, words } = all;
        let (files, seconds) = (self.corpus.len(), self.length().as_secs_f64());
        let model = self.model.unwrap_or("the service");
        let _ = writeln!(text, "{model}: {seconds:.1} s in {files} recordings");
        let rate = match words {
            0 => format!("{errors} words invented"),
            _ => {
                let (percent, wrong) = (all.percent(), errors - missing - extra);
                format!(
                    "word error rate {percent:.1} %: of {words} words {wrong} wrong, {missing} missing; {extra} extra"
                )
            }
        };
        let _ = writeln!(text, "{rate}");
        let factor = |time: Option<Duration>, of: &str| {
            self.factor(time).map(|factor| format!("{factor:.3} of {of} time, "))
        };
        if let Some(cpu) = factor(self.cost.cpu, "CPU") {
            let wall = factor(self.cost.wall, "wall").unwrap_or_default();
            let _ = writeln!(text, "real-time factor {cpu}{wall}{} at once", self.threads);
        }
        let waits = self.pooled(|heard| &heard.waits);
        let of = |latencies: &Latencies, share| {
            latencies.quantile(share).map_or("-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        let [p50, p95, most] = [0.5, 0.95, 1.0].map(|share| of(&waits, share));
        let what = if self.live { "latency after the end of speech" } else { "computing time" };
        let count = waits.count();
        let _ = writeln!(text, "{count} finals, {what}: median {p50}, 95 % {p95}, maximum {most}");
        if self.live {
            let first = self.pooled(|heard| &heard.first_partials);
            let [p50, p95] = [0.5, 0.95].map(|share| of(&first, share));
            let _ =
                writeln!(text, "first partial result after the start of speech: median {p50}, 95 % {p95}");
        }
        text
    }

    /// Returns the scores as JSON, with the text of each recording.
    pub(super) fn json(&self) -> Value {
        let all = self.errors();
        let WordErrors { errors, missing, extra, words } = all;
        let files = self.corpus.iter().zip(&self.heard).map(|(item, heard)| {
            let errors = WordErrors::between(&item.said, &heard.text);
            json!({
                "file": item.name, "duration_s": heard.length.as_secs_f64(), "words": errors.words,
                "errors": errors.errors, "said": item.said.trim(), "heard": heard.text,
            })
        });
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let waits = self.pooled(|heard| &heard.waits);
        let first = self.pooled(|heard| &heard.first_partials);
        json!({
            "model": self.model, "language": self.language, "threads": self.threads, "live": self.live,
            "recordings": self.corpus.len(), "duration_s": self.length().as_secs_f64(),
            "words": words, "errors": errors, "missing": missing, "extra": extra, "wer_percent": all.percent(),
            "load_s": seconds(self.cost.loading), "cpu_s": seconds(self.cost.cpu), "wall_s": seconds(self.cost.wall),
            "cpu_real_time_factor": self.factor(self.cost.cpu), "wall_real_time_factor": self.factor(self.cost.wall),
            "finals": waits.count(), "final_p50_s": seconds(waits.quantile(0.5)),
            "final_p95_s": seconds(waits.quantile(0.95)), "final_max_s": seconds(waits.quantile(1.0)),
            "first_partial_p50_s": seconds(first.quantile(0.5)), "first_partial_p95_s": seconds(first.quantile(0.95)),
            "files": files.collect::<Vec<Value>>(),
        })
    }

    fn errors(&self) -> WordErrors {
        let pairs = self.corpus.iter().zip(&self.heard);
        pairs.fold(WordErrors::default(), |sum, (item, heard)| {
            sum.and(WordErrors::between(&item.said, &heard.text))
        })
    }

    fn length(&self) -> Duration {
        self.heard.iter().map(|heard| heard.length).sum()
    }

    /// Returns `time` as a fraction of the recordings' total length.
    fn factor(&self, time: Option<Duration>) -> Option<f64> {
        let length = self.length().as_secs_f64();
        time.filter(|_| length > 0.0).map(|time| time.as_secs_f64() / length)
    }

    fn pooled(&self, latencies: impl Fn(&Heard) -> &Latencies) -> Latencies {
        let mut pooled = Latencies::default();
        self.heard.iter().for_each(|heard| pooled.merge(latencies(heard).clone()));
        pooled
    }
}

/// Returns the recognised text with its differences from the transcript, in the notation of wdiff.
fn difference(said: &str, heard: &str) -> String {
    let (said, heard) = (normal(said), normal(heard));
    let steps = align(&said, &heard).into_iter().map(|step| match step {
        Step::Right(word) => word.to_owned(),
        Step::Wrong { said, heard } => format!("[-{said}-] {{+{heard}+}}"),
        Step::Missing(word) => format!("[-{word}-]"),
        Step::Extra(word) => format!("{{+{word}+}}"),
    });
    steps.collect::<Vec<_>>().join(" ")
}
