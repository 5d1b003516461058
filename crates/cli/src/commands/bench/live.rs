//! A live session: streams audio in real time, and measures the latency of its text.

use std::time::Duration;

use tokio::sync::mpsc;

use super::latency::Latencies;
use crate::exit_code::CliError;
use crate::service::Connection;
use voxline::audio::{AudioChunk, Feed, FramePos};
use voxline::pace::{Pace, Pacer};
use voxline::session::{Ended, Session, SessionError, Settings};
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
    settings: Settings,
    chunks: impl Iterator<Item = AudioChunk>,
) -> Result<Option<Heard>, CliError> {
    let sample_rate = settings.sample_rate;
    let (feed, audio) = mpsc::channel(1);
    let (events, mut told) = mpsc::channel(16);
    let connector = connection.connector();
    let session = Session::new(&connector, &connection.tokens, settings).run(audio, events);

    let begun = now();
    let speaking = async move {
        let pacer = Pacer::new(Pace::Times(1.0), sample_rate);
        for chunk in chunks {
            let chunk = Feed::Audio(chunk);
            pacer.wait(&chunk).await;
            if feed.send(chunk).await.is_err() {
                return;
            }
        }
        let _ = feed.send(Feed::End).await;
    };
    let listening = async {
        let mut heard = Heard { finals: Vec::new(), first_partials: Latencies::default() };
        while let Some(event) = told.recv().await {
            let late = |position: FramePos| begun.elapsed().saturating_sub(position.time(sample_rate));
            match event {
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
        heard
    };
    let (Ended { result, .. }, (), heard) = tokio::join!(session, speaking, listening);
    match result {
        Ok(()) => Ok(Some(heard)),
        Err(SessionError::Limit { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
