//! Conversations on WebSockets that go wrong.

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
use crate::random::Random;

/// More than the gateway takes in a burst from a socket.
const FLOOD: usize = 1_200;
/// Close codes that are not for everybody, or for nobody (RFC 6455, section 7.4).
const CODES: [u16; 14] = [0, 1, 999, 1000, 1001, 1004, 1005, 1006, 1011, 1015, 1016, 2999, 4400, u16::MAX];

/// A session that some client had.
#[derive(Clone)]
pub(super) struct Known {
    /// Whose it is.
    project: usize,
    session: Value,
    resume_key: Value,
}

/// What goes on the wire next.
struct Step {
    bytes: Vec<u8>,
    is_mutated: bool,
    /// Whether what follows may be taken for a part of it.
    may_swallow: bool,
    /// Whether the gateway has to close the socket over it.
    is_refused: bool,
}

/// Opens a socket and says what `seed` makes up, until the gateway closes it or all is said. Inputs are the mutated
/// frames that the gateway has surely read: an answered ping follows them, or a close.
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
    // The one that was too much.
    tally.inputs += u64::from(steps[heard..].iter().any(|step| step.is_mutated));
    tally.note(outcome);
    Ok(tally)
}

async fn within<T>(doing: impl Future<Output = T>) -> Result<T, String> {
    timeout(PATIENCE, doing).await.map_err(|_| format!("nothing came within {PATIENCE:?}"))
}

/// The client's end of a socket. Checks what must hold whatever it says.
struct Talk {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    project: usize,
    received: u64,
    final_: u64,
    /// The index of the next.
    finals: Option<u64>,
    /// How many steps were answered.
    pongs: usize,
}

impl Talk {
    /// The first frame, and whether it is a mutated one.
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

    /// Says the first message: what `ready` says, where that is the answer.
    async fn open(&mut self, opening: &Frame) -> Result<Option<Value>, String> {
        self.writer.write_all(&opening.encode()).await.map_err(|error| error.to_string())?;
        // Whatever was damaged, it is one frame.
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

    /// Says all of `steps`, each followed by a ping, and hears what comes until the end.
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
        // It reads while it writes, or both ends might wait for each other.
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
                        // Who was closed already needn't hear it.
                        let _ = self.writer.shutdown().await;
                    }
                    tokio::select! {
                        frame = &mut reading => break frame?,
                        wrote = self.writer.write(writing), if !writing.is_empty() => {
                            // What can't be written was closed: that will be read.
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

    /// After a close nothing comes but the end.
    async fn end(&mut self) -> Result<String, String> {
        let _ = self.writer.shutdown().await;
        match within(self.reader.frame()).await? {
            Err(End::Closed | End::Reset) => Ok("refused at the start".to_owned()),
            other => Err(format!("{other:?} came after the close")),
        }
    }

    /// Cursors only grow, and finals are counted.
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

/// The code of a close, which is one that may be sent.
fn check_close(payload: &[u8]) -> Result<String, String> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else { return Ok("close".to_owned()) };
    let code = u16::from_be_bytes(*code);
    // A client's own is said back to it.
    let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    match std::str::from_utf8(reason) {
        Ok(_) if may_be_sent => Ok(format!("close {code}")),
        _ => Err(format!("close {code} {}", reason.escape_ascii())),
    }
}

/// The same message in other words: unknown fields, fields twice, depth, escapes, length.
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

/// What a client says that begins at `at`: mostly what it should, with twists that are harmless or not.
fn script(world: &World, project: usize, mut at: u64, dice: &mut Random) -> Vec<Step> {
    let length = 8 + dice.below(56);
    // How often something fatal is said: never in some conversations, so that they come to their end.
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

/// What comes next at `at`.
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

/// What is strange, but allowed, around or in place of nothing: `frame` is said, too.
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
            // A mask of nothing.
            bytes.extend(Frame { mask: Some([0; 4]), ..frame.clone() }.encode());
        }
    }
    // Said again it is news to nobody.
    bytes.extend(frame.encode());
    Step { bytes, is_mutated: true, may_swallow: false, is_refused: false }
}

/// In pieces, also empty ones, with pings between them.
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

/// What a gateway can't take. Some of it may turn out harmless.
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
            // No audio can have come so far, whatever was said before.
            is_refused = true;
            let finish = json!({ "type": "finish", "through": u64::MAX - dice.below(1_000) as u64 });
            Frame::new(TEXT, finish.to_string(), dice).encode()
        }
        18 => audio(at + 1 + dice.below(1_000_000) as u64, 10, dice).encode(),
        _ => {
            // Nobody but these bytes knows what comes of them.
            swallows = true;
            (0..dice.below(300)).map(|_| dice.next() as u8).collect()
        }
    };
    Step { bytes, is_mutated: true, may_swallow: swallows, is_refused }
}
