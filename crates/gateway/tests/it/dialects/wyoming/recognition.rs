//! Transcriptions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use voxline_engines::Whisper;
use voxline_gateway::{Options, WyomingAddress};
use voxline_testing::{DigestRecognizer, digest};

use super::super::stage::Counting;
use super::super::{SEGMENT, bytes, own_finals};
use super::peer::{Peer, Told};
use super::{digesting, open, open_to, served};
use voxline_fixtures::clips;
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::noise;
use voxline_fixtures::samples::models_dir;

/// Returns the digests of the segments of `pcm`.
fn digests(pcm: &[i16]) -> Vec<String> {
    pcm.chunks(SEGMENT).map(digest).collect()
}

/// Returns the text that pieces add up to.
fn joined(events: &[Told]) -> String {
    let pieces = events.iter().filter(|told| told.kind == "transcript-chunk");
    pieces.map(|told| told.data["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_text_is_that_of_our_own_protocol() {
    let whisper = Whisper::load(&models_dir().join("whisper-base")).expect("the model is there");
    let server = served(Arc::new(whisper), Options { languages: "en".parse().unwrap(), ..open() }).await;
    let pcm = clips::clip("en-telephone", "demo-echotest").pcm;
    let finals = own_finals(&server, &pcm).await;
    let expected: Vec<&str> = finals.iter().map(|segment| segment.text.trim()).collect();
    let expected = expected.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
    assert!(expected.split(' ').count() > 20, "{expected}");
    let mut peer = Peer::connect(&server).await;
    peer.say("describe", &json!({})).await;
    let info = peer.hear("info").await;
    let languages = info["asr"][0]["models"][0]["languages"].as_array().unwrap();
    assert!(languages.contains(&json!("en")) && languages.contains(&json!("ru")), "{languages:?}");
    peer.say("transcribe", &json!({ "language": "en" })).await;
    peer.utter(&bytes(&pcm)).await;
    let events = peer.until("transcript").await;
    assert_eq!(events.last().unwrap().data, json!({ "text": expected, "language": "en" }));
    assert_eq!(joined(&events), expected);
    server.stop().await;
}

#[tokio::test]
async fn the_pieces_of_a_transcript_come_while_it_is_heard() {
    let (server, recognizer) = digesting().await;
    let mut peer = Peer::connect(&server).await;
    // One connection serves one utterance after the other.
    for round in 0..2 {
        let pcm = noise(2 * SEGMENT + 500 + round);
        let expected = digests(&pcm);
        peer.say("transcribe", &json!({ "name": null, "context": { "any": 1 } })).await;
        peer.say("audio-start", &json!({ "rate": 16_000, "width": 2, "channels": 1, "timestamp": 0 })).await;
        peer.audio(&bytes(&pcm[..SEGMENT]), 333).await;
        assert_eq!(peer.hear("transcript-start").await, json!({}));
        assert_eq!(peer.hear("transcript-chunk").await, json!({ "text": expected[0] }));
        // The audio may be interrupted by questions.
        peer.say("ping", &json!({ "text": "there?" })).await;
        assert_eq!(peer.hear("pong").await, json!({ "text": "there?" }));
        peer.audio(&bytes(&pcm[SEGMENT..]), 4_000).await;
        peer.say("audio-stop", &json!({})).await;
        let events = peer.until("transcript-stop").await;
        let whole = &events[events.len() - 2];
        assert_eq!(
            (whole.kind.as_str(), &whole.data),
            ("transcript", &json!({ "text": expected.join(" ") }))
        );
        assert_eq!(format!("{}{}", expected[0], joined(&events)), expected.join(" "));
        assert_eq!(recognizer.recordings()[round], pcm);
    }
    peer.leave().await;
    assert_eq!(peer.next().await, None);
    server.stop().await;
}

#[tokio::test]
async fn what_the_gateway_offers_is_described_with_every_field() {
    let (server, _) = digesting().await;
    let mut peer = Peer::connect(&server).await;
    // A later version selects one of several programs, of which there is one.
    peer.say("select-program", &json!({ "name": "voxline" })).await;
    peer.say_in_header("describe", &json!({})).await;
    let info = peer.hear("info").await;
    let model = &info["asr"][0]["models"][0];
    let voice = &info["tts"][0]["voices"][0];
    for artifact in [&info["asr"][0], model, &info["tts"][0], voice] {
        assert!(artifact["name"].is_string() && artifact["installed"] == true, "{artifact}");
        assert!(artifact["description"].is_string() && artifact["version"].is_string(), "{artifact}");
        assert!(artifact["attribution"]["name"].is_string() && artifact["attribution"]["url"].is_string());
    }
    let streams =
        [&info["asr"][0]["supports_transcript_streaming"], &info["tts"][0]["supports_synthesize_streaming"]];
    assert_eq!(streams, [&json!(true), &json!(true)]);
    assert_eq!(info["asr"][0]["requires_external_vad"], true);
    assert!(model["languages"].is_array(), "{model}");
    assert_eq!((&voice["name"], &voice["languages"]), (&json!("tone"), &json!(["en"])));
    assert_eq!(voice["speakers"], Value::Null);
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn language_and_terms_reach_the_recogniser() {
    let recognizer = Arc::new(Counting::default());
    let server = served(recognizer.clone(), Options { languages: "ru".parse().unwrap(), ..open() }).await;
    let mut peer = Peer::connect(&server).await;
    let terms =
        json!({ "transcript_terms": ["lamp", "lock"], "transcript_names": ["Ada"], "language": "de-DE" });
    for asked in [terms, json!({}), json!({ "language": "auto" })] {
        peer.say("transcribe", &asked).await;
        peer.utter(&bytes(&noise(16_000))).await;
        let text = json!({ "text": "0.", "language": asked["language"].as_str().filter(|_| asked["transcript_terms"].is_array()).unwrap_or("en") });
        assert_eq!(peer.until("transcript").await.pop().unwrap().data, text);
        peer.hear("transcript-stop").await;
    }
    let requests = recognizer.requests.lock().unwrap().clone();
    let heard: Vec<_> =
        requests.iter().map(|request| (&request.languages[0][..], request.keywords.len())).collect();
    assert_eq!(heard, [("de-DE", 3), ("ru", 0), ("ru", 0)]);
    assert_eq!(requests[0].keywords, ["Ada", "lamp", "lock"]);
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn audio_of_any_rate_and_several_channels_is_heard() {
    // Where audio is resampled, each final begins a stream: these have no final before their end.
    let recognizer = Arc::new(DigestRecognizer::new(5 * SEGMENT));
    let server = served(recognizer.clone(), open()).await;
    let pcm = noise(3_000);
    let stereo: Vec<u8> =
        pcm.iter().flat_map(|sample| [sample.to_le_bytes(), sample.to_le_bytes()].concat()).collect();
    let mut peer = Peer::connect(&server).await;
    // The chunks tell the format themselves, and may cut a sample.
    for chunk in stereo.chunks(501) {
        peer.say_with("audio-chunk", &json!({ "rate": 16_000, "width": 2, "channels": 2 }), chunk).await;
    }
    peer.say("audio-stop", &json!({})).await;
    assert_eq!(peer.until("transcript").await.pop().unwrap().data["text"], digest(&pcm));
    assert_eq!(recognizer.recordings(), [pcm]);
    peer.hear("transcript-stop").await;
    for rate in [8_000, 44_100, 48_000] {
        let format = json!({ "rate": rate, "width": 2, "channels": 1 });
        let before = recognizer.recordings().len();
        peer.say("audio-start", &format).await;
        peer.say_with("audio-chunk", &format, &vec![1; 2 * rate]).await;
        peer.say("audio-stop", &json!({})).await;
        peer.until("transcript-stop").await;
        let frames = recognizer.recordings()[before].len();
        assert!(frames.abs_diff(16_000) <= 16, "{frames} frames of a second at {rate} Hz");
    }
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn without_audio_nothing_was_said() {
    let (server, _) = digesting().await;
    let mut peer = Peer::connect(&server).await;
    peer.say("audio-stop", &json!({})).await;
    assert_eq!(peer.hear("transcript").await, json!({ "text": "" }));
    peer.utter(&[]).await;
    assert_eq!(peer.hear("transcript").await, json!({ "text": "" }));
    // A client that closes its half after its audio still gets the answer.
    let pcm = noise(800);
    peer.utter(&bytes(&pcm)).await;
    peer.leave().await;
    assert_eq!(peer.until("transcript").await.pop().unwrap().data["text"], digest(&pcm));
    peer.hear("transcript-stop").await;
    assert_eq!(peer.next().await, None);
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_serves_whom_its_file_admits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wyoming.sock");
    // The networks don't concern clients that have no address.
    let (options, wyoming) = (open_to("10.0.0.0/8"), Some(WyomingAddress::Unix(path.clone())));
    let setup = Setup { options, wyoming, ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(SEGMENT)), setup).await;
    assert_eq!(server.wyoming, None);
    let mut peer = Peer::connect_unix(&path).await;
    let pcm = noise(SEGMENT);
    peer.utter(&bytes(&pcm)).await;
    assert_eq!(peer.until("transcript").await.pop().unwrap().data["text"], digest(&pcm));
    drop(peer);
    server.stop().await;
    assert!(!path.exists(), "the file goes with the gateway");
}

#[tokio::test]
async fn clients_from_elsewhere_and_of_no_project_are_refused() {
    let digest = || Arc::new(DigestRecognizer::new(SEGMENT));
    let server = served(digest(), open_to("10.0.0.0/8")).await;
    assert_eq!(Peer::connect(&server).await.refusal().await, "refused");
    server.stop().await;
    let server = served(digest(), Options::default()).await;
    assert_eq!(Peer::connect(&server).await.refusal().await, "refused");
    server.stop().await;
}

#[tokio::test]
async fn usage_and_audio_are_counted_and_the_end_of_the_project_ends_the_connection() {
    let (server, _) = digesting().await;
    let mut peer = Peer::connect(&server).await;
    peer.utter(&bytes(&noise(2 * SEGMENT))).await;
    peer.until("transcript-stop").await;
    let authority = server.gateway.authority();
    let usage = authority.usage(Some("test")).unwrap();
    let open = usage.iter().find(|entry| entry.id.starts_with("open_")).unwrap();
    assert_eq!(open.total.audio_ms, 1_000);
    let metrics =
        http_client().unwrap().get(url(&server, "/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"voxline_audio_received_seconds_total{api="wyoming"} 1"#,
        r#"voxline_payload_bytes_total{api="wyoming",direction="in"} 32000"#,
    ] {
        assert!(metrics.lines().any(|known| known.starts_with(line)), "{line} is not in\n{metrics}");
    }
    authority.revoke_project("test").unwrap();
    assert_eq!(peer.refusal().await, "refused");
    assert_eq!(Peer::connect(&server).await.refusal().await, "failed");
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn lack_of_room_is_told() {
    let server =
        served(Arc::new(DigestRecognizer::new(SEGMENT)), Options { max_sessions: 1, ..open() }).await;
    let start = json!({ "rate": 16_000, "width": 2, "channels": 1 });
    let mut first = Peer::connect(&server).await;
    first.say("audio-start", &start).await;
    first.say("ping", &json!({})).await;
    first.hear("pong").await;
    let mut second = Peer::connect(&server).await;
    second.say("audio-start", &start).await;
    assert_eq!(second.refusal().await, "busy");
    first.say("audio-stop", &json!({})).await;
    first.hear("transcript").await;
    let mut third = Peer::connect(&server).await;
    third.utter(&bytes(&noise(100))).await;
    third.until("transcript").await;
    drop((first, second, third));
    server.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stops_tells_the_text_of_all_that_came() {
    let options = Options { drain: Duration::from_secs(2), ..open() };
    let server = served(Arc::new(DigestRecognizer::new(SEGMENT)), options).await;
    let pcm = noise(SEGMENT + 1_000);
    let mut idle = Peer::connect(&server).await;
    idle.say("describe", &json!({})).await;
    idle.hear("info").await;
    let mut peer = Peer::connect(&server).await;
    peer.audio(&bytes(&pcm), 2_000).await;
    peer.hear("transcript-start").await;
    // Whatever came before this answer has been taken.
    peer.say("ping", &json!({})).await;
    peer.until("pong").await;
    server.begin_stop();
    assert_eq!(idle.next().await, None, "nothing is under way");
    let text = peer.until("transcript").await.pop().unwrap().data;
    assert_eq!(text["text"], digests(&pcm).join(" "));
    peer.hear("transcript-stop").await;
    assert_eq!(peer.next().await, None);
    server.stop().await;
}
