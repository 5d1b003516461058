//! Webhook: the events of calls, posted to an address of the operator's.
//!
//! The [event files](super::EventFiles) are the queue. For each call a task posts the lines of its file in order,
//! each until the receiver takes it, and notes how far it has come in a file beside it (`CALL.sent`), which is
//! deleted when the call has ended. So an event is posted at least once, whatever happens to the receiver and to
//! this process. Requests are signed as in the Standard Webhooks specification, and their `webhook-id` is the
//! same for each attempt.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use voxline::backoff::Backoff;
use voxline::error::chain;
use voxline::net::{TlsError, client_builder};
use voxline_support::clock::{Clock, SystemClock};
use voxline_support::random;

/// Longest time of an attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Extension of the files that say how much was posted, in bytes.
const SENT: &str = "sent";

/// The receiver of events, and the calls whose events it is still to get.
#[derive(Clone)]
pub struct Webhook(Arc<Shared>);

struct Shared {
    client: reqwest::Client,
    url: Url,
    secret: Option<SecretString>,
    clock: SystemClock,
    runtime: Handle,
    tasks: TaskTracker,
    /// Files that are being posted, with what wakes their task.
    posting: Mutex<HashMap<PathBuf, Arc<Notify>>>,
}

/// A webhook that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadWebhook {
    /// The address is none of HTTP.
    #[error("{url}: expected an address such as https://host/path")]
    Url {
        /// The address, as given.
        url: String,
    },
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client can't be made.
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Webhook {
    /// Creates the webhook for events to be posted to this address. The secret signs them: its bytes, or, of one
    /// that begins with `whsec_`, what the rest is in base64.
    ///
    /// # Errors
    /// Returns [`BadWebhook`] if the address is none of HTTP, or TLS can't be set up.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn new(url: &str, secret: Option<SecretString>) -> Result<Webhook, BadWebhook> {
        let parsed =
            Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let parsed = parsed.ok_or_else(|| BadWebhook::Url { url: url.to_owned() })?;
        Ok(Webhook(Arc::new(Shared {
            client: client_builder()?.timeout(ATTEMPT_TIMEOUT).build()?,
            url: parsed,
            secret,
            clock: SystemClock::new(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            posting: Mutex::default(),
        })))
    }

    /// Continues with the files of this directory that an earlier process has not posted to their ends.
    pub(crate) fn resume(&self, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == SENT) {
                self.wake(&path.with_extension("jsonl"));
            }
        }
        Ok(())
    }

    /// Tells that a line was appended to this file.
    pub(crate) fn wake(&self, file: &Path) {
        let mut posting = self.0.posting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = posting.get(file) {
            return waiting.notify_one();
        }
        let appended = Arc::new(Notify::new());
        posting.insert(file.to_owned(), appended.clone());
        let (shared, file) = (self.0.clone(), file.to_owned());
        let tasks = self.0.tasks.clone();
        tasks.spawn_on(
            async move {
                if let Err(error) = shared.post_file(&file, &appended).await {
                    tracing::error!(file = %file.display(), %error, "events of a call are not posted any more");
                }
                shared.posting.lock().unwrap_or_else(PoisonError::into_inner).remove(&file);
            },
            &self.0.runtime,
        );
    }

    /// Waits until all events of calls that have ended are posted, for this long at most. Those that are left
    /// are posted by a later process.
    pub async fn finish(self, longest: Duration) {
        self.0.tasks.close();
        if timeout(longest, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(
                calls = self.0.tasks.len(),
                "events of calls are left to be posted by the next start"
            );
        }
    }
}

impl Shared {
    /// Posts the lines of a file as they are appended, up to the end of its call.
    async fn post_file(&self, path: &Path, appended: &Notify) -> io::Result<()> {
        let sent = path.with_extension(SENT);
        let mut offset: u64 = match fs::read_to_string(&sent) {
            Ok(text) => text.trim().parse().map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        note(&sent, offset)?;
        let mut lines = BufReader::new(File::open(path)?);
        loop {
            lines.seek(SeekFrom::Start(offset))?;
            let mut line = String::new();
            lines.read_line(&mut line)?;
            if !line.ends_with('\n') {
                appended.notified().await;
                continue;
            }
            let Kind { event } = serde_json::from_str(&line)?;
            // The next result replaces a partial one; a receiver that comes late has no use for it.
            if event != "partial" {
                self.post(path, offset, line.trim_end()).await;
            }
            offset += line.len() as u64;
            if event == "ended" {
                return fs::remove_file(&sent);
            }
            note(&sent, offset)?;
        }
    }

    /// Posts an event until the receiver takes it.
    async fn post(&self, path: &Path, offset: u64, event: &str) {
        let call = path.file_stem().unwrap_or_default().to_string_lossy();
        let id = format!("{call}.{offset}");
        let mut backoff = Backoff::new(random::seed());
        let mut was_refused = false;
        loop {
            let timestamp = self.clock.unix().as_secs().to_string();
            let mut request = self
                .client
                .post(self.url.clone())
                .header("content-type", "application/json")
                .header("webhook-id", &id)
                .header("webhook-timestamp", &timestamp);
            if let Some(secret) = &self.secret {
                request = request.header("webhook-signature", signature(secret, &id, &timestamp, event));
            }
            let refused = match request.body(event.to_owned()).send().await {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => format!("status {}", answer.status().as_u16()),
                // The address may hold a secret.
                Err(error) => chain(&error.without_url()).to_string(),
            };
            if !std::mem::replace(&mut was_refused, true) {
                tracing::warn!(%call, %refused, "event of a call was not taken, and is posted again until it is");
            }
            sleep(backoff.next_delay()).await;
        }
    }
}

/// Kind of an event.
#[derive(Deserialize)]
struct Kind {
    event: String,
}

/// Notes how much of a file was posted: a crash leaves the old number or the new one.
fn note(sent: &Path, offset: u64) -> io::Result<()> {
    let new = sent.with_extension("sent-new");
    fs::write(&new, offset.to_string())?;
    fs::rename(new, sent)
}

/// Returns the signature of a request: version 1 of Standard Webhooks, HMAC with SHA-256.
fn signature(secret: &SecretString, id: &str, timestamp: &str, body: &str) -> String {
    let secret = secret.expose_secret();
    let encoded = secret.strip_prefix("whsec_").and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    let key = encoded.unwrap_or_else(|| secret.as_bytes().to_vec());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key of any length");
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification of Standard Webhooks, whose signature its authors' library makes.
    #[test]
    fn a_request_is_signed_as_the_specification_says() {
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let signed =
            signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[tokio::test]
    async fn an_address_of_something_else_is_refused() {
        for url in ["ftp://host/", "host", "http://"] {
            assert!(Webhook::new(url, None).is_err(), "{url}");
        }
    }
}
