//! Clients that resume and do not read: the results to be replayed wait in the session, and not once more
//! for each socket.

use std::mem;
use std::sync::Arc;

use tokio::runtime::Builder;
use voxline::audio::FramePos;
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline_gateway::Options;

use super::token;
use voxline_fixtures::allocations::Meter;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::{CHUNK, Socket};

/// Number of frames in a segment: 10 ms.
const SEGMENT: u64 = 160;
const SEGMENTS: u64 = 4_000;
/// Number of bytes in a segment's text.
const TEXT: usize = 1_000;
/// Number of sockets that take over the session, one after the other, and read nothing.
const UNREAD: usize = 8;
/// Largest memory that all the sockets together may keep, in bytes: half of the text to be replayed to each
/// of them.
const PEAK_MAX: usize = SEGMENTS as usize * TEXT / 2;

static METER: Meter = Meter::new();

/// A recogniser that gives much text for little audio.
struct Talkative;

struct Stream {
    heard: u64,
    told: u64,
}

impl Recognizer for Talkative {
    fn name(&self) -> &str {
        "talkative"
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        Ok(Box::new(Stream { heard: 0, told: 0 }))
    }
}

impl RecognizerStream for Stream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.heard += pcm.len() as u64;
        let mut segments = Vec::new();
        while self.heard - self.told >= SEGMENT {
            let range = FramePos(self.told).to(FramePos(self.told + SEGMENT));
            let text = format!("{:TEXT$}", self.told);
            segments.push(Segment { text, ..Segment::silence(range) });
            self.told += SEGMENT;
        }
        Ok(segments)
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        Ok(Vec::new())
    }
}

/// The gateway's sockets are served by a thread that is metered. Memory that the recogniser's threads keep
/// belongs to the session.
#[test]
fn finals_are_replayed_as_the_socket_drains() {
    let sockets = Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(|| mem::forget(METER.join()))
        .enable_all()
        .build()
        .unwrap();
    let setup = Setup { options: Options::default(), ..Setup::default() };
    let server = sockets.block_on(Server::with(Arc::new(Talkative), setup));
    let clients = Builder::new_current_thread().enable_all().build().unwrap();
    clients.block_on(async {
        let token = token(&server).await;
        let (mut first, ready) = Socket::start(&server, &token).await;
        let end = SEGMENTS * SEGMENT;
        let pcm = vec![0; CHUNK as usize];
        for start in (0..end).step_by(pcm.len()) {
            first.frame(start, &pcm);
            // Stay within the window.
            if start % (100 * CHUNK) == 0 {
                first.acknowledged(start).await;
            }
        }
        while (first.finals.len() as u64) < SEGMENTS {
            first.hear("final").await;
        }

        METER.reset();
        let mut unread = Vec::new();
        for _ in 0..UNREAD {
            // A replay that is queued at once is queued by the time the client has its `ready`.
            unread.push(Socket::resume(&server, &token, &ready, 0).await.0);
        }
        assert!(METER.peak() < PEAK_MAX, "{} bytes for {UNREAD} sockets", METER.peak());

        let (last, _) = Socket::resume(&server, &token, &ready, 0).await;
        let finals = last.end(end).await;
        assert!(finals == first.finals, "it was said otherwise");
        drop(unread);
    });
    sockets.block_on(server.stop());
}
