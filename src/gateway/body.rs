//! Reading what a client sends, within bounds.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt;

/// How long a whole body may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadBody {
    /// It has more bytes than allowed.
    TooLarge,
    /// It didn't arrive in time.
    Late,
    /// The connection broke.
    Broken,
}

/// The whole of `body`, or a refusal as soon as it has more than `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Vec<u8>, BadBody> {
    let reading = async {
        let mut bytes = Vec::new();
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part: Bytes = part.map_err(|_| BadBody::Broken)?;
            if bytes.len() + part.len() > limit {
                return Err(BadBody::TooLarge);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    };
    tokio::time::timeout(TIMEOUT, reading).await.unwrap_or(Err(BadBody::Late))
}
