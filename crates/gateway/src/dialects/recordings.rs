//! Recordings of dialects: their bodies, and their recognition while they are decoded.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use http::{StatusCode, header};

use crate::authority::Identity;
use crate::gateway::Gateway;
use crate::http::body::{self, BadBody};
use crate::http::error::ApiError;
use crate::recordings::decoding::RecordingLimits;
use crate::recordings::transcription::{Pace, RecordingRequest, Transcription, WorkPermits};
use crate::recordings::uploads::Upload;
use voxline::audio::PcmFormat;
use voxline::decode::Channels;
use voxline::engine::RecognitionRequest;

/// Most channels that are recognised each by itself.
const MAX_SPLIT: usize = 8;
/// Most channels that are mixed to one.
const MAX_MIXED: usize = 64;

/// Returns the body of a request that was `admitted`, if there is room for its recording and it may have up
/// to `limit` bytes. The body of a request that is refused is read and discarded.
pub(super) fn take_body<T>(
    gateway: &Gateway,
    request: Request,
    admitted: Result<T, ApiError>,
    limit: u64,
) -> Result<(T, Body), ApiError> {
    let is_waiting = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    let admitted = admitted.and_then(|admitted| {
        if body.size_hint().lower() > limit {
            return Err(body_error(BadBody::TooLarge, limit));
        }
        gateway.recognizer()?;
        // A place is taken only for a recording that has arrived: otherwise slow clients would keep all
        // places without any work being done.
        drop(gateway.authenticated.place()?);
        Ok(admitted)
    });
    match admitted {
        Ok(admitted) => Ok((admitted, body)),
        Err(refusal) => {
            // A client that waits for permission to send (`Expect`) would take the reading for that
            // permission.
            if !is_waiting {
                body::discard(body);
            }
            Err(refusal)
        }
    }
}

/// Returns the error of a body that could not be read.
pub(super) fn body_error(error: BadBody, limit: u64) -> ApiError {
    match error {
        BadBody::TooLarge => {
            let message = format!("the request is larger than {limit} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, 413, message)
        }
        BadBody::Late => {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, 408, "the request did not arrive in time")
        }
        BadBody::NoRoom => ApiError::too_many_requests(),
        BadBody::Broken => ApiError::bad_request(400, "the request broke off"),
    }
}

/// A recording that has arrived, and what is asked of it.
pub(super) struct Recording {
    pub(super) upload: Upload,
    /// Format of headerless audio; `None` for a file that tells its own.
    pub(super) format: Option<PcmFormat>,
    /// True if each channel is recognised by itself. Otherwise their mean is.
    pub(super) is_split: bool,
    pub(super) recognition: RecognitionRequest,
}

/// Starts the recognition of a recording for the API `api`, and charges it to `identity`.
///
/// # Errors
/// Returns [`ApiError`] if there is no place, or for the reasons of [`Transcription::start`].
pub(super) async fn start(
    gateway: &Arc<Gateway>,
    api: &'static str,
    identity: Identity,
    recording: Recording,
) -> Result<Transcription, ApiError> {
    let Recording { upload, format, is_split, recognition } = recording;
    let capacity = &gateway.authenticated;
    gateway.metrics.count_bytes(api, "in", usize::try_from(upload.length()).unwrap_or(usize::MAX));
    let place = capacity.place()?;
    let (source, space) = upload.finish().await?;
    let source = match format {
        Some(format) => source.headerless(format),
        None => source,
    };
    let recognizer = gateway.recognizer()?.clone();
    let duration = gateway.options.recordings.max_duration;
    let limits = if is_split {
        RecordingLimits { duration, channels: Channels::Split, max_channels: MAX_SPLIT }
    } else {
        RecordingLimits { duration, channels: Channels::Mix, max_channels: MAX_MIXED }
    };
    let request = RecordingRequest {
        source,
        limits,
        pace: Pace::AsDecoded,
        recognition: recognizer.capabilities().supported_part(recognition),
        charge: gateway.charge(api, Some(identity)),
        permits: WorkPermits::new(place, space),
    };
    Transcription::start(recognizer, &gateway.sessions.scheduler, capacity, request).await
}
