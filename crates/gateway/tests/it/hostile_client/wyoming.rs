//! Malformed conversations in the Wyoming protocol.

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::{End, Reader};
use super::mutation::{damage, extreme, renumber};
use super::player::within;
use super::{Tally, World};
use voxline_fixtures::random::Random;

/// Sends the events generated from `seed`, each followed by a ping, and reads until the gateway closes. The
/// tally counts as inputs the mutated events that the gateway has certainly read.
pub(super) async fn converse(world: &World, seed: u64) -> Result<Tally, String> {
    let mut dice = Random::seeded(seed);
    let mut tally = Tally::default();
    let rarity = [4, 15, 60][dice.below(3)];
    let (mut bytes, mut mutated) = (Vec::new(), Vec::new());
    let script = (0..2 + dice.below(10)).flat_map(|_| events(&mut dice)).collect::<Vec<_>>();
    for (number, mut event) in script.into_iter().enumerate() {
        let is_mutated = dice.below(rarity) == 0;
        if is_mutated {
            event = wrong(event, &mut dice);
        }
        bytes.extend(event);
        bytes.extend(encode("ping", &json!({ "text": number.to_string() }), &[]));
        mutated.push(is_mutated);
    }
    let address = world.server.wyoming.expect("the gateway listens");
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (reader, mut writer) = stream.into_split();
    let writing = async {
        // The gateway closes after an error.
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
    };
    let (told, ()) = within(async { tokio::join!(told(Reader::new(reader)), writing) }).await?;
    let (pongs, outcome) = told?;
    let (heard, rest) = mutated.split_at(pongs.min(mutated.len()));
    tally.inputs += heard.iter().filter(|is_mutated| **is_mutated).count() as u64;
    tally.inputs += u64::from(rest.contains(&true));
    tally.note(outcome);
    Ok(tally)
}

/// Reads and checks all events. Returns the number of pings that were answered, and the outcome.
async fn told(mut reader: Reader<impl AsyncRead + Unpin>) -> Result<(usize, String), String> {
    let (mut pongs, mut outcome) = (0, "closed".to_owned());
    loop {
        let (header, data) = match next(&mut reader).await {
            Ok(event) => event,
            Err(End::Closed) => return Ok((pongs, outcome)),
            // What the gateway has not read when it closes resets the connection, at any point.
            Err(End::Reset | End::Cut) => return Ok((pongs, format!("{outcome}, reset"))),
            Err(End::Malformed(what)) => return Err(what),
        };
        if outcome != "closed" {
            return Err(format!("{header} came after {outcome}"));
        }
        match header["type"].as_str().unwrap_or_default() {
            "pong" => {
                let number = data["text"].as_str().and_then(|text| text.parse::<usize>().ok());
                pongs = number.map_or(pongs, |number| pongs.max(number + 1));
            }
            "error" => {
                let code = data["code"].as_str().ok_or_else(|| format!("{data} has no code"))?;
                if code == "failed" || !data["text"].is_string() {
                    return Err(format!("it failed: {data}"));
                }
                outcome = format!("error {code}");
            }
            "info" | "audio-start" | "audio-chunk" | "audio-stop" | "synthesize-stopped" | "transcript"
            | "transcript-start" | "transcript-chunk" | "transcript-stop" => {}
            _ => return Err(format!("{header} is no event")),
        }
    }
}

/// Reads the next event: its header and its data.
async fn next(reader: &mut Reader<impl AsyncRead + Unpin>) -> Result<(Value, Value), End> {
    let bad = |what: String| End::Malformed(what);
    let line = reader.until_newline().await?;
    let json = |bytes: &[u8]| {
        serde_json::from_slice::<Value>(bytes)
            .map_err(|error| bad(format!("{error}: {}", bytes.escape_ascii())))
    };
    let header = json(&line)?;
    let length = |field: &str| header[field].as_u64().unwrap_or(0) as usize;
    let data = reader.exactly(length("data_length")).await?;
    reader.exactly(length("payload_length")).await?;
    let data = if data.is_empty() { header["data"].clone() } else { json(&data)? };
    Ok((header, data))
}

fn encode(kind: &str, data: &Value, payload: &[u8]) -> Vec<u8> {
    let data = data.to_string();
    let mut header = json!({ "type": kind, "version": "1.10.2", "data_length": data.len() });
    if !payload.is_empty() {
        header["payload_length"] = payload.len().into();
    }
    [format!("{header}\n").as_bytes(), data.as_bytes(), payload].concat()
}

/// Returns the correct events of a description, an utterance or a speech.
fn events(dice: &mut Random) -> Vec<Vec<u8>> {
    let format = json!({ "rate": 16_000, "width": 2, "channels": 1, "timestamp": null });
    let voice = json!({ "language": "en" });
    match dice.below(4) {
        0 => vec![encode("describe", &json!({}), &[])],
        1 => {
            let asked =
                json!({ "language": "en", "transcript_names": ["Ada"], "transcript_terms": ["lamp"] });
            let pcm: Vec<u8> = (0..2 * (1 + dice.below(1_000))).map(|byte| byte as u8).collect();
            let chunks = vec![encode("audio-chunk", &format, &pcm); 1 + dice.below(12)];
            let start = vec![encode("transcribe", &asked, &[]), encode("audio-start", &format, &[])];
            [start, chunks, vec![encode("audio-stop", &json!({ "timestamp": 7 }), &[])]].concat()
        }
        2 => vec![encode("synthesize", &json!({ "text": "A word.", "voice": voice }), &[])],
        _ => vec![
            encode("synthesize-start", &json!({ "voice": voice }), &[]),
            encode("synthesize-chunk", &json!({ "text": "Some words. And" }), &[]),
            encode("synthesize-chunk", &json!({ "text": " others." }), &[]),
            encode("synthesize-stop", &json!({}), &[]),
        ],
    }
}

/// Makes one thing about an event wrong.
fn wrong(mut event: Vec<u8>, dice: &mut Random) -> Vec<u8> {
    match dice.below(6) {
        0 => damage(&mut event, dice),
        1 => renumber(&mut event, dice),
        2 => event.truncate(dice.below(event.len())),
        3 => {
            let field = ["data_length", "payload_length"][dice.below(2)];
            let mut claimed =
                format!("{{\"type\":\"audio-chunk\",\"{field}\":{}}}\n", extreme(dice)).into_bytes();
            claimed.append(&mut event);
            event = claimed;
        }
        4 => event = [&vec![b'x'; [100, 70_000][dice.below(2)]][..], &event[..]].concat(),
        _ => {
            let depth = [100, 30_000][dice.below(2)];
            event = format!("{{\"type\":\"describe\",\"data\":{}\n", "[".repeat(depth)).into_bytes();
        }
    }
    event
}
