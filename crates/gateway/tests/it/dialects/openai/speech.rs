//! Speech: formats, voices, speeds and events.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use voxline_gateway::{OpenAiOptions, Options};

use super::super::stage::decoded;
use super::{Stage, content_type, refusal};
use voxline_fixtures::gateway::server::Setup;

/// Text of 20 bytes, which the tone speaks with 2,000 samples.
const TEXT: &str = "A tone of 20 letters";

#[tokio::test(flavor = "multi_thread")]
async fn each_format_is_what_it_says() {
    let stage = Stage::new().await;
    let ask = |format: Value| json!({ "model": "tts-1", "input": TEXT, "voice": "nova", "response_format": format });
    for (format, expected, kind) in [
        ("flac", "audio/flac", ("flac", "flac")),
        ("wav", "audio/wav", ("wave", "pcm_s16le")),
        ("mp3", "audio/mpeg", ("mp3", "mp3")),
        ("opus", "audio/ogg; codecs=opus", ("ogg", "opus")),
    ] {
        let answer = stage.speak(&ask(json!(format))).await;
        assert_eq!(content_type(&answer), expected);
        let (container, codec, samples) = decoded(answer.bytes().await.unwrap().into());
        assert_eq!((container, codec), kind);
        if matches!(format, "flac" | "wav") {
            assert_eq!(samples, vec![0x1234; 2_000], "{format}");
        }
    }
    let pcm = stage.speak(&ask(json!("pcm"))).await;
    assert_eq!(content_type(&pcm), "audio/pcm;rate=24000;channels=1");
    assert_eq!(pcm.bytes().await.unwrap(), [0x34, 0x12].repeat(2_000));
    // The default is MP3.
    assert_eq!(content_type(&stage.speak(&ask(Value::Null)).await), "audio/mpeg");
    let aac = stage.speak(&ask(json!("aac"))).await;
    assert_eq!(refusal(aac).await, (400, Some("response_format".to_owned()), None));
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voices_are_openais_the_operators_and_ours() {
    let voices = vec!["shopkeeper=tone-ru".parse().unwrap()];
    let options =
        Options { openai: OpenAiOptions { voices, ..OpenAiOptions::default() }, ..Options::default() };
    let stage = Stage::with(Setup { options, ..Setup::default() }).await;
    let openais = [
        "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse",
        "marin", "cedar",
    ];
    for voice in openais.into_iter().chain(["tone", "tone-ru", "shopkeeper"]) {
        for voice in [json!(voice), json!({ "id": voice })] {
            assert_eq!(stage.speak(&json!({ "input": TEXT, "voice": voice })).await.status(), 200, "{voice}");
        }
    }
    let answer = stage.speak(&json!({ "input": TEXT, "voice": "hal" })).await;
    let error: Value = answer.json().await.unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("tone") && message.contains("tone-ru"), "{message}");
    assert_eq!(error["error"]["param"], "voice");
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_refused_with_its_field() {
    let stage = Stage::new().await;
    for (param, body) in [
        (Some("speed"), json!({ "input": TEXT, "speed": 0.2 })),
        (Some("speed"), json!({ "input": TEXT, "speed": 4.1 })),
        (Some("input"), json!({ "input": " " })),
        (Some("input"), json!({ "input": "a".repeat(20_001) })),
        (Some("stream_format"), json!({ "input": TEXT, "stream_format": "video" })),
        (Some("response_format"), json!({ "input": TEXT, "response_format": "MP3" })),
        (None, json!({ "input": 1 })),
        (None, json!({})),
        (None, json!([])),
    ] {
        assert_eq!(refusal(stage.speak(&body).await).await, (400, param.map(str::to_owned), None), "{body}");
    }
    let large = stage.speak(&json!({ "input": TEXT, "instructions": "a".repeat(400_000) })).await;
    assert_eq!(refusal(large).await.0, 413);
    for speed in [0.25, 1.0, 4.0] {
        assert_eq!(stage.speak(&json!({ "input": TEXT, "speed": speed })).await.status(), 200);
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_hold_the_audio() {
    let stage = Stage::new().await;
    let body = json!({ "input": TEXT, "response_format": "pcm", "stream_format": "sse" });
    let answer = stage.speak(&body).await;
    assert_eq!(content_type(&answer), "text/event-stream");
    let text = answer.text().await.unwrap();
    let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
    let mut events: Vec<Value> = events.map(|data| serde_json::from_str(data).unwrap()).collect();
    let done = events.pop().unwrap();
    assert_eq!(done["type"], "speech.audio.done");
    let audio = |event: &Value| {
        assert_eq!(event["type"], "speech.audio.delta");
        BASE64_STANDARD.decode(event["audio"].as_str().unwrap()).unwrap()
    };
    let audio: Vec<u8> = events.iter().flat_map(audio).collect();
    assert_eq!(audio, [0x34, 0x12].repeat(2_000));
    stage.server.stop().await;
}
