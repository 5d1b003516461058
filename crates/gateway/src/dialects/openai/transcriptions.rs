//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`: recordings of hours.

use std::sync::Arc;

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
use crate::dialects::clients::authorise;
use crate::dialects::recordings::{self, Recording};
use crate::gateway::Gateway;
use crate::http::body::BodyReader;
use crate::http::client::bearer;
use crate::http::error::ApiError;
use crate::recordings::transcription::Transcription;
use voxline::engine::{Latency, Task};

pub(super) async fn transcribe(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(gateway, Task::Transcribe, request).await.unwrap_or_else(OpenAiError::into_response)
}

pub(super) async fn translate(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(gateway, Task::Translate, request).await.unwrap_or_else(OpenAiError::into_response)
}

async fn answer(gateway: Arc<Gateway>, task: Task, request: Request) -> Result<Response, OpenAiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let limit = gateway.uploads.max_bytes() + form::OTHER_BYTES;
    let identity = identify(&gateway, &request);
    let (identity, body) = recordings::take_body(&gateway, request, identity, limit)?;
    let body = BodyReader::new(body, limit, gateway.options.connections.body_timeout);
    let content_type = content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Form { fields, file: upload } = form::receive(body, content_type, &gateway.uploads).await?;
    let languages = gateway.recognition_request(Some(&identity), None).latency(Latency::Relaxed);
    let TranscriptionRequest { recognition, shape, stream } =
        TranscriptionRequest::read(&fields, task, languages)?;
    let is_split = shape.format == ResponseFormat::DiarizedJson;
    let recording = Recording { upload, format: None, is_split, recognition };
    let transcription = recordings::start(&gateway, API, identity, recording).await?;
    if stream {
        return Ok(events::answer(transcription, shape));
    }
    Ok(whole(transcription).await?.answer(&shape))
}

fn identify(gateway: &Gateway, request: &Request) -> Result<Identity, ApiError> {
    let identity = authorise(gateway, request, bearer(request.headers()), Scope::AsrShort)?;
    gateway.authority.afford(&identity, Amount::audio(1))?;
    Ok(identity)
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
