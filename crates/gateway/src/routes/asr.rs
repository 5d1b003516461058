//! `POST /asr`: recognition of one short recording.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::admission::capacity::MAX_RECORDING_BYTES;
use crate::authority::{Amount, Identity, Scope, new_id};
use crate::gateway::Gateway;
use crate::http::body;
use crate::http::error::{ApiError, json_response};
use crate::http::request_log::request_id;
use crate::http::upload;
use crate::recordings::decoding::RecordingLimits;
use crate::recordings::transcription::{Pace, RecordingRequest, Transcription, WorkPermits};
use crate::sessions::plain_text::plain;
use voxline::engine::{Accuracy, Latency, RecognitionRequest, Recognizer, Segment, Task};
use voxline::protocol::check_hints;
use voxline::source::Source;
use voxline_support::clock::civil;

/// Documented limit of a recording's length.
const MAX_DURATION: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
pub(crate) struct Parameters {
    /// Language spoken. The default is that of the project or of the gateway. The parameter is not part of
    /// the original service, which supports only Russian.
    language: Option<String>,
    /// Kind of the text: `transcribe` or `translate`.
    #[serde(default, deserialize_with = "named")]
    task: Task,
    /// Text that is taken to precede the recording.
    prompt: Option<String>,
    /// Words and phrases that are likely to be spoken, separated by commas.
    #[serde(default, deserialize_with = "listed")]
    keywords: Vec<String>,
    /// Balance between accuracy and cost: `fast`, `balanced` or `best`.
    #[serde(default, deserialize_with = "named")]
    accuracy: Accuracy,
}

/// Reads a value by its name, and refuses other names.
fn named<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn listed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = String::deserialize(deserializer)?;
    let keywords = list.split(',').map(str::trim).filter(|keyword| !keyword.is_empty());
    Ok(keywords.map(str::to_owned).collect())
}

impl Parameters {
    /// Completes a request for these languages. The client gets all text at once, so nobody waits for a
    /// single word.
    fn request(self, request: RecognitionRequest) -> RecognitionRequest {
        let Parameters { task, prompt, keywords, accuracy, language: _ } = self;
        let mut request = request.task(task).keywords(keywords).accuracy(accuracy).latency(Latency::Relaxed);
        request.prompt = prompt;
        request
    }
}

pub(crate) async fn recognise(
    State(gateway): State<Arc<Gateway>>,
    query: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Response {
    let identity = gateway.authorise(&request, Scope::AsrShort).map(Some);
    answer(gateway, identity, MAX_DURATION, query, request).await
}

/// Recognises the recording in `request`, of up to `longest`, and charges it to `identity`, if there is
/// one.
pub(crate) async fn answer(
    gateway: Arc<Gateway>,
    identity: Result<Option<Identity>, ApiError>,
    longest: Duration,
    query: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Response {
    let is_waiting = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    // A client that would be refused anyway need not send its recording.
    let admitted = identity.and_then(|identity| {
        let Query(parameters) = query?;
        check_hints(parameters.prompt.as_deref(), &parameters.keywords)
            .map_err(|error| ApiError::bad_request(400, error.to_string()))?;
        if let Some(identity) = &identity {
            gateway.authority.afford(identity, Amount::audio(1))?;
        }
        if body.size_hint().lower() > MAX_RECORDING_BYTES as u64 {
            return Err(upload::too_large(MAX_RECORDING_BYTES));
        }
        // A place is taken only for a recording that has arrived: otherwise slow clients would keep all
        // places without any work being done.
        drop(gateway.capacity(identity.as_ref()).place()?);
        let recognizer = gateway.recognizer()?.clone();
        let languages = gateway.recognition_request(identity.as_ref(), parameters.language.clone());
        let request = parameters.request(languages);
        recognizer
            .capabilities()
            .check(&request)
            .map_err(|error| ApiError::bad_request(400, error.to_string()))?;
        Ok((identity, request, recognizer))
    });
    let answer = match admitted {
        Ok((identity, request, recognizer)) => {
            recognise_upload(gateway, identity, recognizer, longest, request, body).await
        }
        Err(refusal) => {
            // A client that waits for permission to send (`Expect`) would take the reading for that
            // permission.
            if !is_waiting {
                body::discard(body);
            }
            Err(refusal)
        }
    };
    answer.unwrap_or_else(ApiError::into_response)
}

async fn recognise_upload(
    gateway: Arc<Gateway>,
    identity: Option<Identity>,
    recognizer: Arc<dyn Recognizer>,
    longest: Duration,
    recognition: RecognitionRequest,
    body: Body,
) -> Result<Response, ApiError> {
    let capacity = gateway.capacity(identity.as_ref());
    let mut reserved =
        capacity.upload_bytes.clone().try_acquire_many_owned(0).map_err(|_| ApiError::too_many_requests())?;
    let reserve = |bytes| {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        capacity.upload_bytes.clone().try_acquire_many_owned(bytes).map(|more| reserved.merge(more)).is_ok()
    };
    let patience = gateway.options.connections.body_timeout;
    let file = upload::receive(body, MAX_RECORDING_BYTES, patience, reserve).await?;
    gateway.metrics.count_bytes("asr", "in", file.len());
    let place = capacity.place()?;
    let request = RecordingRequest {
        source: Source::bytes("audio", file),
        limits: RecordingLimits::mono(longest),
        pace: Pace::WhenDecoded,
        recognition,
        charge: gateway.charge("asr", identity.clone()),
        permits: WorkPermits::new(place, reserved),
    };
    // The work ends if this future is dropped, as it is when the connection ends.
    let mut transcription =
        Transcription::start(recognizer, &gateway.sessions.scheduler, capacity, request).await?;
    let mut segments = Vec::new();
    while let Some((_, segment)) = transcription.next().await? {
        segments.push(segment);
    }
    Ok(json_response(StatusCode::OK, &answer_body(&segments, gateway.authority.clock().unix())))
}

/// Returns the documented answer: a list of hypotheses for the whole recording, best first. There is one
/// hypothesis, or none if nothing was said.
fn answer_body(segments: &[Segment], now: Duration) -> serde_json::Value {
    let spoken: Vec<&Segment> = segments.iter().filter(|segment| !segment.text.is_empty()).collect();
    let punctuated = spoken.iter().map(|segment| segment.text.trim()).collect::<Vec<_>>().join(" ");
    let texts = match punctuated.as_str() {
        "" => json!([]),
        punctuated => json!([{
            "text": plain(punctuated),
            "confidence": confidence(&spoken),
            "punctuated_text": punctuated,
        }]),
    };
    json!({ "qid": request_id(), "result": { "texts": texts, "phrase_id": phrase_id(now) } })
}

/// Returns a version 4 UUID that begins with the time, to the minute, as the service writes it.
fn phrase_id(now: Duration) -> String {
    let minutes = now.as_secs() / 60;
    let (year, month, day) = civil(minutes / (24 * 60));
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    let digits = new_id();
    let groups = [&digits[12..16], &digits[16..20], &digits[20..]];
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}-{}", groups.join("-"))
}

/// Returns the mean confidence of the segments, each weighted by its number of characters.
fn confidence(spoken: &[&Segment]) -> f64 {
    let (mut sum, mut letters) = (0.0, 0.0);
    for segment in spoken {
        let weight = segment.text.chars().count() as f64;
        sum += weight * f64::from(segment.confidence.unwrap_or(1.0));
        letters += weight;
    }
    sum / f64::max(letters, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_named_by_its_minute() {
        let id = phrase_id(Duration::from_secs(1_663_773_359));
        assert!(id.starts_with("20220921-1515-4"), "{id}");
        assert!(id.split('-').map(str::len).eq([8, 4, 4, 4, 12]), "{id}");
    }
}
