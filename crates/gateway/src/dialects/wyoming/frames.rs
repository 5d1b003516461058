//! Frames of the Wyoming protocol: each event is a line of JSON, then a block of JSON if the line announces
//! one, then a payload. A state machine without input or output.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest header line, in bytes: that which the reference implementation reads (the default limit of
/// asyncio's `StreamReader`).
const MAX_HEADER: usize = 64 * 1024;
/// Longest block of data, in bytes: a text of 20,000 characters takes up to twelve of them for each.
const MAX_DATA: usize = 384 * 1024;
/// Longest payload, in bytes: two minutes of audio at 16 kHz. A payload is handed on as it arrives.
const MAX_PAYLOAD: usize = 4 * 1024 * 1024;
/// Version in the headers that the gateway writes: that of the reference implementation that it follows.
const VERSION: &str = "1.10.2";

/// An event, before its payload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) data: Map<String, Value>,
    /// Length of the payload that follows, in bytes.
    pub(crate) payload_length: usize,
}

/// A piece of the stream of events.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Event(Event),
    /// Next bytes of the payload of the last event.
    Payload(Bytes),
}

/// Reason why a stream of events can't be read any further, described for the client.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the header of an event is longer than {MAX_HEADER} bytes")]
    LongHeader,
    #[error("the header of an event can't be read: {0}")]
    Header(String),
    #[error("the data of an event can't be read: {0}")]
    Data(String),
    #[error("{0} bytes of data are announced, the limit is {MAX_DATA}")]
    LongData(u64),
    #[error("{0} bytes of payload are announced, the limit is {MAX_PAYLOAD}")]
    LongPayload(u64),
}

/// Header line of an event. Other fields, such as `version`, are ignored.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Option<Map<String, Value>>,
    #[serde(default)]
    data_length: Option<u64>,
    #[serde(default)]
    payload_length: Option<u64>,
}

/// Part of an event that is expected next.
enum Expected {
    Header,
    /// The block of data of this event.
    Data {
        event: Event,
        length: usize,
    },
    /// The rest of a payload, in bytes.
    Payload(usize),
}

/// A decoder of a stream of events. It holds no more than one header or one block of data, and the bytes that
/// were last fed.
pub(crate) struct FrameDecoder {
    buffer: BytesMut,
    /// Length of the part of the buffer that has no end of a line.
    searched: usize,
    expected: Expected,
}

impl FrameDecoder {
    /// Creates a decoder at the start of a stream.
    pub(crate) fn new() -> FrameDecoder {
        FrameDecoder { buffer: BytesMut::new(), searched: 0, expected: Expected::Header }
    }

    /// Takes the next bytes. All pieces should have been taken before.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next piece, or `None` if it has not arrived yet.
    ///
    /// # Errors
    /// Returns [`FrameError`] if the stream makes no sense. Nothing after that can be read.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>, FrameError> {
        match &mut self.expected {
            Expected::Header => self.header(),
            Expected::Data { length, .. } if self.buffer.len() < *length => Ok(None),
            Expected::Data { event, length } => {
                let block = self.buffer.split_to(*length);
                let block: Map<String, Value> =
                    serde_json::from_slice(&block).map_err(|error| FrameError::Data(error.to_string()))?;
                event.data.extend(block);
                let Event { kind, data, payload_length } = event;
                let event = Event {
                    kind: std::mem::take(kind),
                    data: std::mem::take(data),
                    payload_length: *payload_length,
                };
                Ok(Some(self.whole(event)))
            }
            Expected::Payload(_) if self.buffer.is_empty() => Ok(None),
            Expected::Payload(left) => {
                let payload = self.buffer.split_to(self.buffer.len().min(*left)).freeze();
                *left -= payload.len();
                if *left == 0 {
                    self.expected = Expected::Header;
                }
                Ok(Some(Piece::Payload(payload)))
            }
        }
    }

    /// Returns whether the stream may end here: no event has begun.
    pub(crate) fn is_between_events(&self) -> bool {
        matches!(self.expected, Expected::Header) && self.buffer.is_empty()
    }

    fn header(&mut self) -> Result<Option<Piece>, FrameError> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.buffer.len();
            return if self.searched > MAX_HEADER { Err(FrameError::LongHeader) } else { Ok(None) };
        };
        if end > MAX_HEADER {
            return Err(FrameError::LongHeader);
        }
        self.searched = 0;
        let line = self.buffer.split_to(end + 1);
        let header: Header =
            serde_json::from_slice(&line).map_err(|error| FrameError::Header(error.to_string()))?;
        let Header { kind, data, data_length, payload_length } = header;
        let length = within(data_length, MAX_DATA).map_err(FrameError::LongData)?;
        let payload_length = within(payload_length, MAX_PAYLOAD).map_err(FrameError::LongPayload)?;
        let event = Event { kind, data: data.unwrap_or_default(), payload_length };
        if length == 0 {
            return Ok(Some(self.whole(event)));
        }
        self.expected = Expected::Data { event, length };
        self.next_piece()
    }

    /// Returns an event whose data are complete.
    fn whole(&mut self, event: Event) -> Piece {
        self.expected = match event.payload_length {
            0 => Expected::Header,
            length => Expected::Payload(length),
        };
        Piece::Event(event)
    }
}

/// Returns a length that may be absent, or if it is over the limit, the length as an error.
fn within(length: Option<u64>, limit: usize) -> Result<usize, u64> {
    let length = length.unwrap_or(0);
    usize::try_from(length).ok().filter(|length| *length <= limit).ok_or(length)
}

/// Returns the frame of an event. The data are in the block, as the reference implementation writes them.
pub(super) fn encode(kind: &str, data: &Value, payload: &[u8]) -> Bytes {
    let mut header = serde_json::json!({ "type": kind, "version": VERSION });
    let is_empty = data.as_object().is_none_or(Map::is_empty);
    let data = if is_empty { String::new() } else { data.to_string() };
    if !is_empty {
        header["data_length"] = data.len().into();
    }
    if !payload.is_empty() {
        header["payload_length"] = payload.len().into();
    }
    let mut frame = header.to_string().into_bytes();
    frame.push(b'\n');
    frame.extend_from_slice(data.as_bytes());
    frame.extend_from_slice(payload);
    frame.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the pieces of a stream that is fed in parts of this length. Payloads are joined.
    fn pieces(stream: &[u8], part: usize) -> Result<Vec<Piece>, FrameError> {
        let mut decoder = FrameDecoder::new();
        let mut pieces = Vec::new();
        for part in stream.chunks(part) {
            decoder.feed(part);
            while let Some(piece) = decoder.next_piece()? {
                match (pieces.last_mut(), piece) {
                    (Some(Piece::Payload(before)), Piece::Payload(more)) => {
                        *before = [&before[..], &more].concat().into();
                    }
                    (_, piece) => pieces.push(piece),
                }
            }
        }
        assert!(decoder.is_between_events(), "the stream is complete");
        Ok(pieces)
    }

    fn event(kind: &str, data: &Value, payload_length: usize) -> Piece {
        let data = data.as_object().unwrap().clone();
        Piece::Event(Event { kind: kind.to_owned(), data, payload_length })
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let stream = [
            &b"{\"type\":\"describe\"}\n"[..],
            b"{ \"type\" : \"transcribe\", \"data\": {\"language\":\"en\",\"name\":null}, \"version\": \"0.9\"}\r\n",
            b"{\"type\":\"ping\",\"data\":{\"text\":\"old\",\"more\":1},\"data_length\":14,\"payload_length\":0}\n",
            b"{\"text\":\"new\"}",
            b"{\"type\":\"audio-chunk\",\"data_length\":null,\"payload_length\":5}\n",
            b"\n\n{}\n",
            b"{\"type\":\"audio-stop\"}\n",
        ]
        .concat();
        let expected = [
            event("describe", &json!({}), 0),
            event("transcribe", &json!({ "language": "en", "name": null }), 0),
            // The block wins.
            event("ping", &json!({ "text": "new", "more": 1 }), 0),
            event("audio-chunk", &json!({}), 5),
            Piece::Payload(Bytes::from_static(b"\n\n{}\n")),
            event("audio-stop", &json!({}), 0),
        ];
        for part in [1, 2, 3, 7, 64, stream.len()] {
            assert_eq!(pieces(&stream, part).as_deref(), Ok(&expected[..]), "{part}");
        }
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let data = json!({ "text": "Grüße\n" });
        let frame = encode("transcript", &data, &[]);
        assert_eq!(pieces(&frame, 5), Ok(vec![event("transcript", &data, 0)]));
        let frame = encode("audio-chunk", &json!({ "rate": 1 }), b"\0\n\0");
        let payload = Piece::Payload(Bytes::from_static(b"\0\n\0"));
        assert_eq!(pieces(&frame, 100), Ok(vec![event("audio-chunk", &json!({ "rate": 1 }), 3), payload]));
        assert_eq!(
            &encode("describe", &json!({}), &[])[..],
            b"{\"type\":\"describe\",\"version\":\"1.10.2\"}\n"
        );
    }

    #[test]
    fn lengths_and_headers_that_make_no_sense_are_refused() {
        let refused = |stream: &str| pieces(stream.as_bytes(), 1_000).expect_err(stream);
        let gigabyte = 1 << 30;
        let header = |field: &str| format!("{{\"type\":\"x\",\"{field}\":{gigabyte}}}\n");
        assert_eq!(refused(&header("data_length")), FrameError::LongData(gigabyte));
        assert_eq!(refused(&header("payload_length")), FrameError::LongPayload(gigabyte));
        assert_eq!(refused(&"x".repeat(MAX_HEADER + 1)), FrameError::LongHeader);
        let padded = format!("{}{{\"type\":\"x\"}}\n", " ".repeat(MAX_HEADER));
        assert_eq!(refused(&padded), FrameError::LongHeader);
        for header in [
            "",
            "{}",
            "[]",
            "7",
            "{\"type\":1}",
            "{\"type\":\"x\",\"data\":[]}",
            "{\"type\":\"x\",\"data_length\":-1}",
        ] {
            assert!(matches!(refused(&format!("{header}\n")), FrameError::Header(_)), "{header}");
        }
        for data in ["[]", "{,", "  "] {
            let stream = format!("{{\"type\":\"x\",\"data_length\":2}}\n{data}");
            assert!(matches!(refused(&stream), FrameError::Data(_)), "{data}");
        }
    }
}
