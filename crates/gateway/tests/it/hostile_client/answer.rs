//! HTTP answers, parsed strictly (RFC 9112).

use std::io::ErrorKind;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line that an answer may have, in bytes: an expectation of the test, not a limit of HTTP.
const LINE_MAX: usize = 8 * 1024;

/// A buffered reader of the gateway's answers.
pub(super) struct Reader<R> {
    from: R,
    bytes: Vec<u8>,
}

/// Reason why no more answers come.
#[derive(Debug)]
pub(super) enum End {
    /// Closed between two answers.
    Closed,
    /// Reset at any point: a socket that is closed with unread bytes is reset, and the reset overtakes data
    /// sent before.
    Reset,
    /// Closed inside an answer.
    Cut,
    /// The bytes are not an answer.
    Malformed(String),
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Reader<R> {
        Reader { from, bytes: Vec::new() }
    }

    /// Returns the next answer that is not interim. An answer to HEAD has no body.
    pub(super) async fn answer(&mut self, to_head: bool) -> Result<Answer, End> {
        loop {
            let answer = self.any_answer(to_head).await?;
            if !(100..200).contains(&answer.status) || answer.status == 101 {
                return Ok(answer);
            }
        }
    }

    async fn any_answer(&mut self, to_head: bool) -> Result<Answer, End> {
        if self.bytes.is_empty() && !self.more().await? {
            return Err(End::Closed);
        }
        let status_line = self.line().await?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| status_line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse::<u16>().ok())
            .ok_or_else(|| End::Malformed(format!("status line {status_line:?}")))?;
        let headers = self.headers().await?;
        let header =
            |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let body = match (header("transfer-encoding"), header("content-length")) {
            _ if to_head || matches!(status, 100..=199 | 204 | 304) => Vec::new(),
            (Some("chunked"), None) => self.chunks().await?,
            (None, Some(length)) => {
                let bad = |_| End::Malformed(format!("content-length {length:?}"));
                self.exactly(length.parse().map_err(bad)?).await?
            }
            // The framing of an answer to an HTTP/1.0 client.
            (None, None) => self.rest().await?,
            both => return Err(End::Malformed(format!("framed by {both:?}"))),
        };
        let answer = Answer { status, body };
        if header("content-type") == Some("application/json") && !to_head {
            answer.check_json().map_err(End::Malformed)?;
        }
        Ok(answer)
    }

    async fn headers(&mut self) -> Result<Vec<(String, String)>, End> {
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(headers);
            }
            let is_token = |name: &str| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            let (name, value) = line
                .split_once(':')
                .filter(|(name, _)| is_token(name))
                .ok_or_else(|| End::Malformed(format!("header {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, End> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let bad = |_| End::Malformed(format!("chunk of {line:?}"));
            let size = usize::from_str_radix(&line, 16).map_err(bad)?;
            body.extend(self.exactly(size).await?);
            let end = self.line().await?;
            if !end.is_empty() {
                return Err(End::Malformed(format!("a chunk ends in {end:?}")));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.bytes.drain(..end + 2).take(end).collect();
                let is_plain = line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
                return match String::from_utf8(line) {
                    Ok(line) if is_plain => Ok(line),
                    line => Err(End::Malformed(format!("line {line:?}"))),
                };
            }
            if self.bytes.len() > LINE_MAX {
                return Err(End::Malformed("a line without end".to_owned()));
            }
            self.need_more().await?;
        }
    }

    /// Reads up to the end of a line, which may be longer than those of an answer.
    pub(super) async fn until_newline(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                return Ok(self.bytes.drain(..=end).collect());
            }
            if self.is_empty() {
                if !self.more().await? {
                    return Err(End::Closed);
                }
            } else {
                self.need_more().await?;
            }
        }
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, End> {
        while self.bytes.len() < length {
            self.need_more().await?;
        }
        Ok(self.bytes.drain(..length).collect())
    }

    /// Reads until the end.
    pub(super) async fn rest(&mut self) -> Result<Vec<u8>, End> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.bytes))
    }

    async fn need_more(&mut self) -> Result<(), End> {
        if self.more().await? { Ok(()) } else { Err(End::Cut) }
    }

    /// Reads more bytes. Returns whether there were any.
    pub(super) async fn more(&mut self) -> Result<bool, End> {
        match self.from.read_buf(&mut self.bytes).await {
            Ok(read) => Ok(read > 0),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                Err(End::Reset)
            }
            Err(error) => Err(End::Malformed(format!("{error}"))),
        }
    }

    /// Returns whether all received bytes were read.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Answer {
    /// Checks that the body is JSON, and that a refusal has a message of one line.
    fn check_json(&self) -> Result<(), String> {
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        let body: Value =
            serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {}", text()))?;
        let message = body["error"]["message"].as_str().or_else(|| body["error_description"].as_str());
        // Deepgram's errors are no objects within an object.
        let message = message.or_else(|| body["message"].as_str());
        match message {
            _ if self.status < 400 => Ok(()),
            Some(message) if !message.is_empty() && !message.contains('\n') => Ok(()),
            _ => Err(format!("status {} with {}", self.status, text())),
        }
    }

    /// Checks that a nonsense request did not make the gateway fail: of the 5xx statuses only 501 and 503
    /// are allowed.
    pub(super) fn check_status(&self) -> Result<(), String> {
        match self.status {
            500.. if !matches!(self.status, 501 | 503) => {
                Err(format!("status {}: {}", self.status, String::from_utf8_lossy(&self.body)))
            }
            _ => Ok(()),
        }
    }
}
