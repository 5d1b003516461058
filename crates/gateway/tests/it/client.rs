//! The client facade of the library, against the real gateway.

use std::io::Write;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use voxline::Client;
use voxline::client::{BuildError, ChannelError, SessionEnded, StartError, TranscriptError};
use voxline::decode::Channels;
use voxline::recovery::Recovery;
use voxline::session::SessionError;
use voxline::source::Source;
use voxline::speech::{SpeechError, SpeechOptions};
use voxline::transcript::TranscriptEvent;
use voxline_testing::{DigestRecognizer, digest};

use voxline_engines::wer::normal;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::Tone;
use voxline_fixtures::noise;
use voxline_fixtures::samples::sample;
use voxline_fixtures::whisper::whisper;

/// Length of a segment in frames: half a second, so that a session has many finals.
const SEGMENT: usize = 8_000;
/// Longest wait for an event, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn digests() -> Arc<DigestRecognizer> {
    Arc::new(DigestRecognizer::new(SEGMENT))
}

/// Returns a client with the project's credentials, and the directory of its tokens.
pub(crate) fn client(server: &Server) -> (Client, TempDir) {
    let tokens = tempfile::tempdir().unwrap();
    let secret = server.credentials.client_secret.expose_secret();
    let builder = Client::builder(server.endpoint());
    let builder =
        builder.credentials(&server.credentials.client_id, secret.to_owned()).token_dir(tokens.path());
    (builder.build().unwrap(), tokens)
}

/// Runs the program of docs/library.md. Returns the text that the program prints.
async fn first_transcript(server: &Server, recording: &str) -> Result<String, Box<dyn std::error::Error>> {
    let (client, _tokens) = client(server);
    let mut text = String::new();
    let mut transcript = client.transcribe(Source::open(recording)?).language("en").start().await?;
    while let Some(event) = transcript.next().await {
        if let Some(line) = event?.final_text() {
            text.push_str(line);
            text.push('\n');
        }
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
    let (mut audio, mut transcript) = client.live(16_000).start().unwrap();
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
    let (mut audio, mut transcript) = client.live(16_000).start().unwrap();
    audio.push(&pcm).await.unwrap();
    audio.flush().await.unwrap();
    let answer = async {
        loop {
            let event = transcript.next().await.expect("the session goes on").unwrap();
            if let TranscriptEvent::Final(segment) = event {
                break segment.text;
            }
        }
    };
    assert_eq!(within(PATIENCE, "the final that answers the flush", answer).await, digest(&pcm));
    drop(audio);
    while let Some(event) = transcript.next().await {
        event.unwrap();
    }
    server.stop().await;
}

/// An audio callback can't wait, and a program may drop its input instead of finishing it.
#[tokio::test]
async fn audio_pushed_without_waiting_arrives_to_the_last_sample() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let pcm = noise(2 * SEGMENT + 321);
    let (mut audio, mut transcript) = client.live(16_000).start().unwrap();
    let mut rest = &pcm[..];
    while !rest.is_empty() {
        let taken = audio.try_push(&rest[..rest.len().min(500)]).unwrap();
        rest = &rest[taken..];
        if taken < 500 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(audio.position().0, pcm.len() as u64);
    drop(audio);
    let mut finals = Vec::new();
    while let Some(event) = within(PATIENCE, "the end", transcript.next()).await {
        finals.extend(event.unwrap().final_text().map(str::to_owned));
    }
    assert_eq!(finals, pcm.chunks(SEGMENT).map(digest).collect::<Vec<_>>());
    server.stop().await;

    for sample_rate in [0, 7_999, 48_001] {
        let refused = client.live(sample_rate).start().expect_err("no session takes it");
        assert!(matches!(refused, StartError::SampleRate { .. }), "{refused}");
    }
}

#[tokio::test]
async fn channels_are_merged_by_time() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let recording = Source::open(sample("speech-44k1-stereo.flac")).unwrap();
    let mut transcript = client.transcribe(recording).start_by_channel().await.unwrap();
    let (mut reached, mut channels, mut ends) = (0, [0; 2], Vec::new());
    while let Some(event) = transcript.next().await {
        match event.unwrap() {
            (channel, TranscriptEvent::Final(segment)) => {
                assert!(ends.is_empty(), "{segment:?} comes after the end of {ends:?}");
                assert!(segment.range.start.0 >= reached, "{segment:?} comes after {reached}");
                (reached, channels[channel]) = (segment.range.start.0, segment.range.end.0);
            }
            (channel, TranscriptEvent::End { .. }) => ends.push(channel),
            _ => {}
        }
    }
    ends.sort_unstable();
    assert_eq!(ends, [0, 1]);
    let frames: Vec<u64> = transcript.ledgers().iter().map(|ledger| ledger.accepted).collect();
    assert_eq!(frames, channels);
    assert!(frames[0] > 0 && frames[0] == frames[1]);
    server.stop().await;
}

/// One transcript of split channels would be that of a mix, which the caller did not ask for.
#[tokio::test]
async fn split_channels_have_no_single_transcript() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let path = sample("speech-44k1-stereo.flac");
    let recording = || client.transcribe(Source::open(&path).unwrap());
    let split = || recording().channels(Channels::Split);
    assert!(matches!(split().start().await, Err(StartError::SplitChannels)));
    let opened = split().open().unwrap();
    assert_eq!((opened.name(), opened.channels()), (path.to_str().unwrap(), 2));
    assert_eq!(opened.info().expect("it was opened").sample_rate, 44_100);
    assert!(matches!(opened.start(), Err(StartError::SplitChannels)));

    let mut first = recording().channels(Channels::Only(1)).start_by_channel().await.unwrap();
    while let Some(event) = first.next().await {
        assert_eq!(event.unwrap().0, 0);
    }
    assert_eq!(first.ledgers().len(), 1, "a channel that was chosen is not split");

    let mut refused =
        stranger(&server).transcribe(Source::open(&path).unwrap()).start_by_channel().await.unwrap();
    let mut failed = Vec::new();
    while let Some(event) = refused.next().await {
        failed.push(event.unwrap_err().channel);
    }
    failed.sort_unstable();
    assert_eq!(failed, [0, 1], "each channel tells its error");
    server.stop().await;
}

/// The audio up to the stop is transcribed, although its source is silent and never ends.
#[tokio::test]
async fn a_transcript_that_is_stopped_is_of_the_audio_so_far() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let (reader, mut writer) = std::io::pipe().unwrap();
    // More than the pipe and the front end hold.
    let pcm = noise(20 * 16_000);
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let writing = thread::spawn(move || {
        // The pipe is closed if the stop comes before all was written, and otherwise stays open.
        let _ = writer.write_all(&bytes);
        writer
    });
    let source = Source::stream("pipe", reader).headerless("s16le:16000".parse().unwrap());
    let opening = tokio::task::spawn_blocking({
        let transcription = client.transcribe(source);
        || transcription.open()
    });
    let mut transcript = opening.await.unwrap().unwrap().start().unwrap();
    let mut finals = Vec::new();
    while let Some(event) = within(PATIENCE, "the end", transcript.next()).await {
        finals.extend(event.unwrap().final_text().map(str::to_owned));
        if finals.len() == 2 {
            transcript.stop();
        }
    }
    let ledger = transcript.ledger();
    assert!(ledger.unfinished == 0 && ledger.accepted >= 2 * SEGMENT as u64, "{ledger}");
    let heard: Vec<String> = pcm[..ledger.accepted as usize].chunks(SEGMENT).map(digest).collect();
    assert_eq!(finals, heard);
    drop(writing.join().unwrap());
    server.stop().await;
}

/// Returns a client whose token the service refuses.
fn stranger(server: &Server) -> Client {
    Client::builder(server.endpoint()).service_token("vxs_wrong").build().unwrap()
}

#[tokio::test]
async fn a_failure_is_the_last_item_of_the_transcript() {
    let server = Server::start(digests()).await;
    let (mut audio, mut transcript) = stranger(&server).live(16_000).start().unwrap();
    let error = transcript.next().await.expect("it fails").unwrap_err();
    assert!(matches!(&error, TranscriptError::Session(SessionError::Authentication { .. })), "{error}");
    assert!(transcript.next().await.is_none(), "nothing follows");
    assert_eq!(audio.push(&[0; 1_600]).await, Err(SessionEnded));
    assert_eq!(audio.finish().await, Err(SessionEnded));
    server.stop().await;

    assert!(matches!(Client::builder("https://speech.example").build(), Err(BuildError::NoCredentials)));
    let plain = Client::builder("http://speech.example").service_token("t".to_owned()).build();
    assert!(matches!(plain, Err(BuildError::Endpoint(_))));
}

/// A source that blocks, such as a silent pipe, delays neither the error of its session nor the end of the
/// runtime.
#[test]
fn a_source_that_blocks_delays_nothing() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&wav(1, 16_000, 16_000)[..20_000]).unwrap();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start(digests()).await;
            let recording = Source::stream("pipe", reader);
            let mut transcript = stranger(&server).transcribe(recording).start().await.unwrap();
            let error = transcript.next().await.expect("it fails").unwrap_err();
            assert!(matches!(&error, TranscriptError::Session(_)), "{error}");
            server.stop().await;
        });
        drop(runtime);
        ended.send(()).unwrap();
    });
    end.recv_timeout(PATIENCE).expect("the runtime ends");
    drop(writer);
}

/// A recording that breaks off is transcribed up to that point; then the error follows.
#[tokio::test]
async fn a_damaged_recording_is_told_after_its_text() {
    let server = Server::start(digests()).await;
    let (client, _tokens) = client(&server);
    let mut bytes = std::fs::read(sample("speech-44k1-stereo.flac")).unwrap();
    bytes.truncate(bytes.len() / 2);
    let recording = || client.transcribe(Source::bytes("half.flac", bytes.clone()));
    let mut transcript = recording().start().await.unwrap();
    let (mut finals, mut error) = (0, None);
    while let Some(event) = transcript.next().await {
        assert!(error.is_none(), "{event:?} follows {error:?}");
        match event {
            Ok(event) => finals += usize::from(event.final_text().is_some()),
            Err(failed) => error = Some(failed),
        }
    }
    assert!(matches!(error, Some(TranscriptError::Source(_))), "{error:?}");
    assert!(finals > 0 && transcript.ledger().unfinished == 0);

    let (mut transcript, mut errors) = (recording().start_by_channel().await.unwrap(), Vec::new());
    while let Some(event) = transcript.next().await {
        errors.extend(event.err());
    }
    assert!(matches!(errors[..], [ChannelError { error: TranscriptError::Source(_), .. }]), "{errors:?}");
    for ledger in transcript.ledgers() {
        assert!(ledger.recognised > 0 && ledger.unfinished == 0, "{ledger}");
    }
    server.stop().await;
}

#[tokio::test]
async fn it_speaks() {
    let server = Server::with(digests(), Setup { voices: Tone::voices(), ..Setup::default() }).await;
    let (client, _tokens) = client(&server);
    let text = "The train leaves at seven.";
    let mut speech = client.speak(text);
    let mut frames = 0;
    while let Some(pcm) = speech.next().await {
        frames += pcm.unwrap().len() / 2;
    }
    // The tone has 100 frames for each byte.
    assert_eq!(frames, 100 * text.len());
    server.stop().await;

    let once = SpeechOptions { attempts: 1, ..SpeechOptions::default() };
    let gone: Vec<Result<_, SpeechError>> = client.speech().speak("Nobody.", &once).collect().await;
    let [Err(error)] = &gone[..] else { panic!("{gone:?}") };
    assert_ne!(error.recovery(), Recovery::Fatal, "{error}");
}
