//! Requests for short-lived keys, and for streams that are opened with them, before they are made wrong.

use serde_json::json;

use super::World;
use super::request::Request;
use voxline_fixtures::random::Random;

/// Header in which a browser shows its key.
const OFFER: &str = "Sec-WebSocket-Protocol";

/// Returns a correct request.
pub(super) fn request(world: &World, dice: &mut Random) -> Request {
    let token = &world.tokens[dice.below(2)];
    let post = |target: &str| Request::new("POST", target).under(token);
    match dice.below(8) {
        0..=3 => {
            let session = json!({
                "type": "transcription",
                "audio": { "input": {
                    "format": { "type": "audio/pcm", "rate": 24_000 },
                    "transcription": { "model": "any", "language": "en", "prompt": "One.", "keywords": ["two"] },
                    "turn_detection": { "type": "server_vad", "threshold": 0.5 },
                } },
            });
            let expires_after = json!({ "anchor": "created_at", "seconds": 10 + dice.below(7_000) });
            let bodies = [
                json!({ "expires_after": expires_after, "session": session }),
                json!({ "session": session }),
                json!({ "expires_after": expires_after }),
            ];
            let paths = ["/v1/realtime/client_secrets", "/realtime/client_secrets"];
            post(paths[dice.below(paths.len())]).body(bodies[dice.below(bodies.len())].to_string())
        }
        4 | 5 => post("/v1/auth/grant").body(json!({ "ttl_seconds": 1 + dice.below(3_600) }).to_string()),
        6 => post(["/v1/realtime/client_secrets", "/v1/auth/grant"][dice.below(2)]),
        _ => stream(&world.key.lock().unwrap(), dice),
    }
}

/// Returns the request of a browser that opens a stream with a key.
fn stream(key: &str, dice: &mut Random) -> Request {
    let (target, header, value) = match dice.below(4) {
        0 => ("/v1/realtime?intent=transcription", OFFER, format!("realtime, openai-insecure-api-key.{key}")),
        1 => ("/v1/listen?encoding=linear16&sample_rate=16000", OFFER, format!("token, {key}")),
        2 => ("/vosk", "Authorization", format!("Bearer {key}")),
        // A key is for streams alone.
        _ => ("/v1/auth/grant", "Authorization", format!("Bearer {key}")),
    };
    Request::new("GET", target)
        .with(header, &value)
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}
