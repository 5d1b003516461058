//! Deepgram's synthesis.

use reqwest::Response;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use voxline_gateway::authority::{Budget, Scope, Terms};

use super::peer::{Peer, Said};
use super::stage::{Stage, content_type, decoded, service_token};
use voxline_fixtures::gateway::http::url;

/// Text of 20 bytes, which the tone speaks with 2,000 samples.
const TEXT: &str = "A tone of 20 letters";

async fn speak(stage: &Stage, query: &str, key: &str, body: &Value) -> Response {
    let request = stage.http.post(url(&stage.server, &format!("/v1/speak?{query}")));
    request.header("Authorization", format!("Token {key}")).json(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_format_is_what_it_says() {
    let stage = Stage::new().await;
    let ask = async |query: &str| {
        let answer = speak(&stage, query, &stage.token, &json!({ "text": TEXT })).await;
        assert_eq!(answer.status(), 200, "{query}");
        let headers = answer.headers();
        assert_eq!(headers["dg-request-id"].len(), 36);
        assert_eq!(headers["dg-model-name"], "tone");
        assert_eq!(headers["dg-char-count"], "20");
        (content_type(&answer).to_owned(), answer.bytes().await.unwrap())
    };
    for (query, expected, kind) in [
        ("model=aura-2-thalia-en", "audio/mpeg", ("mp3", "mp3")),
        ("model=tone&encoding=opus&container=ogg", "audio/ogg; codecs=opus", ("ogg", "opus")),
        ("encoding=linear16", "audio/wav", ("wave", "pcm_s16le")),
        ("encoding=flac", "audio/flac", ("flac", "flac")),
    ] {
        let (told, bytes) = ask(query).await;
        assert_eq!(told, expected);
        let (container, codec, samples) = decoded(bytes.into());
        assert_eq!((container, codec), kind, "{query}");
        if matches!(codec, "flac" | "pcm_s16le") {
            assert_eq!(samples, vec![0x1234; 2_000], "{query}");
        }
    }
    let (told, raw) = ask("encoding=linear16&container=none&sample_rate=24000").await;
    assert_eq!((told.as_str(), raw), ("audio/pcm;rate=24000;channels=1", [0x34, 0x12].repeat(2_000).into()));
    // Another rate has another number of samples.
    let (told, raw) = ask("encoding=linear16&container=none&sample_rate=8000").await;
    assert_eq!((told.as_str(), raw.len()), ("audio/pcm;rate=8000;channels=1", 2 * 667));
    let (_, wave) = ask("encoding=linear16&sample_rate=48000").await;
    assert_eq!((&wave[24..28], wave.len()), (&48_000_u32.to_le_bytes()[..], 44 + 2 * 4_000));
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_deepgram_stand_for_voices_of_the_language() {
    let stage = Stage::new().await;
    for (model, text, voice) in [
        ("aura-2-apollo-en", "Hello", "tone"),
        ("aura-asteria-en", "Привет", "tone-ru"),
        ("tone-ru", "Hello", "tone-ru"),
    ] {
        let answer = speak(&stage, &format!("model={model}"), &stage.token, &json!({ "text": text })).await;
        assert_eq!(answer.headers()["dg-model-name"], voice, "{model}");
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_t_be_spoken_is_refused_in_deepgrams_shape() {
    let stage = Stage::new().await;
    let token = |terms| service_token(&stage.server, terms);
    let listener = token(Terms { scopes: [Scope::AsrShort].into_iter().collect(), ..Terms::default() });
    let poor = token(Terms { characters: Budget { per_day: None, total: Some(5) }, ..Terms::default() });
    let text = json!({ "text": TEXT });
    let own = &stage.token;
    for (status, query, key, body) in [
        (400, "encoding=aac", own, &text),
        (400, "encoding=linear16&sample_rate=11025", own, &text),
        (400, "model=nobody", own, &text),
        (400, "", own, &json!({ "text": " " })),
        (400, "", own, &json!({ "url": "http://localhost" })),
        (413, "", own, &json!({ "text": "a".repeat(20_001) })),
        (413, "", own, &json!({ "text": "a".repeat(400_000) })),
        (401, "", &"none".to_owned(), &text),
        (403, "", &listener, &text),
        (402, "", &poor, &text),
    ] {
        let answer = speak(&stage, query, key, body).await;
        assert_eq!(
            (answer.status().as_u16(), content_type(&answer)),
            (status, "application/json"),
            "{query}"
        );
        let id = answer.headers()["dg-request-id"].to_str().unwrap().to_owned();
        let body: Value = answer.json().await.unwrap();
        assert!(
            body["request_id"] == id && body["message"].is_string() && body["category"].is_string(),
            "{body}"
        );
    }
    stage.server.stop().await;
}

const LIVE: &str = "/v1/speak?model=tone&encoding=linear16&sample_rate=24000";

#[tokio::test(flavor = "multi_thread")]
async fn text_in_pieces_is_spoken_by_websocket() {
    let stage = Stage::new().await;
    let mut peer = Peer::open(&stage.server, LIVE, &stage.token).await;
    let request_id = peer.headers["dg-request-id"].to_str().unwrap().to_owned();
    let metadata = peer.message().await;
    assert_eq!((&metadata["type"], &metadata["request_id"]), (&json!("Metadata"), &json!(request_id)));
    for field in ["model_name", "model_version", "model_uuid"] {
        assert!(metadata[field].is_string(), "{metadata}");
    }
    let spoken = |samples: usize| [0x34, 0x12].repeat(samples);
    // A sentence that may go on is spoken once it is flushed.
    let (start, rest) = TEXT.split_at(7);
    peer.say(&json!({ "type": "Speak", "text": start })).await;
    peer.say(&json!({ "type": "Speak", "text": rest })).await;
    peer.say(&json!({ "type": "Flush" })).await;
    assert_eq!(peer.message().await, json!({ "type": "Flushed", "sequence_id": 0 }));
    assert_eq!(peer.heard, spoken(2_000));
    // What is cleared is not spoken.
    peer.say(&json!({ "type": "Speak", "text": "Never" })).await;
    peer.say(&json!({ "type": "Clear" })).await;
    assert_eq!(peer.message().await, json!({ "type": "Cleared", "sequence_id": 1 }));
    for text in ["no JSON", "{}", r#"{"type":"KeepAlive"}"#] {
        peer.text(text).await;
        assert_eq!(peer.message().await["type"], "Warning");
    }
    peer.audio(&[0; 10]).await;
    assert_eq!(peer.message().await["code"], "BINARY");
    // The end comes after all audio.
    peer.say(&json!({ "type": "Speak", "text": TEXT })).await;
    peer.say(&json!({ "type": "Close" })).await;
    let (messages, close) = peer.rest().await;
    assert_eq!(messages, [json!({ "type": "Flushed", "sequence_id": 2 })]);
    assert_eq!((close, peer.heard), (Said::Close(1000, String::new()), spoken(4_000)));
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_for_speech_has_the_rights_of_its_token() {
    let stage = Stage::new().await;
    let authority = stage.server.gateway.authority();
    let token = |terms: Terms| service_token(&stage.server, terms);
    let deaf = token(Terms { scopes: [Scope::AsrStream].into_iter().collect(), ..Terms::default() });
    let none = Budget { per_day: None, total: Some(0) };
    let spent = token(Terms { characters: none, ..Terms::default() });
    for (path, key, status) in [
        (LIVE, "wrong", 401),
        (LIVE, &deaf, 403),
        (LIVE, &spent, 402),
        ("/v1/speak?encoding=mp3", &stage.token, 400),
        ("/v1/speak?sample_rate=11025", &stage.token, 400),
        ("/v1/speak?model=nobody", &stage.token, 400),
    ] {
        let header = format!("Token {key}");
        let refused = Peer::ask(&stage.server, path, &[("authorization", &header)]).await.err().expect(path);
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        assert!(refused.body["err_code"].is_string(), "{refused:?}");
    }
    // A budget for one text and no more.
    let poor = token(Terms { characters: Budget { per_day: None, total: Some(25) }, ..Terms::default() });
    let mut peer = Peer::open(&stage.server, LIVE, &poor).await;
    for _ in 0..2 {
        peer.say(&json!({ "type": "Speak", "text": TEXT })).await;
        peer.say(&json!({ "type": "Flush" })).await;
    }
    let (_, close) = peer.rest().await;
    assert!(matches!(&close, Said::Close(1008, _)), "{close:?}");
    assert_eq!(peer.heard.len(), 2 * 2_000);
    let minted = authority.create_service_token("test", Terms::default()).unwrap();
    let mut peer = Peer::open(&stage.server, LIVE, minted.token.expose_secret()).await;
    authority.revoke_token(&minted.id).unwrap();
    let (_, close) = peer.rest().await;
    assert!(matches!(&close, Said::Close(1008, _)), "{close:?}");
    stage.server.stop().await;
}
