//! `POST /asr`: one short recording in, its text out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::Gateway;
use super::authority::{Amount, Exhausted, Scope};
use super::error::{ApiError, json_response, qid};
use super::recording::{self, Recording, bad};
use crate::engine::{EngineError, Recognizer, Segment, StreamOptions};

/// Documented limits: 20 MB, 5 minutes, one channel.
const MAX_BYTES: usize = 20 * 1024 * 1024;
const MAX_DURATION: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
pub(super) struct Parameters {
    /// The language spoken; detected where absent. Not of the original service, which knows Russian only.
    language: Option<String>,
}

pub(super) async fn recognise(
    State(gateway): State<Arc<Gateway>>,
    Query(parameters): Query<Parameters>,
    request: Request,
) -> Response {
    match answer(gateway, parameters, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(
    gateway: Arc<Gateway>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, ApiError> {
    let identity = gateway.authorise(&request, Scope::AsrShort)?;
    gateway.authority.afford(&identity, Amount::audio(1))?;
    let recognizer = gateway.recognizer()?.clone();
    let place = gateway.place()?;
    let body = recording::receive(request.into_body(), MAX_BYTES).await?;
    let work = move || {
        let _place = place;
        let charge = |milliseconds| gateway.authority.charge(&identity, Amount::audio(milliseconds));
        hear(&*recognizer, body, parameters.language, charge)
    };
    let segments = tokio::task::spawn_blocking(work).await.map_err(|panic| ApiError::internal(&panic))??;
    Ok(json_response(StatusCode::OK, &shape(&segments)))
}

/// What is said in `body`. Audio is charged while it is decoded, so that no more is than can be paid for.
fn hear(
    recognizer: &dyn Recognizer,
    body: Vec<u8>,
    language: Option<String>,
    charge: impl Fn(u64) -> Result<(), Exhausted>,
) -> Result<Vec<Segment>, ApiError> {
    let recording = Recording::open(body)?;
    let mut stream = recognizer.start(&StreamOptions { language }).map_err(|error| match error {
        EngineError::Language(_) => bad(400, error.to_string()),
        error => ApiError::internal(&error),
    })?;
    let failed = |error: EngineError| ApiError::internal(&error);
    let mut segments = Vec::new();
    recording.read(MAX_DURATION, |milliseconds, pcm| {
        charge(milliseconds)?;
        segments.extend(stream.push(pcm).map_err(failed)?);
        Ok(())
    })?;
    segments.extend(stream.flush().map_err(failed)?);
    Ok(segments)
}

/// The documented answer: a list of hypotheses for the whole recording, best first. There is one, or none where nothing
/// was said.
fn shape(segments: &[Segment]) -> serde_json::Value {
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
    json!({ "qid": qid(), "result": { "texts": texts, "phrase_id": qid() } })
}

/// Lower case without punctuation, as the service writes `text`; marks inside a word (`don't`, `кое-что`) stay.
pub(super) fn plain(text: &str) -> String {
    let words = text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The mean over the segments, each weighted by its length in letters.
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
    fn plain_text_keeps_words_whole() {
        assert_eq!(plain("Привет, Алиса. — Don't stop!"), "привет алиса don't stop");
    }
}
