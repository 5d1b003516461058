//! The Python package `deepgram-sdk`, `@deepgram/sdk` for Node.js, and the crate `deepgram`.

use std::fs;

use serde_json::{Value, json};

use super::{
    SENTENCE, SENTENCE_SECONDS, STEREO, Stage, assert_timed, assert_words, human, list, number, raw,
    sentence, string,
};
use crate::cli::path;
use voxline_fixtures::samples::sample;

/// Silence in seconds that the script sends after the second utterance.
const PAUSE: f64 = 2.0;

#[test]
fn deepgram_client() {
    check(|stage, arguments| stage.run("deepgram_client.py", arguments));
}

#[test]
#[ignore = "its packages are large: ./dev prove dialects fetches them"]
fn deepgram_client_for_node() {
    check(|stage, arguments| stage.run_node("deepgram_client.cjs", arguments));
}

#[test]
#[ignore = "its packages are large: ./dev prove dialects builds them"]
fn deepgram_client_for_rust() {
    check(|stage, arguments| stage.run_rust("deepgram", arguments));
}

/// Checks the results of a client that is run with these arguments.
fn check(run: impl FnOnce(&Stage, &[&str]) -> Value) {
    let stage = Stage::new(&["--model", "whisper-tiny.en"]);
    let (first, human) = (sentence(), human());
    let files = [("first.pcm", raw(&first)), ("second.pcm", raw(&human.pcm))];
    let files = files.map(|(name, pcm)| stage.place.file(name, pcm));
    let stereo = sample(STEREO);
    let arguments =
        [&stage.serving.endpoint, path(&stereo), path(&files[0]), path(&files[1]), SENTENCE.trim()];
    let results = run(&stage, &arguments);

    let [sentence_end, human_length] = [&first, &human.pcm].map(|pcm| pcm.len() as f64 / 16_000.0);
    let both = [(SENTENCE, sentence_end), (&human.text, sentence_end + human_length + PAUSE)];
    assert_live(list(&results["live"]), both);
    let longest = sentence_end.max(human_length);
    assert_multichannel(&results["multichannel"], [SENTENCE, &human.text], longest);
    assert_container(list(&results["container"]));
    assert_granted(&results["granted"], &human.text, human_length);
    assert_spoken_live(&results["speak_live"]);
    assert_file(&results["file"]);
    assert_channels(&results["channels"]);
    assert_spoken(&stage, &results);
    assert_failures(&results["failures"]);
}

fn of_class<'a>(messages: &'a [Value], class: &str) -> Vec<&'a Value> {
    messages.iter().filter(|message| message["class"] == class).collect()
}

fn alternative(result: &Value) -> &Value {
    &result["channel"]["alternatives"][0]
}

/// Returns the finals of a channel, after asserting that each begins where the one before it ends, and that
/// they cover the audio.
fn finals(messages: &[Value], channel: u64, end: f64) -> Vec<&Value> {
    let results = of_class(messages, "ListenV1Results").into_iter();
    let is_own = |result: &&Value| result["is_final"] == true && result["channel_index"][0] == channel;
    let finals: Vec<&Value> = results.filter(is_own).collect();
    let mut at = 0.0;
    for result in &finals {
        assert!((number(&result["start"]) - at).abs() < 1e-6, "{result}, not at {at}");
        at += number(&result["duration"]);
    }
    assert!((at - end).abs() < 0.02, "{at}, {end}: {finals:?}");
    finals
}

/// Asserts that finals have the words of the text, with times within these seconds.
fn assert_finals(finals: &[&Value], said: &str, seconds: [f64; 2]) {
    let words: Vec<Value> =
        finals.iter().flat_map(|result| list(&alternative(result)["words"])).cloned().collect();
    assert_timed(&words, "word", said, seconds);
    let texts: Vec<&str> = finals.iter().map(|result| string(&alternative(result)["transcript"])).collect();
    assert_words(&texts.join(" "), said);
}

/// Asserts that two utterances were heard, of which a request ended the first, and a pause the second. Each
/// has its text, and the end of its audio in seconds.
fn assert_live(messages: &[Value], [first, second]: [(&str, f64); 2]) {
    let known = ["ConfigureSuccess", "Results", "Metadata", "UtteranceEnd", "SpeechStarted"];
    for message in messages {
        let class = string(&message["class"]).strip_prefix("ListenV1").unwrap_or_default();
        assert!(known.contains(&class) && message["type"] == class, "{message}");
    }
    let finals = finals(messages, 0, second.1);
    let flushed: Vec<usize> =
        (0..finals.len()).filter(|index| finals[*index]["from_finalize"] == true).collect();
    let [end, again] = flushed[..] else { panic!("two finals are from Finalize: {finals:?}") };
    assert_eq!(again, end + 1, "nothing is left to be said: {finals:?}");
    assert_eq!(alternative(finals[again])["transcript"], "");
    assert_finals(&finals[..=end], first.0, [0.0, first.1]);
    assert_finals(&finals[again..], second.0, [first.1, second.1]);
    let words = finals.iter().flat_map(|result| list(&alternative(result)["words"]));
    assert!(words.into_iter().all(|word| !string(&word["punctuated_word"]).is_empty()), "{finals:?}");
    assert_interims(messages);
    assert_ends(messages, &finals[again..]);
    let metadata = messages.last().unwrap();
    assert_eq!((&metadata["type"], &metadata["channels"]), (&json!("Metadata"), &json!(1)));
    assert!((number(&metadata["duration"]) - second.1).abs() < 0.001, "{metadata}");
}

/// Asserts that the client was told when speech began, and what was heard before the utterance ended.
fn assert_interims(messages: &[Value]) {
    let results = of_class(messages, "ListenV1Results").into_iter();
    let interims: Vec<&Value> = results.filter(|result| result["is_final"] == false).collect();
    assert!(!interims.is_empty() && !of_class(messages, "ListenV1SpeechStarted").is_empty(), "{messages:?}");
    for result in interims {
        assert!(!string(&alternative(result)["transcript"]).is_empty(), "{result}");
    }
}

/// Asserts that the client was told that the utterance of these finals ended with a pause.
fn assert_ends(messages: &[Value], finals: &[&Value]) {
    let spoken = finals.iter().find(|result| !string(&alternative(result)["transcript"]).is_empty()).unwrap();
    assert_eq!(spoken["speech_final"], true, "{finals:?}");
    let ends = of_class(messages, "ListenV1UtteranceEnd");
    let word = list(&alternative(spoken)["words"]).last().unwrap();
    assert_eq!(ends.last().unwrap()["last_word_end"], word["end"]);
}

/// Asserts that each channel has its own words, and that the client saw the whole life of the socket.
fn assert_multichannel(seen: &Value, said: [&str; 2], length: f64) {
    let messages = list(&seen["messages"]);
    for (channel, said) in (0..).zip(said) {
        let finals = finals(messages, channel, length);
        assert!(finals.iter().all(|result| result["channel_index"] == json!([channel, 2])), "{finals:?}");
        assert_finals(&finals, said, [0.0, length]);
    }
    assert_eq!(messages.last().unwrap()["channels"], 2);
    // The client for Rust tells no events.
    if let Some(events) = seen.get("events") {
        assert_eq!(*events, json!(["OPEN", "MESSAGE", "CLOSE"]));
    }
}

/// Asserts that a recording that was sent as it is has its words, without punctuation.
fn assert_container(messages: &[Value]) {
    let finals = finals(messages, 0, SENTENCE_SECONDS);
    assert_finals(&finals, SENTENCE, [0.0, SENTENCE_SECONDS]);
    let text = string(&alternative(finals[0])["transcript"]);
    assert_eq!(text, text.to_lowercase());
}

/// Asserts that a short-lived key opened a stream, and nothing else.
fn assert_granted(granted: &Value, said: &str, length: f64) {
    let lifetimes: Vec<f64> =
        list(&granted["grants"]).iter().map(|grant| number(&grant["expires_in"])).collect();
    assert_eq!(lifetimes, [30.0, 60.0]);
    let finals = finals(list(&granted["messages"]), 0, length);
    assert_finals(&finals, said, [0.0, length]);
    assert_eq!(granted["refusal"]["status"], 403);
}

/// Asserts that a text was spoken up to its flush, and to its end, and that the text between was cleared.
fn assert_spoken_live(spoken: &Value) {
    let messages = list(&spoken["messages"]);
    let kinds: Vec<&str> = messages.iter().map(|message| string(&message["type"])).collect();
    assert_eq!(kinds, ["Metadata", "Flushed", "Cleared", "Flushed"]);
    assert!(messages[1..].iter().map(|message| number(&message["sequence_id"])).eq([0.0, 1.0, 2.0]));
    assert_eq!(messages[0]["model_name"], "aura-2-thalia-en");
    for heard in list(&spoken["heard"]) {
        assert_words(string(&heard["results"]["channels"][0]["alternatives"][0]["transcript"]), SENTENCE);
    }
    let seconds = ["flushed", "closed", "cleared"].map(|name| number(&spoken["seconds"][name]));
    assert!(seconds[..2].iter().all(|length| (3.0..6.0).contains(length)), "{seconds:?}");
    assert!(seconds[2] < 3.0, "{seconds:?}");
}

fn assert_file(file: &Value) {
    assert_eq!(file["class"], "ListenV1Response");
    let within = [0.0, SENTENCE_SECONDS];
    let alternative = &file["results"]["channels"][0]["alternatives"][0];
    assert_timed(list(&alternative["words"]), "word", SENTENCE, within);
    let transcript = string(&alternative["transcript"]);
    assert_words(transcript, SENTENCE);
    assert!(transcript.starts_with("Call") && transcript.ends_with('.'), "{transcript}");
    let paragraphs = list(&alternative["paragraphs"]["paragraphs"]);
    let sentences: Vec<Value> =
        paragraphs.iter().flat_map(|paragraph| list(&paragraph["sentences"])).cloned().collect();
    assert_timed(&sentences, "text", SENTENCE, within);
    let utterances = list(&file["results"]["utterances"]);
    assert_timed(utterances, "transcript", SENTENCE, within);
    assert!((number(&file["metadata"]["duration"]) - SENTENCE_SECONDS).abs() < 0.001, "{file}");
}

/// Asserts that both channels of a recording were heard.
fn assert_channels(file: &Value) {
    let channels = list(&file["results"]["channels"]);
    assert_eq!((channels.len(), &file["metadata"]["channels"]), (2, &json!(2)));
    for channel in channels {
        assert_words(string(&channel["alternatives"][0]["transcript"]), SENTENCE);
    }
}

/// Asserts that each format holds speech, and that the words of one are heard.
fn assert_spoken(stage: &Stage, results: &Value) {
    let heard = &results["heard"]["results"]["channels"][0]["alternatives"][0];
    assert_words(string(&heard["transcript"]), SENTENCE);
    for format in ["wav", "mp3", "opus", "flac"] {
        let seconds = stage.seconds_of(&results["speech"][format]);
        assert!((3.0..6.0).contains(&seconds), "{format}: {seconds}");
    }
    let raw = fs::read(stage.place.path(string(&results["speech"]["pcm"]))).unwrap();
    assert!((3.0..6.0).contains(&(raw.len() as f64 / 48_000.0)) && !raw.starts_with(b"RIFF"));
}

fn assert_failures(failures: &Value) {
    for (name, status) in [("key", 401), ("address", 400), ("voice", 400)] {
        assert_eq!(failures[name]["status"], status, "{name}: {failures}");
    }
}
