//! Everything that a seed decides: the audio and its pace, the peer, the network.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use voxline::audio::{AudioChunk, Feed, FramePos};
use voxline::auth::TokenProvider;
use voxline::protocol::GoawayReason;
use voxline::protocol::close;
use voxline::session::{Ended, Session, Settings};
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline_testing::network::{self, Line, Trace};
use voxline_testing::peer::{Behaviour, Recording, RecordingPeer, Whim};
use voxline_testing::{Planted, PlantedConnector, ShortLivedTokens, digest};

use voxline_fixtures::noise;
use voxline_fixtures::random::Random;

pub(super) const RATE: u32 = 8_000;
/// Longest simulated time that a run may take.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Runs a future on a clock that moves only while every task waits. A future that never ends fails: pings
/// could keep it running for ever.
pub(super) fn simulate<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let ending = async { tokio::time::timeout(2 * PATIENCE, future).await };
    runtime.unwrap().block_on(ending).expect("it ends within an hour of its own time")
}

/// A source of audio, and the peer and network of its session.
#[derive(Clone)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) pcm: Vec<i16>,
    /// Pause before each chunk, and length of the chunk in frames.
    pub(super) chunks: Vec<(Duration, usize)>,
    /// Index of the chunk after which there is a flush.
    pub(super) flush: Option<usize>,
    pub(super) settings: Settings,
    pub(super) behaviour: Behaviour,
    pub(super) token_life: Option<Duration>,
    pub(super) lines: Vec<Line>,
    /// Properties of the connections without a fault.
    pub(super) calm: Line,
    pub(super) whims: Vec<Whim>,
    /// Bug planted in the session.
    bug: Option<Planted>,
}

/// The result of a run.
pub(super) struct Story {
    pub(super) ended: Ended,
    pub(super) log: Vec<(Duration, TranscriptEvent)>,
    pub(super) recording: Recording,
    pub(super) breaches: Vec<String>,
    pub(super) traces: Vec<Trace>,
    pub(super) sessions: u64,
}

impl Story {
    pub(super) fn finals(&self) -> Vec<&FinalSegment> {
        let finals = self.log.iter().filter_map(|(_, event)| match event {
            TranscriptEvent::Final(segment) => Some(segment),
            _ => None,
        });
        finals.collect()
    }
}

pub(super) fn bytes(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

impl World {
    pub(super) fn draw(seed: u64) -> World {
        let dice = &mut Random::seeded(seed);
        let frames = if dice.below(20) == 0 { dice.below(3) } else { dice.below(24_000) };
        let segment_frames = 400 + dice.below(4_000) as u64;
        let mut settings = Settings::new(RATE).with_seed(seed);
        settings.in_band_auth = dice.below(2) == 0;
        // The network is calm in the end, so the session must not give up before.
        (settings.timeouts.give_up, settings.timeouts.first_contact) = (PATIENCE, PATIENCE);
        settings.replay.frames = segment_frames * (2 + dice.below(20) as u64);
        let behaviour = Behaviour {
            segment_frames,
            segment_seed: (dice.below(2) == 0).then_some(seed),
            recognition: Duration::from_millis([0, 5, 200][dice.below(3)]),
            window_frames: segment_frames / 2 + dice.below(16_000) as u64,
            max_audio_bytes: 10 + dice.below(4_000),
            ack_frames: 1 + dice.below(2_000) as u64,
            hold_frames: if dice.below(4) == 0 { 2 * segment_frames } else { u64::MAX },
            partials: dice.below(2) == 0,
            auth: dice.below(2) == 0,
            resume_window: Duration::from_secs([0, 30, 300][dice.below(3)]),
            tokens: None,
        };
        // A move takes at most six one-way latencies of 0.6 s, which is less than the tenth of a token's
        // life that is left for it.
        let mut token_life = (dice.below(2) == 0).then(|| Duration::from_secs(40 + dice.below(20) as u64));
        let faults = if dice.below(10) == 0 { 0 } else { 1 + dice.below(6) };
        let lines = (0..faults).map(|_| Line::any(dice.next(), 2 * frames as u64 + 2_000)).collect();
        let calm = Line::any_sound(dice.next());
        let mut whims: Vec<Whim> = (0..dice.below(4)).map(|_| any_whim(dice)).collect();
        if token_life.is_some() && dice.below(4) == 0 {
            // Two refused tokens in a row would end the session, so there is one, and none expires besides.
            token_life = Some(Duration::from_secs(86_400));
            let after = dice.below(20) as u64;
            whims.push(match dice.below(2) {
                0 => Whim::Refuse { status: 401, retry_after: None },
                _ => Whim::Close { after: after + 1, code: close::TOKEN, forget: false },
            });
        }
        let mut world = World {
            seed,
            pcm: Vec::new(),
            chunks: Vec::new(),
            flush: None,
            settings,
            behaviour,
            token_life,
            lines,
            calm,
            whims,
            bug: None,
        };
        world.feed(noise(frames));
        world
    }

    /// Plants a bug in the session.
    pub(super) fn plant(&mut self, bug: Planted) {
        bug.change(&mut self.settings);
        self.bug = Some(bug);
    }

    /// Sets the audio, cut into random chunks.
    pub(super) fn feed(&mut self, pcm: Vec<i16>) {
        let dice = &mut Random::seeded(!self.seed);
        let longest = [40, 400, 1_600, 8_000][dice.below(4)];
        let hurried = dice.below(2) == 0;
        let mut left = pcm.len();
        self.chunks.clear();
        while left > 0 {
            let frames = (1 + dice.below(longest)).min(left);
            left -= frames;
            let pause = match dice.below(400) {
                // A caller who says nothing for longer than a token lives.
                0 => 90_000,
                1..=5 => 2_000,
                _ if hurried => 0,
                _ => frames * 1_000 / RATE as usize,
            };
            self.chunks.push((Duration::from_millis(pause as u64), frames));
        }
        self.flush = (!self.chunks.is_empty() && dice.below(5) == 0).then(|| dice.below(self.chunks.len()));
        self.pcm = pcm;
    }

    /// Runs the session, with the faults or without them.
    #[allow(clippy::disallowed_methods, reason = "a clock that stands still")]
    pub(super) async fn play(&self, faults: bool) -> Story {
        let start = Instant::now();
        let tokens = self.token_life.map(ShortLivedTokens::new);
        let provider = match &tokens {
            Some(tokens) => TokenProvider::from_source(tokens.clone()),
            None => TokenProvider::service(&"token".to_owned().into()).unwrap(),
        };
        let behaviour = Behaviour { tokens, ..self.behaviour.clone() };
        let (lines, whims) = if faults { (self.lines.clone(), self.whims.clone()) } else { <_>::default() };
        let lines = lines.into_iter().chain(std::iter::repeat(self.calm));
        let (connector, acceptor) = network::simulated(self.seed, lines);
        let peer = RecordingPeer::with_whims(behaviour, whims);
        let (sender, audio) = mpsc::channel(4);
        let feeding = async {
            self.pour(&sender).await;
            std::future::pending::<()>().await;
        };
        let (events, mut heard) = mpsc::channel(4);
        let mut log = Vec::new();
        let listening = async {
            while let Some(event) = heard.recv().await {
                log.push((start.elapsed(), event));
            }
        };
        let planted = PlantedConnector::new(connector.clone(), self.bug);
        let run = Session::new(&planted, &provider, self.settings.clone()).run(audio, events);
        let whole = async { tokio::join!(run, listening) };
        let ended = tokio::select! {
            biased;
            (ended, ()) = whole => ended,
            () = peer.serve_all(acceptor) => unreachable!("the connector lives"),
            () = feeding => unreachable!("it never ends"),
            () = sleep(PATIENCE) => panic!("no end within {PATIENCE:?}"),
        };
        let (recording, breaches) = (peer.recording(), peer.breaches());
        Story { ended, log, recording, breaches, traces: connector.traces(), sessions: peer.sessions() }
    }

    async fn pour(&self, sender: &mpsc::Sender<Feed>) {
        let mut at = 0;
        for (index, (pause, frames)) in self.chunks.iter().enumerate() {
            if !pause.is_zero() {
                sleep(*pause).await;
            }
            // A session that has ended takes nothing.
            let _ = sender.send(chunk(&self.pcm, at, *frames)).await;
            at += frames;
            if self.flush == Some(index) {
                let _ = sender.send(Feed::Flush).await;
            }
        }
        let _ = sender.send(Feed::End).await;
    }

    /// Runs the session with and without the faults, and compares the results.
    pub(super) fn judge(&self) -> Result<Story, String> {
        let calm = simulate(self.play(false));
        self.check(&calm).map_err(|breach| format!("undisturbed: {breach}"))?;
        if calm.ended.ledger.reconnects > 0 || calm.ended.ledger.token_refusals > 0 {
            return Err(format!("a calm network with {}", calm.ended.ledger));
        }
        let story = simulate(self.play(true));
        self.check(&story)?;
        // A flush is for the audio before it, but how much of that the server has by then is random.
        if self.flush.is_none() && calm.finals() != story.finals() {
            return Err("the transcript is another than without faults".to_owned());
        }
        Ok(story)
    }

    /// Checks the invariants at the end of a run.
    fn check(&self, story: &Story) -> Result<(), String> {
        if !story.breaches.is_empty() {
            return Err(format!("the peer complains: {:?}", story.breaches));
        }
        let ledger = &story.ended.ledger;
        if let Err(error) = &story.ended.result {
            return Err(format!("ended by {error:?} with {ledger}"));
        }
        let frames = self.pcm.len() as u64;
        if !ledger.is_balanced() || (ledger.accepted, ledger.recognised) != (frames, frames) {
            return Err(format!("{frames} frames, but {ledger}"));
        }
        if story.recording.bytes().as_deref() != Some(&bytes(&self.pcm)) {
            return Err("the peer holds other bytes than the source".to_owned());
        }
        let mut end = FramePos::ZERO;
        for (index, segment) in story.finals().into_iter().enumerate() {
            let range = segment.range;
            if (segment.index, range.start) != (index as u64, end) {
                return Err(format!("final {} of {range} after {index} up to {end}", segment.index));
            }
            if segment.text != digest(&self.pcm[range.start.0 as usize..range.end.0 as usize]) {
                return Err(format!("final of {range} was made of other samples"));
            }
            end = range.end;
        }
        let last = TranscriptEvent::End { frames, finals: story.finals().len() as u64 };
        if end != FramePos(frames) || story.log.last().is_none_or(|(_, event)| *event != last) {
            return Err(format!("finals up to {end}, the last event is {:?}", story.log.last()));
        }
        if story.traces.iter().any(|trace| trace.up > 0 && trace.left.is_none()) {
            Err("a connection was left open".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Returns `frames` frames from `at` on.
pub(super) fn chunk(pcm: &[i16], at: usize, frames: usize) -> Feed {
    let payload = Bytes::from(bytes(&pcm[at..at + frames]));
    Feed::Audio(AudioChunk::new(FramePos(at as u64).to(FramePos((at + frames) as u64)), payload))
}

fn any_whim(dice: &mut Random) -> Whim {
    let after = if dice.below(2) == 0 { dice.below(4) } else { dice.below(60) } as u64;
    match dice.below(8) {
        0 => Whim::None,
        1 => Whim::Refuse { status: 503, retry_after: Some(1 + dice.below(3) as u32) },
        2 | 3 => {
            let reason = [GoawayReason::Drain, GoawayReason::Limit][dice.below(2)];
            Whim::Goaway { after, reason, deadline: Duration::from_millis(dice.below(20_000) as u64) }
        }
        _ => {
            let codes = [
                close::GOING_AWAY,
                close::SERVER_FAULT,
                close::RESTART,
                close::TRY_LATER,
                close::QUOTA,
                close::SESSION_UNKNOWN,
            ];
            let code = codes[dice.below(codes.len())];
            let forget = code == close::SESSION_UNKNOWN || dice.below(2) == 0;
            Whim::Close { after, code, forget }
        }
    }
}
