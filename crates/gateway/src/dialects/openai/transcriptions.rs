//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`: recordings of hours.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header;

use super::answer::Transcript;
use super::channel_order::ChannelOrder;
use super::error::OpenAiError;
use super::form::{self, Form};
use super::request::{ResponseFormat, TranscriptionRequest};
use super::{API, events};
use crate::authority::{Amount, Identity, Scope};
use crate::gateway::Gateway;
use crate::http::body::{self, BadBody, BodyReader};
use crate::http::error::ApiError;
use crate::recordings::decoding::RecordingLimits;
use crate::recordings::transcription::{Pace, RecordingRequest, Transcription, WorkPermits};
use voxline::decode::Channels;
use voxline::engine::{Latency, Task};

/// Most channels that are recognised each by itself.
const MAX_SPEAKERS: usize = 8;
/// Most channels that are mixed to one.
const MAX_MIXED: usize = 64;

pub(super) async fn transcribe(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(gateway, Task::Transcribe, request).await.unwrap_or_else(OpenAiError::into_response)
}

pub(super) async fn translate(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(gateway, Task::Translate, request).await.unwrap_or_else(OpenAiError::into_response)
}

async fn answer(gateway: Arc<Gateway>, task: Task, request: Request) -> Result<Response, OpenAiError> {
    let is_waiting = request.headers().contains_key(header::EXPECT);
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let limit = gateway.uploads.max_bytes() + form::OTHER_BYTES;
    let admitted = admit(&gateway, &request, limit);
    let body = request.into_body();
    let identity = match admitted {
        Ok(identity) => identity,
        Err(refusal) => {
            // A client that waits for permission to send (`Expect`) would take the reading for that
            // permission.
            if !is_waiting {
                body::discard(body);
            }
            return Err(refusal);
        }
    };
    let body = BodyReader::new(body, limit, gateway.options.connections.body_timeout);
    let content_type = content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = form::receive(body, content_type, &gateway.uploads).await?;
    let languages = gateway.recognition_request(Some(&identity), None).latency(Latency::Relaxed);
    let request = TranscriptionRequest::read(&form.fields, task, languages)?;
    let TranscriptionRequest { shape, stream, .. } = request.clone();
    let transcription = start(&gateway, identity, form, request).await?;
    if stream {
        return Ok(events::answer(transcription, shape));
    }
    Ok(whole(transcription).await?.answer(&shape))
}

/// Checks whether the client may send a form of up to `limit` bytes.
fn admit(gateway: &Gateway, request: &Request, limit: u64) -> Result<Identity, OpenAiError> {
    let identity = gateway.authorise(request, Scope::AsrShort)?;
    gateway.authority.afford(&identity, Amount::audio(1)).map_err(ApiError::from)?;
    if request.body().size_hint().lower() > limit {
        return Err(OpenAiError::of_body(BadBody::TooLarge, limit));
    }
    gateway.recognizer()?;
    // A place is taken only for a recording that has arrived: otherwise slow clients would keep all places
    // without any work being done.
    drop(gateway.authenticated.place()?);
    Ok(identity)
}

/// Starts the recognition of a recording that has arrived.
async fn start(
    gateway: &Arc<Gateway>,
    identity: Identity,
    form: Form,
    request: TranscriptionRequest,
) -> Result<Transcription, OpenAiError> {
    let capacity = &gateway.authenticated;
    gateway.metrics.count_bytes(API, "in", usize::try_from(form.file.length()).unwrap_or(usize::MAX));
    let place = capacity.place()?;
    let (source, space) = form.file.finish().await?;
    let recognizer = gateway.recognizer()?.clone();
    let duration = gateway.options.recordings.max_duration;
    let limits = if request.shape.format == ResponseFormat::DiarizedJson {
        RecordingLimits { duration, channels: Channels::Split, max_channels: MAX_SPEAKERS }
    } else {
        RecordingLimits { duration, channels: Channels::Mix, max_channels: MAX_MIXED }
    };
    let request = RecordingRequest {
        source,
        limits,
        pace: Pace::AsDecoded,
        recognition: recognizer.capabilities().supported_part(request.recognition),
        charge: gateway.charge(API, Some(identity)),
        permits: WorkPermits::new(place, space),
    };
    let scheduler = &gateway.sessions.scheduler;
    Ok(Transcription::start(recognizer, scheduler, capacity, request).await?)
}

/// Waits for the whole result. The work ends if this future is dropped, as it is when the connection ends.
async fn whole(mut transcription: Transcription) -> Result<Transcript, OpenAiError> {
    let mut order = ChannelOrder::new(transcription.channels());
    let mut segments = Vec::new();
    while let Some((channel, segment)) = transcription.next().await? {
        segments.extend(order.push(channel, segment));
    }
    segments.extend(order.finish());
    segments.retain(|(_, segment)| !segment.text.trim().is_empty());
    Ok(Transcript { segments, milliseconds: transcription.milliseconds() })
}
