//! The client's side of the opening handshake of a WebSocket (RFC 6455, section 4.1).
//!
//! tungstenite has a handshake too, but it writes the whole request to the log, token included.

use std::io;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::wire::socket_limits;
use crate::auth::AccessToken;

/// Longest head of a response that is read, in bytes; a few hundred are common.
const MAX_HEAD: usize = 16 * 1024;
/// Most header fields in the head.
const MAX_HEADERS: usize = 128;
/// Longest body of a refusal that is read, in bytes: a reason takes one line.
const MAX_BODY: usize = 16 * 1024;
/// Longest wait for that body. The status says enough if the reason doesn't come.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason why a connection didn't become a WebSocket.
pub(super) enum HandshakeError {
    /// The connection failed, or ended before the response.
    Lost(io::Error),
    /// The response is plain HTTP: its status, its headers, and the beginning of its body.
    Refused(StatusCode, HeaderMap, Vec<u8>),
    /// The response is not one of a WebSocket service.
    Protocol(&'static str),
}

/// A request for a WebSocket.
pub(super) struct Request<'a> {
    pub(super) uri: Uri,
    /// Token to show, if any.
    pub(super) token: Option<&'a AccessToken>,
    /// Subprotocol that the server must answer, if the service has one.
    pub(super) subprotocol: Option<&'a str>,
}

/// Asks for the WebSocket of `request` on an established connection. Reads at most [`MAX_HEAD`] and
/// [`MAX_BODY`] bytes of the response; the caller limits the time.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &Request<'_>,
) -> Result<WebSocketStream<S>, HandshakeError> {
    let key = generate_key();
    stream.write_all(&request.head(&key)).await.map_err(HandshakeError::Lost)?;
    stream.flush().await.map_err(HandshakeError::Lost)?;
    let mut answer = Vec::new();
    let head = loop {
        let read = (&mut stream).take((MAX_HEAD - answer.len()) as u64).read_buf(&mut answer).await;
        let read = read.map_err(HandshakeError::Lost)?;
        if read == 0 {
            return Err(match answer.len() {
                MAX_HEAD => HandshakeError::Protocol("answer to the upgrade is too long"),
                _ => HandshakeError::Lost(io::Error::other("connection closed before an answer")),
            });
        }
        // A head ends with a line feed, so a head that arrives byte by byte is not parsed at every byte.
        if answer[answer.len() - read..].contains(&b'\n')
            && let Some(head) = Head::parse(&answer)?
        {
            break head;
        }
    };
    let rest = answer.split_off(head.length);
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        let body = body(&mut stream, &head.headers, rest).await;
        return Err(HandshakeError::Refused(head.status, head.headers, body));
    }
    head.check(&key, request.subprotocol)?;
    Ok(WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(socket_limits())).await)
}

impl Request<'_> {
    /// Returns the head of the request, with this key.
    fn head(&self, key: &str) -> Vec<u8> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        // Header names are spelled as in RFC 6455: some servers accept no other spelling.
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
        .into_bytes();
        if let Some(subprotocol) = self.subprotocol {
            head.extend_from_slice(format!("Sec-WebSocket-Protocol: {subprotocol}\r\n").as_bytes());
        }
        if let Some(token) = self.token {
            head.extend_from_slice(b"Authorization: ");
            head.extend_from_slice(token.bearer().as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// Reads the beginning of the body of a refusal, of which `body` arrived along with the head (RFC 9112,
/// section 6.3).
async fn body(stream: &mut (impl AsyncRead + Unpin), headers: &HeaderMap, mut body: Vec<u8>) -> Vec<u8> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let chunked = text(TRANSFER_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let length = text(CONTENT_LENGTH).filter(|_| !chunked).and_then(|length| length.trim().parse().ok());
    let length = MAX_BODY.min(length.unwrap_or(MAX_BODY));
    let reading = async {
        while body.len() < length && !(chunked && body.ends_with(b"0\r\n\r\n")) {
            let room = (length - body.len()) as u64;
            if !matches!(stream.take(room).read_buf(&mut body).await, Ok(1..)) {
                break;
            }
        }
    };
    let _ = timeout(BODY_TIMEOUT, reading).await;
    body.truncate(length);
    if chunked { unchunked(&body) } else { body }
}

/// Decodes a chunked body, as far as it is complete (RFC 9112, section 7.1).
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(body) {
        let rest = &body[start..];
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        data.extend_from_slice(&rest[..size]);
        body = rest[size..].strip_prefix(b"\r\n").unwrap_or_default();
    }
    data
}

/// The head of a response.
struct Head {
    status: StatusCode,
    headers: HeaderMap,
    /// Length in bytes, including the empty line at the end.
    length: usize,
}

impl Head {
    /// Parses the head at the start of `answer`; `None` while the head is incomplete.
    fn parse(answer: &[u8]) -> Result<Option<Head>, HandshakeError> {
        const GARBLED: HandshakeError = HandshakeError::Protocol("answer to the upgrade is not HTTP");
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = response.parse(answer).map_err(|_| GARBLED)? else {
            return Ok(None);
        };
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(GARBLED)?;
        if response.version != Some(1) && status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(HandshakeError::Protocol("answer to the upgrade is not HTTP/1.1"));
        }
        let mut headers = HeaderMap::with_capacity(response.headers.len());
        for field in &*response.headers {
            let name = HeaderName::try_from(field.name).map_err(|_| GARBLED)?;
            headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| GARBLED)?);
        }
        Ok(Some(Head { status, headers, length }))
    }

    /// Checks that a response of status 101 opens the WebSocket that was requested with `key`, for
    /// `subprotocol`.
    fn check(&self, key: &str, subprotocol: Option<&str>) -> Result<(), HandshakeError> {
        let expected =
            |met: bool, otherwise| if met { Ok(()) } else { Err(HandshakeError::Protocol(otherwise)) };
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let lists = |name, word: &str| {
            text(name)
                .is_some_and(|list| list.split(',').any(|entry| entry.trim().eq_ignore_ascii_case(word)))
        };
        expected(lists(UPGRADE, "websocket"), "upgraded to something other than a WebSocket")?;
        expected(lists(CONNECTION, "upgrade"), "upgraded without the header Connection: Upgrade")?;
        let accept = derive_accept_key(key.as_bytes());
        expected(
            text(SEC_WEBSOCKET_ACCEPT) == Some(&accept),
            "upgraded with the Sec-WebSocket-Accept of another request",
        )?;
        expected(
            text(SEC_WEBSOCKET_PROTOCOL) == subprotocol,
            "upgraded to another subprotocol than asked for",
        )?;
        expected(text(SEC_WEBSOCKET_EXTENSIONS).is_none(), "upgraded with an extension nobody asked for")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::auth::TokenGeneration;
    use crate::protocol::SUBPROTOCOL;

    /// Asks for the WebSocket at `uri` as a session of `voxline.asr.v1` does.
    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
        stream: S,
        uri: &Uri,
        token: &AccessToken,
    ) -> Result<WebSocketStream<S>, HandshakeError> {
        let request = Request { uri: uri.clone(), token: Some(token), subprotocol: Some(SUBPROTOCOL) };
        open(stream, &request).await
    }

    /// Returns the result of a handshake with this response; `{accept}` stands for the accept key.
    async fn answered(answer: &str) -> Result<WebSocketStream<tokio::io::DuplexStream>, HandshakeError> {
        let (near, mut far) = duplex(64 * 1024);
        let uri = Uri::from_static("https://[::1]:8080/api/asr_stream/ws");
        let token = AccessToken::new(&"canary".to_owned().into(), TokenGeneration(0)).unwrap();
        let answering = async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                far.read_buf(&mut request).await.unwrap();
            }
            let request = String::from_utf8(request).unwrap();
            assert!(
                request.starts_with("GET /api/asr_stream/ws HTTP/1.1\r\nHost: [::1]:8080\r\n"),
                "{request}"
            );
            assert!(request.contains("\r\nAuthorization: Bearer canary\r\n"), "{request}");
            let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            let answer = answer.replace("{accept}", &derive_accept_key(key.as_bytes()));
            // Byte by byte: a head may arrive in pieces of any size.
            for byte in answer.as_bytes() {
                let _ = far.write_all(std::slice::from_ref(byte)).await;
            }
        };
        tokio::join!(ask(near, &uri, &token), answering).0
    }

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: keep-alive, Upgrade\r\n\
         upgrade: WebSocket\r\nsec-websocket-accept: {accept}\r\nsec-websocket-protocol: voxline.asr.v1\r\n\r\n";

    #[tokio::test]
    async fn only_what_was_asked_for_is_taken() {
        assert!(answered(GOOD).await.is_ok());
        for (from, to) in [
            ("WebSocket", "h2c"),
            (", Upgrade", ""),
            ("{accept}", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("voxline.asr.v1", "chat"),
            ("sec-websocket-protocol: voxline.asr.v1\r\n", ""),
            ("\r\n\r\n", "\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("HTTP/1.1", "SMTP"),
        ] {
            let answer = GOOD.replace(from, to);
            assert!(matches!(answered(&answer).await, Err(HandshakeError::Protocol(_))), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_tells_its_status_headers_and_reason() {
        let chunks = "Transfer-Encoding: chunked\r\n\r\n4;x=y\r\nno r\r\n3\r\noom\r\n0\r\n\r\n";
        for (rest, body) in [
            ("Content-Length: 7\r\n\r\nno room", "no room"),
            // More than was announced belongs to another response; if less arrives, that is the whole
            // body.
            ("Content-Length: 7\r\n\r\nno room and more", "no room"),
            ("Content-Length: 99\r\n\r\nno room", "no room"),
            ("\r\nno room", "no room"),
            (chunks, "no room"),
            (chunks.strip_suffix("m\r\n0\r\n\r\n").unwrap(), "no roo"),
            ("Content-Length: 0\r\n\r\n", ""),
        ] {
            let refusal = answered(&format!("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n{rest}")).await;
            let Err(HandshakeError::Refused(status, headers, told)) = refusal else { panic!("taken") };
            assert_eq!((status.as_u16(), headers["retry-after"].as_bytes()), (503, &b"7"[..]));
            assert_eq!(String::from_utf8(told).unwrap(), body, "{rest}");
        }
        let endless = format!("HTTP/1.1 403 No\r\n\r\n{}", "x".repeat(2 * MAX_BODY));
        let Err(HandshakeError::Refused(_, _, told)) = answered(&endless).await else { panic!("taken") };
        assert_eq!(told.len(), MAX_BODY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reason_that_never_comes_is_not_waited_for() {
        let (near, mut far) = duplex(1024);
        let uri = Uri::from_static("http://[::1]:8080/");
        let token = AccessToken::new(&"canary".to_owned().into(), TokenGeneration(0)).unwrap();
        far.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\n{").await.unwrap();
        let refused = timeout(2 * BODY_TIMEOUT, ask(near, &uri, &token)).await.expect("refused in time");
        assert!(
            matches!(refused, Err(HandshakeError::Refused(StatusCode::FORBIDDEN, _, body)) if body == b"{")
        );
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_the_end() {
        let endless = format!("HTTP/1.1 101 OK\r\nx: {}", "y".repeat(MAX_HEAD));
        assert!(matches!(answered(&endless).await, Err(HandshakeError::Protocol(_))));
        let fields = format!("HTTP/1.1 101 OK\r\n{}", "x: y\r\n".repeat(MAX_HEADERS + 1));
        assert!(matches!(answered(&fields).await, Err(HandshakeError::Protocol(_))));
        assert!(matches!(answered(&GOOD[..GOOD.len() - 2]).await, Err(HandshakeError::Lost(_))));
    }
}
