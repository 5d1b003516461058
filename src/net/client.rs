//! HTTP client of services: hyper, over the connections that the WebSocket uses, too.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tower_service::Service;

use super::{
    CONNECT_TIMEOUT, ConnectError, Endpoint, READ_TIMEOUT, RequestError, Stream, TlsError, Trust, Way,
    connect, tls_failure,
};

/// Most redirects of one request.
const REDIRECTS_MAX: usize = 5;

/// A client of the HTTP requests of services: token requests and synthesis. Clones share its connections.
///
/// It follows redirects within one origin only, since a token must not be sent to another host. It uses no
/// proxy: the WebSocket uses none either, and a proxy would see unencrypted loopback traffic. It gives up on
/// a server that sends nothing for a minute.
#[derive(Clone)]
pub struct HttpClient {
    pool: Client<Connector, Full<Bytes>>,
}

impl HttpClient {
    /// Creates a client that trusts the system's roots.
    ///
    /// # Errors
    /// Returns [`TlsError`] if TLS cannot be set up.
    pub fn new() -> Result<HttpClient, TlsError> {
        HttpClient::trusting(&Trust::system()?)
    }

    /// Creates a client that trusts the roots of `trust`.
    ///
    /// # Errors
    /// Returns [`TlsError`] if TLS cannot be set up.
    pub fn trusting(trust: &Trust) -> Result<HttpClient, TlsError> {
        Ok(HttpClient::by(Way::Network(trust.clone())))
    }

    /// Creates a client whose requests go this way.
    pub(crate) fn by(way: Way) -> HttpClient {
        let pool =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(Connector { way });
        HttpClient { pool }
    }
}

/// Error of a request, or of reading its response.
#[derive(Debug)]
pub(crate) struct HttpError {
    /// Reason, for an error that names the service.
    pub(crate) reason: RequestError,
    /// `true` if the request may have arrived. A request without a connection has not, nor has one whose
    /// connection ended before any of it was written.
    #[cfg_attr(not(feature = "oauth"), expect(dead_code, reason = "only a token request counts"))]
    pub(crate) may_have_arrived: bool,
}

impl HttpClient {
    /// Sends a POST request for `path`, which is encoded, at `endpoint`. Returns once the head of the
    /// response is there.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint,
        path: &str,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Response, HttpError> {
        let mut headers: HeaderMap = headers.into_iter().collect();
        headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
        let mut uri = endpoint
            .uri(path)
            .map_err(|error| HttpError { reason: error.into(), may_have_arrived: false })?;
        let mut redirects = 0;
        loop {
            let mut request = Request::post(uri).body(Full::new(body.clone())).expect("its parts are valid");
            *request.headers_mut() = headers.clone();
            let replied = timeout(READ_TIMEOUT, self.pool.request(request)).await;
            let (head, body) =
                replied.map_err(|_| HttpError::timed_out())?.map_err(HttpError::from)?.into_parts();
            match redirect_target(head.status, &head.headers, endpoint).filter(|_| redirects < REDIRECTS_MAX)
            {
                Some(target) => uri = target,
                None => return Ok(Response { status: head.status, headers: head.headers, body }),
            }
            redirects += 1;
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

/// Returns the new address of a request that is to be repeated as it is (RFC 9110, sections 15.4.8 and
/// 15.4.9), if that is in the origin of `endpoint`, and complete or an absolute path.
fn redirect_target(status: StatusCode, headers: &HeaderMap, endpoint: &Endpoint) -> Option<Uri> {
    if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return None;
    }
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let location: Uri = match location.strip_prefix('/') {
        // Two slashes begin with another host (RFC 3986, section 4.2).
        Some(rest) if rest.starts_with('/') => return None,
        Some(_) => format!("{}{location}", endpoint.origin()).parse().ok()?,
        None => location.parse().ok()?,
    };
    let origin = format!("{}://{}", location.scheme_str()?, location.authority()?);
    origin.parse().is_ok_and(|origin: Endpoint| origin.is_same_origin(endpoint)).then_some(location)
}

/// A response whose body is arriving.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
}

impl Response {
    /// Returns the next bytes of the body, or `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = timeout(READ_TIMEOUT, self.body.frame()).await.map_err(|_| HttpError::timed_out())?;
            match frame.transpose().map_err(HttpError::connection_lost)? {
                // A frame without data has trailers.
                Some(frame) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => continue,
                },
                None => return Ok(None),
            }
        }
    }

    /// Reads the body, at most `limit` bytes.
    pub(crate) async fn read(&mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while let Some(part) = self.chunk().await? {
            body.extend_from_slice(&part[..part.len().min(limit - body.len())]);
            if body.len() == limit {
                break;
            }
        }
        Ok(body)
    }
}

impl HttpError {
    /// Returns the error of a service that sent no response, or no more of it, in time.
    pub(crate) fn timed_out() -> HttpError {
        HttpError { reason: RequestError::TimedOut, may_have_arrived: true }
    }

    fn connection_lost(error: impl Error + Send + Sync + 'static) -> HttpError {
        let reason = match tls_failure(&error) {
            Some(reason) => ConnectError::Tls { reason }.into(),
            None => RequestError::Lost(error.into()),
        };
        HttpError { reason, may_have_arrived: true }
    }
}

impl From<legacy::Error> for HttpError {
    fn from(error: legacy::Error) -> HttpError {
        match error.source().and_then(|source| source.downcast_ref::<ConnectError>()) {
            Some(unconnected) => HttpError { reason: unconnected.clone().into(), may_have_arrived: false },
            None => {
                let may_have_arrived = !error.is_connect() && !is_unwritten(&error);
                HttpError { may_have_arrived, ..HttpError::connection_lost(Unnamed(error)) }
            }
        }
    }
}

/// An error of the pool without its own message, "client error", which would be taken for an HTTP status.
#[derive(Debug)]
struct Unnamed(legacy::Error);

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(error) => fmt::Display::fmt(error, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl Error for Unnamed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()?.source()
    }
}

/// Returns whether hyper gave the request back unwritten: it cancels a request whose connection ends first.
fn is_unwritten(error: &(dyn Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.filter_map(|error| error.downcast_ref()).any(hyper::Error::is_canceled)
}

/// Connects the pool to a service.
#[derive(Clone)]
struct Connector {
    way: Way,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let way = self.way.clone();
        Box::pin(async move {
            // Checked once more: no request leaves in clear but to loopback.
            let endpoint: Endpoint = uri.to_string().parse().map_err(io::Error::other)?;
            let stream = timeout(CONNECT_TIMEOUT, connect(&endpoint, &way)).await;
            stream.map_err(|_| ConnectError::TimedOut)?.map(TokioIo::new)
        })
    }
}

impl Connection for Box<dyn Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn a_request_is_repeated_only_as_it_is_and_within_its_origin() {
        let moved_to = |status: u16, location: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::try_from(location).unwrap())]);
            let endpoint = "https://speech.example/api".parse().unwrap();
            redirect_target(StatusCode::from_u16(status).unwrap(), &headers, &endpoint)
                .map(|uri| uri.to_string())
        };
        for status in [307, 308] {
            for (location, to) in [
                ("/tts/?a=b", "https://speech.example/tts/?a=b"),
                ("https://speech.example:443/tts", "https://speech.example:443/tts"),
                ("https://SPEECH.example/tts", "https://SPEECH.example/tts"),
            ] {
                assert_eq!(moved_to(status, location).as_deref(), Some(to));
            }
            for elsewhere in [
                "//evil.example/tts",
                "https://evil.example/tts",
                "https://speech.example:8443/tts",
                "http://speech.example/tts",
                "https://user@speech.example/tts",
                "https://speech.example.evil.example/tts",
                "tts/",
                "",
            ] {
                assert_eq!(moved_to(status, elsewhere), None, "{elsewhere}");
            }
        }
        // The other redirects make a GET of a POST, or nothing.
        for status in [200, 300, 301, 302, 303, 304] {
            assert_eq!(moved_to(status, "/tts/"), None, "{status}");
        }
    }

    #[tokio::test]
    async fn a_request_is_unwritten_if_its_connection_ended_before() {
        let request = || http::Request::post("/token").body(String::from("{}")).expect("a valid request");
        let (near, far) = tokio::io::duplex(1024);
        let (mut client, connection) = http1::handshake(TokioIo::new(near)).await.expect("no I/O yet");
        drop(far);
        let (sent, _) = tokio::join!(client.send_request(request()), connection);
        assert!(is_unwritten(&sent.expect_err("nobody answers")));

        // The server has read the request: it may have acted on it.
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut client, connection) = http1::handshake(TokioIo::new(near)).await.expect("no I/O yet");
        let reading = async move {
            let mut head = [0; 16];
            far.read_exact(&mut head).await.map(|_| head)
        };
        let (sent, _, read) = tokio::join!(client.send_request(request()), connection, reading);
        assert_eq!(&read.expect("the request arrives"), b"POST /token HTTP");
        assert!(!is_unwritten(&sent.expect_err("nobody answers")));
    }
}
