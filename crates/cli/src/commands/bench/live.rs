//! A live session: streams audio in real time, and measures the latency of its text.

use std::time::Duration;

use super::latency::Latencies;
use super::recording::{SAMPLE_RATE, samples};
use crate::exit_code::CliError;
use crate::service::Connection;
use voxline::audio::{AudioChunk, Feed, FramePos};
use voxline::client::{LiveAudio, SessionEnded, Transcript, TranscriptError};
use voxline::pace::{Pace, Pacer};
use voxline::session::{SessionError, Settings};
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline_support::clock::now;

/// Results of a session.
pub(super) struct Heard {
    /// Final segments, each with its latency after the end of its speech.
    pub(super) finals: Vec<(FinalSegment, Duration)>,
    /// Latency of the first partial result after the start of each utterance.
    pub(super) first_partials: Latencies,
}

/// Streams audio in a session, and collects the results. Returns `None` if the session was refused.
pub(super) async fn speak(
    connection: &Connection,
    settings: impl FnOnce(&mut Settings),
    chunks: impl Iterator<Item = AudioChunk>,
) -> Result<Option<Heard>, CliError> {
    let (audio, transcript) = connection.client.live(SAMPLE_RATE).settings(settings).start()?;
    // If the session ends early, the transcript has the reason.
    let (heard, _) = tokio::join!(listen(transcript), stream(audio, chunks));
    match heard {
        Ok(heard) => Ok(Some(heard)),
        Err(TranscriptError::Session(SessionError::Limit { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Pushes audio in real time.
async fn stream(mut audio: LiveAudio, chunks: impl Iterator<Item = AudioChunk>) -> Result<(), SessionEnded> {
    let pacer = Pacer::new(Pace::REAL_TIME, SAMPLE_RATE);
    for chunk in chunks {
        let samples = samples(chunk.payload());
        pacer.wait(&Feed::Audio(chunk)).await;
        audio.push(&samples).await?;
    }
    audio.finish().await
}

/// Collects the results of a session whose audio begins now.
async fn listen(mut transcript: Transcript) -> Result<Heard, TranscriptError> {
    let begun = now();
    let late = |position: FramePos| begun.elapsed().saturating_sub(position.time(SAMPLE_RATE));
    let mut heard = Heard { finals: Vec::new(), first_partials: Latencies::default() };
    while let Some(event) = transcript.next().await {
        match event? {
            TranscriptEvent::Final(segment) => {
                let late = late(segment.range.end);
                heard.finals.push((segment, late));
            }
            TranscriptEvent::Partial { revision: 0, range, .. } => {
                heard.first_partials.push(late(range.start));
            }
            _ => {}
        }
    }
    Ok(heard)
}
