//! Answers with a whole result, in each of the formats.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::request::{ResponseFormat, Shape};
use crate::http::error::json_response;
use voxline::audio::FramePos;
use voxline::engine::{RECOGNIZER_RATE, Segment, Task};
use voxline::language::Language;
use voxline::transcript::{self, FinalSegment, Writer};

/// Frames in the unit of `seek`: the hop of Whisper's spectra, 10 ms.
const HOP: u64 = RECOGNIZER_RATE as u64 / 100;

/// A recognised recording.
pub(super) struct Transcript {
    /// Segments with the numbers of their channels, in order. Those without text are left out.
    pub(super) segments: Vec<(usize, Segment)>,
    pub(super) milliseconds: u64,
}

impl Transcript {
    /// Returns the whole text.
    pub(super) fn text(&self) -> String {
        self.segments.iter().map(|(_, segment)| segment.text.trim()).collect::<Vec<_>>().join(" ")
    }

    /// Returns the answer.
    pub(super) fn answer(&self, shape: &Shape) -> Response {
        let json = |body: Value| json_response(StatusCode::OK, &body);
        match shape.format {
            ResponseFormat::Json => json(self.json()),
            ResponseFormat::VerboseJson => json(self.verbose(shape)),
            ResponseFormat::DiarizedJson => json(self.diarized(shape)),
            ResponseFormat::Text => plain(format!("{}\n", self.text())),
            ResponseFormat::Srt => plain(self.subtitles(transcript::Format::Srt)),
            ResponseFormat::WebVtt => plain(self.subtitles(transcript::Format::WebVtt)),
        }
    }

    fn json(&self) -> Value {
        let mut codes: Vec<&str> = Vec::new();
        for language in self.segments.iter().filter_map(|(_, segment)| segment.language.as_deref()) {
            if !codes.contains(&language) {
                codes.push(language);
            }
        }
        let mut answer = json!({ "text": self.text(), "usage": self.usage() });
        if !codes.is_empty() {
            answer["languages"] = codes.iter().map(|code| json!({ "code": code })).collect();
        }
        answer
    }

    fn verbose(&self, shape: &Shape) -> Value {
        let mut answer = json!({
            "task": shape.task.to_string(),
            "language": self.language(shape),
            "duration": self.duration(),
            "text": self.text(),
            "usage": self.usage(),
        });
        if shape.segments {
            let segments = self.segments.iter().enumerate();
            answer["segments"] =
                segments.map(|(id, (_, segment))| verbose_segment(id, segment, shape.temperature)).collect();
        }
        if shape.words {
            let words = self.segments.iter().flat_map(|(_, segment)| &segment.words);
            answer["words"] = words
                .map(|word| {
                    json!({
                        "word": word.text.trim(),
                        "start": seconds(word.range.start),
                        "end": seconds(word.range.end),
                        "probability": rounded(word.confidence),
                    })
                })
                .collect();
        }
        answer
    }

    fn diarized(&self, shape: &Shape) -> Value {
        let segments = self.segments.iter().enumerate();
        json!({
            "task": shape.task.to_string(),
            "duration": self.duration(),
            "text": self.text(),
            "segments": segments
                .map(|(index, (channel, segment))| diarized_segment(index, *channel, segment, shape))
                .collect::<Value>(),
            "usage": self.usage(),
        })
    }

    /// Returns the English name of the language, as the service has it.
    fn language(&self, shape: &Shape) -> &'static str {
        if shape.task == Task::Translate {
            return "english";
        }
        let heard = self.segments.iter().find_map(|(_, segment)| segment.language.as_deref()?.parse().ok());
        let language: Option<Language> = heard.or_else(|| shape.language.clone());
        language.map_or("unknown", |language| language.english_name())
    }

    fn duration(&self) -> f64 {
        self.milliseconds as f64 / 1e3
    }

    fn usage(&self) -> Value {
        json!({ "type": "duration", "seconds": self.milliseconds.div_ceil(1_000) })
    }

    fn subtitles(&self, format: transcript::Format) -> String {
        let mut writer = Writer::new(format, RECOGNIZER_RATE, Vec::new());
        for (index, (_, segment)) in (0..).zip(&self.segments) {
            let segment = FinalSegment {
                index,
                range: segment.range,
                text: segment.text.clone(),
                language: segment.language.clone(),
                confidence: segment.confidence,
                words: segment.words.clone(),
                context: None,
            };
            writer.segment(&segment, None).expect("memory takes all bytes");
        }
        let bytes = writer.finish().expect("memory takes all bytes");
        String::from_utf8(bytes).expect("subtitles are UTF-8")
    }
}

/// Returns a segment with all the keys that the service's own client needs. A value that the recogniser
/// doesn't know is one that marks nothing as doubtful.
fn verbose_segment(id: usize, segment: &Segment, temperature: f32) -> Value {
    json!({
        "id": id,
        "seek": segment.range.start.0 / HOP,
        "start": seconds(segment.range.start),
        "end": seconds(segment.range.end),
        "text": format!(" {}", segment.text.trim()),
        "tokens": segment.tokens,
        "temperature": rounded(temperature),
        "avg_logprob": rounded(segment.avg_log_probability.unwrap_or(0.0)),
        "compression_ratio": rounded(segment.compression_ratio.unwrap_or(1.0)),
        "no_speech_prob": rounded(segment.no_speech_probability.unwrap_or(0.0)),
    })
}

/// Returns a segment with its speaker.
pub(super) fn diarized_segment(index: usize, channel: usize, segment: &Segment, shape: &Shape) -> Value {
    json!({
        "type": "transcript.text.segment",
        "id": segment_id(index),
        "start": seconds(segment.range.start),
        "end": seconds(segment.range.end),
        "text": segment.text.trim(),
        "speaker": speaker(channel, segment, shape),
    })
}

pub(super) fn segment_id(index: usize) -> String {
    format!("seg_{}", index + 1)
}

/// Returns the name of a speaker: the one that the request gives to the channel, or the one that the
/// recogniser knows, or a letter.
fn speaker(channel: usize, segment: &Segment, shape: &Shape) -> String {
    let named = shape.speakers.get(channel).or(segment.speaker.as_ref());
    let letter = || char::from(b'A' + u8::try_from(channel).unwrap_or(u8::MAX).min(25)).to_string();
    named.cloned().unwrap_or_else(letter)
}

fn plain(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn seconds(position: FramePos) -> f64 {
    position.0 as f64 / f64::from(RECOGNIZER_RATE)
}

/// Returns the number with six decimals: those of a 32-bit number in decimal are noise after that.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}
