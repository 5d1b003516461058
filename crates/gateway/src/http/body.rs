//! Reading of request bodies within limits of size and time.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use futures::StreamExt;

/// Longest time for which an unwanted body is read.
const DISCARDING: Duration = Duration::from_secs(5);
/// Most bytes of an unwanted body that are read.
const DISCARDED: usize = 32 << 20;

/// Reason why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadBody {
    /// The body has more bytes than allowed.
    TooLarge,
    /// The body didn't arrive in time.
    Late,
    /// There is no memory for more of the body.
    NoRoom,
    /// The connection broke.
    Broken,
}

/// Reads the whole of `body`.
///
/// # Errors
/// Returns [`BadBody`] as soon as the body has more than `limit` bytes, or if it has not arrived after
/// `patience`.
pub(crate) async fn read(body: Body, limit: usize, patience: Duration) -> Result<Vec<u8>, BadBody> {
    read_reserving(body, limit, patience, |_| true).await
}

/// Reads a body like [`read`], and asks `room` for each part, by its length, whether there is memory for
/// it.
///
/// # Errors
/// Returns [`BadBody::NoRoom`] if `room` refuses a part, and the errors of [`read`].
pub(crate) async fn read_reserving(
    body: Body,
    limit: usize,
    patience: Duration,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, BadBody> {
    if body.size_hint().lower() > limit as u64 {
        discard(body);
        return Err(BadBody::TooLarge);
    }
    let mut parts = body.into_data_stream();
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(part) = parts.next().await {
            let part: Bytes = part.map_err(|_| BadBody::Broken)?;
            if bytes.len() + part.len() > limit {
                return Err(BadBody::TooLarge);
            }
            if !room(part.len()) {
                return Err(BadBody::NoRoom);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    };
    let read = tokio::time::timeout(patience, reading).await.unwrap_or(Err(BadBody::Late));
    if let Err(BadBody::TooLarge | BadBody::NoRoom) = read {
        discard_rest(parts);
    }
    read
}

/// Reads and discards what a client still sends although its request is refused. A connection that is
/// closed with unread bytes is reset, and the reset may overtake the refusal.
pub(crate) fn discard(body: Body) {
    if !body.is_end_stream() {
        discard_rest(body.into_data_stream());
    }
}

#[expect(clippy::disallowed_methods, reason = "ends by itself, soon, or with its connection")]
fn discard_rest(mut parts: BodyDataStream) {
    let reading = async move {
        let mut left = DISCARDED;
        while let Some(Ok(part)) = parts.next().await {
            let Some(less) = left.checked_sub(part.len()) else { return };
            left = less;
        }
    };
    tokio::spawn(tokio::time::timeout(DISCARDING, reading));
}
