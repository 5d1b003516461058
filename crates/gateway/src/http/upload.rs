//! Audio files from clients, received within the documented limits.

use std::time::Duration;

use axum::body::Body;
use http::StatusCode;

use super::body::{self, BadBody};
use super::error::ApiError;

/// Receives a whole file.
///
/// # Errors
/// Returns [`ApiError`] if the file has more than `max_bytes` bytes, takes longer than `patience`, breaks
/// off, or has a part for whose length `room` finds no memory.
pub(crate) async fn receive(
    body: Body,
    max_bytes: usize,
    patience: Duration,
    room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, ApiError> {
    body::read_reserving(body, max_bytes, patience, room).await.map_err(|refused| match refused {
        BadBody::TooLarge => too_large(max_bytes),
        BadBody::Late => ApiError::new(StatusCode::REQUEST_TIMEOUT, 408, "audio did not arrive in time"),
        BadBody::NoRoom => ApiError::too_many_requests(),
        BadBody::Broken => ApiError::bad_request(4034, "audio broke off"),
    })
}

pub(crate) fn too_large(max_bytes: usize) -> ApiError {
    ApiError::bad_request(4009, format!("audio is larger than {max_bytes} bytes"))
}
