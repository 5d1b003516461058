//! `POST /asr`: one short recording in, its text out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::authority::{Amount, Scope};
use super::error::{ApiError, json_response, qid};
use super::recording::{self, Recording, bad};
use super::{Gateway, access, busy};
use crate::engine::{EngineError, Recognizer, Segment, StreamOptions};

/// Documented limits: 20 MB, 5 minutes, one channel.
pub(super) const MAX_BYTES: usize = 20 * 1024 * 1024;
const MAX_DURATION: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
pub(super) struct Parameters {
    /// The language spoken; detected where absent. Not of the original service, which knows Russian only.
    language: Option<String>,
}

pub(super) async fn recognise(
    State(gateway): State<Arc<Gateway>>,
    asked: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Response {
    answer(gateway, asked, request).await.unwrap_or_else(ApiError::into_response)
}

async fn answer(
    gateway: Arc<Gateway>,
    asked: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let identity = gateway.authorise(&request, Scope::AsrShort)?;
    let Query(parameters) = asked?;
    gateway.authority.afford(&identity, Amount::audio(1))?;
    let recognizer = gateway.recognizer()?.clone();
    // Who would be refused anyway need not send a recording. But a place is taken only by one that has arrived: slow
    // clients would keep all places without any work being done.
    drop(gateway.place()?);
    let mut room = gateway.room.clone().try_acquire_many_owned(0).map_err(|_| busy())?;
    let reserve = |bytes| {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        gateway.room.clone().try_acquire_many_owned(bytes).map(|more| room.merge(more)).is_ok()
    };
    let patience = gateway.options.body_timeout;
    let body = recording::receive(request.into_body(), MAX_BYTES, patience, reserve).await?;
    let place = gateway.place()?;
    // This future is dropped when the connection ends, but a thread at work is not.
    let gone = CancellationToken::new();
    let _here = gone.clone().drop_guard();
    let work = move || {
        let _held = (place, room);
        let go_on = |milliseconds| match gone.is_cancelled() {
            true => Err(bad(4034, "the client is gone")),
            false => Ok(gateway.authority.charge(&identity, Amount::audio(milliseconds))?),
        };
        hear(&*recognizer, body, parameters.language, go_on)
    };
    let segments = access::spawn_blocking(work).await.map_err(|panic| ApiError::internal(&panic))??;
    Ok(json_response(StatusCode::OK, &shape(&segments)))
}

/// What is said in `body`. Before more milliseconds of it are heard, `go_on` is asked, which charges them: so no more is
/// heard than can be paid for, or than anybody waits for.
fn hear(
    recognizer: &dyn Recognizer,
    body: Vec<u8>,
    language: Option<String>,
    go_on: impl Fn(u64) -> Result<(), ApiError>,
) -> Result<Vec<Segment>, ApiError> {
    let recording = Recording::open(body)?;
    let mut stream = recognizer.start(&StreamOptions { language }).map_err(|error| match error {
        EngineError::Language(_) => bad(400, error.to_string()),
        error => ApiError::internal(&error),
    })?;
    let failed = |error: EngineError| ApiError::internal(&error);
    let mut segments = Vec::new();
    recording.read(MAX_DURATION, |milliseconds, pcm| {
        go_on(milliseconds)?;
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
