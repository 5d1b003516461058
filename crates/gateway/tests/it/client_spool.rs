//! Transcriptions of the library's client that are kept on disk: a later process resumes them.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use voxline::Client;
use voxline::client::{Recorded, SpoolFile, StartError, Transcript, TranscriptError, Transcription};
use voxline::pace::Pace;
use voxline::source::{Source, SourceError};
use voxline::spool::{Repeatability, SpoolError};
use voxline_testing::{DigestRecognizer, digest};

use crate::client::client;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::server::Server;
use voxline_fixtures::noise;

/// Length of a segment in frames: half a second, and five chunks.
const SEGMENT: usize = 8_000;
/// Longest wait for an event, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn server() -> Server {
    Server::start(Arc::new(DigestRecognizer::new(SEGMENT))).await
}

/// Returns a recording of these samples on `channels` channels, which all have the same.
fn recording(channels: u16, pcm: &[i16]) -> Vec<u8> {
    let sample_format = hound::SampleFormat::Int;
    let spec = hound::WavSpec { channels, sample_rate: 16_000, bits_per_sample: 16, sample_format };
    let mut file = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    for sample in pcm {
        for _ in 0..channels {
            writer.write_sample(*sample).unwrap();
        }
    }
    writer.finalize().unwrap();
    file.into_inner()
}

fn transcription(client: &Client, recording: &[u8], spool: &Path) -> Transcription<Recorded> {
    client.transcribe(Source::bytes("call.wav", recording.to_vec())).spool(SpoolFile::new(spool))
}

/// Reads until there are `wanted` finals, or to the end.
async fn finals(transcript: &mut Transcript, wanted: usize) -> Vec<String> {
    let reading = async {
        let mut finals = Vec::new();
        while finals.len() < wanted {
            let Some(event) = transcript.next().await else { break };
            finals.extend(event.unwrap().final_text().map(str::to_owned));
        }
        finals
    };
    within(PATIENCE, "the finals", reading).await
}

fn digests(pcm: &[i16]) -> Vec<String> {
    pcm.chunks(SEGMENT).map(digest).collect()
}

#[tokio::test]
async fn a_recording_goes_on_where_another_process_left_it() {
    let server = server().await;
    let (client, _tokens) = client(&server);
    let directory = TempDir::new().unwrap();
    let spool = directory.path().join("spools/call");
    let pcm = noise(20 * SEGMENT + 777);
    let bytes = recording(1, &pcm);
    let mut transcript = transcription(&client, &bytes, &spool).start().await.unwrap();
    assert_eq!(finals(&mut transcript, 3).await, digests(&pcm)[..3]);
    // The transcript is not complete.
    transcript.remove_spool().unwrap();
    drop(transcript);

    // The session that was dropped ends when its task does.
    let refused = loop {
        match of_another_call(&client, &bytes, &spool).await {
            Err(StartError::Spool(SpoolError::InUse { .. })) => tokio::task::yield_now().await,
            refused => break refused.expect_err("it is another call's"),
        }
    };
    assert!(matches!(refused, StartError::Spool(SpoolError::Mismatch { .. })), "{refused}");

    let mut transcript = transcription(&client, &bytes, &spool).start().await.unwrap();
    assert_eq!(finals(&mut transcript, usize::MAX).await, digests(&pcm));
    let ledger = transcript.ledger();
    assert_eq!((ledger.accepted, ledger.recognised), (pcm.len() as u64, pcm.len() as u64), "{ledger}");
    drop(transcript);

    // A complete transcript is repeated until its spool is removed, without the service.
    server.stop().await;
    let mut transcript = transcription(&client, &bytes, &spool).start().await.unwrap();
    assert_eq!(finals(&mut transcript, usize::MAX).await, digests(&pcm));
    transcript.remove_spool().unwrap();
    assert!(!spool.exists());
}

async fn of_another_call(client: &Client, bytes: &[u8], spool: &Path) -> Result<Transcript, StartError> {
    let file = SpoolFile::new(spool).identity("another call");
    client.transcribe(Source::bytes("call.wav", bytes.to_vec())).spool(file).start().await
}

#[tokio::test]
async fn live_audio_goes_on_where_another_process_left_it() {
    let server = server().await;
    let (client, _tokens) = client(&server);
    let directory = TempDir::new().unwrap();
    let spool = directory.path().join("call");
    let pcm = noise(4 * SEGMENT + 123);
    let (first, second) = pcm.split_at(2 * SEGMENT);

    let (mut audio, mut transcript) = client.live(16_000).spool(SpoolFile::new(&spool)).start().unwrap();
    audio.push(first).await.unwrap();
    assert_eq!(finals(&mut transcript, 2).await, digests(first));
    drop((audio, transcript));

    let (mut audio, mut transcript) = loop {
        match client.live(16_000).spool(SpoolFile::new(&spool)).start() {
            Err(StartError::Spool(SpoolError::InUse { .. })) => tokio::task::yield_now().await,
            started => break started.unwrap(),
        }
    };
    audio.push(second).await.unwrap();
    audio.finish().await.unwrap();
    assert_eq!(finals(&mut transcript, usize::MAX).await, digests(&pcm));
    let ledger = transcript.ledger();
    assert_eq!((ledger.accepted, ledger.recognised), (pcm.len() as u64, pcm.len() as u64), "{ledger}");
    transcript.remove_spool().unwrap();
    assert!(!spool.exists());
    server.stop().await;
}

/// A download that broke may be complete the next time.
#[tokio::test]
async fn the_rest_of_a_broken_download_is_read_the_next_time() {
    let server = server().await;
    let (client, _tokens) = client(&server);
    let directory = TempDir::new().unwrap();
    let spool = directory.path().join("call");
    let whole = std::fs::read(voxline_fixtures::samples::sample("speech-44k1-stereo.flac")).unwrap();
    let download = |bytes: &[u8]| {
        let file = SpoolFile::new(&spool).repeatability(Repeatability::Repeatable);
        client.transcribe(Source::stream("call.flac", Cursor::new(bytes.to_vec()))).spool(file)
    };
    let mut transcript = download(&whole[..whole.len() / 2]).start().await.unwrap();
    assert!(matches!(failure(&mut transcript).await, Some(TranscriptError::Source(_))));
    let half = transcript.ledger();
    transcript.remove_spool().unwrap();
    assert!(spool.exists(), "it is not complete");
    drop(transcript);

    let mut transcript = download(&whole).start().await.unwrap();
    finals(&mut transcript, usize::MAX).await;
    let ledger = transcript.ledger();
    let mut alone = client.transcribe(Source::bytes("call.flac", whole.clone())).start().await.unwrap();
    finals(&mut alone, usize::MAX).await;
    assert!(half.recognised > 0 && half.recognised < ledger.recognised, "{half}; {ledger}");
    assert_eq!((ledger.accepted, ledger.gaps), (alone.ledger().accepted, 0));
    transcript.remove_spool().unwrap();
    assert!(!spool.exists());
    server.stop().await;
}

/// A damaged file stays damaged: its transcript is complete as far as it goes.
#[tokio::test]
async fn a_damaged_recording_is_done_after_its_text() {
    let server = server().await;
    let (client, _tokens) = client(&server);
    let directory = TempDir::new().unwrap();
    let spool = directory.path().join("call");
    let whole = std::fs::read(voxline_fixtures::samples::sample("speech-44k1-stereo.flac")).unwrap();
    let mut transcript = transcription(&client, &whole[..whole.len() / 2], &spool).start().await.unwrap();
    assert!(matches!(failure(&mut transcript).await, Some(TranscriptError::Source(_))));
    assert!(transcript.ledger().recognised > 0);
    transcript.remove_spool().unwrap();
    assert!(!spool.exists());
    server.stop().await;
}

/// Reads to the end, and returns the error that came.
async fn failure(transcript: &mut Transcript) -> Option<TranscriptError> {
    let mut failure = None;
    while let Some(event) = within(PATIENCE, "the end", transcript.next()).await {
        failure = event.err().or(failure);
    }
    failure
}

/// A download that is not needed is not begun.
#[tokio::test]
async fn a_recording_whose_audio_is_in_the_spool_is_not_opened() {
    let server = server().await;
    let (client, _tokens) = client(&server);
    let directory = TempDir::new().unwrap();
    let folder = directory.path().to_owned();
    let spool = move |channel| SpoolFile::new(folder.join(format!("channel {channel}")));
    let pcm = noise(2 * SEGMENT);
    let missing = || Source::open("/dev/null/call.wav");
    let refused = client.transcribe_with("call.wav", missing).spool_by_channel(spool.clone()).start().await;
    assert!(matches!(refused, Err(StartError::Open(SourceError::Open { .. }))), "{refused:?}");

    let bytes = recording(1, &pcm);
    let opened = move || Ok(Source::bytes("call.wav", bytes));
    let mut transcript =
        client.transcribe_with("call.wav", opened).spool_by_channel(spool.clone()).start().await.unwrap();
    assert!(transcript.is_resumable());
    assert_eq!(finals(&mut transcript, usize::MAX).await, digests(&pcm));
    assert!(!transcript.is_resumable() && directory.path().join("channel 0").exists());
    drop(transcript);

    let unneeded = || unreachable!("the spool has all audio");
    let opened = client.transcribe_with("call.wav", unneeded).spool_by_channel(spool).open().unwrap();
    assert_eq!((opened.name(), opened.channels(), opened.info().is_none()), ("call.wav", 1, true));
    let mut transcript = opened.start().unwrap();
    assert_eq!(finals(&mut transcript, usize::MAX).await, digests(&pcm));
    transcript.remove_spool().unwrap();
    assert!(!directory.path().join("channel 0").exists());
    server.stop().await;
}

/// A user who stops a transcription wants no more of it: its spool is not for a later process.
#[tokio::test]
async fn a_transcript_that_is_stopped_is_complete() {
    let server = server().await;
    let (client, _tokens) = client(&server);
    let directory = TempDir::new().unwrap();
    let spool = directory.path().join("call");
    let pcm = noise(60 * SEGMENT);
    let paced =
        transcription(&client, &recording(1, &pcm), &spool).pace(Pace::times(20.0).expect("a pace in range"));
    let mut transcript = paced.start().await.unwrap();
    assert_eq!(finals(&mut transcript, 3).await, digests(&pcm)[..3]);
    assert!(transcript.is_resumable());
    transcript.stop();
    let rest = finals(&mut transcript, usize::MAX).await;
    let ledger = transcript.ledger();
    let heard = &pcm[..ledger.accepted as usize];
    assert!(ledger.unfinished == 0 && heard.len() < pcm.len(), "{ledger}");
    assert_eq!(rest, digests(heard)[3..]);
    assert!(!transcript.is_resumable());
    transcript.remove_spool().unwrap();
    assert!(!spool.exists());
    server.stop().await;
}

#[tokio::test]
async fn each_channel_has_a_spool_of_its_own() {
    let server = server().await;
    let (client, _tokens) = client(&server);
    let directory = TempDir::new().unwrap();
    let spool = directory.path().join("call");
    let channels = [0, 1].map(|channel| directory.path().join(format!("call.{channel}")));
    let pcm = noise(3 * SEGMENT);
    let mut transcript =
        transcription(&client, &recording(2, &pcm), &spool).start_by_channel().await.unwrap();
    let mut heard = [Vec::new(), Vec::new()];
    while let Some(event) = transcript.next().await {
        assert!(channels.iter().all(|path| path.exists()));
        let (channel, event) = event.unwrap();
        heard[channel].extend(event.final_text().map(str::to_owned));
    }
    assert_eq!(heard, [digests(&pcm), digests(&pcm)]);
    drop(transcript);

    let mono = transcription(&client, &recording(1, &pcm), &spool).start_by_channel().await;
    // Both spools are complete: the recording is not opened.
    let mut transcript = mono.unwrap();
    while let Some(event) = transcript.next().await {
        event.unwrap();
    }
    transcript.remove_spools().unwrap();
    assert!(!channels.iter().any(|path| path.exists()));
    server.stop().await;
}
