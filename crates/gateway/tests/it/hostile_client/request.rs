//! Requests before they are made wrong.

use voxline_fixtures::random::Random;

/// A request, whose parts can be made wrong one by one.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) version: &'static str,
    /// True if the body is sent in chunks.
    pub(super) chunked: bool,
}

impl Request {
    pub(super) fn new(method: &str, target: &str) -> Request {
        Request {
            method: method.into(),
            target: target.into(),
            headers: vec![(b"Host".to_vec(), b"voice".to_vec())],
            body: None,
            version: "HTTP/1.1",
            chunked: false,
        }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) fn under(self, token: &str) -> Request {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    pub(super) fn body(self, body: impl Into<Vec<u8>>) -> Request {
        Request { body: Some(body.into()), ..self }
    }

    pub(super) fn head(&self, framing: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut head =
            [&self.method, &b" "[..], &self.target, b" ", self.version.as_bytes(), b"\r\n"].concat();
        for (name, value) in self.headers.iter().chain(framing) {
            head.extend([name, &b": "[..], value, b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        head
    }

    /// Encodes the request with correct framing, so that both ends agree on where it ends.
    pub(super) fn encode(&self, dice: &mut Random) -> Vec<u8> {
        let header = |name: &str, value: String| vec![(name.into(), value.into_bytes())];
        let Some(body) = &self.body else { return self.head(&[]) };
        if !self.chunked {
            let mut bytes = self.head(&header("Content-Length", body.len().to_string()));
            bytes.extend(body);
            return bytes;
        }
        let mut bytes = self.head(&header("Transfer-Encoding", "chunked".to_owned()));
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(1 + dice.below(rest.len()));
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend([chunk, b"\r\n"].concat());
            rest = later;
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }
}

/// Returns a form that asks for the transcription of a recording.
pub(super) fn form(format: &str, stream: &str, recording: &[u8]) -> Vec<u8> {
    let field = |name: &str| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    let mut form = Vec::new();
    for (name, value) in [("response_format", format), ("stream", stream), ("temperature", "0.0")] {
        form.extend(format!("{}{value}\r\n", field(name)).into_bytes());
    }
    form.extend([field("file").as_bytes(), recording, b"\r\n--x--\r\n"].concat());
    form
}
