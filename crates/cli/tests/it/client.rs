//! The client facade of the library, against the real gateway.

use std::sync::Arc;

use futures::StreamExt;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use voxline::Client;
use voxline::client::{BuildError, SessionEnded, TranscriptError};
use voxline::recovery::Recovery;
use voxline::source::Source;
use voxline::speech::SpeechError;
use voxline::transcript::TranscriptEvent;
use voxline_testing::{DigestRecognizer, digest};

use crate::gateway::Tone;
use crate::support::server::{Server, Setup};
use crate::support::words::normal;
use voxline_fixtures::noise;
use voxline_fixtures::samples::sample;
use voxline_fixtures::whisper::whisper;

/// Length of a segment in frames: half a second, so that a session has many finals.
const SEGMENT: usize = 8_000;

fn digests() -> Arc<DigestRecognizer> {
    Arc::new(DigestRecognizer::new(SEGMENT))
}

/// Returns a client with the project's credentials, and the directory of its tokens.
fn client(server: &Server) -> (Client, TempDir) {
    let tokens = tempfile::tempdir().unwrap();
    let secret = server.credentials.client_secret.expose_secret();
    let builder = Client::builder(&server.endpoint().to_string());
    let builder =
        builder.credentials(&server.credentials.client_id, secret.to_owned()).token_dir(tokens.path());
    (builder.build().unwrap(), tokens)
}

/// Runs the program of docs/library.md. Returns the text that the program prints.
async fn first_transcript(server: &Server, recording: &str) -> Result<String, Box<dyn std::error::Error>> {
    let (client, _tokens) = client(server);
    let mut text = String::new();
    let mut transcript = client.transcribe(Source::open(recording)?).language("en").start()?;
    while let Some(event) = transcript.next().await {
        text.push_str(event?.final_text().unwrap_or_default());
    }
    assert!(transcript.ledger().is_balanced() && transcript.ledger().unfinished == 0);
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_transcript_takes_a_dozen_lines() {
    let recogniser = whisper().clone();
    let server = Server::start(Arc::new(recogniser)).await;
    let recording = sample("speech-44k1-stereo.mp3");
    let text = first_transcript(&server, recording.to_str().unwrap()).await.unwrap();
    assert_eq!(normal(&text), normal(include_str!("../../../../samples/speech.txt")));
    server.stop().await;
}

#[tokio::test]
async fn live_audio_arrives_to_the_last_sample_in_pieces_of_any_length() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let pcm = noise(3 * SEGMENT + 1_234);
    let (mut audio, mut transcript) = client.live(16_000).start();
    let speaking = async {
        for piece in pcm.chunks(777) {
            audio.push(piece).await.unwrap();
        }
        assert_eq!(audio.position().0, pcm.len() as u64);
        audio.finish().await.unwrap();
    };
    let mut heard = Vec::new();
    let listening = async {
        while let Some(event) = transcript.next().await {
            heard.extend(event.unwrap().final_text().map(str::to_owned));
        }
    };
    tokio::join!(speaking, listening);
    let said: Vec<String> = pcm.chunks(SEGMENT).map(digest).collect();
    assert_eq!(heard, said);
    let ledger = transcript.ledger();
    assert_eq!((ledger.accepted, ledger.recognised), (pcm.len() as u64, pcm.len() as u64), "{ledger}");
    server.stop().await;
}

/// A flush ends the utterance at the current position of the audio, which need not be the end of a chunk.
#[tokio::test]
async fn a_flush_is_of_all_that_was_pushed() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let pcm = noise(1_000);
    let (mut audio, mut transcript) = client.live(16_000).start();
    audio.push(&pcm).await.unwrap();
    audio.flush().await.unwrap();
    let event = loop {
        let event = transcript.next().await.expect("the session goes on").unwrap();
        if matches!(event, TranscriptEvent::Final(_)) {
            break event;
        }
    };
    assert_eq!(event.final_text(), Some(digest(&pcm).as_str()));
    drop(audio);
    while let Some(event) = transcript.next().await {
        event.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn channels_are_merged_by_time() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let recording = Source::open(sample("speech-44k1-stereo.flac")).unwrap();
    let mut transcript = client.transcribe(recording).start_by_channel().unwrap();
    let (mut reached, mut channels) = (0, [0; 2]);
    while let Some(event) = transcript.next().await {
        let (channel, event) = event.unwrap();
        if let TranscriptEvent::Final(segment) = event {
            assert!(segment.range.start.0 >= reached, "{segment:?} comes after {reached}");
            (reached, channels[channel]) = (segment.range.start.0, segment.range.end.0);
        }
    }
    let frames: Vec<u64> = transcript.ledgers().iter().map(|ledger| ledger.accepted).collect();
    assert_eq!(frames, channels);
    assert!(frames[0] > 0 && frames[0] == frames[1]);
    server.stop().await;
}

#[tokio::test]
async fn what_fails_is_the_last_item_of_the_transcript() {
    let server = Server::start(digests()).await;
    let endpoint = server.endpoint().to_string();
    let client = Client::builder(&endpoint).service_token("vxs_wrong".to_owned()).build().unwrap();
    let (mut audio, mut transcript) = client.live(16_000).start();
    let error = transcript.next().await.expect("it fails").unwrap_err();
    assert!(matches!(&error, TranscriptError::Session(_)), "{error}");
    assert!(transcript.next().await.is_none(), "nothing follows");
    // Buffers on the way accept some more audio; then pushing fails.
    let refused = async { while audio.push(&[0; 1_600]).await.is_ok() {} };
    refused.await;
    assert_eq!(audio.finish().await, Err(SessionEnded));
    server.stop().await;

    assert!(matches!(Client::builder("https://speech.example").build(), Err(BuildError::NoCredentials)));
    let plain = Client::builder("http://speech.example").service_token("t".to_owned()).build();
    assert!(matches!(plain, Err(BuildError::Endpoint(_))));
}

/// A recording that breaks off is transcribed up to that point; then the error follows.
#[tokio::test]
async fn a_damaged_recording_is_told_after_its_text() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let mut bytes = std::fs::read(sample("speech-44k1-stereo.flac")).unwrap();
    bytes.truncate(bytes.len() / 2);
    let mut transcript = client.transcribe(Source::bytes("half.flac", bytes)).start().unwrap();
    let (mut finals, mut error) = (0, None);
    while let Some(event) = transcript.next().await {
        match event {
            Ok(event) => finals += usize::from(event.final_text().is_some()),
            Err(failed) => error = Some(failed),
        }
    }
    assert!(matches!(error, Some(TranscriptError::Source(_))), "{error:?}");
    assert!(finals > 0 && transcript.ledger().unfinished == 0);
    server.stop().await;
}

#[tokio::test]
async fn it_speaks() {
    let server = Server::with(digests(), Setup { voices: Tone::voices(), ..Setup::default() }).await;
    let (client, _tokens) = client(&server);
    let mut speech = client.speak("The train leaves at seven.");
    let mut frames = 0;
    while let Some(pcm) = speech.next().await {
        frames += pcm.unwrap().len() / 2;
    }
    assert!(frames > 0);
    server.stop().await;

    let gone: Result<Vec<_>, SpeechError> =
        client.speech().speak("Nobody.", &Default::default()).collect::<Vec<_>>().await.into_iter().collect();
    assert!(gone.is_err_and(|error| error.recovery() != Recovery::Fatal));
}
