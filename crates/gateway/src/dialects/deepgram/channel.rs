//! Translation of the events of one channel, without sockets.

use std::time::Duration;

use serde_json::{Value, json};

use super::messages::TextForm;
use super::parameters::Parameters;
use crate::sessions::live::Partial;
use voxline::audio::{FramePos, FrameRange};
use voxline::protocol::Final;

/// A channel of a stream.
pub(super) struct Channel {
    /// Number of the channel.
    number: usize,
    sample_rate: u32,
    form: TextForm,
    /// Metadata that each result has.
    metadata: Value,
    interim_results: bool,
    endpointing: bool,
    vad_events: bool,
    utterance_end: Option<Duration>,
    /// True from the first result with words to the end of the utterance.
    is_speaking: bool,
    /// End of the last word, until the end of the utterance was told.
    last_word_end: Option<FramePos>,
    /// End of the last final.
    end: FramePos,
}

impl Channel {
    pub(super) fn new(number: usize, sample_rate: u32, parameters: &Parameters, metadata: Value) -> Channel {
        let Parameters { punctuate, multilingual, interim_results, .. } = *parameters;
        let Parameters { endpointing, vad_events, utterance_end, .. } = *parameters;
        Channel {
            number,
            sample_rate,
            form: TextForm { punctuate, multilingual },
            metadata,
            interim_results,
            endpointing,
            vad_events,
            utterance_end,
            is_speaking: false,
            last_word_end: None,
            end: FramePos::ZERO,
        }
    }

    /// Translates a partial result, in a stream of `channels`.
    pub(super) fn partial(&mut self, partial: &Partial, channels: usize) -> Vec<Value> {
        let mut messages = Vec::new();
        if partial.text.is_empty() {
            return messages;
        }
        self.start_speaking(partial.range.start, channels, &mut messages);
        if self.interim_results {
            let alternative = self.form.of_partial(&partial.text, partial.confidence);
            messages.push(self.results(partial.range, alternative, Kind::Interim, channels));
        }
        messages
    }

    /// Translates a final, with which a flush may be complete.
    pub(super) fn final_(&mut self, segment: &Final, ends_flush: bool, channels: usize) -> Vec<Value> {
        let mut messages = Vec::new();
        let range = segment.start.to(segment.end);
        self.end = segment.end;
        let is_speech = !segment.text.is_empty();
        if is_speech {
            let start = segment.words.first().map_or(segment.start, |word| word.range.start);
            self.start_speaking(start, channels, &mut messages);
            self.is_speaking = false;
            self.last_word_end = Some(segment.words.last().map_or(segment.end, |word| word.range.end));
        }
        let alternative = self.form.of_final(segment, self.sample_rate);
        // A final of speech that nobody asked for ends with a pause.
        let speech_final = is_speech && self.endpointing && !ends_flush;
        messages.push(self.results(range, alternative, Kind::Final { speech_final, ends_flush }, channels));
        messages
    }

    /// Returns the answer to a flush after which nothing was left to be said.
    pub(super) fn flushed(&self, channels: usize) -> Value {
        let kind = Kind::Final { speech_final: false, ends_flush: true };
        self.results(self.end.to(self.end), self.form.of_silence(), kind, channels)
    }

    /// Returns the position at which the utterance counts as over, if nothing more is said until then.
    pub(super) fn utterance_ends_at(&self) -> Option<FramePos> {
        let pause = self.utterance_end?.as_millis() * u128::from(self.sample_rate) / 1_000;
        let pause = u64::try_from(pause).unwrap_or(u64::MAX);
        Some(FramePos(self.last_word_end?.0.saturating_add(pause)))
    }

    /// Returns the end of the utterance, which is told once.
    pub(super) fn utterance_end(&mut self, channels: usize) -> Option<Value> {
        let end = self.last_word_end.take()?;
        let end = self.seconds(end);
        Some(json!({ "type": "UtteranceEnd", "channel": self.index(channels), "last_word_end": end }))
    }

    fn start_speaking(&mut self, at: FramePos, channels: usize, messages: &mut Vec<Value>) {
        if !std::mem::replace(&mut self.is_speaking, true) && self.vad_events {
            let timestamp = self.seconds(at);
            let channel = self.index(channels);
            messages.push(json!({ "type": "SpeechStarted", "channel": channel, "timestamp": timestamp }));
        }
    }

    fn results(&self, range: FrameRange, alternative: Value, kind: Kind, channels: usize) -> Value {
        let (is_final, speech_final, from_finalize) = match kind {
            Kind::Interim => (false, false, false),
            Kind::Final { speech_final, ends_flush } => (true, speech_final, ends_flush),
        };
        json!({
            "type": "Results",
            "channel_index": [self.number, channels],
            "start": self.seconds(range.start),
            "duration": range.len() as f64 / f64::from(self.sample_rate),
            "is_final": is_final,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": { "alternatives": [alternative] },
            "metadata": self.metadata,
        })
    }

    /// Returns the channel as events name it: with the number of channels if there are several.
    fn index(&self, channels: usize) -> Value {
        if channels == 1 { json!([self.number]) } else { json!([self.number, channels]) }
    }

    fn seconds(&self, position: FramePos) -> f64 {
        position.0 as f64 / f64::from(self.sample_rate)
    }
}

/// Kind of a result.
#[derive(Clone, Copy)]
enum Kind {
    Interim,
    Final { speech_final: bool, ends_flush: bool },
}

#[cfg(test)]
mod tests {
    use super::*;
    use voxline::transcript::Word;

    fn channel(query: &str) -> Channel {
        Channel::new(0, 16_000, &Parameters::parse(query).unwrap(), json!({ "request_id": "id" }))
    }

    /// Returns a final with a word of that text in its middle.
    fn said(text: &str, start: u64, end: u64) -> Final {
        let mut segment = Final::new(0, FramePos(start).to(FramePos(end)), text);
        segment.confidence = Some(0.5);
        let range = FramePos(start + 1_600).to(FramePos(end - 1_600));
        segment.words = vec![Word { range, text: text.to_owned(), confidence: 0.75 }];
        segment
    }

    fn partial(text: &str, start: u64, end: u64) -> Partial {
        let range = FramePos(start).to(FramePos(end));
        Partial { revision: 0, range, text: text.to_owned(), confidence: Some(0.25) }
    }

    #[test]
    fn a_final_has_all_fields_that_clients_read_without_a_default() {
        let messages = channel("smart_format=true").final_(&said("Hello.", 16_000, 48_000), false, 1);
        let word = json!({
            "word": "hello", "punctuated_word": "Hello.", "start": 1.1, "end": 2.9, "confidence": 0.75
        });
        let alternative = json!({ "transcript": "Hello.", "confidence": 0.5, "words": [word] });
        let expected = json!({
            "type": "Results",
            "channel_index": [0, 1],
            "start": 1.0,
            "duration": 2.0,
            "is_final": true,
            "speech_final": true,
            "from_finalize": false,
            "channel": { "alternatives": [alternative] },
            "metadata": { "request_id": "id" },
        });
        assert_eq!(messages, [expected]);
        let plain = channel("endpointing=false").final_(&said("Hello.", 16_000, 48_000), true, 2);
        let alternative = &plain[0]["channel"]["alternatives"][0];
        assert_eq!(alternative["transcript"], "hello");
        assert_eq!(alternative["words"][0].get("punctuated_word"), None);
        assert_eq!((&plain[0]["speech_final"], &plain[0]["from_finalize"]), (&json!(false), &json!(true)));
    }

    #[test]
    fn speech_starts_once_in_an_utterance_and_interims_only_if_asked() {
        let kinds = |messages: Vec<Value>| -> Vec<String> {
            messages.iter().map(|message| message["type"].as_str().unwrap().to_owned()).collect()
        };
        let mut both = channel("vad_events=true&interim_results=true");
        assert_eq!(kinds(both.partial(&partial("a", 0, 9), 1)), ["SpeechStarted", "Results"]);
        assert_eq!(kinds(both.partial(&partial("a b", 0, 9), 1)), ["Results"]);
        assert_eq!(kinds(both.final_(&said("a b", 0, 9_000), false, 1)), ["Results"]);
        assert_eq!(kinds(both.final_(&said("c", 9_000, 20_000), false, 1)), ["SpeechStarted", "Results"]);
        let mut finals = channel("");
        assert!(finals.partial(&partial("a", 0, 9), 1).is_empty());
        assert_eq!(kinds(finals.final_(&said("a", 0, 9_000), false, 1)), ["Results"]);
    }

    #[test]
    fn the_end_of_an_utterance_is_told_once() {
        let mut channel = channel("utterance_end_ms=1500");
        assert_eq!(channel.utterance_ends_at(), None);
        channel.final_(&said("a", 0, 16_000), false, 1);
        channel.final_(&Final::new(1, FramePos(16_000).to(FramePos(20_000)), ""), false, 1);
        assert_eq!(channel.utterance_ends_at(), Some(FramePos(14_400 + 24_000)));
        let expected = json!({ "type": "UtteranceEnd", "channel": [0], "last_word_end": 0.9 });
        assert_eq!(channel.utterance_end(1), Some(expected));
        assert_eq!((channel.utterance_end(1), channel.utterance_ends_at()), (None, None));
        assert_eq!(channel.flushed(1)["start"], 1.25);
    }
}
