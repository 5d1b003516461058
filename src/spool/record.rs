//! Encoding of the records of a spool.
//!
//! A record is a header and a body. The header is the length of the body (`u32`), its kind (one byte),
//! and a CRC-32 of these and the body; all numbers are little-endian. A body is JSON, a position, or
//! audio: a position, a voice mark (one byte) and 16-bit PCM.

use std::io::{self, BufRead, Read};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{from_slice, to_vec};

use crate::audio::{AudioChunk, FRAME_BYTES, FramePos, FrameRange};
use crate::session::ServerSession;
use crate::transcript::FinalSegment;

/// Bytes of a header: length, kind, checksum.
pub(super) const HEADER_BYTES: usize = 9;
/// Bytes of the header that the checksum covers.
const CHECKED_BYTES: usize = 5;
/// Longest body of audio, in bytes: more than the pipeline's longest chunk, a minute, at its highest
/// rate.
const AUDIO_MAX: usize = 32 << 20;
/// Longest body of any other kind, in bytes. Such a body is held in memory to be read.
const NOTE_MAX: usize = 4 << 20;
/// Bytes before the PCM of audio: position and voice mark.
pub(super) const AUDIO_HEAD: usize = 9;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Head = 1,
    Audio = 2,
    Flush = 3,
    End = 4,
    Opened = 5,
    Final = 6,
    Gap = 7,
    Done = 8,
    Lost = 9,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Head,
        Kind::Audio,
        Kind::Flush,
        Kind::End,
        Kind::Opened,
        Kind::Final,
        Kind::Gap,
        Kind::Done,
        Kind::Lost,
    ];

    /// Returns whether the reader passes records of this kind to the session.
    pub(super) fn is_feed(self) -> bool {
        matches!(self, Kind::Audio | Kind::Flush | Kind::End | Kind::Lost)
    }
}

/// The content of a record; for audio, without its samples.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Head(HeadBody),
    Audio {
        range: FrameRange,
        voiced: Option<bool>,
    },
    Flush(FramePos),
    End(FramePos),
    Opened(ServerSession),
    Final(FinalSegment),
    Gap(FrameRange),
    Done,
    /// Frames of the source that are missing: their record was damaged, or they never came.
    Lost(FrameRange),
}

/// The body of a head, which identifies the session. Additions by a later version must not keep this
/// version from reading the version number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HeadBody {
    pub(super) version: u32,
    #[serde(default)]
    pub(super) sample_rate: u32,
    #[serde(default)]
    pub(super) identity: String,
    #[serde(default)]
    pub(super) service: String,
}

impl Entry {
    fn kind(&self) -> Kind {
        match self {
            Entry::Head(_) => Kind::Head,
            Entry::Audio { .. } => Kind::Audio,
            Entry::Flush(_) => Kind::Flush,
            Entry::End(_) => Kind::End,
            Entry::Opened(_) => Kind::Opened,
            Entry::Final(_) => Kind::Final,
            Entry::Gap(_) => Kind::Gap,
            Entry::Done => Kind::Done,
            Entry::Lost(_) => Kind::Lost,
        }
    }

    /// Encodes the record, with `pcm` after the position and mark of audio.
    pub(super) fn encode(&self, pcm: &[u8]) -> io::Result<Vec<u8>> {
        let note = match self {
            Entry::Head(head) => to_vec(head)?,
            Entry::Audio { range, voiced } => {
                let mut body = Vec::from(range.start.0.to_le_bytes());
                body.push(voiced.map_or(0, |voiced| 1 + u8::from(voiced)));
                body
            }
            Entry::Flush(at) | Entry::End(at) => at.0.to_le_bytes().into(),
            Entry::Opened(server) => to_vec(server)?,
            Entry::Final(segment) => to_vec(segment)?,
            Entry::Gap(range) | Entry::Lost(range) => to_vec(range)?,
            Entry::Done => Vec::new(),
        };
        let length = note.len() + pcm.len();
        // A record that could not be read back must not be written.
        let max = longest(self.kind());
        if length > max {
            let message = format!("a record of {length} bytes, expected up to {max}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let length_field = u32::try_from(length).expect("the longest body is far below 4 GiB");
        let mut record = Vec::with_capacity(HEADER_BYTES + length);
        record.extend(length_field.to_le_bytes());
        record.push(self.kind() as u8);
        let crc = checksum(&record, &[&note, pcm]);
        record.extend(crc.to_le_bytes());
        record.extend(note);
        record.extend(pcm);
        Ok(record)
    }

    /// Decodes a body of `length` bytes. For audio, `body` may be cut after the first [`AUDIO_HEAD`]
    /// bytes.
    fn decode(kind: Kind, body: &[u8], length: usize) -> Option<Entry> {
        let position = || Some(FramePos(u64::from_le_bytes(body.try_into().ok()?)));
        Some(match kind {
            Kind::Head => Entry::Head(from_slice(body).ok()?),
            Kind::Audio => {
                let (start, mark) = body.get(..AUDIO_HEAD)?.split_at(8);
                let start = FramePos(u64::from_le_bytes(start.try_into().ok()?));
                let pcm = length.checked_sub(AUDIO_HEAD).filter(|pcm| pcm.is_multiple_of(FRAME_BYTES))?;
                let end = FramePos(start.0.checked_add((pcm / FRAME_BYTES) as u64)?);
                let voiced = match mark[0] {
                    0 => None,
                    1 => Some(false),
                    2 => Some(true),
                    _ => return None,
                };
                Entry::Audio { range: start.to(end), voiced }
            }
            Kind::Flush => Entry::Flush(position()?),
            Kind::End => Entry::End(position()?),
            Kind::Opened => Entry::Opened(from_slice(body).ok()?),
            Kind::Final => Entry::Final(from_slice(body).ok()?),
            Kind::Gap => Entry::Gap(from_slice(body).ok()?),
            Kind::Done => Entry::Done,
            Kind::Lost => Entry::Lost(from_slice(body).ok()?),
        })
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    bytes: [u8; HEADER_BYTES],
    pub(super) kind: Kind,
    /// Length of the body in bytes.
    pub(super) length: usize,
}

impl Header {
    /// Decodes a header; `None` if `bytes` are not a valid one.
    pub(super) fn decode(bytes: [u8; HEADER_BYTES]) -> Option<Header> {
        let [a, b, c, d, kind, ..] = bytes;
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind)?;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
        (length <= longest(kind)).then_some(Header { bytes, kind, length })
    }

    /// Returns the length of the record in bytes.
    pub(super) fn record_bytes(&self) -> u64 {
        (HEADER_BYTES + self.length) as u64
    }

    fn crc(&self) -> u32 {
        let [.., a, b, c, d] = self.bytes;
        u32::from_le_bytes([a, b, c, d])
    }

    /// Decodes the whole `body`, with its chunk if it is audio. Returns `None` if the checksum doesn't
    /// match, or the body can't be decoded.
    pub(super) fn open(&self, body: Vec<u8>) -> Option<(Entry, Option<AudioChunk>)> {
        if checksum(&self.bytes[..CHECKED_BYTES], &[&body]) != self.crc() {
            return None;
        }
        let entry = Entry::decode(self.kind, &body, body.len())?;
        let chunk = match &entry {
            Entry::Audio { range, voiced } => {
                let chunk = AudioChunk::new(*range, Bytes::from(body).slice(AUDIO_HEAD..));
                Some(match voiced {
                    Some(voiced) => chunk.marked(*voiced),
                    None => chunk,
                })
            }
            _ => None,
        };
        Some((entry, chunk))
    }
}

fn longest(kind: Kind) -> usize {
    match kind {
        Kind::Audio => AUDIO_MAX,
        _ => NOTE_MAX,
    }
}

fn checksum(header: &[u8], parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    for part in parts {
        crc.update(part);
    }
    crc.finalize()
}

/// A sequential reader of records, which keeps none of the samples of audio.
pub(super) struct Records<R> {
    input: R,
    /// Offset of the next record.
    pub(super) offset: u64,
    /// Length of the file: no record is longer than what is left.
    length: u64,
    body: Vec<u8>,
}

impl<R: BufRead> Records<R> {
    /// Creates a reader of `input`, which has `length` bytes.
    pub(super) fn new(input: R, length: u64) -> Records<R> {
        Records::starting_at(input, 0, length)
    }

    /// Creates a reader that starts at `offset` in a file of `length` bytes; `input` must be at that
    /// offset.
    pub(super) fn starting_at(input: R, offset: u64, length: u64) -> Records<R> {
        Records { input, offset, length, body: Vec::new() }
    }

    /// Reads the next record; `None` at the end, or if there is no valid record at `offset`.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let left = self.length - self.offset;
        if left < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.input.read_exact(&mut header)?;
        let Some(header) = Header::decode(header).filter(|header| header.record_bytes() <= left) else {
            return Ok(None);
        };
        let kept = if header.kind == Kind::Audio { header.length.min(AUDIO_HEAD) } else { header.length };
        self.body.resize(kept, 0);
        self.input.read_exact(&mut self.body)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header.bytes[..CHECKED_BYTES]);
        crc.update(&self.body);
        let mut unread = header.length - kept;
        while unread > 0 {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = buffer.len().min(unread);
            crc.update(&buffer[..count]);
            self.input.consume(count);
            unread -= count;
        }
        if crc.finalize() != header.crc() {
            return Ok(None);
        }
        let entry = Entry::decode(header.kind, &self.body, header.length);
        if entry.is_some() {
            self.offset += header.record_bytes();
        }
        Ok(entry)
    }
}

/// Reads until `buffer` is full or the input ends, and returns the number of bytes read.
pub(super) fn read_most(mut input: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
