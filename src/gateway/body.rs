//! Reading what a client sends, within bounds.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt;

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadBody {
    /// It has more bytes than allowed.
    TooLarge,
    /// It didn't arrive in time.
    Late,
    /// There is no memory for more of it.
    NoRoom,
    /// The connection broke.
    Broken,
}

/// The whole of `body`, or a refusal as soon as it has more than `limit` bytes, or is not there after `patience`.
pub(super) async fn read(body: Body, limit: usize, patience: Duration) -> Result<Vec<u8>, BadBody> {
    read_where(body, limit, patience, |_| true).await
}

/// As [`read`], but refuses what finds no room: that is asked for each part by its length.
pub(super) async fn read_where(
    body: Body,
    limit: usize,
    patience: Duration,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, BadBody> {
    let reading = async {
        let mut bytes = Vec::new();
        let mut parts = body.into_data_stream();
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
    tokio::time::timeout(patience, reading).await.unwrap_or(Err(BadBody::Late))
}
