//! Deepgram's recognition of recordings.

use std::sync::Arc;

use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use voxline_engines::Whisper;
use voxline_gateway::authority::{Budget, Scope, Terms};
use voxline_gateway::{Dialect, Options, RecordingOptions};

use super::stage::{Stage, content_type, service_token};
use super::{heard, own_words};
use voxline_fixtures::clips;
use voxline_fixtures::gateway::audio::{wav, wav_of};
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::samples::models_dir;

const LISTEN: &str = "/v1/listen";

/// Sends a recording under `Authorization: Token`, as Deepgram's clients do.
async fn send(stage: &Stage, path: &str, key: &str, kind: &str, body: Vec<u8>) -> Response {
    let request = stage.http.post(url(&stage.server, path)).header("Authorization", format!("Token {key}"));
    request.header("Content-Type", kind).body(body).send().await.unwrap()
}

/// Sends a recording, and returns the results of an answer whose metadata are right.
async fn results(stage: &Stage, query: &str, file: Vec<u8>, channels: usize, seconds: f64) -> Value {
    let hash: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("{LISTEN}?{query}");
    let answer = send(stage, &path, &stage.token, "application/octet-stream", file).await;
    assert_eq!((answer.status().as_u16(), content_type(&answer)), (200, "application/json"));
    let id = answer.headers()["dg-request-id"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    let metadata = &body["metadata"];
    assert_eq!((&metadata["request_id"], &metadata["sha256"]), (&json!(id), &json!(hash)));
    assert_eq!((&metadata["channels"], &metadata["duration"]), (&json!(channels), &json!(seconds)));
    assert_eq!(metadata["transaction_key"], "deprecated");
    let model = metadata["models"][0].as_str().unwrap();
    assert_eq!(metadata["model_info"][model]["name"], "counting");
    assert_eq!(body["results"]["channels"].as_array().unwrap().len(), channels);
    body["results"].clone()
}

/// Returns the status and the category of a refusal in Deepgram's shape.
async fn refusal(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    assert_eq!(content_type(&answer), "application/json");
    assert_eq!(status == 429 || status == 503, answer.headers().contains_key("retry-after"), "{status}");
    let headers = answer.headers().clone();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["request_id"], headers["dg-request-id"].to_str().unwrap());
    assert_eq!((&body["message"], &body["category"]), (&body["err_msg"], &body["err_code"]));
    assert_eq!(body["message"], headers["dg-error"].to_str().unwrap());
    (status, body["category"].as_str().unwrap().to_owned())
}

/// Returns a recording of two channels, of which the second says nothing in the first second.
fn dialogue() -> Vec<u8> {
    let mut file = wav(2, 16_000, 32_000);
    file[44..].chunks_exact_mut(4).take(16_000).for_each(|frame| frame[2..].fill(0));
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_has_the_fields_that_clients_read() {
    let stage = Stage::new().await;
    let query = "model=nova-3&smart_format=true&utterances=true&keyterm=one&keywords=two:3&language=en";
    let results = results(&stage, query, wav(1, 16_000, 40_000), 1, 2.5).await;
    let word = |start: f64, end: f64| {
        let text = format!("{start}");
        json!({
            "word": text, "punctuated_word": format!("{text}."), "start": start, "end": end, "confidence": 0.75,
        })
    };
    let words = json!([word(0.0, 1.0), word(1.0, 2.0), word(2.0, 2.5)]);
    let alternative = &results["channels"][0]["alternatives"][0];
    assert_eq!(alternative["transcript"], "0. 1. 2.");
    assert_eq!((&alternative["words"], &alternative["confidence"]), (&words, &json!(0.75)));
    let paragraph = &alternative["paragraphs"]["paragraphs"][0];
    assert_eq!((&paragraph["num_words"], &paragraph["end"]), (&json!(3), &json!(2.5)));
    let utterance = &results["utterances"][0];
    assert_eq!((&utterance["transcript"], &utterance["words"]), (&json!("0. 1. 2."), &words));
    assert_eq!(utterance["id"].as_str().unwrap().len(), 36);
    let requests = stage.recognizer.requests.lock().unwrap().clone();
    assert_eq!(
        (requests[0].keywords.clone(), requests[0].only_language()),
        (vec!["one".into(), "two".into()], Some("en"))
    );
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_mixed_or_each_recognised_by_itself() {
    let stage = Stage::new().await;
    let transcripts = |results: &Value| -> Vec<String> {
        let channels = results["channels"].as_array().unwrap().iter();
        channels
            .map(|channel| channel["alternatives"][0]["transcript"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(transcripts(&results(&stage, "", dialogue(), 1, 2.0).await), ["0 1"]);
    let apart = results(&stage, "multichannel=true&utterances=true&punctuate=true", dialogue(), 2, 2.0).await;
    assert_eq!(transcripts(&apart), ["0. 1.", "1."]);
    let utterances: Vec<&Value> =
        apart["utterances"].as_array().unwrap().iter().map(|utterance| &utterance["channel"]).collect();
    assert_eq!(utterances, [&json!(0), &json!(1)]);
    // Headerless audio of two channels, at another rate.
    let raw = wav(2, 8_000, 16_000)[44..].to_vec();
    let query = "encoding=linear16&sample_rate=8000&channels=2&multichannel=True";
    assert_eq!(transcripts(&results(&stage, query, raw, 2, 2.0).await), ["0 1", "0 1"]);
    let telephone = vec![0x12; 24_000];
    assert_eq!(transcripts(&results(&stage, "encoding=mulaw", telephone, 1, 3.0).await), ["0 1 2"]);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_recording_is_refused_in_deepgrams_shape() {
    let options = Options {
        recordings: RecordingOptions { max_bytes: 100_000, ..RecordingOptions::default() },
        ..Options::default()
    };
    let stage = Stage::with(Setup { options, ..Setup::default() }).await;
    let file = || wav(1, 16_000, 16_000);
    let bad = || (400, "BAD_REQUEST".to_owned());
    for (query, kind, body) in [
        ("", "audio/wav", b"no audio at all".to_vec()),
        ("", "audio/wav", Vec::new()),
        ("", "audio/wav", file()[..10_000].to_vec()),
        ("", "application/json", br#"{"url":"http://localhost/a.wav"}"#.to_vec()),
        ("", "application/json; charset=utf-8", b"{}".to_vec()),
        ("?callback=http://localhost", "audio/wav", file()),
        ("?encoding=amr-nb", "audio/wav", file()),
        ("?multichannel=true", "audio/wav", wav(9, 16_000, 1_600)),
    ] {
        let answer = send(&stage, &format!("{LISTEN}{query}"), &stage.token, kind, body).await;
        assert_eq!(refusal(answer).await, bad(), "{query} {kind}");
    }
    let large = send(&stage, LISTEN, &stage.token, "audio/wav", vec![0; 100_001]).await;
    assert_eq!(refusal(large).await, (413, "PAYLOAD_TOO_LARGE".to_owned()));
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_scopes_and_budgets_hold() {
    let stage = Stage::new().await;
    let token = |terms| service_token(&stage.server, terms);
    let of = |scope: Scope| Terms { scopes: [scope].into_iter().collect(), ..Terms::default() };
    let budget = |per_day, total| Terms { audio: Budget { per_day, total }, ..Terms::default() };
    let file = || wav(1, 16_000, 48_000);
    for (key, expected) in [
        ("none".to_owned(), (401, "INVALID_AUTH")),
        (token(of(Scope::AsrStream)), (403, "INSUFFICIENT_PERMISSIONS")),
        (token(budget(Some(0), None)), (429, "TOO_MANY_REQUESTS")),
        (token(budget(None, Some(0))), (402, "ASR_PAYMENT_REQUIRED")),
        // The budget ends within the recording.
        (token(budget(None, Some(1))), (402, "ASR_PAYMENT_REQUIRED")),
    ] {
        let answer = send(&stage, LISTEN, &key, "audio/wav", file()).await;
        assert_eq!(refusal(answer).await, (expected.0, expected.1.to_owned()));
    }
    let short = token(of(Scope::AsrShort));
    assert_eq!(send(&stage, LISTEN, &short, "audio/wav", file()).await.status(), 200);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_around_the_handlers_have_deepgrams_shape_too() {
    let options = Options { max_failures: 1, dialects: vec![Dialect::Deepgram], ..Options::default() };
    let stage = Stage::with(Setup { options, ..Setup::default() }).await;
    let wrong = stage.http.delete(url(&stage.server, LISTEN)).send().await.unwrap();
    assert_eq!(refusal(wrong).await, (405, "METHOD_NOT_ALLOWED".to_owned()));
    for expected in [(401, "INVALID_AUTH"), (429, "TOO_MANY_REQUESTS")] {
        let answer = send(&stage, LISTEN, "none", "audio/wav", wav(1, 16_000, 1_600)).await;
        assert_eq!(refusal(answer).await, (expected.0, expected.1.to_owned()));
    }
    // The other dialects are off.
    assert_eq!(stage.http.get(url(&stage.server, "/vosk")).send().await.unwrap().status(), 404);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_a_recording_are_those_of_our_own_protocol() {
    let whisper = Whisper::load(&models_dir().join("whisper-base")).expect("the model is there");
    let options = Options { languages: "en".parse().unwrap(), ..Options::default() };
    let server = Server::with(Arc::new(whisper), Setup { options, ..Setup::default() }).await;
    let pcm = clips::clip("en-telephone", "demo-echotest").pcm;
    let expected: Vec<String> = own_words(&server, &pcm).await.into_iter().map(|(word, ..)| word).collect();
    let key = service_token(&server, Terms::default());
    let request = http_client().unwrap().post(url(&server, &format!("{LISTEN}?language=en")));
    let answer =
        request.header("Authorization", format!("Token {key}")).body(wav_of(&pcm)).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let words = answer["results"]["channels"][0]["alternatives"][0]["words"].as_array().unwrap();
    let words: Vec<_> = words.iter().map(|word| heard(word, "confidence")).collect();
    assert!(words.windows(2).all(|pair| pair[0].1 <= pair[0].2 && pair[0].1 <= pair[1].1), "{words:?}");
    assert!(words.last().unwrap().2 <= pcm.len() as u64, "{words:?}");
    // The request is not live, so the recogniser may take more care with it.
    assert_eq!(words.into_iter().map(|(word, ..)| word).collect::<Vec<_>>(), expected);
    server.stop().await;
}
