//! Reading of request bodies within limits of size and time.

use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use futures::StreamExt;

use voxline_support::clock::now;

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

/// A reader of a long body, piece by piece.
///
/// The deadline of a body grows with what has arrived of it, so that a long recording may take its time, and
/// a client that sends a byte a minute may not.
pub(crate) struct BodyReader {
    parts: BodyDataStream,
    /// Largest body, in bytes.
    limit: u64,
    patience: Duration,
    started: Instant,
    received: u64,
}

/// Bytes that a long body has to bring for each second after its first ones: 128 kbit/s, the rate of good
/// MP3.
const SLOWEST: u64 = 16_000;

impl BodyReader {
    /// Creates a reader of a body of up to `limit` bytes, for which the client has `patience`, and more with
    /// each byte.
    pub(crate) fn new(body: Body, limit: u64, patience: Duration) -> BodyReader {
        BodyReader { parts: body.into_data_stream(), limit, patience, started: now(), received: 0 }
    }

    /// Returns the next bytes, or `None` at the end of the body.
    ///
    /// # Errors
    /// Returns [`BadBody`] if the body is too large, late or broken.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BadBody> {
        let allowed = self.patience + Duration::from_secs(self.received / SLOWEST);
        let left = allowed.saturating_sub(now().saturating_duration_since(self.started));
        let next = tokio::time::timeout(left, self.parts.next()).await.map_err(|_| BadBody::Late)?;
        let Some(part) = next else { return Ok(None) };
        let part = part.map_err(|_| BadBody::Broken)?;
        self.received += part.len() as u64;
        if self.received > self.limit { Err(BadBody::TooLarge) } else { Ok(Some(part)) }
    }

    /// Reads and discards what the client still sends although its request is refused.
    pub(crate) fn discard(self) {
        discard_rest(self.parts);
    }
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
