//! The Python package `openai`, that of the same name for Node.js, and the crate `async-openai`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    SENTENCE, SENTENCE_SECONDS, STEREO, Stage, assert_timed, assert_words, human, list, number, sentence,
    string,
};
use crate::cli::{Place, path, text};
use voxline_engines::wer::normal;
use voxline_fixtures::clips;
use voxline_fixtures::gateway::audio::wav_of;
use voxline_fixtures::gateway::tls::CertificateFiles;
use voxline_fixtures::samples::sample;

/// Words of any English translation of the Russian recording `tt-allbusy`.
const TRANSLATED: [&str; 3] = ["please", "on", "line"];
/// Frames of a pause that ends an utterance: 1.5 s.
const PAUSE: usize = 24_000;

#[test]
fn openai_client() {
    let stage = Stage::new(&[]);
    check(&stage, &stage.serving.endpoint, |arguments| stage.run("openai_client.py", arguments));
}

/// This client opens sockets by TLS alone.
#[test]
#[ignore = "its packages are large: ./dev prove dialects fetches them"]
fn openai_client_for_node() {
    let place = Place::new();
    let files = CertificateFiles::create(&place.path(""));
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let stage = Stage::at(place, &["--tls-cert", path(&cert), "--tls-key", path(&key)]);
    let gateway = stage.serving.endpoint.replace("127.0.0.1", "localhost");
    check(&stage, &gateway, |arguments| stage.run_node("openai_client.cjs", arguments));
}

#[test]
#[ignore = "its packages are large: ./dev prove dialects builds them"]
fn openai_client_for_rust() {
    let stage = Stage::new(&[]);
    check(&stage, &stage.serving.endpoint, |arguments| stage.run_rust("openai", arguments));
}

/// Checks the results of a client that is run with these arguments.
fn check(stage: &Stage, gateway: &str, run: impl FnOnce(&[&str]) -> Value) {
    let human = human();
    let both = [sentence(), vec![0; PAUSE], human.pcm.clone()].concat();
    let said = format!("{SENTENCE} {}", human.text);
    let length = both.len() as f64 / 16_000.0;
    let pause = stage.place.file("pause.wav", wav_of(&both));
    let russian = stage.place.file("russian.wav", wav_of(&clips::audio("ru-telephone", "tt-allbusy")));
    let stereo = sample(STEREO);
    let second = stage.place.file("second.wav", wav_of(&human.pcm));
    let utterances =
        [at_24k(stage, "first.pcm", &sample("source.wav")), at_24k(stage, "second.pcm", &second)];
    let arguments = [
        gateway,
        path(&stereo),
        path(&pause),
        path(&russian),
        SENTENCE.trim(),
        path(&utterances[0]),
        path(&utterances[1]),
    ];
    let results = run(&arguments);

    for text in [&results["default"]["text"], &results["json"]["text"], &results["text"]] {
        assert_words(string(text), SENTENCE);
    }
    let usage = &results["json"]["usage"];
    assert_eq!((&usage["type"], number(&usage["seconds"])), (&json!("duration"), SENTENCE_SECONDS.ceil()));
    for format in ["srt", "vtt"] {
        assert_subtitles(string(&results[format]), &said, length);
    }
    assert_verbose(&results["verbose"], &said, length);
    assert_timed(list(&results["verbose"]["words"]), "word", &said, [0.0, length]);
    assert_diarized(&results["diarized"]);
    assert_stream(list(&results["stream"]), &said);
    assert_translated(&results);
    assert_models(&results);
    assert_spoken(stage, &results);
    assert_realtime(&results["realtime"], [SENTENCE, &human.text]);
    assert_failures(&results["failures"]);
}

/// Writes a recording as PCM at 24 kHz, the only rate that OpenAI's Realtime API takes.
fn at_24k(stage: &Stage, name: &str, recording: &Path) -> PathBuf {
    let output = stage.place.run(&["decode", path(recording), "--rate", "24000", "--format", "s16le"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    stage.place.file(name, output.stdout)
}

/// Asserts that subtitles have the text, and that their cues are in order.
fn assert_subtitles(subtitles: &str, said: &str, length: f64) {
    let is_text = |line: &&str| !line.contains("-->") && line.parse::<u32>().is_err() && *line != "WEBVTT";
    assert_words(&subtitles.lines().filter(is_text).collect::<Vec<_>>().join(" "), said);
    let times = subtitles.lines().filter_map(|line| line.split_once(" --> "));
    let times: Vec<f64> = times.flat_map(|(start, end)| [start, end]).map(clock).collect();
    assert!(times.len() >= 4 && times.is_sorted(), "{subtitles}");
    assert!(times.last().unwrap() - 0.001 <= length, "{subtitles}");
}

/// Returns the seconds of a time on the clock.
fn clock(time: &str) -> f64 {
    time.replace(',', ".").split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}

fn assert_verbose(verbose: &Value, said: &str, length: f64) {
    assert_words(string(&verbose["text"]), said);
    assert_eq!(verbose["language"], "english");
    assert!((number(&verbose["duration"]) - length).abs() < 0.001, "{verbose}");
    let segments = list(&verbose["segments"]);
    assert!(segments.len() >= 2, "{verbose}");
    assert_timed(segments, "text", said, [0.0, length]);
    for segment in segments {
        assert!(number(&segment["avg_logprob"]) < 0.0 && !list(&segment["tokens"]).is_empty(), "{segment}");
    }
}

/// Asserts that each channel is a speaker, who says the whole sentence.
fn assert_diarized(diarized: &Value) {
    let segments = list(&diarized["segments"]);
    for speaker in ["Ann", "B"] {
        let of_speaker = |segment: &&Value| segment["speaker"] == speaker;
        let own: Vec<Value> = segments.iter().filter(of_speaker).cloned().collect();
        assert_timed(&own, "text", SENTENCE, [0.0, SENTENCE_SECONDS]);
    }
}

/// Asserts that the deltas, of which there are several, add up to the whole text.
fn assert_stream(events: &[Value], said: &str) {
    let (done, deltas) = events.split_last().unwrap();
    assert_eq!(done["type"], "transcript.text.done");
    assert!(
        deltas.len() >= 2 && deltas.iter().all(|event| event["type"] == "transcript.text.delta"),
        "{deltas:?}"
    );
    let sum: String = deltas.iter().map(|event| string(&event["delta"])).collect();
    assert_eq!(done["text"], sum);
    assert_words(&sum, said);
}

fn assert_translated(results: &Value) {
    for name in ["translation", "verbose_translation"] {
        let words = normal(string(&results[name]["text"]));
        for word in TRANSLATED {
            assert!(words.iter().any(|heard| heard == word), "{name}: {words:?}");
        }
    }
    assert_eq!(results["verbose_translation"]["language"], "english");
}

fn assert_models(results: &Value) {
    let models = list(&results["models"]);
    for name in ["whisper-1", "whisper-base"] {
        assert!(models.iter().any(|model| model["id"] == name), "{models:?}");
    }
    assert_eq!(results["model"], *models.last().unwrap());
}

/// Asserts that each format holds the whole text as speech.
fn assert_spoken(stage: &Stage, results: &Value) {
    let speech = &results["speech"];
    assert_words(string(&results["heard"]), SENTENCE);
    let length = stage.seconds_of(&speech["wav"]);
    assert!((3.0..6.0).contains(&length), "{length}");
    // An MP3 has whole frames, and those of the encoder's delay.
    for (format, tolerance) in [("mp3", 0.08), ("opus", 0.001), ("flac", 0.001)] {
        let other = stage.seconds_of(&speech[format]);
        assert!((other - length).abs() < tolerance, "{format}: {other}, {length}");
    }
    let pcm = fs::read(stage.place.path(string(&speech["pcm"]))).unwrap();
    let seconds = pcm.len() as f64 / 48_000.0;
    assert!((seconds - length).abs() < 0.001, "pcm: {seconds}, {length}");
    // The client for Rust reads events, too.
    if let Some(streamed) = results.get("streamed_speech") {
        assert_eq!((number(&streamed["bytes"]), &streamed["is_done"]), (pcm.len() as f64, &json!(true)));
    }
    let fast = stage.seconds_of(&results["fast_speech"]) / length;
    assert!((0.4..0.75).contains(&fast), "{fast}");
    // An MP3 begins with the sync word of a frame.
    let start = u16::from_str_radix(string(&results["default_speech"]), 16).unwrap();
    assert!(start >= 0xffe0, "{start:x}");
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

/// Asserts that a short-lived key opened a session with the settings of the key, in which both utterances
/// were heard: one as it was committed, and one as it was detected.
fn assert_realtime(realtime: &Value, said: [&str; 2]) {
    let (secret, events) = (&realtime["secret"], list(&realtime["events"]));
    assert!(string(&secret["value"]).starts_with("ek_"), "{secret}");
    assert_eq!(realtime["refusal"]["status"], 403);
    let created = &events[0];
    assert_eq!(created["type"], "session.created");
    for session in [&secret["session"], &created["session"]] {
        let input = &session["audio"]["input"];
        assert_eq!((&session["type"], &input["turn_detection"]), (&json!("transcription"), &Value::Null));
        assert_eq!(input["transcription"]["language"], "en");
    }
    let updated = of_kind(events, "session.updated");
    assert_eq!(updated[0]["session"]["audio"]["input"]["turn_detection"]["type"], "server_vad");
    let error = &of_kind(events, "error")[0]["error"];
    let empty = (&json!("input_audio_buffer_commit_empty"), &json!("empty"));
    assert_eq!((&error["code"], &error["event_id"]), empty);
    let committed = of_kind(events, "input_audio_buffer.committed");
    assert_eq!(committed.len(), 2, "{committed:?}");
    assert_eq!(committed[1]["previous_item_id"], committed[0]["item_id"]);
    for (committed, said) in committed.into_iter().zip(said) {
        assert_item(events, &committed["item_id"], said);
    }
    // The clock counts all audio, which the second utterance is in the middle of.
    let [start, stop] = ["audio_start_ms", "audio_end_ms"].map(|field| {
        let mut times = events.iter().filter_map(|event| event[field].as_f64());
        times.next_back().unwrap_or_else(|| panic!("no {field}: {realtime}"))
    });
    assert!(1_000.0 * SENTENCE_SECONDS <= start + 1.0 && start < stop, "{start}, {stop}");
}

/// Asserts that an item has these words, and that its deltas add up to them.
fn assert_item(events: &[Value], id: &Value, said: &str) {
    let own: Vec<Value> = events.iter().filter(|event| event["item_id"] == *id).cloned().collect();
    let kind = |name: &str| format!("conversation.item.input_audio_transcription.{name}");
    let completed = of_kind(&own, &kind("completed"));
    assert_eq!(completed.len(), 1, "{own:?}");
    assert_words(string(&completed[0]["transcript"]), said);
    let deltas = of_kind(&own, &kind("delta"));
    let sum: String = deltas.into_iter().map(|event| string(&event["delta"])).collect();
    assert_words(&sum, said);
    for name in ["conversation.item.added", "conversation.item.done"] {
        let told = of_kind(events, name);
        assert_eq!(told.iter().filter(|event| event["item"]["id"] == *id).count(), 1, "{name}");
    }
}

fn assert_failures(failures: &Value) {
    for (name, class, status, param) in [
        ("key", "AuthenticationError", 401, Value::Null),
        ("model", "NotFoundError", 404, json!("model")),
        ("file", "BadRequestError", 400, json!("file")),
        ("format", "BadRequestError", 400, json!("response_format")),
    ] {
        let failure = &failures[name];
        assert_eq!((&failure["status"], &failure["param"]), (&json!(status), &param), "{name}");
        // The client for Rust has neither.
        if let (Some(own), Some(request)) = (failure.get("class"), failure.get("request")) {
            assert_eq!(own, class, "{name}");
            assert!(!string(request).is_empty(), "{name}");
        }
    }
}
