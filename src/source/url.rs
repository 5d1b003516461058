//! Recordings on the web, read while they arrive.

use std::io::{self, Read};

use reqwest::blocking::Response;
use reqwest::redirect::Policy;
use url::{Host, Url};

use super::{Source, SourceError};
use crate::net;

/// Maximum number of redirects that are followed.
const REDIRECTS_MAX: usize = 5;

impl Source {
    /// Opens the recording at `url` as a stream of at most `bytes_max` bytes. Blocks until the server
    /// responds, and must not be called on a thread of an async runtime.
    ///
    /// Messages name the source by its URL without user name, password and query, which may hold secrets.
    ///
    /// # Errors
    /// Returns [`SourceError::Url`] if the URL is not https (http is for loopback only), if the server
    /// cannot be reached or has no such recording, or if the server states a larger size.
    pub fn url(url: &str, bytes_max: u64) -> Result<Source, SourceError> {
        let invalid = |why: &str| SourceError::Url { url: before_secrets(url), why: why.to_owned() };
        let url = Url::parse(url).map_err(|error| invalid(&error.to_string()))?;
        let name = shown(&url);
        let invalid = |why: String| SourceError::Url { url: name.clone(), why };
        if !is_safe(&url) {
            return Err(invalid("expected https".to_owned()));
        }
        let unreachable =
            |error: reqwest::Error| invalid(format!("cannot be fetched: {}", root_cause(&error)));
        let client = net::blocking_client(redirects()).map_err(|error| invalid(error.to_string()))?;
        let response = client.get(url.clone()).send().map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(invalid(format!("the server answers {}", response.status())));
        }
        let too_large = || format!("is larger than {bytes_max} bytes");
        if response.content_length().is_some_and(|length| length > bytes_max) {
            return Err(invalid(too_large()));
        }
        let file = url.path_segments().and_then(|mut segments| segments.next_back());
        let extension =
            file.and_then(|file| file.rsplit_once('.')).map(|(_, extension)| extension.to_lowercase());
        let body = Body { response, left: bytes_max, too_large: too_large() };
        Ok(Source { extension, repeatable: true, ..Source::stream(name.clone(), body) })
    }
}

/// Body of a response, up to the limit.
struct Body {
    response: Response,
    left: u64,
    too_large: String,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.response.read(buffer).map_err(|error| io::Error::other(root_cause(&error)))?;
        self.left =
            self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(self.too_large.clone()))?;
        Ok(read)
    }
}

/// Returns whether no third party can read or change the recording in transit: https, or http to
/// loopback.
fn is_safe(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

fn redirects() -> Policy {
    Policy::custom(|attempt| {
        if attempt.previous().len() <= REDIRECTS_MAX && is_safe(attempt.url()) {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    // Both calls fail only for URLs that cannot have a user name or password.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.set_fragment(None);
    shown.into()
}

/// Returns the name of the recording at `url`, without parts that may be secret.
pub fn name(url: &str) -> String {
    Url::parse(url).map_or_else(|_| before_secrets(url), |url| shown(&url))
}

/// Returns the part of an unparsable URL that is certainly no secret.
fn before_secrets(url: &str) -> String {
    let end = url.find(['@', '?', '#']).unwrap_or(url.len());
    if url[end..].starts_with('@') { "URL".to_owned() } else { url[..end].to_owned() }
}

/// Returns the innermost message: the outer ones repeat the URL, including its query.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
