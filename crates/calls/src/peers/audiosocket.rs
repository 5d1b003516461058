//! Asterisk's AudioSocket: frames on a TCP connection that Asterisk opens.
//!
//! The source is Asterisk's documentation of AudioSocket, and its modules `res_audiosocket`,
//! `app_audiosocket` and `chan_audiosocket`. A frame is a kind (one byte), the length of the payload (two
//! bytes, big-endian) and the payload. The samples of audio are linear, 16 bit, little-endian, one channel;
//! the kind is their rate.
//!
//! Quirks that this codec answers to:
//!
//! - The first frame has the UUID of the call, and nothing says the rate of the audio before its first frame. But
//!   Asterisk may send no audio before it has received some, so the call starts at the UUID with 8 kHz, which the
//!   dialplan application always has. If the first frame of audio is of another kind, a
//!   [`Format`](PeerEvent::Format) event precedes it.
//! - The rate can't change afterwards: another kind is an error, because it would be a frame that was misread.
//! - Asterisk reads a frame with one call, and some releases fail if its header comes by itself: header and
//!   payload are one message. It plays frames as they come, so each has 20 ms at most, and the driver sends them
//!   at that pace.
//! - There are no marks, and audio that was sent can't be taken back.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Codec, Command, CommandError, MediaFormat, Message, Packet, PeerError, PeerEvent, Start, Track, key,
};

/// Bytes of a header: kind and length.
const HEADER: usize = 3;
/// Length of the audio in a frame, in milliseconds.
const FRAME_MS: u32 = 20;

const HANGUP: u8 = 0x00;
const UUID: u8 = 0x01;
const DTMF: u8 = 0x03;
const ERROR: u8 = 0xFF;
/// Kinds of audio, with their rates in hertz.
const AUDIO: [(u8, u32); 9] = [
    (0x10, 8_000),
    (0x11, 12_000),
    (0x12, 16_000),
    (0x13, 24_000),
    (0x14, 32_000),
    (0x15, 44_100),
    (0x16, 48_000),
    (0x17, 96_000),
    (0x18, 192_000),
];

/// The codec of a connection.
#[derive(Default)]
pub struct AudioSocket {
    /// A frame that is not complete. It has at most a header and the longest payload: 65,538 bytes.
    partial: BytesMut,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The UUID is to come.
    #[default]
    Opening,
    /// The call has started. The kind of audio is open until the first frame.
    Started,
    /// Audio of this kind has come.
    Streaming(u8),
    Ended,
}

impl fmt::Debug for AudioSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudioSocket")
            .field("phase", &self.phase)
            .field("partial", &self.partial.len())
            .finish()
    }
}

impl AudioSocket {
    /// Returns the codec of a new connection.
    #[must_use]
    pub fn new() -> AudioSocket {
        AudioSocket::default()
    }

    /// Reads the frames of a piece, after that of which the beginning came before.
    fn frames(&mut self, mut piece: Bytes, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        while !self.partial.is_empty() && self.phase != Phase::Ended {
            let total = self.total(&self.partial)?;
            let wanted = total.unwrap_or(HEADER) - self.partial.len();
            if wanted == 0 && total.is_some() {
                let frame = self.partial.split().freeze();
                self.frame(frame, events)?;
            } else if piece.is_empty() {
                return Ok(());
            } else {
                self.partial.extend_from_slice(&piece.split_to(wanted.min(piece.len())));
            }
        }
        while self.phase != Phase::Ended {
            match self.total(&piece)? {
                Some(total) if total <= piece.len() => self.frame(piece.split_to(total), events)?,
                _ => {
                    self.partial.extend_from_slice(&piece);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Returns the length of the frame that begins here, or `None` without a whole header. A header that
    /// makes no sense is an error before its payload is waited for.
    fn total(&self, bytes: &[u8]) -> Result<Option<usize>, PeerError> {
        let Some((&[kind, high, low], _)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (message, expected) = match kind {
            HANGUP => ("hangup frame", Some(0)),
            UUID => ("UUID frame", Some(16)),
            DTMF => ("DTMF frame", Some(1)),
            ERROR => ("error frame", None),
            _ if rate(kind).is_some() && length.is_multiple_of(2) => ("audio frame", None),
            _ if rate(kind).is_some() => {
                return Err(wrong("audio frame", format!("expected an even length, got {length} bytes")));
            }
            _ => return Err(wrong("frame", format!("expected a known kind, got {kind:#04x}"))),
        };
        match expected {
            Some(expected) if expected != length => {
                Err(wrong(message, format!("expected {expected} bytes, got {length}")))
            }
            _ if self.phase == Phase::Opening && !matches!(kind, UUID | HANGUP | ERROR) => {
                Err(wrong(message, "expected the UUID first".to_owned()))
            }
            _ => Ok(Some(HEADER + length)),
        }
    }

    fn frame(&mut self, mut frame: Bytes, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        let payload = frame.split_off(HEADER);
        match frame[0] {
            UUID => self.start(&payload, events),
            HANGUP => self.end(events),
            ERROR => self.failure(payload.first().copied().unwrap_or(0), events),
            DTMF => {
                let digit = key(char::from(payload[0]).encode_utf8(&mut [0; 4]));
                events.extend(digit.map(|digit| PeerEvent::Dtmf { track: Track::Inbound, digit }));
                Ok(())
            }
            kind => self.audio(kind, payload, events),
        }
    }

    fn start(&mut self, id: &[u8], events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        if self.phase != Phase::Opening {
            return Err(wrong("UUID frame", "expected one in a call".to_owned()));
        }
        self.phase = Phase::Started;
        let format = MediaFormat::linear(8_000);
        events.push(PeerEvent::Started(Start {
            call: Some(uuid(id)),
            tracks: vec![Track::Inbound],
            receives: format,
            sends: Some(format),
            ..Start::default()
        }));
        Ok(())
    }

    fn audio(&mut self, kind: u8, payload: Bytes, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        match self.phase {
            Phase::Streaming(known) if known != kind => {
                return Err(wrong("audio frame", format!("expected kind {known:#04x}, got {kind:#04x}")));
            }
            Phase::Started => {
                self.phase = Phase::Streaming(kind);
                if let Some(rate) = rate(kind).filter(|&rate| rate != 8_000) {
                    events.push(PeerEvent::Format(MediaFormat::linear(rate)));
                }
            }
            _ => (),
        }
        if !payload.is_empty() {
            events.push(PeerEvent::Audio(Packet::bare(Track::Inbound, payload)));
        }
        Ok(())
    }

    fn end(&mut self, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        let had_started = self.phase != Phase::Opening;
        self.phase = Phase::Ended;
        if had_started {
            events.push(PeerEvent::Ended);
        }
        Ok(())
    }

    /// Reads the code of an error that Asterisk reports.
    fn failure(&mut self, code: u8, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        let reason = match code {
            0x01 => return self.end(events),
            0x02 => "Asterisk could not forward a frame".to_owned(),
            0x04 => "Asterisk is out of memory".to_owned(),
            _ => format!("Asterisk reports the error {code:#04x}"),
        };
        Err(wrong("error frame", reason))
    }

    /// Returns the kind of the audio that is sent: that of the audio received.
    fn kind(&self) -> Result<u8, CommandError> {
        match self.phase {
            Phase::Opening => Err(CommandError::NotStarted),
            Phase::Started | Phase::Ended => Ok(AUDIO[0].0),
            Phase::Streaming(kind) => Ok(kind),
        }
    }
}

impl Codec for AudioSocket {
    fn read(&mut self, message: Message, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        match message {
            Message::Binary(_) if self.phase == Phase::Ended => Ok(()),
            Message::Binary(piece) => self.frames(piece, events),
            Message::Text(_) => Err(wrong("text message", "expected bytes of a stream".to_owned())),
        }
    }

    fn write(&mut self, command: Command, messages: &mut Vec<Message>) -> Result<(), CommandError> {
        match command {
            Command::Audio(audio) => {
                let kind = self.kind()?;
                let format = MediaFormat::linear(rate(kind).expect("the kind is one of audio"));
                let most = format.bytes_in(FRAME_MS).expect("linear samples have a length");
                messages.extend(audio.chunks(most).map(|piece| frame(kind, piece)));
                Ok(())
            }
            Command::Hangup => {
                messages.push(frame(HANGUP, &[]));
                Ok(())
            }
            Command::Mark(_) | Command::Clear | Command::Answer => Err(CommandError::Unsupported),
        }
    }
}

/// Returns a frame with its header.
fn frame(kind: u8, payload: &[u8]) -> Message {
    let length = u16::try_from(payload.len()).expect("20 ms of audio fit into a frame");
    let mut frame = BytesMut::with_capacity(HEADER + payload.len());
    frame.put_u8(kind);
    frame.put_u16(length);
    frame.put_slice(payload);
    Message::Binary(frame.freeze())
}

/// Returns the rate of a kind of audio.
fn rate(kind: u8) -> Option<u32> {
    AUDIO.iter().find(|(audio, _)| *audio == kind).map(|(_, rate)| *rate)
}

/// Returns the canonical text of a UUID (RFC 9562).
fn uuid(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        let hyphen = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
        write!(text, "{hyphen}{byte:02x}").expect("strings take all that is written");
    }
    text
}

fn wrong(message: &'static str, reason: String) -> PeerError {
    PeerError::Message { message, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_sent_have_20_ms_at_most() {
        for (kind, rate) in AUDIO {
            let mut codec = AudioSocket { phase: Phase::Streaming(kind), ..AudioSocket::new() };
            let mut messages = Vec::new();
            let audio = Bytes::from(vec![7; 100_000]);
            codec.write(Command::Audio(audio), &mut messages).expect("a call");
            let most = rate as usize / 50 * 2;
            let lengths = messages.iter().map(|message| match message {
                Message::Binary(frame) => frame.len() - HEADER,
                Message::Text(_) => unreachable!("frames are binary"),
            });
            let lengths: Vec<usize> = lengths.collect();
            assert_eq!(lengths.iter().sum::<usize>(), 100_000);
            assert!(lengths[..lengths.len() - 1].iter().all(|&length| length == most), "{lengths:?}");
        }
    }

    #[test]
    fn a_partial_frame_is_bounded_by_the_largest_length() {
        let mut codec = AudioSocket::new();
        let mut events = Vec::new();
        codec.read(Message::Binary(frame_of(UUID, &[0; 16])), &mut events).expect("a UUID");
        codec.read(Message::Binary(Bytes::from_static(&[0x10, 0xFF, 0xFE])), &mut events).expect("a header");
        for _ in 0..65_533 {
            codec.read(Message::Binary(Bytes::from_static(&[0])), &mut events).expect("payload");
        }
        assert_eq!(codec.partial.len(), HEADER + 65_533);
        assert_eq!(events.len(), 1);
        codec.read(Message::Binary(Bytes::from_static(&[0; 2])), &mut events).expect("payload");
        assert_eq!((codec.partial.len(), events.len()), (1, 2));
    }

    fn frame_of(kind: u8, payload: &[u8]) -> Bytes {
        match frame(kind, payload) {
            Message::Binary(bytes) => bytes,
            Message::Text(_) => unreachable!("frames are binary"),
        }
    }
}
