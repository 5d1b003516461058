//! Answers that are sent while a recording is recognised, as server-sent events.
//!
//! Only final segments are sent, so that the deltas never take back a word.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::answer::{diarized_segment, segment_id};
use super::channel_order::ChannelOrder;
use super::error::OpenAiError;
use super::request::{ResponseFormat, Shape};
use crate::http::error::ApiError;
use crate::http::sse::{self, KEEP_ALIVE};
use crate::recordings::transcription::Transcription;
use voxline::engine::Segment;

/// Longest time without an event.
const QUIET: Duration = Duration::from_secs(15);
/// Data of the event after the last one.
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// Returns the answer to a request for events.
pub(super) fn answer(transcription: Transcription, shape: Shape) -> Response {
    let order = ChannelOrder::new(transcription.channels());
    let state = Events {
        transcription: Some(transcription),
        order,
        shape,
        text: String::new(),
        segments: 0,
        tokens: 0,
        ready: VecDeque::new(),
    };
    let events = futures::stream::unfold(state, |mut state| async {
        let event = state.next().await?;
        Some((Ok::<Bytes, Infallible>(event), state))
    });
    sse::response(Body::from_stream(events))
}

/// The events of one recording.
struct Events {
    /// `None` once the last event was made.
    transcription: Option<Transcription>,
    order: ChannelOrder,
    shape: Shape,
    /// Text sent so far.
    text: String,
    /// Number of segments sent.
    segments: usize,
    /// Number of tokens in their texts.
    tokens: usize,
    /// Events to send.
    ready: VecDeque<Bytes>,
}

impl Events {
    /// Returns the next event.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let Ok(next) = timeout(QUIET, self.transcription.as_mut()?.next()).await else {
                return Some(KEEP_ALIVE);
            };
            self.take(next);
        }
    }

    fn take(&mut self, next: Result<Option<(usize, Segment)>, ApiError>) {
        match next {
            Ok(Some((channel, segment))) => {
                let segments = self.order.push(channel, segment);
                self.segments(segments);
            }
            Ok(None) => {
                let segments = self.order.finish();
                self.segments(segments);
                // The service's clients need the three counts. Audio has no tokens here.
                let usage = json!({
                    "type": "tokens",
                    "input_tokens": 0,
                    "output_tokens": self.tokens,
                    "total_tokens": self.tokens,
                });
                self.push(&json!({ "type": "transcript.text.done", "text": self.text, "usage": usage }));
                self.ready.push_back(DONE);
                self.transcription = None;
            }
            Err(error) => {
                let error = OpenAiError::from(error).object();
                self.push(&json!({ "error": error }));
                self.transcription = None;
            }
        }
    }

    fn segments(&mut self, segments: Vec<(usize, Segment)>) {
        for (channel, segment) in segments {
            let text = segment.text.trim();
            if text.is_empty() {
                continue;
            }
            let delta = if self.text.is_empty() { text.to_owned() } else { format!(" {text}") };
            self.text.push_str(&delta);
            let mut event = json!({ "type": "transcript.text.delta", "delta": delta });
            if self.shape.format == ResponseFormat::DiarizedJson {
                event["segment_id"] = segment_id(self.segments).into();
                self.push(&event);
                event = diarized_segment(self.segments, channel, &segment, &self.shape);
            }
            self.push(&event);
            self.segments += 1;
            self.tokens += segment.tokens.len();
        }
    }

    fn push(&mut self, event: &Value) {
        self.ready.push_back(sse::event(event));
    }
}
