//! Webhook: the events of calls, posted to an address of the operator's.
//!
//! The [event files](super::EventFiles) are the queue. A task posts the lines of a file in order, each until
//! the receiver takes it, and notes how far it has come in a file beside it (`.sent`), which is deleted when
//! the call has ended. So an event is posted at least once, whatever happens to the receiver and to this
//! process. Requests are signed as in the Standard Webhooks specification, and their `webhook-id` is the same
//! for each attempt.

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
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Deserialize;
use sha2::Sha256;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use voxline::backoff::Backoff;
use voxline::error::chain;
use voxline::net::{TlsError, client_builder};
use voxline_support::clock::{Clock, SystemClock};
use voxline_support::random;

/// Longest time of an attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of requests at a time, each with an open file and a connection.
const TURNS: usize = 32;
/// Extension of the files that say how much was posted, in bytes.
const SENT: &str = "sent";

/// The receiver of events, and the calls whose events it is still to get.
#[derive(Clone)]
pub struct Webhook(Arc<Shared>);

struct Shared {
    client: reqwest::Client,
    url: Url,
    /// Key of the signatures.
    key: Option<SecretSlice<u8>>,
    clock: SystemClock,
    runtime: Handle,
    tasks: TaskTracker,
    /// Files that are being posted; true if lines were appended since their task looked.
    posting: Mutex<HashMap<PathBuf, bool>>,
    turns: Semaphore,
}

/// A webhook that can't be used. Messages have neither its address nor its secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadWebhook {
    /// The address is none of HTTP.
    #[error("expected an address such as https://host/path")]
    Url,
    /// The secret says that it is in base64, and is not.
    #[error("a secret that begins with whsec_ should be in base64")]
    Secret,
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client can't be made.
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Webhook {
    /// Creates the webhook for events to be posted to this address. The secret signs them: its bytes, or, of
    /// one that begins with `whsec_`, what the rest is in base64.
    ///
    /// # Errors
    /// Returns [`BadWebhook`] if the address is none of HTTP, the secret is no base64, or TLS can't be set
    /// up.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn new(url: &str, secret: Option<SecretString>) -> Result<Webhook, BadWebhook> {
        let parsed =
            Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let parsed = parsed.ok_or(BadWebhook::Url)?;
        let key = secret.as_ref().map(key_of).transpose()?;
        Ok(Webhook(Arc::new(Shared {
            client: client_builder()?.timeout(ATTEMPT_TIMEOUT).build()?,
            url: parsed,
            key,
            clock: SystemClock::new(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            posting: Mutex::default(),
            turns: Semaphore::new(TURNS),
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

    /// Adds a file, whose lines are posted from this offset on, unless it is being posted already.
    pub(crate) fn add(&self, file: &Path, offset: u64) -> io::Result<()> {
        let sent = file.with_extension(SENT);
        if sent.exists() { Ok(()) } else { note(&sent, offset) }
    }

    /// Posts what was appended to a file.
    pub(crate) fn wake(&self, file: &Path) {
        let mut posting = self.0.posting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(has_more) = posting.get_mut(file) {
            *has_more = true;
            return;
        }
        posting.insert(file.to_owned(), false);
        let (shared, file) = (self.0.clone(), file.to_owned());
        self.0.tasks.spawn_on(async move { shared.post_all(&file).await }, &self.0.runtime);
    }

    /// Waits until all events are posted, for this long at most. Those that are left are posted by a later
    /// process.
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
    /// Posts a file until nothing is left in it.
    async fn post_all(&self, path: &Path) {
        let mut backoff = Backoff::new(random::seed());
        loop {
            while let Err(error) = self.post_lines(path).await {
                tracing::error!(file = %path.display(), %error, "events of a call can't be posted now");
                sleep(backoff.next_delay()).await;
            }
            let mut posting = self.posting.lock().unwrap_or_else(PoisonError::into_inner);
            match posting.get_mut(path) {
                Some(has_more) if *has_more => *has_more = false,
                _ => {
                    posting.remove(path);
                    return;
                }
            }
        }
    }

    /// Posts the lines of a file up to its end.
    async fn post_lines(&self, path: &Path) -> io::Result<()> {
        let sent = path.with_extension(SENT);
        let mut offset: u64 = match fs::read_to_string(&sent) {
            Ok(text) => text.trim().parse().map_err(io::Error::other)?,
            // All of the call is posted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut has_ended = false;
        loop {
            let turn = self.turns.acquire().await.map_err(io::Error::other)?;
            let line = line_at(path, offset)?;
            if line.is_empty() {
                return if has_ended { fs::remove_file(&sent) } else { Ok(()) };
            }
            match serde_json::from_str(&line) {
                // The next result replaces a partial one; a receiver that comes late has no use for it.
                Ok(Kind { event }) if event == "partial" => {}
                Ok(Kind { event }) => {
                    self.post(path, offset, line.trim_end()).await;
                    has_ended = event == "ended";
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), offset, %error, "line is no event, and is left out");
                }
            }
            drop(turn);
            offset += line.len() as u64;
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
            if let Some(key) = &self.key {
                request = request.header("webhook-signature", signature(key, &id, &timestamp, event));
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

/// Returns the line of a file at this offset, or nothing if there is no whole line.
fn line_at(path: &Path, offset: u64) -> io::Result<String> {
    let mut file = BufReader::new(File::open(path)?);
    file.seek(SeekFrom::Start(offset))?;
    let mut line = String::new();
    file.read_line(&mut line)?;
    if !line.ends_with('\n') {
        line.clear();
    }
    Ok(line)
}

/// Returns the key that a secret stands for.
fn key_of(secret: &SecretString) -> Result<SecretSlice<u8>, BadWebhook> {
    let secret = secret.expose_secret();
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| BadWebhook::Secret)?,
        None => secret.as_bytes().to_vec(),
    };
    Ok(key.into())
}

/// Returns the signature of a request: version 1 of Standard Webhooks, HMAC with SHA-256.
fn signature(key: &SecretSlice<u8>, id: &str, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("a key of any length");
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
        let signed = signature(
            &key_of(&secret).unwrap(),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[tokio::test]
    async fn an_address_of_something_else_is_refused() {
        for url in ["ftp://host/", "host", "http://"] {
            assert!(matches!(Webhook::new(url, None), Err(BadWebhook::Url)), "{url}");
        }
        let broken = SecretString::from("whsec_!".to_owned());
        assert!(matches!(Webhook::new("https://host/", Some(broken)), Err(BadWebhook::Secret)));
    }
}
