//! Malformed conversations on WebSockets.

use std::pin::pin;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::answer::{End, Reader};
use super::frames::{BINARY, CLOSE, Frame, PING, PONG, TEXT};
use super::mutation::{damage, renumber};
use super::script::{Step, closing, rewritten, script};
use super::{PATIENCE, Tally, World};
use voxline_fixtures::random::Random;

/// A session that some client had.
#[derive(Clone)]
pub(super) struct Known {
    /// Index of the project that the session belongs to.
    project: usize,
    session: Value,
    resume_key: Value,
}

/// Opens a socket and sends the frames generated from `seed`, until the gateway closes it or all frames are
/// sent. The tally counts as inputs the mutated frames that the gateway has certainly read: an answered
/// ping or a close follows them.
pub(super) async fn converse(world: &World, seed: u64) -> Result<Tally, String> {
    let mut dice = Random::seeded(seed);
    let mut tally = Tally::default();
    let project = dice.below(2);
    let stream = TcpStream::connect(world.server.address).await.map_err(|error| error.to_string())?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader::new(reader);
    let hello = format!(
        "GET /asr_stream/ws?session=any HTTP/1.1\r\nHost: voice\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: voxline.asr.v1\r\nAuthorization: Bearer {}\r\n\r\n",
        world.tokens[project]
    );
    writer.write_all(hello.as_bytes()).await.map_err(|error| format!("{error} at the upgrade"))?;
    let answer = within(reader.answer(false)).await?.map_err(|end| format!("{end:?} at the upgrade"))?;
    answer.check_status()?;
    if answer.status != 101 {
        tally.note(format!("upgrade {}", answer.status));
        return Ok(tally);
    }

    let mut talk = Talk { reader, writer, project, received: 0, final_: 0, finals: None, pongs: 0 };
    let (opening, is_mutated) = talk.opening(world, &mut dice);
    let ready = talk.open(&opening).await?;
    tally.inputs += u64::from(is_mutated);
    let Some(ready) = ready else {
        tally.note(talk.end().await?);
        return Ok(tally);
    };
    let received = ready["received"].as_u64().ok_or_else(|| format!("{ready}"))?;
    world.remember(Known {
        project,
        session: ready["session"].clone(),
        resume_key: ready["resume_key"].clone(),
    });
    let steps = script(world, project, received, &mut dice);
    let outcome = talk.play(&steps, &mut dice).await?;
    let heard = talk.pongs.min(steps.len());
    tally.inputs += steps[..heard].iter().filter(|step| step.is_mutated).count() as u64;
    // The frame at which the gateway closed the socket.
    tally.inputs += u64::from(steps[heard..].iter().any(|step| step.is_mutated));
    tally.note(outcome);
    Ok(tally)
}

async fn within<T>(doing: impl Future<Output = T>) -> Result<T, String> {
    timeout(PATIENCE, doing).await.map_err(|_| format!("nothing came within {PATIENCE:?}"))
}

/// The client's end of a socket. It checks the invariants of the protocol, whatever the client sends.
struct Talk {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    project: usize,
    received: u64,
    final_: u64,
    /// Index of the next final result, once one has come.
    finals: Option<u64>,
    /// Number of steps whose ping was answered.
    pongs: usize,
}

impl Talk {
    /// Returns the first frame, and whether it is mutated.
    fn opening(&self, world: &World, dice: &mut Random) -> (Frame, bool) {
        let start = json!({ "type": "start", "sample_rate": 16_000, "partials": dice.below(2) == 0 });
        let known = world.known(dice);
        let (message, is_wrong) = match known {
            Some(known) if dice.below(4) == 0 => {
                let wrong = dice.below(6) == 0;
                let resume_key = if wrong { json!("vxk_wrong") } else { known.resume_key };
                let message = json!({
                    "type": "resume", "session": known.session, "resume_key": resume_key, "finals_seen": 0,
                });
                (message, wrong || known.project != self.project)
            }
            _ => (start, false),
        };
        let mut text = message.to_string().into_bytes();
        let kind = dice.below(40);
        match kind {
            0 => renumber(&mut text, dice),
            1 => damage(&mut text, dice),
            2 => text = rewritten(&message, dice),
            _ => {}
        }
        let opcode = if kind == 3 { BINARY } else { TEXT };
        (Frame::new(opcode, text, dice), is_wrong || kind <= 3)
    }

    /// Sends the first message. Returns the `ready` message, if that is the answer.
    async fn open(&mut self, opening: &Frame) -> Result<Option<Value>, String> {
        self.writer.write_all(&opening.encode()).await.map_err(|error| error.to_string())?;
        // The frame is complete, whatever is damaged in it.
        loop {
            match within(self.reader.frame()).await? {
                Ok((TEXT, payload)) => {
                    let message = self.note(&payload)?;
                    match message["type"].as_str() {
                        Some("ready") => return Ok(Some(message)),
                        Some("error") => {}
                        _ => return Err(format!("{message} came first")),
                    }
                }
                Ok((CLOSE, payload)) => {
                    check_close(&payload)?;
                    return Ok(None);
                }
                Ok(_) => {}
                Err(End::Malformed(what)) => return Err(what),
                Err(End::Closed | End::Cut | End::Reset) => {
                    return Err("no close came before the end".to_owned());
                }
            }
        }
    }

    /// Sends all `steps`, each followed by a ping, and reads until the connection ends. Returns the
    /// outcome.
    async fn play(&mut self, steps: &[Step], dice: &mut Random) -> Result<String, String> {
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
                Ok((TEXT | CLOSE, _)) if closed.is_some() => {
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
                Ok((TEXT, payload)) => drop(self.note(&payload)?),
                Ok(_) => {}
                Err(End::Malformed(what)) => return Err(what),
                Err(End::Cut) => return Err("cut inside a frame".to_owned()),
                Err(End::Closed) => return Ok(closed.unwrap_or_else(|| "no close".to_owned())),
                Err(End::Reset) => return Ok(closed.unwrap_or_else(|| "reset".to_owned())),
            }
        }
    }

    /// Checks that only the end of the connection follows a close.
    async fn end(&mut self) -> Result<String, String> {
        let _ = self.writer.shutdown().await;
        match within(self.reader.frame()).await? {
            Err(End::Closed | End::Reset) => Ok("refused at the start".to_owned()),
            other => Err(format!("{other:?} came after the close")),
        }
    }

    /// Checks a message: cursors never decrease, and final results are numbered in order.
    fn note(&mut self, payload: &[u8]) -> Result<Value, String> {
        let message: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let number = |field: &str| message[field].as_u64().ok_or_else(|| format!("{message} has no {field}"));
        match message["type"].as_str().unwrap_or_default() {
            "ready" | "ack" => {
                let (received, final_) = (number("received")?, number("final")?);
                if received < self.received || final_ < self.final_ || final_ > received {
                    return Err(format!("back to {message}"));
                }
                (self.received, self.final_) = (received, final_);
            }
            "final" => {
                let index = number("index")?;
                if self.finals.is_some_and(|expected| expected != index) || number("start")? > number("end")?
                {
                    return Err(format!("{message}, expected {:?}", self.finals));
                }
                self.finals = Some(index + 1);
            }
            "error" if message["code"] == 1011 => return Err(format!("it failed: {message}")),
            "partial" | "done" | "auth_ok" | "goaway" | "error" => {}
            other => return Err(format!("{other} is no message")),
        }
        Ok(message)
    }
}

/// Returns the code of a close, which must be one that may be sent.
fn check_close(payload: &[u8]) -> Result<String, String> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else { return Ok("close".to_owned()) };
    let code = u16::from_be_bytes(*code);
    // The gateway echoes the code of the client's own close.
    let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    match std::str::from_utf8(reason) {
        Ok(_) if may_be_sent => Ok(format!("close {code}")),
        _ => Err(format!("close {code} {}", reason.escape_ascii())),
    }
}
