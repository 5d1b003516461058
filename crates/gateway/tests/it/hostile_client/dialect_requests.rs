//! Requests to the dialects' routes for recordings and texts, before they are made wrong.

use serde_json::json;

use super::World;
use super::request::{Request, form};
use voxline_fixtures::random::Random;

/// Returns a correct request.
pub(super) fn request(world: &World, dice: &mut Random) -> Request {
    let token = &world.tokens[dice.below(2)];
    let recording = &world.recordings[dice.below(world.recordings.len())];
    let post = |target: &str| Request::new("POST", target).under(token);
    match dice.below(16) {
        0..=4 => {
            let formats = ["json", "text", "srt", "vtt", "verbose_json", "diarized_json"];
            let format = formats[dice.below(formats.len())];
            let paths =
                ["/v1/audio/transcriptions", "/v1/audio/translations", "/audio/transcriptions", "/inference"];
            post(paths[dice.below(paths.len())])
                .with("Content-Type", "multipart/form-data; boundary=x")
                .body(form(format, ["true", "false"][dice.below(2)], recording))
        }
        5 | 6 => {
            let format = ["mp3", "opus", "flac", "wav", "pcm"][dice.below(5)];
            let stream = ["audio", "sse"][dice.below(2)];
            let body = json!({
                "input": "A word.", "voice": "nova", "speed": 1.5, "response_format": format, "stream_format": stream,
            });
            post("/v1/audio/speech").body(body.to_string())
        }
        7 => Request::new("GET", ["/v1/models", "/v1/models/whisper-1"][dice.below(2)]).under(token),
        8..=10 => {
            let queries = [
                "punctuate=true&utterances=true&utt_split=0.8&detect_language=true",
                "smart_format=true&multichannel=true&keyterm=one&language=en",
                "encoding=linear16&sample_rate=16000&channels=1",
            ];
            post(&format!("/v1/listen?{}", queries[dice.below(queries.len())]))
                .with("Content-Type", "audio/wav")
                .body(recording.clone())
        }
        11 => {
            let body = json!({ "url": "http://127.0.0.1:1/x.wav" }).to_string();
            post("/v1/listen?model=nova-3").with("Content-Type", "application/json").body(body)
        }
        12 | 13 => {
            let queries = [
                "model=aura-2-thalia-en&encoding=linear16&sample_rate=8000&container=none",
                "encoding=mp3",
                "encoding=flac&sample_rate=48000",
                "encoding=opus&container=ogg",
            ];
            let body = json!({ "text": "A word." }).to_string();
            post(&format!("/v1/speak?{}", queries[dice.below(queries.len())])).body(body)
        }
        14 => Request::new("GET", ["/v1/status", "/v1/status/engine"][dice.below(2)]),
        // Without the headers of a WebSocket.
        _ => Request::new("GET", ["/v1/listen", "/v1/realtime", "/vosk", "/jambonz"][dice.below(4)])
            .under(token),
    }
}
