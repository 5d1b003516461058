//! Malformed conversations on WebSockets.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::answer::End;
use super::frames::{BINARY, CLOSE, Frame, TEXT};
use super::mutation::{damage, renumber};
use super::player::{Player, check_close, within};
use super::script::{rewritten, script};
use super::{Tally, World};
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
    let (target, protocol) = ("/asr_stream/ws?session=any", "Sec-WebSocket-Protocol: voxline.asr.v1\r\n");
    let player = match Player::open(world, target, &world.tokens[project], protocol).await? {
        Ok(player) => player,
        Err(refusal) => {
            tally.note(format!("upgrade {}", refusal.status));
            return Ok(tally);
        }
    };
    let mut talk = Talk { player, project, heard: Heard::default() };
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
    let Talk { mut player, mut heard, .. } = talk;
    let outcome =
        player.play(&steps, &mut dice, |opcode, payload| heard.note(opcode, payload).map(drop)).await?;
    tally.inputs += player.inputs(&steps);
    tally.note(outcome);
    Ok(tally)
}

/// A conversation.
struct Talk {
    player: Player,
    project: usize,
    heard: Heard,
}

/// The messages of the gateway so far. They keep to the invariants of the protocol, whatever the client
/// sends.
#[derive(Default)]
struct Heard {
    received: u64,
    final_: u64,
    /// Index of the next final result, once one has come.
    finals: Option<u64>,
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
        self.player.writer.write_all(&opening.encode()).await.map_err(|error| error.to_string())?;
        // The frame is complete, whatever is damaged in it.
        loop {
            match within(self.player.reader.frame()).await? {
                Ok((opcode @ (TEXT | BINARY), payload)) => {
                    let message = self.heard.note(opcode, &payload)?;
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

    /// Checks that only the end of the connection follows a close.
    async fn end(&mut self) -> Result<String, String> {
        let _ = self.player.writer.shutdown().await;
        match within(self.player.reader.frame()).await? {
            Err(End::Closed | End::Reset) => Ok("refused at the start".to_owned()),
            other => Err(format!("{other:?} came after the close")),
        }
    }
}

impl Heard {
    /// Checks a message: cursors never decrease, and final results are numbered in order.
    fn note(&mut self, opcode: u8, payload: &[u8]) -> Result<Value, String> {
        if opcode != TEXT {
            return Err("a binary message came".to_owned());
        }
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
