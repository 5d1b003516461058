//! Downloads from the authors' hub over HTTP, with resumption.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_RANGE, RANGE};
use reqwest::Response;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::partial_download::PartialDownload;
use super::progress::{Report, blocking};
use super::{HubFolder, ModelFile, StoreError};

/// Longest wait for the start of a response. The wait is short, so that a machine without internet access
/// finds out soon.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest pause within a response.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of chunks that may wait for the disk. Beyond that the network waits.
const CHUNKS_AHEAD: usize = 16;

/// Returns the address of a file at the pinned commit.
pub(super) fn address(base: &str, folder: &HubFolder, file: &ModelFile) -> String {
    let HubFolder { repository, commit, folder } = folder;
    let base = base.trim_end_matches('/');
    let slash = if folder.is_empty() { "" } else { "/" };
    format!("{base}/{repository}/resolve/{commit}/{folder}{slash}{}", file.name)
}

/// Returns the path of the partial download of a file.
pub(super) fn part_of(staging: &Path, file: &ModelFile) -> PathBuf {
    staging.join(format!("{}.part", file.name))
}

/// Fetches `file` to `place`, and resumes the partial download of an earlier attempt.
pub(super) async fn fetch(
    client: &reqwest::Client,
    url: &str,
    file: &ModelFile,
    staging: &Path,
    place: &Path,
    report: &Report,
) -> Result<(), StoreError> {
    let (part, wanted) = (part_of(staging, file), file.clone());
    let mut download = blocking(move || PartialDownload::resume(part, &wanted)).await?;
    if download.done() < file.size {
        let mut request = client.get(url);
        if download.done() > 0 {
            request = request.header(RANGE, format!("bytes={}-", download.done()));
        }
        let response = timeout(ANSWER_TIMEOUT, request.send())
            .await
            .map_err(|_| unreachable(url, format!("no answer within {ANSWER_TIMEOUT:?}")))?
            .map_err(|error| unreachable(url, plain(error)))?;
        if !continues(&response, url, download.done(), file.size)? {
            download.restart()?;
        }
        download = receive(response, url, download, report).await?;
        if download.done() < file.size {
            return Err(lost(url, format!("ended after {} of {} bytes", download.done(), file.size)));
        }
    }
    let (file, place) = (file.clone(), place.to_owned());
    blocking(move || download.commit(&file, &place)).await
}

/// Returns whether the response continues at `done`; otherwise it starts at the beginning.
fn continues(response: &Response, url: &str, done: u64, size: u64) -> Result<bool, StoreError> {
    match response.status() {
        StatusCode::OK => Ok(false),
        StatusCode::PARTIAL_CONTENT => {
            // RFC 9110, section 14.4. A range other than the requested one would put bytes in the wrong
            // place.
            let expected = format!("bytes {done}-{}/{size}", size - 1);
            let range =
                response.headers().get(CONTENT_RANGE).map_or("none", |range| range.to_str().unwrap_or("?"));
            if range == expected {
                Ok(true)
            } else {
                Err(lost(url, format!("content range {range:?} instead of {expected:?}")))
            }
        }
        status => Err(lost(url, format!("answered {status}"))),
    }
}

/// Streams the body to the disk. If the transfer fails, the received bytes stay in the partial download.
async fn receive(
    mut response: Response,
    url: &str,
    mut download: PartialDownload,
    report: &Report,
) -> Result<PartialDownload, StoreError> {
    let (chunks, mut arriving) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
    let progress = report.clone();
    let writer = blocking(move || {
        while let Some(chunk) = arriving.blocking_recv() {
            download.write(&chunk)?;
            progress.done(download.done());
        }
        Ok(download)
    });
    let reader = async move {
        loop {
            let chunk = timeout(SILENCE_TIMEOUT, response.chunk())
                .await
                .map_err(|_| lost(url, format!("silent for {SILENCE_TIMEOUT:?}")))?
                .map_err(|error| lost(url, plain(error)))?;
            let Some(chunk) = chunk else { return Ok(()) };
            if chunks.send(chunk).await.is_err() {
                return Ok(()); // The writer ended with an error of its own, which takes precedence.
            }
        }
    };
    let (written, read) = tokio::join!(writer, reader);
    let download = written?;
    read?;
    Ok(download)
}

fn unreachable(url: &str, reason: String) -> StoreError {
    StoreError::Unreachable { url: url.to_owned(), reason }
}

fn lost(url: &str, reason: String) -> StoreError {
    StoreError::Download { url: url.to_owned(), reason }
}

/// Returns reqwest's error with its causes on one line, without the address, which is reported elsewhere.
fn plain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}
