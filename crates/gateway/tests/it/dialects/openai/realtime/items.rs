//! Items and their text, by detection of utterances and by commits.

use std::sync::Arc;

use serde_json::{Value, json};
use voxline_gateway::Options;
use voxline_testing::digest;

use super::super::super::stage::Counting;
use super::super::super::{SEGMENT, bare, bytes, digesting, english, own_finals};
use super::{append, item, kinds, manual, open, say, transcript, update};
use voxline_fixtures::clips;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::noise;

#[tokio::test]
async fn detected_utterances_are_those_of_our_own_protocol() {
    let server = english().await;
    let pcm = clips::clip("en-telephone", "demo-echotest").pcm;
    let finals = own_finals(&server, &pcm).await;
    let expected: Vec<&str> = finals.iter().map(|segment| segment.text.trim()).collect();
    let expected: Vec<&str> = expected.into_iter().filter(|text| !text.is_empty()).collect();
    let mut peer = open(&server).await;
    let transcription = json!({ "model": "gpt-4o-transcribe", "language": "en" });
    let format = json!({ "type": "audio/pcm", "rate": 16_000 });
    update(&mut peer, json!({ "format": format, "transcription": transcription })).await;
    // 50 ms at a time, and a commit for what the recogniser still takes for an utterance.
    for chunk in bytes(&pcm).chunks(1_600) {
        append(&mut peer, chunk).await;
    }
    say(&mut peer, "commit").await;
    let (mut heard, mut at, mut previous) = (Vec::new(), 0, Value::Null);
    while heard.len() < expected.len() {
        let events = item(&mut peer).await;
        let (text, deltas) = transcript(&events);
        let words = |text: &str| text.split_whitespace().map(bare).collect::<Vec<_>>();
        // Deltas are never taken back, and add up to the text.
        assert_eq!(words(&deltas), words(text));
        if !text.is_empty() {
            heard.push(text.to_owned());
        }
        for event in &events {
            for field in ["audio_start_ms", "audio_end_ms"] {
                if let Some(time) = event[field].as_u64() {
                    assert!(time >= at && time <= pcm.len() as u64 / 16, "{event}");
                    at = time;
                }
            }
        }
        let committed = events.iter().find(|event| event["type"] == "input_audio_buffer.committed").unwrap();
        assert_eq!(committed["previous_item_id"], previous);
        previous = committed["item_id"].clone();
    }
    assert_eq!(heard.join(" "), expected.join(" "));
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn an_utterance_has_its_events_in_their_order() {
    let (server, recognizer) = digesting(Options::default()).await;
    let mut peer = open(&server).await;
    update(&mut peer, json!({ "format": { "type": "audio/pcm", "rate": 16_000 } })).await;
    let pcm = noise(2 * SEGMENT);
    append(&mut peer, &bytes(&pcm)).await;
    let mut ids = vec![Value::Null];
    for (number, segment) in pcm.chunks(SEGMENT).enumerate() {
        let events = item(&mut peer).await;
        let expected =
            ["speech_started", "speech_stopped", "committed", "added", "delta", "completed", "done"];
        assert_eq!(kinds(&events), expected);
        assert_eq!(transcript(&events), (&digest(segment)[..], digest(segment)));
        let [started, stopped, committed, added, _, completed, done] = &events[..] else { panic!() };
        assert_eq!(
            (&started["audio_start_ms"], &stopped["audio_end_ms"]),
            (&json!(500 * number), &json!(500 * number + 500))
        );
        let id = &committed["item_id"];
        assert_eq!(committed["previous_item_id"], ids[number]);
        assert_eq!(added["previous_item_id"], ids[number]);
        assert!(added["item"]["id"] == *id && done["item"]["id"] == *id && completed["item_id"] == *id);
        assert_eq!(added["item"]["content"][0]["type"], "input_audio");
        assert_eq!(completed["usage"], json!({ "type": "duration", "seconds": 0.5 }));
        assert!(events.iter().all(|event| event["event_id"].as_str().unwrap().starts_with("event_")));
        ids.push(id.clone());
    }
    assert_eq!(recognizer.recordings(), [pcm]);
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn commits_end_items_where_the_client_says() {
    let (server, recognizer) = digesting(Options::default()).await;
    let mut peer = open(&server).await;
    manual(&mut peer).await;
    let pcm = noise(2 * SEGMENT + 700);
    let (first, second) = pcm.split_at(SEGMENT + 300);
    // Both are committed before the first one is complete.
    for part in [first, second] {
        append(&mut peer, &bytes(part)).await;
        say(&mut peer, "commit").await;
    }
    say(&mut peer, "commit").await;
    let (mut events, mut done) = (Vec::new(), 0);
    while done < 2 {
        let event = peer.message().await;
        done += usize::from(event["type"] == "conversation.item.done");
        events.push(event);
    }
    let error =
        events.iter().find(|event| event["type"] == "error").expect("nothing is left to be committed");
    assert_eq!(error["error"]["code"], "input_audio_buffer_commit_empty");
    let committed: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "input_audio_buffer.committed").collect();
    assert_eq!((committed.len(), &committed[0]["previous_item_id"]), (2, &Value::Null));
    assert_eq!(committed[1]["previous_item_id"], committed[0]["item_id"]);
    for (part, committed) in [first, second].into_iter().zip(committed) {
        let own: Vec<Value> =
            events.iter().filter(|event| event["item_id"] == committed["item_id"]).cloned().collect();
        let expected = part.chunks(SEGMENT).map(digest).collect::<Vec<_>>().join(" ");
        assert_eq!(transcript(&own), (&expected[..], expected.clone()));
        let seconds = part.len() as f64 / 16_000.0;
        assert_eq!(own.last().unwrap()["usage"]["seconds"], seconds);
    }
    assert!(!kinds(&events).contains(&"speech_started"));
    assert_eq!(recognizer.recordings(), [pcm]);
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn audio_that_is_cleared_is_not_told() {
    let (server, _) = digesting(Options::default()).await;
    let mut peer = open(&server).await;
    manual(&mut peer).await;
    let pcm = noise(3_000);
    say(&mut peer, "clear").await;
    peer.hear("input_audio_buffer.cleared").await;
    append(&mut peer, &bytes(&pcm[..1_000])).await;
    say(&mut peer, "commit").await;
    append(&mut peer, &bytes(&noise(SEGMENT + 100))).await;
    say(&mut peer, "clear").await;
    say(&mut peer, "commit").await;
    append(&mut peer, &bytes(&pcm[1_000..])).await;
    say(&mut peer, "commit").await;
    let (mut first, mut error) = (Vec::new(), Value::Null);
    while first.last().is_none_or(|event: &Value| event["type"] != "conversation.item.done") {
        let event = peer.message().await;
        if event["type"] == "error" { error = event } else { first.push(event) }
    }
    assert_eq!(transcript(&first).0, digest(&pcm[..1_000]));
    let mut rest = item(&mut peer).await;
    rest.push(error);
    assert_eq!(transcript(&rest).0, digest(&pcm[1_000..]));
    let error = first.iter().chain(&rest).find(|event| event["type"] == "error").unwrap();
    assert_eq!(error["error"]["code"], "input_audio_buffer_commit_empty", "the buffer was cleared");
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn one_socket_serves_several_streams() {
    let (server, recognizer) = digesting(Options::default()).await;
    let mut peer = open(&server).await;
    update(&mut peer, json!({ "format": { "type": "audio/pcm", "rate": 16_000 } })).await;
    let pcm = noise(SEGMENT);
    append(&mut peer, &bytes(&pcm)).await;
    let first = item(&mut peer).await;
    assert_eq!(transcript(&first).0, digest(&pcm));
    // The same settings again, as of the next user of the socket, begin no other session.
    update(&mut peer, json!({ "format": { "type": "audio/pcm", "rate": 16_000 } })).await;
    append(&mut peer, &bytes(&pcm)).await;
    let second = item(&mut peer).await;
    assert_eq!(second[0]["audio_start_ms"], 500);
    assert_eq!(recognizer.recordings().len(), 1);
    // Other ones do. The clock and the items go on.
    for (format, silence, code) in [("audio/pcmu", 0xFF, 0_i16), ("audio/pcma", 0xD5, 8)] {
        let before = recognizer.recordings().len();
        update(&mut peer, json!({ "format": { "type": format }, "turn_detection": null })).await;
        append(&mut peer, &[silence; 4_000]).await;
        say(&mut peer, "commit").await;
        let events = item(&mut peer).await;
        let committed = events.iter().find(|event| event["type"] == "input_audio_buffer.committed").unwrap();
        assert!(committed["previous_item_id"].is_string(), "{committed}");
        // Where audio is resampled, each final begins a stream; the first one has all of the audio.
        let heard = &recognizer.recordings()[before];
        // The resampler holds back some milliseconds, and its filter shows at the ends.
        assert!(heard.len().abs_diff(8_000) <= 320, "{format}: {} frames", heard.len());
        assert!(heard[1_000..7_000].iter().all(|sample| *sample == code), "{format}");
    }
    update(&mut peer, json!({ "format": { "type": "audio/pcm", "rate": 16_000 }, "turn_detection": { "type": "server_vad" } })).await;
    append(&mut peer, &bytes(&pcm)).await;
    assert_eq!(item(&mut peer).await[0]["audio_start_ms"], 2_000);
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn settings_come_in_both_generations() {
    let (server, _) = digesting(Options::default()).await;
    let mut peer = open(&server).await;
    let session = update(&mut peer, json!({ "transcription": { "model": "m", "language": "en" } })).await;
    let input = &session["audio"]["input"];
    assert_eq!(
        (&session["type"], &input["transcription"]["language"]),
        (&json!("transcription"), &json!("en"))
    );
    assert_eq!(input["format"], json!({ "type": "audio/pcm", "rate": 24_000 }));
    assert_eq!(input["turn_detection"]["type"], "server_vad");
    let beta = json!({
        "input_audio_format": "g711_ulaw", "turn_detection": null,
        "input_audio_transcription": { "model": "whisper-1", "prompt": "" },
    });
    peer.say(&json!({ "type": "transcription_session.update", "session": beta })).await;
    let updated = peer.message().await;
    assert_eq!(updated["type"], "transcription_session.updated");
    let session = &updated["session"];
    assert_eq!(
        (&session["input_audio_format"], &session["turn_detection"]),
        (&json!("g711_ulaw"), &Value::Null)
    );
    assert_eq!(session["input_audio_transcription"], json!({ "model": "whisper-1", "language": "en" }));
    append(&mut peer, &[0x55; 4_000]).await;
    say(&mut peer, "commit").await;
    let mut kinds: Vec<String> = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "conversation.item.input_audio_transcription.completed") {
        kinds.push(peer.message().await["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds[..2], ["input_audio_buffer.committed", "conversation.item.created"]);
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn hints_reach_the_recogniser() {
    let recognizer = Arc::new(Counting::default());
    let options = Options { languages: "ru".parse().unwrap(), ..Options::default() };
    let server = Server::with(recognizer.clone(), Setup { options, ..Setup::default() }).await;
    let mut peer = open(&server).await;
    manual(&mut peer).await;
    for transcription in [
        Value::Null,
        json!({ "language": "de-DE", "prompt": "Dear Sir", "keywords": ["one", "two"] }),
        json!({ "language": null, "languages": ["en", "ru"], "prompt": null }),
    ] {
        update(&mut peer, json!({ "transcription": transcription })).await;
        append(&mut peer, &bytes(&noise(16_000))).await;
        say(&mut peer, "commit").await;
        assert_eq!(transcript(&item(&mut peer).await).0, "0.");
    }
    let requests = recognizer.requests.lock().unwrap().clone();
    let heard: Vec<_> =
        requests.iter().map(|request| (request.languages.join(","), request.prompt.as_deref())).collect();
    let expected = [("ru", None), ("de-DE", Some("Dear Sir")), ("en,ru", None)];
    assert_eq!(heard, expected.map(|(languages, prompt)| (languages.to_owned(), prompt)));
    assert_eq!(
        (&requests[1].keywords[..], &requests[0].keywords[..]),
        (&["one".to_owned(), "two".to_owned()][..], &[][..])
    );
    drop(peer);
    server.stop().await;
}
