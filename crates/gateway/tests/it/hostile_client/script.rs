//! The frames of a hostile client: mostly correct, with harmless and fatal twists.

use serde_json::{Value, json};

use super::World;
use super::frames::{BINARY, CLOSE, CONTINUATION, Frame, Length, PING, PONG, TEXT};
use super::mutation::{damage, extreme, extreme_position, renumber};
use voxline_fixtures::random::Random;

/// Number of frames above the gateway's limit for a burst from a socket.
const FLOOD: usize = 1_200;

/// Close codes of which some may not be sent by a client, or by any endpoint (RFC 6455, section 7.4).
const CODES: [u16; 14] = [0, 1, 999, 1000, 1001, 1004, 1005, 1006, 1011, 1015, 1016, 2999, 4400, u16::MAX];

/// The next bytes to be sent.
pub(super) struct Step {
    pub(super) bytes: Vec<u8>,
    pub(super) is_mutated: bool,
    /// True if the bytes that follow may be taken for a part of this step.
    pub(super) may_swallow: bool,
    /// True if the gateway must close the socket because of this step.
    pub(super) is_refused: bool,
}

/// Rewrites a message with unknown fields, duplicate fields, deep nesting, escapes or great length.
pub(super) fn rewritten(message: &Value, dice: &mut Random) -> Vec<u8> {
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

pub(super) fn closing(dice: &mut Random) -> Frame {
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
pub(super) fn script(world: &World, project: usize, mut at: u64, dice: &mut Random) -> Vec<Step> {
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
pub(super) fn fragmented(frame: &Frame, dice: &mut Random) -> Vec<u8> {
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
        4 => {
            let too_big = [129 * 1024, 256 * 1024, 300 * 1024][dice.below(3)];
            audio(at, too_big / 2, dice).encode()
        }
        5 => {
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
        6 => {
            let text = rewritten(&json!({ "type": "gap", "from": at, "to": at }), dice);
            Frame::new(TEXT, text, dice).encode()
        }
        7 => {
            // So much audio can't have come, whatever was sent before.
            is_refused = true;
            let finish = json!({ "type": "finish", "through": u64::MAX - dice.below(1_000) as u64 });
            Frame::new(TEXT, finish.to_string(), dice).encode()
        }
        8 => audio(at + 1 + dice.below(1_000_000) as u64, 10, dice).encode(),
        _ => return misframed(frame, dice),
    };
    Step { bytes, is_mutated: true, may_swallow: false, is_refused }
}

/// Returns a frame with wrong framing, whatever its payload is.
pub(super) fn misframed(frame: Frame, dice: &mut Random) -> Step {
    let mut swallows = false;
    let bytes = match dice.below(12) {
        0 => Frame { opcode: frame.opcode ^ 3, ..frame }.encode(),
        1 => Frame { opcode: 3 + dice.below(13) as u8, ..frame }.encode(),
        2 => Frame { reserved: 1 + dice.below(7) as u8, ..frame }.encode(),
        3 => {
            swallows = true;
            Frame { mask: None, ..frame }.encode()
        }
        4 => {
            swallows = true;
            let claimed = [0, 7, 1 << 20, 1 << 31, 1 << 62, 1 << 63, u64::MAX][dice.below(7)];
            Frame { length: Length::Claimed(claimed), ..frame }.encode()
        }
        5 => Frame { opcode: CONTINUATION, ..frame }.encode(),
        6 => Frame { is_last: false, ..frame }.encode(),
        7 => {
            let opcode = [CLOSE, PING, PONG][dice.below(3)];
            Frame {
                is_last: dice.below(2) == 0,
                ..Frame::new(opcode, vec![b'x'; 126 + dice.below(500)], dice)
            }
            .encode()
        }
        8 => closing(dice).encode(),
        9 => {
            swallows = true;
            let mut bytes = frame.encode();
            damage(&mut bytes, dice);
            bytes
        }
        10 => {
            swallows = true;
            let mut bytes = frame.encode();
            bytes.truncate(dice.below(bytes.len()));
            bytes
        }
        _ => {
            // The effect of random bytes is unknown.
            swallows = true;
            (0..dice.below(300)).map(|_| dice.next() as u8).collect()
        }
    };
    Step { bytes, is_mutated: true, may_swallow: swallows, is_refused: false }
}
