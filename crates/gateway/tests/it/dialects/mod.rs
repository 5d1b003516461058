//! Dialects of the gateway, tested by peers that are written by hand from their contracts: JSON, forms and
//! bytes over HTTP and WebSockets of libraries that aren't ours.

mod deepgram;
mod deepgram_addresses;
mod deepgram_prerecorded;
mod deepgram_speak;
mod formats;
mod gated;
mod hostile;
mod jambonz;
mod keys;
mod latency;
mod limits;
mod open_access;
mod openai;
mod peer;
mod stage;
mod vosk;
mod wyoming;

use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::Value;
use voxline::session::Settings;
use voxline::transcript::FinalSegment;
use voxline::transport::WebSocketConnector;
use voxline_engines::Whisper;
use voxline_gateway::Options;
use voxline_gateway::authority::Terms;
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::authority::service_token;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::session::transcribe;
use voxline_fixtures::samples::models_dir;

/// Frames of a segment of the recogniser that writes digests: half a second.
const SEGMENT: usize = 8_000;

/// Starts a gateway whose recogniser writes digests of its audio.
async fn digesting(options: Options) -> (Server, Arc<DigestRecognizer>) {
    let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
    (Server::with(recognizer.clone(), Setup { options, ..Setup::default() }).await, recognizer)
}

/// Starts a gateway that recognises English.
async fn english() -> Server {
    let whisper = Whisper::load(&models_dir().join("whisper-base")).expect("the model is there");
    let options = Options { languages: "en".parse().unwrap(), ..Options::default() };
    Server::with(Arc::new(whisper), Setup { options, ..Setup::default() }).await
}

/// Returns a service token without limits.
fn key(server: &Server) -> String {
    limited_key(server, Terms::default())
}

fn limited_key(server: &Server, terms: Terms) -> String {
    service_token(server, terms).token.expose_secret().to_owned()
}

/// Returns the finals of our own protocol.
async fn own_finals(server: &Server, pcm: &[i16]) -> Vec<FinalSegment> {
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let run = transcribe(&connector, &server.tokens(), Settings::new(16_000).with_seed(0), pcm).await;
    run.result.as_ref().expect("the session ends well");
    run.finals()
}

/// Returns samples as 16-bit little-endian PCM.
fn bytes(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// A word as a dialect tells it: its text, its first and last frame, and its confidence to four digits.
type Heard = (String, u64, u64, u64);

/// Returns the words of our own protocol on the same audio.
async fn own_words(server: &Server, pcm: &[i16]) -> Vec<Heard> {
    let words = own_finals(server, pcm).await.into_iter().flat_map(|segment| segment.words);
    let heard = words.map(|word| {
        let confidence = (f64::from(word.confidence) * 1e4).round() as u64;
        (bare(&word.text), word.range.start.0, word.range.end.0, confidence)
    });
    let heard: Vec<Heard> = heard.filter(|(text, ..)| !text.is_empty()).collect();
    assert!(heard.len() > 20, "{heard:?}");
    heard
}

/// Returns a word of a stream at 16 kHz.
fn heard(word: &Value, confidence: &str) -> Heard {
    let number = |field: &str, scale: f64| (word[field].as_f64().unwrap() * scale).round() as u64;
    let text = word["word"].as_str().unwrap().to_owned();
    (text, number("start", 16_000.0), number("end", 16_000.0), number(confidence, 1e4))
}

/// Returns a word as dialects without punctuation write it.
fn bare(word: &str) -> String {
    word.trim().trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}
