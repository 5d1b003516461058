//! The client's end of a WebSocket, which plays a script.

use std::pin::pin;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::answer::{Answer, End, Reader};
use super::frames::{BINARY, CLOSE, Frame, PING, PONG, TEXT};
use super::script::{Step, closing};
use super::{PATIENCE, World};
use voxline_fixtures::random::Random;

/// Reason of the close of a session whose recogniser has failed.
const FAILED: &[u8] = b"the recogniser failed";

pub(super) async fn within<T>(doing: impl Future<Output = T>) -> Result<T, String> {
    timeout(PATIENCE, doing).await.map_err(|_| format!("nothing came within {PATIENCE:?}"))
}

pub(super) struct Player {
    pub(super) reader: Reader<OwnedReadHalf>,
    pub(super) writer: OwnedWriteHalf,
    /// Number of steps whose ping was answered.
    pongs: usize,
}

impl Player {
    /// Opens a WebSocket at `target`, with these lines of the head beside the usual ones. Returns the refusal
    /// where there is one.
    pub(super) async fn open(
        world: &World,
        target: &str,
        token: &str,
        more: &str,
    ) -> Result<Result<Player, Answer>, String> {
        let stream = TcpStream::connect(world.server.address).await.map_err(|error| error.to_string())?;
        let (reader, mut writer) = stream.into_split();
        let mut reader = Reader::new(reader);
        let hello = format!(
            "GET {target} HTTP/1.1\r\nHost: voice\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\
             Authorization: Bearer {token}\r\n\r\n"
        );
        writer.write_all(hello.as_bytes()).await.map_err(|error| format!("{error} at the upgrade"))?;
        let answer = within(reader.answer(false)).await?.map_err(|end| format!("{end:?} at the upgrade"))?;
        answer.check_status()?;
        if answer.status == 101 { Ok(Ok(Player { reader, writer, pongs: 0 })) } else { Ok(Err(answer)) }
    }

    /// Sends all `steps`, each followed by a ping, and reads until the connection ends. Each message that
    /// comes is checked by `note`, which gets its opcode. Returns the outcome.
    pub(super) async fn play(
        &mut self,
        steps: &[Step],
        dice: &mut Random,
        mut note: impl FnMut(u8, &[u8]) -> Result<(), String>,
    ) -> Result<String, String> {
        let mut bytes = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            bytes.extend_from_slice(&step.bytes);
            let number = u32::try_from(number + 1).expect("scripts are short");
            bytes.extend(Frame::new(PING, number.to_be_bytes(), dice).encode());
        }
        let farewell = match dice.below(3) {
            0 => Frame::new(CLOSE, 1000_u16.to_be_bytes(), dice).encode(),
            1 => closing(dice).encode(),
            _ => Vec::new(),
        };
        let swallows = steps.iter().any(|step| step.may_swallow);
        let refused = steps.iter().position(|step| step.is_refused);
        let refused = refused.filter(|refused| steps[..*refused].iter().all(|step| !step.may_swallow));
        // The client reads while it writes, because otherwise both ends might wait for each other.
        let mut writing = bytes.as_slice();
        let (mut said_goodbye, mut is_shut) = (false, false);
        let mut closed: Option<String> = None;
        loop {
            let may_end = swallows || self.pongs == steps.len() || closed.is_some();
            let frame = {
                let mut reading = pin!(within(self.reader.frame()));
                loop {
                    if writing.is_empty() && may_end && !said_goodbye {
                        (writing, said_goodbye) = (&farewell, true);
                    }
                    if writing.is_empty() && said_goodbye && !is_shut {
                        is_shut = true;
                        // The gateway may have closed the connection already.
                        let _ = self.writer.shutdown().await;
                    }
                    tokio::select! {
                        frame = &mut reading => break frame?,
                        wrote = self.writer.write(writing), if !writing.is_empty() => {
                            // A write fails if the gateway has closed; reading will show that.
                            writing = &writing[wrote.unwrap_or(writing.len())..];
                        }
                    }
                }
            };
            match frame {
                // A pong may have been on its way; data must not follow (RFC 6455, section 5.5.1).
                Ok((TEXT | BINARY | CLOSE, _)) if closed.is_some() => {
                    return Err(format!("{frame:?} came after {closed:?}"));
                }
                Ok((CLOSE, payload)) => closed = Some(check_close(&payload)?),
                Ok((PONG, payload)) => {
                    if let Some(number) = payload.first_chunk::<4>().filter(|_| payload.len() == 4) {
                        self.pongs = self.pongs.max(u32::from_be_bytes(*number) as usize);
                        if refused.is_some_and(|refused| self.pongs > refused) {
                            return Err("what ends behind all audio was taken for the end".to_owned());
                        }
                    }
                }
                Ok((opcode @ (TEXT | BINARY), payload)) => note(opcode, &payload)?,
                Ok(_) => {}
                Err(End::Malformed(what)) => return Err(what),
                Err(End::Cut) => return Err("cut inside a frame".to_owned()),
                Err(End::Closed) => return Ok(closed.unwrap_or_else(|| "no close".to_owned())),
                Err(End::Reset) => return Ok(closed.unwrap_or_else(|| "reset".to_owned())),
            }
        }
    }

    /// Returns the number of mutated steps that the gateway has certainly read: an answered ping or a close
    /// follows them.
    pub(super) fn inputs(&self, steps: &[Step]) -> u64 {
        let (heard, rest) = steps.split_at(self.pongs.min(steps.len()));
        // The rest begins with the frame at which the gateway closed the socket.
        let at_the_end = rest.iter().any(|step| step.is_mutated);
        heard.iter().filter(|step| step.is_mutated).count() as u64 + u64::from(at_the_end)
    }
}

/// Returns the code of a close, which must be one that may be sent.
pub(super) fn check_close(payload: &[u8]) -> Result<String, String> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else { return Ok("close".to_owned()) };
    let code = u16::from_be_bytes(*code);
    // The gateway echoes the code of the client's own close.
    let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    match std::str::from_utf8(reason) {
        Ok(_) if may_be_sent && reason != FAILED => Ok(format!("close {code}")),
        _ => Err(format!("close {code} {}", reason.escape_ascii())),
    }
}
