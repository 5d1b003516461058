//! The speech client against a real gateway: text of any length in, PCM out without a gap, whatever
//! happens in between.

mod faults;
mod stopping;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep_until};
use voxline::audio::{AudioChunk, Encoding, Feed, PcmFormat};
use voxline::auth::TokenProvider;
use voxline::engine::{EngineError, Voice, VoiceInfo, Voices};
use voxline::net::HttpClient;
use voxline::pipeline::{self, Pipeline};
use voxline::speech::{Codec, PcmStream, SpeechClient, SpeechError, SpeechOptions};
use voxline_engines::EspeakVoice;
use voxline_testing::{DigestRecognizer, FaultProxy};

use voxline_fixtures::gateway::server::{Server, Setup, endpoint};
use voxline_fixtures::gateway::voice::Tone;
use voxline_fixtures::samples::models_dir;

/// Text of two sentences, which form one part.
const SHORT: &str =
    "The train to the coast leaves at seven. It takes two hours and a half, and there is a restaurant.";

/// A gateway that speaks, and the tokens of its clients.
struct Stage {
    server: Server,
    tokens: TokenProvider,
}

impl Stage {
    /// Starts a gateway with a voice that always speaks a text in the same way.
    async fn new() -> Stage {
        Stage::with(Setup { voices: espeak(), ..Setup::default() }).await
    }

    async fn with(setup: Setup) -> Stage {
        let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
        Stage { tokens: server.tokens(), server }
    }

    fn client(&self) -> SpeechClient {
        self.client_at(self.server.address)
    }

    /// Returns a client that uses the gateway at another address. Its tokens come directly from the
    /// gateway.
    fn client_at(&self, address: SocketAddr) -> SpeechClient {
        SpeechClient::new(HttpClient::new().unwrap(), endpoint(address), &self.tokens)
    }
}

fn espeak() -> Voices {
    Voices::new(vec![Arc::new(EspeakVoice::english())])
}

fn options() -> SpeechOptions {
    SpeechOptions::default()
}

/// Returns all audio of a stream.
async fn whole(speech: impl Stream<Item = Result<Bytes, SpeechError>>) -> Result<Vec<u8>, SpeechError> {
    let mut speech = std::pin::pin!(speech);
    let mut audio = Vec::new();
    while let Some(piece) = speech.next().await {
        audio.extend_from_slice(&piece?);
    }
    Ok(audio)
}

/// Returns at least `count` characters of sentences, no two of which are the same.
fn prose(count: usize) -> String {
    let mut text = String::new();
    for number in 1.. {
        let (wagons, hours) = (number % 40 + 1, number % 12 + 1);
        text += &format!(
            "Train number {number} has {wagons} wagons, and where it stops for the night, which is at {hours}, nobody \
             gets off, since \"nobody\" is the name of the station. "
        );
        if text.len() >= count {
            break;
        }
    }
    text
}

/// Simulated playback at the pace of a listener (1x): the state of its buffer as each piece arrives.
#[derive(Debug)]
struct Playing {
    sample_rate: u32,
    /// Arrival of the first piece.
    began: Option<Instant>,
    /// Number of frames that have arrived.
    frames: u64,
    /// Least audio that was left to be played when a piece arrived.
    reserve: Duration,
    /// Total duration of all silences.
    silence: Duration,
}

impl Playing {
    fn new(sample_rate: u32) -> Playing {
        let (reserve, silence) = (Duration::MAX, Duration::ZERO);
        Playing { sample_rate, began: None, frames: 0, reserve, silence }
    }

    /// Returns the duration of the audio that has arrived.
    fn heard(&self) -> Duration {
        Duration::from_secs_f64(self.frames as f64 / f64::from(self.sample_rate))
    }

    /// Adds a piece that arrives at `now`. Returns the time at which it has been played.
    fn take(&mut self, piece: &[u8], now: Instant) -> Instant {
        let began = *self.began.get_or_insert(now);
        // Each silence delays all audio after it.
        let runs_dry = began + self.heard() + self.silence;
        if self.frames > 0 {
            self.reserve = self.reserve.min(runs_dry.saturating_duration_since(now));
        }
        self.silence += now.saturating_duration_since(runs_dry);
        self.frames += piece.len() as u64 / 2;
        began + self.heard() + self.silence
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn ten_thousand_characters_are_heard_without_a_gap() {
    let stage = Stage::new().await;
    let mut speech = stage.client().speak(&prose(10_000), &options());
    let mut playing = Playing::new(speech.sample_rate());
    let asked = Instant::now();
    while let Some(piece) = speech.next().await {
        playing.take(&piece.unwrap(), Instant::now());
    }
    let first = playing.began.unwrap() - asked;
    println!("10,000 characters: {:?} of speech, first audio after {first:?}, {playing:?}", playing.heard());
    assert!(playing.heard() > Duration::from_secs(500), "{playing:?}");
    assert_eq!(playing.silence, Duration::ZERO, "{playing:?}");
    drop(speech);
    stage.server.stop().await;
}

/// A voice that speaks 30 bytes of text per second, and takes two fifths of the audio's duration to
/// compute it.
///
/// A voice whose whole response arrives at once cannot be slower and speak without gaps, because a part
/// is at most twice as long as the part that is played meanwhile.
struct Unhurried(VoiceInfo);

impl Voice for Unhurried {
    fn info(&self) -> &VoiceInfo {
        &self.0
    }

    #[expect(clippy::disallowed_methods, reason = "this is how long an engine computes")]
    fn speak_in_pieces(
        &self,
        sentence: &str,
        _: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let frames = sentence.trim().len() * 800;
        std::thread::sleep(Duration::from_secs_f64(frames as f64 / 24_000.0) * 2 / 5);
        let _ = take(&vec![0x1234; frames]);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_that_takes_its_time_is_heard_without_a_gap_at_the_pace_of_a_listener() {
    let info = VoiceInfo { name: "unhurried".to_owned(), ..EspeakVoice::english().info().clone() };
    let info = VoiceInfo { sample_rate: 24_000, ..info };
    let voices = Voices::new(vec![Arc::new(Unhurried(info))]);
    let stage = Stage::with(Setup { voices, ..Setup::default() }).await;
    let mut speech = stage.client().speak(&prose(600), &options());
    let playing = listen(&mut speech).await;
    assert!(playing.heard() > Duration::from_secs(20), "{playing:?}");
    assert_eq!(playing.silence, Duration::ZERO, "{playing:?}");
    drop(speech);
    stage.server.stop().await;
}

/// Plays speech like a sound card with a buffer of a fifth of a second.
#[expect(clippy::disallowed_methods, reason = "what is heard takes its time")]
async fn listen(speech: &mut PcmStream) -> Playing {
    let mut playing = Playing::new(speech.sample_rate());
    while let Some(piece) = speech.next().await {
        let played = playing.take(&piece.unwrap(), Instant::now());
        sleep_until(played - Duration::from_millis(200)).await;
    }
    playing
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "eleven minutes, as long as the text is heard: for the figures"]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn ten_thousand_characters_by_a_natural_voice_at_the_pace_of_a_listener() {
    let voices = voxline_engines::voices::discover(&models_dir());
    let stage = Stage::with(Setup { voices, ..Setup::default() }).await;
    let mut speech = stage.client().speak(&prose(10_000), &options());
    let asked = Instant::now();
    let playing = listen(&mut speech).await;
    let first = playing.began.unwrap() - asked;
    println!("10,000 characters: {:?} of speech, first audio after {first:?}, {playing:?}", playing.heard());
    assert_eq!(playing.silence, Duration::ZERO, "{playing:?}");
    drop(speech);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_format_is_known_before_there_is_audio_and_the_bytes_are_the_services() {
    let stage = Stage::new().await;
    let speech = stage.client().speak(SHORT, &options());
    let format = PcmFormat { encoding: Encoding::S16Le, sample_rate: 24_000, channels: 1 };
    assert_eq!((speech.format(), speech.sample_rate()), (format, 24_000));
    let handle = speech.handle();
    let pcm = whole(speech).await.unwrap();
    assert_eq!(handle.handed_out(), pcm.len() as u64 / 2);

    let token = stage.tokens.token().await.unwrap();
    let request = voxline_fixtures::gateway::http::http_client()
        .unwrap()
        .post(format!("http://{}/tts", stage.server.address));
    let answer = request.bearer_auth(token.expose()).body(SHORT).send().await.unwrap();
    let big_endian = answer.bytes().await.unwrap();
    let swapped: Vec<u8> = big_endian.as_chunks().0.iter().flat_map(|&[high, low]| [low, high]).collect();
    let differ = pcm.iter().zip(&swapped).position(|(one, other)| one != other);
    assert_eq!((pcm.len(), differ), (swapped.len(), None));
    assert!(pcm.len() > 4 * 48_000);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_has_any_rate_and_is_a_source_like_any_other() {
    let stage = Stage::new().await;
    let speak = || stage.client().speak(SHORT, &options());
    let frames = whole(speak()).await.unwrap().len() as u64 / 2;
    for rate in [8_000, 16_000, 48_000] {
        let speech = speak().resampled(rate).unwrap();
        assert_eq!(speech.format().sample_rate, rate);
        let resampled = whole(speech).await.unwrap().len() as u64 / 2;
        assert_eq!(resampled, voxline::resample::frames_at(frames, 24_000, rate), "{rate}");
    }
    for rate in [7_999, 192_001] {
        assert!(speak().resampled(rate).is_err());
    }

    // Speech passes through the front end, in chunks with positions.
    let source = speak().into_source();
    let at_its_rate = pipeline::Options { sample_rate: 24_000, ..pipeline::Options::default() };
    let opened = tokio::task::spawn_blocking(move || Pipeline::open(source, at_its_rate)).await;
    let (mut streams, worker) = opened.unwrap().unwrap().start();
    let mut heard = Vec::new();
    while let Some(feed) = streams[0].recv().await {
        match feed {
            Feed::Audio(chunk) => {
                assert_eq!(chunk.range().start.0, heard.len() as u64 / 2);
                heard.extend_from_slice(AudioChunk::payload(&chunk));
            }
            Feed::Flush | Feed::Gap(_) => {}
            Feed::End => break,
        }
    }
    assert!(heard == whole(speak()).await.unwrap());
    assert_eq!(worker.join().unwrap().frames_out, frames);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentence_is_spoken_while_the_next_is_being_written() {
    let stage = Stage::new().await;
    let client = stage.client();
    let sentences =
        ["The first is short.", "The second has \"quotation marks\", and 3.5 clauses.", "The third"];
    let (writer, text) = mpsc::unbounded();
    let write = |text: &str| writer.unbounded_send(text.to_owned()).unwrap();
    let mut speech = client.speak_stream(text, &options());
    let mut heard = Vec::new();
    let mut hear = async |speech: &mut PcmStream, bytes: usize| {
        while heard.len() < bytes {
            heard.extend_from_slice(&speech.next().await.expect("there is more").unwrap());
        }
    };
    // Text comes letter by letter, as from a language model. The next sentence has begun.
    format!("{} {}", sentences[0], "The sec").chars().for_each(|letter| write(&letter.to_string()));
    let mut length = whole(client.speak(sentences[0], &options())).await.unwrap().len();
    hear(&mut speech, length).await;
    // The writer pauses after text that looks like a whole sentence.
    write(&sentences[1]["The sec".len()..]);
    length += whole(client.speak(sentences[1], &options())).await.unwrap().len();
    hear(&mut speech, length).await;
    // A line break ends text that is not a sentence.
    write(&format!(" {}\n", sentences[2]));
    length += whole(client.speak(sentences[2], &options())).await.unwrap().len();
    hear(&mut speech, length).await;
    drop(writer);
    assert!(speech.next().await.is_none());
    let mut alone = Vec::new();
    for sentence in sentences {
        alone.extend(whole(client.speak(sentence, &options())).await.unwrap());
    }
    assert!(heard == alone);
    drop(speech);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_character_is_spoken_once_and_texts_without_words_ask_nobody() {
    let stage = Stage::with(Setup { voices: Tone::voices(), ..Setup::default() }).await;
    let proxy = FaultProxy::with_faults(stage.server.address, []).await.unwrap();
    let client = stage.client_at(proxy.address());
    for silent in ["", " \n\t", "?! ... —", "{}", "«»"] {
        assert!(whole(client.speak(silent, &options())).await.unwrap().is_empty());
    }
    assert_eq!(proxy.connections(), 0);
    // The tone has 100 frames for each byte.
    for word in ["a".repeat(30_000), "ы".repeat(30_000)] {
        let pcm = whole(client.speak(&word, &options())).await.unwrap();
        assert_eq!(pcm.len(), word.len() * 200);
    }
    // The same holds for encoded parts, which are as long as they may be.
    let text = "Hello there, world. ".repeat(500);
    let mp3 = client.encode_stream(futures::stream::iter([text.clone()]), Codec::Mp3, &options());
    let mp3 = whole(mp3).await.unwrap();
    // The space after a sentence is not spoken.
    let seconds = text.trim_end().replace(". ", ".").len() as f64 * 100.0 / 24_000.0;
    let bits = mp3.len() as f64 * 8.0 / seconds / 1_000.0;
    assert!((62.0..70.0).contains(&bits), "{bits} kbit/s");
    stage.server.stop().await;
}
