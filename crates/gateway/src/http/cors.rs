//! Access control for pages of other origins that use the gateway from a browser, over HTTP (CORS) and over
//! WebSocket.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::Url;

use super::error::ApiError;
use super::request_log::REQUEST_ID;

/// Time for which a browser may cache a permission. Chromium caps it at two hours.
const REMEMBERED: Duration = Duration::from_secs(2 * 3600);

/// Headers that the JavaScript SDK of OpenAI adds to each request.
const SDK_HEADERS: [HeaderName; 10] = [
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("x-stainless-arch"),
    HeaderName::from_static("x-stainless-lang"),
    HeaderName::from_static("x-stainless-os"),
    HeaderName::from_static("x-stainless-package-version"),
    HeaderName::from_static("x-stainless-retry-count"),
    HeaderName::from_static("x-stainless-runtime"),
    HeaderName::from_static("x-stainless-runtime-version"),
    HeaderName::from_static("x-stainless-timeout"),
];

/// Origin of a web page: a scheme, a host and a port, or any origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(Option<String>);

/// Error for a text that is not an origin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an origin is * or such as https://host:port, without a path")]
pub struct BadOrigin;

impl FromStr for Origin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Origin, BadOrigin> {
        if text == "*" {
            return Ok(Origin(None));
        }
        let url = Url::parse(text).map_err(|_| BadOrigin)?;
        let origin = url.origin();
        // Anything else in the address would be ignored.
        let is_bare = url.as_str() == format!("{}/", origin.ascii_serialization());
        (origin.is_tuple() && is_bare).then(|| Origin(Some(origin.ascii_serialization()))).ok_or(BadOrigin)
    }
}

impl TryFrom<String> for Origin {
    type Error = BadOrigin;

    fn try_from(text: String) -> Result<Origin, BadOrigin> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.to_string()
    }
}

/// Formats the origin as a browser names it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("*"))
    }
}

/// Returns the layer that tells browsers which origins may send requests; `None` if no origin is allowed.
pub(crate) fn layer(allowed: &[Origin]) -> Option<CorsLayer> {
    if allowed.is_empty() {
        return None;
    }
    let origins = if allowed.iter().any(|origin| origin.0.is_none()) {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(allowed.iter().map(|origin| {
            HeaderValue::try_from(origin.to_string()).expect("an origin in ASCII fits a header")
        }))
    };
    let headers = [header::AUTHORIZATION, header::CONTENT_TYPE, REQUEST_ID].into_iter().chain(SDK_HEADERS);
    let headers: Vec<HeaderName> = headers.collect();
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(headers)
        .expose_headers([REQUEST_ID, header::RETRY_AFTER])
        .max_age(REMEMBERED);
    Some(layer)
}

/// Refuses a WebSocket from a page of a foreign origin, since browsers open one without asking first.
/// Programs other than browsers name no origin.
pub(crate) fn admit(headers: &HeaderMap, allowed: &[Origin]) -> Result<(), ApiError> {
    let Some(named) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = named.to_str().ok().and_then(|named| Url::parse(named).ok()).map(|url| url.origin());
    let is_allowed = allowed.iter().any(|one| match &one.0 {
        Some(one) => origin.as_ref().is_some_and(|origin| origin.ascii_serialization() == *one),
        None => true,
    });
    // The scheme is that of the page: where a proxy terminates TLS, the gateway's own scheme is another.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_ours = origin.is_some_and(|origin| {
        let (scheme, named) = (origin.ascii_serialization(), host.unwrap_or_default());
        let scheme = scheme.split_once("://").map_or("", |(scheme, _)| scheme);
        origin.is_tuple()
            && Url::parse(&format!("{scheme}://{named}")).is_ok_and(|ours| ours.origin() == origin)
    });
    if is_allowed || is_ours {
        Ok(())
    } else {
        Err(ApiError::new(StatusCode::FORBIDDEN, 403, "pages of this origin may not connect"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        let parsed = |text: &str| text.parse::<Origin>().map(|origin| origin.to_string());
        assert_eq!(parsed("*").unwrap(), "*");
        assert_eq!(parsed("https://Speech.example").unwrap(), "https://speech.example");
        assert_eq!(parsed("https://speech.example:443/").unwrap(), "https://speech.example");
        assert_eq!(parsed("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        for bad in
            ["", "null", "speech.example", "https://a/b", "https://a?b", "https://u@a", "file:///a", "*.a"]
        {
            assert_eq!(parsed(bad), Err(BadOrigin), "{bad}");
        }
    }

    #[test]
    fn pages_may_connect_to_their_own_origin_and_to_gateways_that_allow_theirs() {
        let admits = |origin: Option<&str>, host: &str, allowed: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
            let allowed: Vec<Origin> = allowed.iter().map(|origin| origin.parse().unwrap()).collect();
            admit(&headers, &allowed).is_ok()
        };
        assert!(admits(None, "a:1", &[]));
        assert!(admits(Some("http://a:1"), "a:1", &[]));
        assert!(admits(Some("https://a"), "A:443", &[]));
        assert!(admits(Some("http://[::1]:1"), "[::1]:1", &[]));
        assert!(admits(Some("https://b"), "a", &["https://c", "https://b"]));
        assert!(admits(Some("null"), "a", &["*"]));
        for (origin, host) in [
            ("http://b", "a"),
            ("http://a:2", "a:1"),
            ("https://a", "a:80"),
            ("null", "null"),
            ("a", "a"),
            ("", ""),
        ] {
            assert!(!admits(Some(origin), host, &["https://c"]), "{origin} {host}");
        }
    }
}
