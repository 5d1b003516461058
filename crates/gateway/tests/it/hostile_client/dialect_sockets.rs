//! Malformed conversations in the dialects that speak over WebSockets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::frames::{BINARY, Frame, Length, TEXT};
use super::mutation::{damage, renumber};
use super::player::Player;
use super::script::{Step, fragmented, misframed, rewritten};
use super::{Tally, World};
use voxline_fixtures::random::Random;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Dialect {
    Deepgram,
    /// Deepgram's synthesis.
    Speak,
    Realtime,
    Vosk,
    Jambonz,
}

/// Opens a socket of the dialect and sends the messages generated from `seed`, until the gateway closes it or
/// all are sent. The tally counts as inputs the mutated addresses, and the mutated frames that the gateway
/// has certainly read.
pub(super) async fn converse(world: &World, dialect: Dialect, seed: u64) -> Result<Tally, String> {
    let mut dice = Random::seeded(seed);
    let mut tally = Tally::default();
    let (target, is_mutated) = dialect.target(&mut dice);
    let token = &world.tokens[dice.below(2)];
    tally.inputs += u64::from(is_mutated);
    let mut player = match Player::open(world, &target, token, "").await? {
        Ok(player) => player,
        Err(refusal) if is_mutated => {
            tally.note(format!("upgrade {}", refusal.status));
            return Ok(tally);
        }
        Err(refusal) => return Err(format!("{refusal:?} to {target}")),
    };
    let steps = script(world, dialect, &mut dice);
    let outcome = player.play(&steps, &mut dice, |opcode, payload| dialect.check(opcode, payload)).await?;
    tally.inputs += player.inputs(&steps);
    tally.note(outcome);
    Ok(tally)
}

impl Dialect {
    /// Returns an address, and whether it is mutated.
    fn target(self, dice: &mut Random) -> (String, bool) {
        let (path, query) = match self {
            Dialect::Vosk => ("/vosk", ""),
            Dialect::Jambonz => ("/jambonz", ""),
            Dialect::Realtime => {
                ("/v1/realtime", ["intent=transcription", "intent=transcription&model=any"][dice.below(2)])
            }
            Dialect::Deepgram => {
                let queries = [
                    "encoding=linear16&sample_rate=16000&interim_results=true&vad_events=true&utterance_end_ms=1000",
                    "encoding=mulaw&sample_rate=8000&endpointing=300&keyterm=one&keywords=two:3",
                    "encoding=alaw&sample_rate=8000&channels=2&multichannel=true&language=multi",
                    "encoding=linear32&sample_rate=48000&channels=3&punctuate=true&smart_format=true",
                    "encoding=opus&sample_rate=48000&language=en-US",
                    "encoding=flac&tag=one&version=latest",
                    "interim_results=True&model=nova-3",
                ];
                ("/v1/listen", queries[dice.below(queries.len())])
            }
            Dialect::Speak => {
                let queries = [
                    "model=aura-2-thalia-en&encoding=linear16&sample_rate=24000",
                    "encoding=linear16&sample_rate=8000&container=none",
                    "model=tone&sample_rate=48000&mip_opt_out=true",
                ];
                ("/v1/speak", queries[dice.below(queries.len())])
            }
        };
        if query.is_empty() || dice.below(6) > 0 {
            return (format!("{path}?{query}"), false);
        }
        let mut query = query.as_bytes().to_vec();
        if dice.below(2) == 0 {
            renumber(&mut query, dice);
        } else {
            damage(&mut query, dice);
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"=&-_.:".contains(&byte);
        let escape = |byte: u8| {
            if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        };
        (format!("{path}?{}", query.into_iter().map(escape).collect::<String>()), true)
    }

    /// Checks a message of the gateway.
    fn check(self, opcode: u8, payload: &[u8]) -> Result<(), String> {
        if opcode == BINARY {
            let is_audio = self == Dialect::Speak && payload.len().is_multiple_of(2);
            return if is_audio { Ok(()) } else { Err(format!("{} bytes of no audio", payload.len())) };
        }
        let message: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let kinds: &[&str] = match self {
            Dialect::Vosk => {
                let is_reply = ["partial", "text"].iter().any(|name| message[name].is_string());
                if is_reply || message["alternatives"][0]["text"].is_string() {
                    return Ok(());
                }
                return Err(format!("{message} is no reply"));
            }
            Dialect::Jambonz => &["transcription", "error"],
            Dialect::Speak => &["Metadata", "Flushed", "Cleared", "Warning"],
            Dialect::Deepgram => &[
                "Results",
                "SpeechStarted",
                "UtteranceEnd",
                "Metadata",
                "Error",
                "ConfigureSuccess",
                "ConfigureFailure",
            ],
            Dialect::Realtime => {
                &["error", "session.", "transcription_session.", "input_audio_buffer.", "conversation.item."]
            }
        };
        let kind = message["type"].as_str().ok_or_else(|| format!("{message} has no type"))?;
        let is_known =
            kinds.iter().any(|known| kind == *known || known.ends_with('.') && kind.starts_with(known));
        if !is_known || message["error"]["type"] == "server_error" {
            return Err(message.to_string());
        }
        Ok(())
    }

    /// Returns the message without which the gateway takes no audio.
    fn opening(self) -> Option<Value> {
        (self == Dialect::Jambonz).then(|| {
            json!({
                "type": "start", "language": "en-US", "format": "raw", "encoding": "LINEAR16",
                "interimResults": true, "sampleRateHz": 8_000, "options": { "hints": ["one"] },
            })
        })
    }

    /// Returns the next valid message.
    fn message(self, world: &World, dice: &mut Random) -> Message {
        let text = |message: Value| Message::Text(message);
        match (self, dice.below(10)) {
            (Dialect::Deepgram, 0) => text(json!({ "type": "KeepAlive" })),
            (Dialect::Deepgram, 1) => text(json!({ "type": "Finalize" })),
            (Dialect::Deepgram, 2) => text(json!({ "type": "Finalize", "channel": dice.below(3) })),
            (Dialect::Deepgram, 3) => {
                text(json!({ "type": "Configure", "keyterms": ["one"], "features": { "numerals": true } }))
            }
            (Dialect::Deepgram, 4) if dice.below(8) == 0 => text(json!({ "type": "CloseStream" })),
            (Dialect::Deepgram, 5..=7) => {
                // For those that expect a container.
                let recording = &world.recordings[dice.below(world.recordings.len())];
                let from = dice.below(2) * dice.below(recording.len());
                Message::Audio(recording[from..].to_vec())
            }
            (Dialect::Speak, 0) => text(json!({ "type": "Flush" })),
            (Dialect::Speak, 1) => text(json!({ "type": "Clear" })),
            (Dialect::Speak, 2) if dice.below(8) == 0 => text(json!({ "type": "Close" })),
            (Dialect::Speak, 3..) => {
                let texts = ["A word. And", " another one.", "Привет! ", "", "12\u{301}, 3."];
                text(json!({ "type": "Speak", "text": texts[dice.below(texts.len())] }))
            }
            (Dialect::Vosk, 0) => {
                let config = json!({
                    "sample_rate": 16_000, "words": 1, "max_alternatives": dice.below(3), "phrase_list": ["one"],
                });
                text(json!({ "config": config }))
            }
            (Dialect::Vosk, 1) => text(json!({ "reset": 1 })),
            (Dialect::Vosk, 2) if dice.below(8) == 0 => text(json!({ "eof": 1 })),
            (Dialect::Jambonz, 0) if dice.below(8) == 0 => Message::Text(self.opening().expect("it has one")),
            (Dialect::Jambonz, 1) if dice.below(8) == 0 => text(json!({ "type": "stop" })),
            (Dialect::Realtime, 0) => {
                let turns = [json!({ "type": "server_vad", "threshold": 0.5 }), Value::Null];
                let turns = &turns[dice.below(turns.len())];
                let input = json!({
                    "format": { "type": "audio/pcm", "rate": 24_000 },
                    "transcription": { "model": "any", "language": "en", "prompt": "One.", "keywords": ["two"] },
                    "turn_detection": turns,
                });
                let session = json!({ "type": "transcription", "audio": { "input": input } });
                text(json!({ "type": "session.update", "event_id": "e1", "session": session }))
            }
            (Dialect::Realtime, 1) => text(json!({
                "type": "transcription_session.update",
                "session": { "input_audio_format": "g711_ulaw", "turn_detection": null },
            })),
            (Dialect::Realtime, 2) => text(json!({ "type": "input_audio_buffer.commit" })),
            (Dialect::Realtime, 3) => text(json!({ "type": "input_audio_buffer.clear" })),
            (Dialect::Realtime, _) => {
                let audio = STANDARD.encode(pcm(dice));
                text(json!({ "type": "input_audio_buffer.append", "audio": audio }))
            }
            _ => Message::Audio(pcm(dice)),
        }
    }
}

/// A message before it is a frame.
enum Message {
    Text(Value),
    Audio(Vec<u8>),
}

fn pcm(dice: &mut Random) -> Vec<u8> {
    let frames = 1 + dice.below(2_000) as u16;
    (0..frames).flat_map(|frame| frame.wrapping_mul(31).to_le_bytes()).collect()
}

/// Returns a client's frames: mostly correct, with harmless and fatal twists.
fn script(world: &World, dialect: Dialect, dice: &mut Random) -> Vec<Step> {
    let length = 4 + dice.below(40);
    // Rarity of wrong framing. Some conversations have none, so that they come to their end.
    let rarity = [10, 40, usize::MAX][dice.below(3)];
    let mut steps = Vec::new();
    for number in 0..length {
        let opening = if number == 0 && dice.below(8) > 0 { dialect.opening() } else { None };
        let message = opening.map_or_else(|| dialect.message(world, dice), Message::Text);
        let is_changed = dice.below(2) == 0;
        let frame = if is_changed { changed(message, dice) } else { frame(message, dice) };
        steps.push(match dice.below(rarity) {
            0 => misframed(frame, dice),
            1 => encoded(fragmented(&frame, dice), true),
            2 => encoded(Frame { length: Length::In64, ..frame }.encode(), true),
            _ => encoded(frame.encode(), is_changed),
        });
    }
    steps
}

fn encoded(bytes: Vec<u8>, is_mutated: bool) -> Step {
    Step { bytes, is_mutated, may_swallow: false, is_refused: false }
}

fn frame(message: Message, dice: &mut Random) -> Frame {
    match message {
        Message::Text(message) => Frame::new(TEXT, message.to_string(), dice),
        Message::Audio(audio) => Frame::new(BINARY, audio, dice),
    }
}

/// Returns a frame whose message is wrong, or at least unusual.
fn changed(message: Message, dice: &mut Random) -> Frame {
    let kind = dice.below(8);
    let message = match message {
        Message::Text(message) if kind < 3 => {
            return Frame::new(TEXT, rewritten(&message, dice), dice);
        }
        message => message,
    };
    let mut frame = frame(message, dice);
    match kind {
        0..=2 => damage(&mut frame.payload, dice),
        3 | 4 => renumber(&mut frame.payload, dice),
        5 => frame.opcode ^= 3,
        6 => frame.payload.clear(),
        _ => frame.payload = frame.payload.repeat([2, 100][dice.below(2)]),
    }
    frame
}
