//! Malformed conversations on WebSockets.

use std::pin::pin;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::answer::{End, Reader};
use super::frames::{BINARY, CLOSE, CONTINUATION, Frame, Length, PING, PONG, TEXT};
use super::mutation::{damage, extreme, extreme_position, renumber};
use super::{PATIENCE, Tally, World};
use voxline_fixtures::random::Random;

/// Number of frames above the gateway's limit for a burst from a socket.
const FLOOD: usize = 1_200;
/// Close codes of which some may not be sent by a client, or by any endpoint (RFC 6455, section 7.4).
const CODES: [u16; 14] = [0, 1, 999, 1000, 1001, 1004, 1005, 1006, 1011, 1015, 1016, 2999, 4400, u16::MAX];

/// A session that some client had.
#[derive(Clone)]
pub(super) struct Known {
    /// Index of the project that the session belongs to.
    project: usize,
    session: Value,
    resume_key: Value,
}

/// The next bytes to be sent.
struct Step {
    bytes: Vec<u8>,
    is_mutated: bool,
    /// True if the bytes that follow may be taken for a part of this step.
    may_swallow: bool,
    /// True if the gateway must close the socket because of this step.
    is_refused: bool,
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

/// Rewrites a message with unknown fields, duplicate fields, deep nesting, escapes or great length.
fn rewritten(message: &Value, dice: &mut Random) -> Vec<u8> {
    let text = message.to_string();
    let inside = &text[1..];
    let text = match dice.below(6) {
        0 => format!("{{\"extra\":{},{inside}", "[".repeat(100) + &"]".repeat(100)),
        1 => format!("{{\"extra\":{}", "[".repeat(50_000)),
        2 => format!(" \n{{\"extra\":{:?},{inside}\t", "x".repeat(dice.below(100_000))),
        3 => format!("{{\"type\":\"flush\",{inside}"),
        4 => text.replace("type", "\\u0074ype"),
        _ => format!("{{\"extra\":{},{inside}", extreme(dice)),
    };
    text.into_bytes()
}

fn closing(dice: &mut Random) -> Frame {
    let mut payload = CODES[dice.below(CODES.len())].to_be_bytes().to_vec();
    match dice.below(4) {
        0 => payload.truncate(1),
        1 => payload.extend(b"\xFF\xFE"),
        2 => payload.extend(vec![b'x'; dice.below(130)]),
        _ => {}
    }
    Frame::new(CLOSE, payload, dice)
}

/// Returns a client's frames from position `at` on: mostly correct, with harmless and fatal twists.
fn script(world: &World, project: usize, mut at: u64, dice: &mut Random) -> Vec<Step> {
    let length = 8 + dice.below(56);
    // Rarity of fatal frames. Some conversations have none, so that they come to their end.
    let rarity = [6, 20, 60, usize::MAX][dice.below(4)];
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..length {
        let frame = valid(world, project, &mut at, dice);
        let step = match dice.below(rarity) {
            0 => fatal(frame, at, dice),
            _ if dice.below(8) < 5 => twisted(world, project, frame, at, dice),
            _ => Step { bytes: frame.encode(), is_mutated: false, may_swallow: false, is_refused: false },
        };
        steps.push(step);
        let last = steps.len() - 1;
        if last > 0 && dice.below(40) == 0 {
            steps.swap(last - 1, last);
            steps[last].is_mutated = true;
        }
    }
    if dice.below(400) == 0 {
        let ping = Frame::new(PING, *b"flood", dice).encode();
        steps.push(Step {
            bytes: ping.repeat(FLOOD),
            is_mutated: true,
            may_swallow: false,
            is_refused: false,
        });
    }
    if dice.below(4) == 0 {
        let finish = Frame::new(TEXT, json!({ "type": "finish", "through": at }).to_string(), dice);
        steps.push(Step { bytes: finish.encode(), is_mutated: false, may_swallow: false, is_refused: false });
    }
    steps
}

fn audio(at: u64, frames: usize, dice: &mut Random) -> Frame {
    let mut payload = at.to_le_bytes().to_vec();
    payload.extend((0..frames).flat_map(|frame| (frame as u16).wrapping_mul(31).to_le_bytes()));
    Frame::new(BINARY, payload, dice)
}

/// Returns the next valid frame at `at`, and advances `at`.
fn valid(world: &World, project: usize, at: &mut u64, dice: &mut Random) -> Frame {
    let message = match dice.below(8) {
        0 => {
            let from = *at;
            *at += 1 + dice.below(5_000) as u64;
            json!({ "type": "gap", "from": from, "to": *at })
        }
        1 => json!({ "type": "flush" }),
        2 => json!({ "type": "flush", "at": *at }),
        3 => json!({ "type": "auth", "access_token": world.tokens[project] }),
        _ => {
            let frames = 1 + dice.below(400);
            let frame = audio(*at, frames, dice);
            *at += frames as u64;
            return frame;
        }
    };
    Frame::new(TEXT, message.to_string(), dice)
}

/// Returns `frame` after something that is unusual but allowed.
fn twisted(world: &World, project: usize, frame: Frame, at: u64, dice: &mut Random) -> Step {
    let mut bytes = Vec::new();
    match dice.below(10) {
        0 => bytes.extend(frame.encode()),
        1 => bytes = fragmented(&frame, dice),
        2 => {
            let message =
                json!({ "type": "gap", "from": 0, "to": at.saturating_sub(1 + dice.below(9_000) as u64) });
            bytes.extend(Frame::new(TEXT, message.to_string(), dice).encode());
        }
        3 => bytes.extend(
            audio(at.saturating_sub(500 + dice.below(9_000) as u64), 1 + dice.below(90), dice).encode(),
        ),
        4 => {
            let payload: Vec<u8> = (0..dice.below(126)).map(|_| dice.next() as u8).collect();
            bytes.extend(Frame::new(PONG, payload, dice).encode());
        }
        5 => {
            let ping: Vec<u8> = vec![0xFF; [0, 1, 125][dice.below(3)]];
            bytes.extend(Frame::new(PING, ping, dice).encode());
        }
        6 => {
            let message = json!({ "type": "auth", "access_token": world.tokens[project] });
            let text = format!(
                "{{\"extra\":[{}],{}",
                extreme(dice).replace("1e999", "1e9"),
                &message.to_string()[1..]
            );
            bytes.extend(Frame::new(TEXT, text, dice).encode());
        }
        7 => {
            let flush = json!({ "type": "flush", "at": extreme_position(at, dice) });
            bytes.extend(Frame::new(TEXT, flush.to_string(), dice).encode());
        }
        8 => {
            let length = [Length::In16, Length::In64][dice.below(2)];
            bytes.extend(Frame { length, ..frame.clone() }.encode());
        }
        _ => {
            // A mask of zeros.
            bytes.extend(Frame { mask: Some([0; 4]), ..frame.clone() }.encode());
        }
    }
    // If `frame` was sent already, the repetition changes nothing.
    bytes.extend(frame.encode());
    Step { bytes, is_mutated: true, may_swallow: false, is_refused: false }
}

/// Encodes a frame in fragments, some of them empty, with pings between them.
fn fragmented(frame: &Frame, dice: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = frame.payload.clone();
    let mut opcode = frame.opcode;
    while !rest.is_empty() {
        let later = rest.split_off(dice.below(rest.len() + 1));
        bytes.extend(Frame { is_last: later.is_empty(), ..Frame::new(opcode, rest, dice) }.encode());
        if dice.below(4) == 0 {
            bytes.extend(Frame::new(PING, *b"between", dice).encode());
        }
        (rest, opcode) = (later, CONTINUATION);
    }
    bytes
}

/// Returns a frame that the gateway can't accept. Some of them may turn out to be harmless.
fn fatal(frame: Frame, at: u64, dice: &mut Random) -> Step {
    let mut swallows = false;
    let mut is_refused = false;
    let mut frame = frame;
    let bytes = match dice.below(21) {
        0 | 1 => {
            match frame.opcode {
                TEXT => renumber(&mut frame.payload, dice),
                _ => frame.payload[..8].copy_from_slice(&extreme_position(at, dice).to_le_bytes()),
            }
            frame.encode()
        }
        2 | 3 => {
            damage(&mut frame.payload, dice);
            frame.encode()
        }
        4 => Frame { opcode: frame.opcode ^ 3, ..frame }.encode(),
        5 => Frame { opcode: 3 + dice.below(13) as u8, ..frame }.encode(),
        6 => Frame { reserved: 1 + dice.below(7) as u8, ..frame }.encode(),
        7 => {
            swallows = true;
            Frame { mask: None, ..frame }.encode()
        }
        8 => {
            swallows = true;
            let claimed = [0, 7, 1 << 20, 1 << 31, 1 << 62, 1 << 63, u64::MAX][dice.below(7)];
            Frame { length: Length::Claimed(claimed), ..frame }.encode()
        }
        9 => {
            let too_big = [129 * 1024, 256 * 1024, 300 * 1024][dice.below(3)];
            audio(at, too_big / 2, dice).encode()
        }
        10 => Frame { opcode: CONTINUATION, ..frame }.encode(),
        11 => Frame { is_last: false, ..frame }.encode(),
        12 => {
            let opcode = [CLOSE, PING, PONG][dice.below(3)];
            Frame {
                is_last: dice.below(2) == 0,
                ..Frame::new(opcode, vec![b'x'; 126 + dice.below(500)], dice)
            }
            .encode()
        }
        13 => closing(dice).encode(),
        14 => {
            swallows = true;
            let mut bytes = frame.encode();
            damage(&mut bytes, dice);
            bytes
        }
        15 => {
            swallows = true;
            let mut bytes = frame.encode();
            bytes.truncate(dice.below(bytes.len()));
            bytes
        }
        16 => {
            let messages = [
                json!({ "type": "start", "sample_rate": 16_000 }),
                json!({ "type": "resume", "session": "s", "resume_key": "k", "finals_seen": 0 }),
                json!({ "type": "auth", "access_token": "vxa_wrong" }),
                json!({ "type": "gap", "from": at + 1, "to": at + 2 }),
                json!({ "type": "finish", "through": at + 1 }),
                json!({ "type": "ready" }),
                json!({}),
            ];
            let message = &messages[dice.below(messages.len())];
            Frame::new(TEXT, message.to_string(), dice).encode()
        }
        17 => {
            let text = rewritten(&json!({ "type": "gap", "from": at, "to": at }), dice);
            Frame::new(TEXT, text, dice).encode()
        }
        19 => {
            // So much audio can't have come, whatever was sent before.
            is_refused = true;
            let finish = json!({ "type": "finish", "through": u64::MAX - dice.below(1_000) as u64 });
            Frame::new(TEXT, finish.to_string(), dice).encode()
        }
        18 => audio(at + 1 + dice.below(1_000_000) as u64, 10, dice).encode(),
        _ => {
            // The effect of random bytes is unknown.
            swallows = true;
            (0..dice.below(300)).map(|_| dice.next() as u8).collect()
        }
    };
    Step { bytes, is_mutated: true, may_swallow: swallows, is_refused }
}
