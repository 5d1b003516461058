//! A custom engine behind the gateway: a recogniser of the telephone buttons that are pressed.
//!
//!     cargo run -p voxline-gateway --example recognizer -- 0123456789
//!
//! The engine implements `Recognizer` and `RecognizerStream`, a gateway serves it on loopback, and a
//! session transcribes through that gateway. A speech engine is added in the same way: load it once in the
//! `Recognizer`, declare what it honours of a request in `capabilities`, keep the state of one session in its
//! stream, and return the recognised text and its position in segments.

use std::error::Error;
use std::f64::consts::TAU;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use voxline::audio::{Feed, FramePos, FrameRange};
use voxline::auth::TokenProvider;
use voxline::chunk::Chunker;
use voxline::clock::SystemClock;
use voxline::engine::{
    EngineError, PartialResult, RECOGNIZER_RATE, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline::session::{Session, Settings};
use voxline::transcript::TranscriptEvent;
use voxline::transport::WebSocketConnector;
use voxline_gateway::authority::{Authority, Terms};
use voxline_gateway::{Engines, Gateway, Options, serve};

/// Tones of a button, in Hz: one for its row, one for its column (ITU-T Q.23).
const ROWS: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f64; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const BUTTONS: [[char; 4]; 4] =
    [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

/// Number of samples analysed together, 13 ms: as many as tell two rows apart, and few enough that the
/// shortest tone, of 40 ms (ITU-T Q.24), fills two blocks.
const BLOCK: usize = 208;
/// Least share of the two tones in a block's energy; speech spreads its energy.
const PURITY: f64 = 0.65;
/// Largest ratio between the powers of the two tones: 8 dB (Q.24).
const TWIST: f64 = 6.3;
/// Mean energy of a sample below which no button is pressed: -46 dB of full scale.
const FAINT: f64 = 27_000.0;
/// Number of frames without a button after which a number ends: a second.
const PAUSE: u64 = RECOGNIZER_RATE as u64;
/// Largest length of a segment in frames, so that the end of the last segment always advances: ten seconds.
const LONGEST: u64 = 10 * RECOGNIZER_RATE as u64;

/// The engine. There is nothing to load.
pub(crate) struct TouchTones;

impl Recognizer for TouchTones {
    fn name(&self) -> &str {
        "touch-tones"
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        self.capabilities().check(request)?;
        Ok(Box::new(Stream::default()))
    }

    fn longest_pending(&self, _: &RecognitionRequest) -> Option<u64> {
        Some(LONGEST + BLOCK as u64)
    }
}

/// State of one session.
#[derive(Default)]
struct Stream {
    /// Samples that do not fill a block yet.
    rest: Vec<i16>,
    /// Position of the first of these samples.
    received: FramePos,
    /// End of the last segment.
    committed: FramePos,
    /// Digits so far, and the position at which the last button was heard.
    number: String,
    pressed_at: FramePos,
    /// Buttons of the last two blocks, and the button that has been down since.
    last: [Option<char>; 2],
    down: Option<char>,
    /// Number of digits in the last partial result.
    partial_length: usize,
}

impl RecognizerStream for Stream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.rest.extend_from_slice(pcm);
        let samples = std::mem::take(&mut self.rest);
        let (blocks, rest) = samples.as_chunks::<BLOCK>();
        self.rest = rest.to_vec();
        Ok(blocks.iter().filter_map(|block| self.take(block)).collect())
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        let is_new = self.number.len() > self.partial_length;
        self.partial_length = self.number.len();
        if !is_new {
            return Ok(PartialResult::Nothing);
        }
        let range = FrameRange::new(self.committed, self.received);
        Ok(PartialResult::Text(segment(range, self.number.clone())))
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        self.received = self.received + std::mem::take(&mut self.rest).len() as u64;
        (self.last, self.down) = Default::default();
        Ok(Vec::from_iter((self.received > self.committed).then(|| self.commit())))
    }
}

impl Stream {
    fn take(&mut self, block: &[i16; BLOCK]) -> Option<Segment> {
        self.received = self.received + BLOCK as u64;
        self.last = [self.last[1], button(block)];
        // Two equal blocks are a button, or none; a single block may hold half a tone.
        if self.last[0] == self.last[1] && self.last[1] != self.down {
            self.down = self.last[1];
            self.number.extend(self.down);
        }
        if self.down.is_some() {
            self.pressed_at = self.received;
        }
        let is_over = !self.number.is_empty() && self.received - self.pressed_at >= PAUSE;
        (is_over || self.received - self.committed >= LONGEST).then(|| self.commit())
    }

    /// Commits everything up to here as a segment.
    fn commit(&mut self) -> Segment {
        let range = FrameRange::new(self.committed, self.received);
        self.committed = self.received;
        self.partial_length = 0;
        segment(range, std::mem::take(&mut self.number))
    }
}

fn segment(range: FrameRange, text: String) -> Segment {
    Segment { text, ..Segment::silence(range) }
}

/// Returns the button whose tones a block holds.
fn button(block: &[i16; BLOCK]) -> Option<char> {
    let energy: f64 = block.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let (row, low) = strongest(&ROWS, block);
    let (column, high) = strongest(&COLUMNS, block);
    let is_pressed = energy > FAINT * BLOCK as f64
        && low + high > PURITY * energy
        && low < TWIST * high
        && high < TWIST * low;
    is_pressed.then(|| BUTTONS[row][column])
}

/// Returns the index of the strongest of these tones in a block, and its energy.
fn strongest(tones: &[f64; 4], block: &[i16; BLOCK]) -> (usize, f64) {
    let energies = tones.map(|hz| energy_at(hz, block)).into_iter().enumerate();
    energies.max_by(|(_, one), (_, other)| one.total_cmp(other)).expect("there are four")
}

/// Returns the energy of a tone in a block (Goertzel's algorithm).
fn energy_at(hz: f64, block: &[i16; BLOCK]) -> f64 {
    let coefficient = 2.0 * (TAU * hz / f64::from(RECOGNIZER_RATE)).cos();
    let (one, two) = block
        .iter()
        .fold((0.0, 0.0), |(one, two), sample| (f64::from(*sample) + coefficient * one - two, one));
    // The sum of squares of the tone that has this power in the spectrum.
    2.0 * (one * one + two * two - coefficient * one * two) / BLOCK as f64
}

/// Returns the sound of these buttons, pressed for 60 ms each, with pauses of the same length.
pub(crate) fn dial(number: &str) -> Vec<i16> {
    let mut pcm = Vec::new();
    for button in number.chars() {
        let place = BUTTONS.iter().flatten().position(|other| *other == button);
        let tones = place.map(|place| [ROWS[place / 4], COLUMNS[place % 4]]).unwrap_or_default();
        pcm.extend((0..960).map(|at| {
            let turns = |hz: f64| (TAU * hz * f64::from(at) / f64::from(RECOGNIZER_RATE)).sin();
            (6_000.0 * tones.map(turns).iter().sum::<f64>()) as i16
        }));
        pcm.extend([0; 960]);
    }
    pcm
}

/// Serves the engine on loopback, and transcribes `pcm` there. Returns the texts of the segments that have
/// one.
pub(crate) async fn transcribe(pcm: &[i16]) -> Result<Vec<String>, Box<dyn Error>> {
    let authority = Authority::in_memory(Duration::from_secs(3600), Arc::new(SystemClock::new()))?;
    authority.create_project("example")?;
    let token = authority.create_service_token("example", Terms::default())?.token;
    let engines = Engines { recognizer: Some(Arc::new(TouchTones)), ..Engines::default() };
    let gateway = Arc::new(Gateway::new(authority, engines, Options::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?).parse()?;
    let stop = CancellationToken::new();
    let serving = serve(listener, gateway, stop.clone());

    let (connector, tokens) = (WebSocketConnector::new(endpoint)?, TokenProvider::service(&token)?);
    let (audio, feed) = mpsc::channel(16);
    let (events, mut told) = mpsc::channel(16);
    let session = Session::new(&connector, &tokens, Settings::new(RECOGNIZER_RATE)).run(feed, events);
    let speaking = async move {
        let (mut chunker, mut rest) = (Chunker::new(RECOGNIZER_RATE as usize / 10), pcm);
        while let Some(chunk) = chunker.push_s16(&mut rest).or_else(|| chunker.finish()) {
            if audio.send(Feed::Audio(chunk)).await.is_err() {
                return;
            }
        }
        let _ = audio.send(Feed::End).await;
    };
    let listening = async {
        let mut texts = Vec::new();
        while let Some(event) = told.recv().await {
            if let TranscriptEvent::Final(segment) = event {
                texts.extend(Some(segment.text).filter(|text| !text.is_empty()));
            }
        }
        texts
    };
    let client = async {
        let (ended, (), texts) = tokio::join!(session, speaking, listening);
        stop.cancel();
        ended.result.map(|()| texts)
    };
    let (served, texts) = tokio::join!(serving, client);
    served?;
    Ok(texts?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let number = std::env::args().nth(1).unwrap_or_else(|| "0123456789".to_owned());
    for heard in transcribe(&dial(&number)).await? {
        writeln!(std::io::stdout(), "{heard}")?;
    }
    Ok(())
}
