//! WebSocket frames (RFC 6455, section 5.2), written and read, including frames that a library would not
//! write.

use tokio::io::AsyncRead;

use super::answer::{End, Reader};
use voxline_fixtures::random::Random;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// Encoding of a frame's length.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// The shortest encoding.
    Shortest,
    In16,
    In64,
    /// A false length.
    Claimed(u64),
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) is_last: bool,
    /// The three reserved bits, for which no extension was negotiated.
    pub(super) reserved: u8,
    pub(super) opcode: u8,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) length: Length,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// Creates a frame as a client should send it.
    pub(super) fn new(opcode: u8, payload: impl Into<Vec<u8>>, dice: &mut Random) -> Frame {
        Frame {
            is_last: true,
            reserved: 0,
            opcode,
            mask: Some((dice.next() as u32).to_le_bytes()),
            length: Length::Shortest,
            payload: payload.into(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.is_last) << 7 | self.reserved << 4 | self.opcode];
        let masked = u8::from(self.mask.is_some()) << 7;
        let length = self.payload.len() as u64;
        match self.length {
            Length::Shortest if length < 126 => bytes.push(masked | length as u8),
            Length::In16 | Length::Shortest if length <= 0xFFFF => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            Length::Claimed(claimed) => {
                bytes.push(masked | 127);
                bytes.extend(claimed.to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        match self.mask {
            Some(mask) => {
                bytes.extend(mask);
                bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            }
            None => bytes.extend(&self.payload),
        }
        bytes
    }
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads the next frame. A server must write frames unfragmented, unmasked and with the shortest
    /// length.
    pub(super) async fn frame(&mut self) -> Result<(u8, Vec<u8>), End> {
        if self.is_empty() && !self.more().await? {
            return Err(End::Closed);
        }
        let head = self.exactly(2).await?;
        let opcode = head[0] & 0x0F;
        if head[0] & 0xF0 != 0x80
            || !matches!(opcode, TEXT | BINARY | CLOSE | PING | PONG)
            || head[1] & 0x80 != 0
        {
            return Err(End::Malformed(format!("frame of {head:?}")));
        }
        let (length, least) = match head[1] {
            126 => (u64::from(u16::from_be_bytes(*self.exactly(2).await?.first_chunk().expect("two"))), 126),
            127 => (u64::from_be_bytes(*self.exactly(8).await?.first_chunk().expect("eight")), 0x1_0000),
            short => (short.into(), 0),
        };
        let is_control = opcode >= CLOSE;
        if length < least || length > 1 << 20 || is_control && length > 125 {
            return Err(End::Malformed(format!("frame of {length} bytes, opcode {opcode}")));
        }
        Ok((opcode, self.exactly(length as usize).await?))
    }
}
