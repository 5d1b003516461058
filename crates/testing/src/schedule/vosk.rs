//! The Vosk server of a schedule: its contract, with a recogniser whose texts are digests.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::dice::Dice;
use super::plan::{ServerPlan, in_context};
use super::server::Up;
use voxline::protocol::vosk::Translator;

/// The client's translator and the server's recogniser of one connection.
#[derive(Debug)]
pub(super) struct VoskLine {
    pub(super) translator: Translator,
    pub(super) server: VoskServer,
}

/// A recogniser, which lives as long as its connection. It answers each message once, in order.
#[derive(Debug)]
pub(super) struct VoskServer {
    plan: ServerPlan,
    /// `true` if the recogniser never completes an utterance, nor answers the end.
    endless: bool,
    /// Sample rate from the configuration.
    rate: Option<u32>,
    /// All samples processed, and the start of the current utterance among them.
    samples: Vec<i16>,
    start: usize,
    /// Number of frames after which the current utterance ends.
    utterance: u64,
    waiting: VecDeque<Work>,
    working: bool,
    ended: bool,
}

#[derive(Debug)]
enum Work {
    Audio(Vec<i16>),
    End,
}

/// A reply, and what it means for the simulation.
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) is_final: bool,
    pub(super) is_last: bool,
}

impl VoskServer {
    pub(super) fn new(plan: ServerPlan, endless: bool, dice: &mut Dice) -> VoskServer {
        VoskServer {
            plan,
            endless,
            rate: None,
            samples: Vec::new(),
            start: 0,
            utterance: dice.between(plan.longest / 4, plan.longest),
            waiting: VecDeque::new(),
            working: false,
            ended: false,
        }
    }

    /// Handles a message. An error is a breach of the protocol by the client.
    pub(super) fn hear(&mut self, up: &Up) -> Result<(), String> {
        if self.ended {
            return Err(format!("{up:?} after the end"));
        }
        match (up, self.rate) {
            (Up::Text(text), None) => {
                let config: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
                let rate = config["config"]["sample_rate"].as_u64().and_then(|rate| rate.try_into().ok());
                self.rate = Some(rate.ok_or_else(|| format!("{text} is no configuration"))?);
            }
            // The server compares this literally. Anything else would be taken for audio.
            (Up::Text(text), Some(_)) if text == "{\"eof\" : 1}" => {
                self.ended = true;
                self.waiting.push_back(Work::End);
            }
            (Up::Binary(pcm), Some(_)) if !pcm.is_empty() && pcm.len().is_multiple_of(2) => {
                let samples = pcm.chunks_exact(2).map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]]));
                self.waiting.push_back(Work::Audio(samples.collect()));
            }
            (up, rate) => return Err(format!("{up:?} at a rate of {rate:?}")),
        }
        Ok(())
    }

    /// Begins to process the next message, if there is one. Returns the time that this takes.
    pub(super) fn begin_work(&mut self) -> Option<Duration> {
        let next = self.waiting.front().filter(|_| !self.working)?;
        let frames = match next {
            Work::Audio(samples) => samples.len() as u64,
            Work::End if self.endless => return None,
            Work::End => 0,
        };
        self.working = true;
        Some(Duration::from_nanos(frames * 1_000_000_000 / self.plan.rate))
    }

    /// Completes the processing of a message. Returns the reply.
    pub(super) fn finish_work(&mut self, dice: &mut Dice) -> Reply {
        self.working = false;
        match self.waiting.pop_front().expect("begun") {
            Work::End => Reply { text: self.result(), is_final: true, is_last: true },
            Work::Audio(samples) => {
                self.samples.extend(samples);
                let heard = (self.samples.len() - self.start) as u64;
                let is_final = !self.endless && heard >= self.utterance;
                let text = if is_final {
                    self.utterance = dice.between(self.plan.longest / 4, self.plan.longest).max(1);
                    self.result()
                } else {
                    let partial = if dice.chance(50) { "a guess" } else { "" };
                    json!({ "partial": partial }).to_string()
                };
                Reply { text, is_final, is_last: false }
            }
        }
    }

    /// Returns the result of the current utterance, and begins the next one.
    fn result(&mut self) -> String {
        let (start, end) = (std::mem::replace(&mut self.start, self.samples.len()), self.samples.len());
        if start == end {
            return json!({ "text": "" }).to_string();
        }
        let text = in_context("", self.samples[start..end].iter().copied());
        let rate = f64::from(self.rate.expect("configured before any audio"));
        let word = json!({
            "conf": 1.0, "start": start as f64 / rate, "end": end as f64 / rate, "word": text,
        });
        json!({ "result": [word], "text": text }).to_string()
    }
}
