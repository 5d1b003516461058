//! The request log: an id for each request, which its answer and all log lines about it carry, and one log
//! line for each request (target `voxline::access`, level info). The line has neither query nor headers,
//! since these contain tokens and texts.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::connection_limiter::ConnectionSlot;
use crate::authority::new_id;
use voxline_support::clock::Clock;

/// Header that carries the request id, which the first party to name the request chooses.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id taken from a client, in bytes: a client must not decide how long log lines are, nor how many
/// there are.
const MAX_ID: usize = 64;
/// Longest path that is logged, in characters. Paths of the gateway have thirty bytes.
const MAX_PATH: usize = 256;

tokio::task_local! {
    /// Id of the request that this task answers.
    static REQUEST_ID_OF: String;
}

/// Returns the id of the request being answered, for the body of the answer. Work on another thread has no
/// such id and gets a new one.
pub(crate) fn request_id() -> String {
    REQUEST_ID_OF.try_with(String::clone).unwrap_or_else(|_| new_id())
}

/// Middleware around all routes: assigns an id to the request, and logs the request once it is over.
pub(crate) async fn log_request(
    State(clock): State<Arc<dyn Clock>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let id = given_id(request.headers()).unwrap_or_else(new_id);
    // At the highest level, so that every log line has the id, whatever the log level.
    let span = tracing::error_span!(parent: None, "request", %id);
    let mut record = RequestRecord {
        started: clock.monotonic(),
        clock,
        span: span.clone(),
        method: request.method().clone(),
        path: request.uri().path().chars().take(MAX_PATH).collect(),
        peer,
        slot: request.extensions().get().cloned(),
        status: None,
        bytes: 0,
    };
    let mut response = REQUEST_ID_OF.scope(id.clone(), next.run(request)).instrument(span).await;
    record.status = Some(response.status());
    let id = HeaderValue::try_from(id).expect("an id is letters, digits, dots and dashes");
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(CountedBody { body, record }))
}

/// Returns the id that the client chose, if the id is short and plain enough to be used unchanged.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    ((1..=MAX_ID).contains(&id.len()) && id.bytes().all(sane)).then(|| id.to_owned())
}

/// Runs work that may block on disk or processor on a thread of its own, within the span of the request.
pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

/// Details of a request, which are logged when this value is dropped: with the last byte of the answer, or
/// when the client has gone.
struct RequestRecord {
    clock: Arc<dyn Clock>,
    started: Duration,
    span: Span,
    method: Method,
    path: String,
    peer: SocketAddr,
    /// Place of the connection in the connection limiter. Some of our tests have none.
    slot: Option<Arc<ConnectionSlot>>,
    /// Status of the answer; `None` if the client left before there was one.
    status: Option<StatusCode>,
    bytes: u64,
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let RequestRecord { clock, started, span, method, path, peer, slot, status, bytes } = self;
        // A connection that becomes a WebSocket is about to leave the connection limiter.
        if let Some(slot) = slot.as_ref().filter(|_| *status != Some(StatusCode::SWITCHING_PROTOCOLS)) {
            slot.mark_idle();
        }
        let duration = clock.monotonic().saturating_sub(*started);
        let _request = span.enter();
        tracing::info!(
            target: "voxline::access",
            method = %method_name(method),
            %path,
            status = status.map(|status| status.as_u16()),
            duration_ms = duration.as_millis() as u64,
            bytes,
            %peer,
            "request"
        );
    }
}

/// Returns the label of a method. Clients can make up methods of any name and length, so all others are
/// `other`.
pub(crate) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A body whose bytes are counted.
struct CountedBody {
    body: Body,
    record: RequestRecord,
}

impl hyper::body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.record.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_accepted_if_it_is_safe_to_log() {
        let given = |id: &[u8]| {
            let value = HeaderValue::from_bytes(id).unwrap();
            given_id(&HeaderMap::from_iter([(REQUEST_ID, value)]))
        };
        assert_eq!(given(b"a.B_c-9").as_deref(), Some("a.B_c-9"));
        assert!(given(&[b'x'; MAX_ID]).is_some());
        for bad in [&b""[..], b"two words", b"a\"b", b"a/b", "\u{e4}".as_bytes(), &[b'x'; MAX_ID + 1]] {
            assert_eq!(given(bad), None, "{bad:?}");
        }
        assert_eq!(given_id(&HeaderMap::new()), None);
    }
}
