//! `/`: the console, a page to try the gateway with, and to see its load. The page is part of the program,
//! loads nothing from other hosts, and has no more rights than the token that its user enters.
//!
//! This room stands beside the routes: its handlers take the [`Gateway`](crate::gateway::Gateway).

mod status;

use axum::body::Body;
use axum::http::HeaderName;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::gateway::Route;
use voxline_support::hex;

/// A file of the page.
#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [File; 15] = [
    File { path: "/", content_type: HTML, content: include_str!("index.html") },
    File {
        path: "/console/style.css",
        content_type: "text/css; charset=utf-8",
        content: include_str!("style.css"),
    },
    File { path: "/console/icon.svg", content_type: "image/svg+xml", content: include_str!("icon.svg") },
    File { path: "/console/app.js", content_type: SCRIPT, content: include_str!("app.js") },
    File { path: "/console/page.js", content_type: SCRIPT, content: include_str!("page.js") },
    File { path: "/console/account.js", content_type: SCRIPT, content: include_str!("account.js") },
    File { path: "/console/session.js", content_type: SCRIPT, content: include_str!("session.js") },
    File { path: "/console/capture.js", content_type: SCRIPT, content: include_str!("capture.js") },
    File { path: "/console/trace.js", content_type: SCRIPT, content: include_str!("trace.js") },
    File { path: "/console/live.js", content_type: SCRIPT, content: include_str!("live.js") },
    File { path: "/console/recording.js", content_type: SCRIPT, content: include_str!("recording.js") },
    File { path: "/console/speech.js", content_type: SCRIPT, content: include_str!("speech.js") },
    File { path: "/console/connect.js", content_type: SCRIPT, content: include_str!("connect.js") },
    File {
        path: "/console/snippets.json",
        content_type: "application/json",
        content: include_str!("snippets.json"),
    },
    File { path: "/console/status.js", content_type: SCRIPT, content: include_str!("status.js") },
];

/// Content security policy of all files: scripts and requests only from and to this gateway, and nothing
/// else. Text from the network becomes text on the page, never markup: trusted types enforce that.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types 'none'";

const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("permissions-policy"), HeaderValue::from_static("microphone=(self)")),
    // A copy may be cached, but must be revalidated each time, so that the page and its gateway have the
    // same version.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// Returns the routes of the page's files, which need no token.
pub(super) fn pages() -> impl Iterator<Item = Route> {
    FILES.into_iter().map(|file| {
        let tag = hex(&Sha256::digest(file.content)[..16]);
        let tag = HeaderValue::try_from(format!("\"{tag}\"")).expect("hexadecimal fits a header");
        (file.path, get(async move |asked: HeaderMap| answer(&file, &tag, &asked)))
    })
}

/// Returns the routes of the page's data, which are not part of the documented API.
pub(super) fn data() -> [Route; 2] {
    [("/console/status", get(status::status)), ("/console/voices", get(status::voices))]
}

fn answer(file: &File, tag: &HeaderValue, asked: &HeaderMap) -> Response {
    // The browser's copy is still current. Tags are never weakened on the way, since there is nothing to
    // compress.
    let unchanged = asked.get(header::IF_NONE_MATCH) == Some(tag);
    let body = if unchanged { Body::empty() } else { Body::from(file.content) };
    let mut response = Response::new(body);
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(header::ETAG, tag.clone());
    response
}
