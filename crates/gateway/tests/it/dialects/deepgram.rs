//! Deepgram's live protocol.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use voxline_gateway::Options;
use voxline_testing::digest;

use super::peer::{Peer, Said};
use super::{SEGMENT, bare, bytes, digesting, english, heard, key, own_words};
use voxline_fixtures::clips;
use voxline_fixtures::noise;

const LINEAR: &str = "/v1/listen?encoding=linear16&sample_rate=16000";

/// Checks what clients rely on in a result, and returns its first and last second.
fn checked(result: &Value, request_id: &str) -> (f64, f64) {
    for switch in ["is_final", "speech_final", "from_finalize"] {
        assert!(result[switch].is_boolean(), "{switch} in {result}");
    }
    assert_eq!(result["metadata"]["request_id"], request_id);
    assert!(result["metadata"]["model_info"]["name"].is_string(), "{result}");
    let alternative = &result["channel"]["alternatives"][0];
    assert!(alternative["transcript"].is_string() && alternative["confidence"].is_number(), "{result}");
    let (start, duration) = (result["start"].as_f64().unwrap(), result["duration"].as_f64().unwrap());
    let (end, mut at) = (start + duration, start - 1e-6);
    for word in alternative["words"].as_array().expect("words are a list, if an empty one") {
        let (from, to) = (word["start"].as_f64().unwrap(), word["end"].as_f64().unwrap());
        assert!(at <= from && from <= to && to <= end + 1e-6, "{word} in {start}..{end}, after {at}");
        assert!(word["word"].is_string() && word["confidence"].is_number(), "{word}");
        at = from;
    }
    (start, end)
}

/// Checks that finals touch, from 0 to `seconds`.
fn assert_touching(finals: &[&Value], request_id: &str, seconds: f64) {
    let mut at = 0.0;
    for result in finals {
        let (start, end) = checked(result, request_id);
        assert!((start - at).abs() < 1e-6, "{start} does not follow {at}");
        at = end;
    }
    assert!((at - seconds).abs() < 1e-6, "the last final ends at {at} of {seconds}");
}

fn is_final(message: &&Value) -> bool {
    message["type"] == "Results" && message["is_final"] == true
}

fn transcript(result: &Value) -> &str {
    result["channel"]["alternatives"][0]["transcript"].as_str().unwrap()
}

#[tokio::test]
async fn the_words_are_those_of_our_own_protocol() {
    let server = english().await;
    let pcm = clips::clip("en-telephone", "demo-echotest").pcm;
    let expected = own_words(&server, &pcm).await;
    let path = format!("{LINEAR}&interim_results=true&punctuate=True&vad_events=true&utterance_end_ms=1000");
    let mut peer = Peer::open(&server, &path, &key(&server)).await;
    let request_id = peer.headers["dg-request-id"].to_str().unwrap().to_owned();
    peer.audio_in(&bytes(&pcm), 3_200).await;
    peer.say(&json!({ "type": "CloseStream" })).await;
    let (messages, close) = peer.rest().await;
    assert_eq!(close, Said::Close(1000, String::new()));

    let finals: Vec<&Value> = messages.iter().filter(is_final).collect();
    assert_touching(&finals, &request_id, pcm.len() as f64 / 16_000.0);
    let words =
        finals.iter().flat_map(|result| result["channel"]["alternatives"][0]["words"].as_array().unwrap());
    for word in words.clone() {
        let punctuated = word["punctuated_word"].as_str().unwrap();
        assert_eq!(word["word"], bare(punctuated), "{word}");
    }
    assert_eq!(words.map(|word| heard(word, "confidence")).collect::<Vec<_>>(), expected);

    let interims: Vec<&Value> = messages
        .iter()
        .filter(|message| message["type"] == "Results" && message["is_final"] == false)
        .collect();

    for interim in interims {
        checked(interim, &request_id);
    }
    let kinds: Vec<&str> = messages.iter().map(|message| message["type"].as_str().unwrap()).collect();
    let first = |kind| kinds.iter().position(|known| *known == kind).expect(kind);
    let first_words =
        messages.iter().position(|message| message["type"] == "Results" && !transcript(message).is_empty());
    assert!(first("SpeechStarted") < first_words.unwrap(), "{kinds:?}");
    assert!(finals.iter().any(|result| result["speech_final"] == true));

    let metadata = messages.last().unwrap();
    let hash: String = Sha256::digest(bytes(&pcm)).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&metadata["type"], &metadata["sha256"]), (&json!("Metadata"), &json!(hash)));
    assert_eq!((&metadata["request_id"], &metadata["channels"]), (&json!(request_id), &json!(1)));
    assert_eq!(metadata["transaction_key"], "deprecated");
    assert!(
        (metadata["duration"].as_f64().unwrap() - pcm.len() as f64 / 16_000.0).abs() < 1e-6,
        "{metadata}"
    );
    server.stop().await;
}

#[tokio::test]
async fn speech_that_pauses_ends_an_utterance() {
    let server = english().await;
    let speech = clips::clip("en-16k", "goforward").pcm;
    let path = format!("{LINEAR}&interim_results=true&utterance_end_ms=1000&vad_events=true");
    let mut peer = Peer::open(&server, &path, &key(&server)).await;
    peer.audio_in(&bytes(&speech), 3_200).await;
    let silence = vec![0; 3_200];
    // Silence follows for as long as it takes: the end of the utterance depends on the audio alone.
    let (mut messages, mut sent) = (Vec::new(), 0);
    let end = loop {
        peer.audio(&silence).await;
        sent += 1;
        assert!(sent < 3_000, "no utterance ends within five minutes of silence: {messages:?}");
        if let Some(end) = messages.iter().find(|message: &&Value| message["type"] == "UtteranceEnd") {
            break end.clone();
        }
        let answer = tokio::time::timeout(std::time::Duration::from_millis(20), peer.next()).await;
        if let Ok(Said::Message(message)) = answer {
            messages.push(message);
        }
    };
    let said: Vec<&Value> =
        messages.iter().filter(is_final).filter(|result| !transcript(result).is_empty()).collect();
    let last = said.last().expect("the end follows the words");
    let word = last["channel"]["alternatives"][0]["words"].as_array().unwrap().last().unwrap();
    assert_eq!((&end["channel"], &end["last_word_end"]), (&json!([0]), &word["end"]));
    assert_eq!(last["speech_final"], true);
    server.stop().await;
}

#[tokio::test]
async fn interim_results_come_if_asked_for() {
    let (server, _) = digesting(Options::default()).await;
    let pcm = noise(SEGMENT / 2);
    let path = format!("{LINEAR}&interim_results=true&vad_events=True");
    let mut peer = Peer::open(&server, &path, &key(&server)).await;
    let request_id = peer.headers["dg-request-id"].to_str().unwrap().to_owned();
    peer.audio(&bytes(&pcm)).await;
    assert_eq!(peer.message().await, json!({ "type": "SpeechStarted", "channel": [0], "timestamp": 0.0 }));
    let interim = peer.message().await;
    assert_eq!(checked(&interim, &request_id), (0.0, 0.25));
    assert_eq!((transcript(&interim), &interim["is_final"]), (digest(&pcm).as_str(), &json!(false)));
    drop(peer);
    let mut peer = Peer::open(&server, LINEAR, &key(&server)).await;
    peer.audio(&bytes(&pcm)).await;
    peer.say(&json!({ "type": "CloseStream" })).await;
    let (messages, _) = peer.rest().await;
    let kinds: Vec<&str> = messages.iter().filter_map(|message| message["type"].as_str()).collect();
    assert_eq!((kinds, messages.iter().filter(is_final).count()), (vec!["Results", "Metadata"], 1));
    server.stop().await;
}

#[tokio::test]
async fn finalize_is_answered_even_if_nothing_is_left_to_say() {
    let (server, _) = digesting(Options::default()).await;
    let mut peer = Peer::open(&server, LINEAR, &key(&server)).await;
    let request_id = peer.headers["dg-request-id"].to_str().unwrap().to_owned();
    let pcm = noise(SEGMENT + 3_000);
    // Before any audio.
    peer.say(&json!({ "type": "Finalize" })).await;
    let empty = peer.hear("Results").await;
    assert_eq!((checked(&empty, &request_id), &empty["from_finalize"]), ((0.0, 0.0), &json!(true)));
    peer.audio_in(&bytes(&pcm), 1_000).await;
    peer.say(&json!({ "type": "Finalize", "channel": 0 })).await;
    let (whole, rest) = (peer.hear("Results").await, peer.hear("Results").await);
    assert_eq!(
        (transcript(&whole), &whole["from_finalize"]),
        (digest(&pcm[..SEGMENT]).as_str(), &json!(false))
    );
    assert_eq!((transcript(&rest), &rest["from_finalize"]), (digest(&pcm[SEGMENT..]).as_str(), &json!(true)));
    // A pause that somebody asked for is none of the speaker's.
    assert_eq!((&whole["speech_final"], &rest["speech_final"]), (&json!(true), &json!(false)));
    // Twice at once, with nothing new.
    for _ in 0..2 {
        peer.say(&json!({ "type": "Finalize" })).await;
    }
    for _ in 0..2 {
        let empty = peer.hear("Results").await;
        assert_eq!(
            (transcript(&empty), &empty["from_finalize"], &empty["is_final"]),
            ("", &json!(true), &json!(true))
        );
    }
    // Of a channel that does not exist, there is nothing to say.
    peer.say(&json!({ "type": "Finalize", "channel": 7 })).await;
    peer.audio(&bytes(&pcm[..400])).await;
    peer.say(&json!({ "type": "CloseStream" })).await;
    let (messages, close) = peer.rest().await;
    assert_eq!(close, Said::Close(1000, String::new()));
    assert_eq!(messages.iter().filter(is_final).map(transcript).collect::<Vec<_>>(), [digest(&pcm[..400])]);
    server.stop().await;
}

#[tokio::test]
async fn channels_are_recognised_by_themselves() {
    let (server, recognizer) = digesting(Options::default()).await;
    let (left, right) = (noise(20_000), noise(40_000).split_off(20_000));
    let both: Vec<i16> = left.iter().zip(&right).flat_map(|(left, right)| [*left, *right]).collect();
    let mut peer =
        Peer::open(&server, &format!("{LINEAR}&channels=2&multichannel=true"), &key(&server)).await;
    peer.audio_in(&bytes(&both), 1_111).await;
    peer.say(&json!({ "type": "Finalize", "channel": 1 })).await;
    loop {
        let result = peer.hear("Results").await;
        if result["from_finalize"] == true {
            assert_eq!(result["channel_index"], json!([1, 2]));
            break;
        }
    }
    peer.say(&json!({ "type": "CloseStream" })).await;
    let (messages, _) = peer.rest().await;
    assert_eq!(messages.last().unwrap()["channels"], 2);
    let indices = messages.iter().filter(is_final).map(|result| &result["channel_index"]);
    assert!(indices.clone().any(|index| *index == json!([0, 2])), "{messages:?}");
    let mut recordings = recognizer.recordings();
    recordings.sort_by_key(|heard| heard != &left);
    assert_eq!(recordings, [left.clone(), right.clone()]);

    // Without that, they are mixed.
    recognizer.forget();
    let mut peer = Peer::open(&server, &format!("{LINEAR}&channels=2"), &key(&server)).await;
    peer.audio_in(&bytes(&both), 1_111).await;
    peer.say(&json!({ "type": "CloseStream" })).await;
    peer.rest().await;
    let mean = left.iter().zip(&right).map(|(&l, &r)| ((i32::from(l) + i32::from(r)) / 2) as i16);
    assert_eq!(recognizer.recordings(), [mean.collect::<Vec<_>>()]);
    server.stop().await;
}

#[tokio::test]
async fn messages_that_are_none_are_told_and_settings_are_answered() {
    let (server, _) = digesting(Options::default()).await;
    let mut peer = Peer::open(&server, LINEAR, &key(&server)).await;
    for text in ["no JSON", "{}", r#"{"type":"Weather"}"#, "null"] {
        peer.text(text).await;
        let error = peer.message().await;
        assert_eq!((&error["type"], &error["message"]), (&json!("Error"), &json!(text)));
    }
    peer.say(&json!({ "type": "Configure", "features": { "numerals": true } })).await;
    assert_eq!(peer.message().await["type"], "ConfigureSuccess");
    peer.say(&json!({ "type": "Configure", "keyterms": ["voxline"] })).await;
    let failure = peer.message().await;
    assert_eq!(
        (&failure["type"], &failure["code"]),
        (&json!("ConfigureFailure"), &json!("CONFIGURE_KEYTERMS_NOT_SUPPORTED"))
    );
    // Audio after the end is dropped.
    peer.say(&json!({ "type": "CloseStream" })).await;
    peer.audio(&[1; 1_000]).await;
    let (messages, close) = peer.rest().await;
    assert_eq!((messages.len(), close), (1, Said::Close(1000, String::new())));
    assert_eq!(messages[0]["duration"], 0.0);
    // An empty message of audio ends the stream, as in an earlier version of the protocol.
    let mut peer = Peer::open(&server, LINEAR, &key(&server)).await;
    peer.audio(&[]).await;
    assert_eq!(peer.rest().await.1, Said::Close(1000, String::new()));
    server.stop().await;
}
