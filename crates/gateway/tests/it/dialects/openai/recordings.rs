//! Transcriptions and translations: the fields of a form, and the shape of each answer.

use std::sync::Arc;

use serde_json::{Value, json};
use voxline::engine::{Latency, RecognitionRequest, Task};
use voxline_engines::wer::WordErrors;
use voxline_gateway::authority::Terms;

use super::{BOUNDARY, Stage, TRANSCRIPTIONS, TRANSLATIONS, content_type, events, form, part, service_token};
use voxline_fixtures::gateway::audio::{wav, wav_of};
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::samples::{models_dir, sample};

/// Two and a half seconds at 8 kHz.
fn recording() -> Vec<u8> {
    wav(1, 8_000, 20_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_text_usage_and_languages() {
    let stage = Stage::new().await;
    let answer = stage.json(TRANSCRIPTIONS, &[("model", "whisper-1")], &recording()).await;
    let expected = json!({
        "text": "0. 1. 2.",
        "usage": { "type": "duration", "seconds": 3 },
        "languages": [{ "code": "en" }],
    });
    assert_eq!(answer, expected);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verbose_json_has_segments_and_words_as_asked() {
    let stage = Stage::new().await;
    let segment = |id: u64, end: f64| {
        json!({
            "id": id, "seek": 100 * id, "start": id as f64, "end": end, "text": format!(" {id}."), "tokens": [7, 8],
            "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 0.5, "no_speech_prob": 0.125,
        })
    };
    let segments = json!([segment(0, 1.0), segment(1, 2.0), segment(2, 2.5)]);
    let word = |start: f64, end: f64| json!({ "word": format!("{start}."), "start": start, "end": end, "probability": 0.75 });
    let words = json!([word(0.0, 1.0), word(1.0, 2.0), word(2.0, 2.5)]);
    let verbose = ("response_format", "verbose_json");
    let (by_word, by_segment) =
        (("timestamp_granularities[]", "word"), ("timestamp_granularities", "segment"));
    for (granularities, has_segments, has_words) in [
        (&[][..], true, false),
        (&[by_segment][..], true, false),
        (&[by_word][..], false, true),
        (&[by_word, by_segment][..], true, true),
    ] {
        let fields = [&[verbose][..], granularities].concat();
        let mut expected = json!({
            "task": "transcribe",
            "language": "english",
            "duration": 2.5,
            "text": "0. 1. 2.",
            "usage": { "type": "duration", "seconds": 3 },
        });
        if has_segments {
            expected["segments"] = segments.clone();
        }
        if has_words {
            expected["words"] = words.clone();
        }
        assert_eq!(stage.json(TRANSCRIPTIONS, &fields, &recording()).await, expected, "{granularities:?}");
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_subtitles_are_plain_and_valid_for_silence_too() {
    let stage = Stage::new().await;
    let silence = wav_of(&[0; 24_000]);
    let srt = "1\n00:00:00,000 --> 00:00:00,833\n0.\n\n2\n00:00:01,000 --> 00:00:01,833\n1.\n\n\
               3\n00:00:02,000 --> 00:00:02,500\n2.\n\n";
    let vtt = format!("WEBVTT\n\n{}", srt.replace(',', "."));
    for (format, spoken, silent) in
        [("text", "0. 1. 2.\n", "\n"), ("srt", srt, ""), ("vtt", vtt.as_str(), "WEBVTT\n\n")]
    {
        for (file, expected) in [(recording(), spoken), (silence.clone(), silent)] {
            let answer = stage.send(TRANSCRIPTIONS, &[("response_format", format)], &file).await;
            assert_eq!(content_type(&answer), "text/plain; charset=utf-8");
            let text = answer.text().await.unwrap();
            // How long a cue stays is for the writer to decide.
            let starts = |text: &str| {
                text.lines().map(|line| line.split(" -->").next().unwrap().to_owned()).collect::<Vec<_>>()
            };
            assert_eq!(starts(&text), starts(expected), "{format}");
        }
    }
    let answer = stage.json(TRANSCRIPTIONS, &[("response_format", "verbose_json")], &silence).await;
    assert_eq!((&answer["text"], &answer["segments"]), (&json!(""), &json!([])));
    stage.server.stop().await;
}

/// Returns a recording of two channels, of which the second says nothing in the first second.
fn dialogue() -> Vec<u8> {
    let mut file = wav(2, 16_000, 32_000);
    file[44..].chunks_exact_mut(4).take(16_000).for_each(|frame| frame[2..].fill(0));
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_is_a_speaker_of_diarized_json() {
    let stage = Stage::new().await;
    let diarized = ("response_format", "diarized_json");
    for (names, speakers) in [
        (&[][..], ["A", "B"]),
        (&[("known_speaker_names[]", "agent"), ("known_speaker_names[]", "caller")][..], ["agent", "caller"]),
    ] {
        let answer = stage.json(TRANSCRIPTIONS, &[&[diarized][..], names].concat(), &dialogue()).await;
        let segment = |id: &str, start: f64, speaker: &str| {
            json!({
                "type": "transcript.text.segment", "id": id, "start": start, "end": start + 1.0,
                "text": format!("{start}."), "speaker": speaker,
            })
        };
        let expected = json!({
            "task": "transcribe",
            "duration": 2.0,
            "text": "0. 1. 1.",
            "segments": [
                segment("seg_1", 0.0, speakers[0]), segment("seg_2", 1.0, speakers[0]), segment("seg_3", 1.0, speakers[1]),
            ],
            "usage": { "type": "duration", "seconds": 2 },
        });
        assert_eq!(answer, expected);
    }
    // Any other format hears both channels as one.
    assert_eq!(stage.json(TRANSCRIPTIONS, &[], &dialogue()).await["text"], "0. 1.");
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_add_up_to_the_text() {
    let stage = Stage::new().await;
    for (format, file) in
        [("json", recording()), ("verbose_json", recording()), ("diarized_json", dialogue())]
    {
        let fields = [("stream", "true"), ("response_format", format)];
        let answer = stage.send(TRANSCRIPTIONS, &fields, &file).await;
        assert_eq!(content_type(&answer), "text/event-stream");
        let events = events(&answer.text().await.unwrap());
        let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
        let deltas: Vec<_> =
            of("transcript.text.delta").iter().map(|event| event["delta"].as_str().unwrap()).collect();
        let whole = stage.json(TRANSCRIPTIONS, &[("response_format", format)], &file).await;
        let done = events.last().unwrap();
        assert_eq!(done["type"], "transcript.text.done");
        assert_eq!((&json!(deltas.concat()), &done["text"]), (&whole["text"], &whole["text"]));
        assert_eq!((deltas.len(), &done["usage"]["output_tokens"]), (3, &json!(6)));
        let segments = of("transcript.text.segment");
        if format == "diarized_json" {
            assert_eq!(json!(segments), whole["segments"]);
        } else {
            assert!(segments.is_empty(), "{segments:?}");
        }
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_come_in_any_order_and_reach_the_recogniser() {
    let stage = Stage::new().await;
    let file = part("file", "; filename=a", &recording());
    let fields = [
        part("languages[]", "", b"en"),
        part("languages", "", b"de"),
        part("prompt", "", "Привет".as_bytes()),
        part("keywords[]", "", b"voxline"),
        part("hotwords", "", b"one,two"),
        part("temperature", "", b"0.0"),
        part("user", "", b"unknown fields are ignored"),
        part("known_speaker_references[]", "", &vec![b'='; 300_000]),
    ];
    let end = format!("--{BOUNDARY}--").into_bytes();
    for file_first in [true, false] {
        let fields = fields.concat();
        let body = if file_first {
            [&file[..], &fields, &end].concat()
        } else {
            [&fields[..], &file, &end].concat()
        };
        let answer: Value = stage.send_body(TRANSCRIPTIONS, body).await.json().await.unwrap();
        assert_eq!(answer["text"], "0. 1. 2.");
    }
    let expected = RecognitionRequest::new()
        .languages(["en", "de"])
        .prompt("Привет")
        .keywords(["voxline", "one", "two"])
        .latency(Latency::Relaxed);
    assert_eq!(*stage.recognizer.requests.lock().unwrap(), [expected.clone(), expected]);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_translation_asks_the_recogniser_for_english() {
    let stage = Stage::new().await;
    let verbose = stage
        .json(TRANSLATIONS, &[("response_format", "verbose_json"), ("stream", "true")], &recording())
        .await;
    assert_eq!((&verbose["task"], &verbose["language"]), (&json!("translate"), &json!("english")));
    assert_eq!(stage.recognizer.requests.lock().unwrap()[0].task, Task::Translate);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paths_work_without_v1_and_with_two_and_that_of_whisper_cpp() {
    let stage = Stage::new().await;
    let paths = ["/audio/transcriptions", "/audio/translations", "/v1/v1/audio/transcriptions", "/inference"];
    for path in paths {
        assert_eq!(stage.json(path, &[], &recording()).await["text"], "0. 1. 2.", "{path}");
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_charged_once_for_each_channel_recognised() {
    let stage = Stage::new().await;
    let usage = || {
        stage
            .server
            .gateway
            .authority()
            .usage(None)
            .unwrap()
            .into_iter()
            .map(|entry| entry.total.audio_ms)
            .sum::<u64>()
    };
    stage.json(TRANSCRIPTIONS, &[], &recording()).await;
    assert_eq!(usage(), 2_500);
    stage.json(TRANSCRIPTIONS, &[], &dialogue()).await;
    assert_eq!(usage(), 4_500);
    stage.json(TRANSCRIPTIONS, &[("response_format", "diarized_json")], &dialogue()).await;
    assert_eq!(usage(), 8_500);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whisper_is_heard_as_by_the_gateways_own_route() {
    let whisper = voxline_engines::Whisper::load(&models_dir().join("whisper-base"));
    let whisper = Arc::new(whisper.unwrap_or_else(|error| panic!("{error} (or set VOXLINE_MODELS)")));
    let server = Server::with(whisper, Setup::default()).await;
    let token = service_token(&server, Terms::default());
    let http = http_client().unwrap();
    let file = std::fs::read(sample("speech-16k-mono-s16.wav")).unwrap();
    let own = http.post(url(&server, "/asr?language=en")).bearer_auth(&token).body(file.clone());
    let own: Value = own.send().await.unwrap().json().await.unwrap();
    let own = own["result"]["texts"][0]["punctuated_text"].as_str().unwrap().to_owned();

    let fields =
        [("language", "en"), ("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let request = http.post(url(&server, TRANSCRIPTIONS)).bearer_auth(&token);
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = request.header("Content-Type", content_type).body(form(&fields, Some(&file)));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let text = answer["text"].as_str().unwrap();
    assert_eq!(WordErrors::between(&own, text).errors, 0, "{own} / {text}");
    let words = answer["words"].as_array().unwrap();
    let spelt: Vec<&str> = words.iter().map(|word| word["word"].as_str().unwrap()).collect();
    assert_eq!(WordErrors::between(text, &spelt.join(" ")).errors, 0);
    let times: Vec<f64> = words
        .iter()
        .flat_map(|word| [&word["start"], &word["end"]])
        .map(|time| time.as_f64().unwrap())
        .collect();
    assert!(times.is_sorted() && *times.last().unwrap() <= answer["duration"].as_f64().unwrap(), "{times:?}");
    server.stop().await;
}
