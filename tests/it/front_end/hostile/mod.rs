//! Input that was damaged in transit, or on purpose.

mod headers;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once, mpsc};
use std::thread;
use std::time::Duration;

use voxline::clock::{Clock as _, SystemClock};
use voxline::decode::{Block, Channels, DecodeError, Decoder, Limits, Options, panic_is_caught};
use voxline::error::chain;
use voxline::source::Source;

use super::specimens::{Specimen, corpus};
use voxline_fixtures::allocations::Meter;
use voxline_fixtures::knob::knob;
use voxline_fixtures::random::{self, Random};

/// Longest time that one input may take. The inputs have at most some 20 KB, which is a fraction of a
/// second of audio.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Time after which a decoder without a result is taken to hang.
const HANG: Duration = Duration::from_secs(60);

/// Most memory that one input may need at once: symphonia's own limits for the sizes in a header, and one
/// packet of a million frames for each of eight channels. Of a million inputs the worst needed 21 MB.
const BYTES_MAX: usize = 64 << 20;

/// Number of inputs in an ordinary run. They take a second.
const MUTATIONS: u64 = 10_000;

/// Damages every format in every known way, and decodes it from memory and as a stream. Decoding must end
/// in at most one error that names the position, without a panic and within the budgets. PCM before the
/// damage must be delivered.
///
/// `VOXLINE_MUTATIONS` is the number of inputs, over two threads. Input n has the seed `VOXLINE_SEED` + n.
/// A run of a million, with a report of its costs:
///
/// ```text
/// VOXLINE_MUTATIONS=1000000 cargo test -p voxline --test it -- --exact --nocapture \
///     front_end::hostile::damaged_files_end_in_one_error
/// ```
#[test]
#[allow(clippy::print_stdout, reason = "the numbers are what a long run is for")]
fn damaged_files_end_in_one_error() {
    const THREADS: u64 = 2;
    let (first, count) = (random::seed(), mutations());
    // The decoders' panics are counted below. Printed one by one they would hide everything else.
    quiet_caught_panics();
    let corpus = Arc::new(corpus());
    let (sender, receiver) = mpsc::channel();
    let busy: [Arc<AtomicU64>; THREADS as usize] = Default::default();
    for (thread, busy) in busy.iter().enumerate() {
        let (corpus, sender, busy) = (Arc::clone(&corpus), sender.clone(), Arc::clone(busy));
        let seeds = (first + thread as u64..first + count).step_by(THREADS as usize);
        // Not scoped: a thread that hangs cannot be joined, only reported.
        thread::spawn(move || try_all(&corpus, seeds, &busy, &sender));
    }
    drop(sender);
    let mut summary = Summary::default();
    loop {
        match receiver.recv_timeout(HANG) {
            Ok(Ok(part)) => summary.add(part),
            Ok(Err(seed)) => panic!("{}", replay(seed)),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let seeds = busy.map(|seed| replay(seed.load(Relaxed)));
                panic!("no answer within {HANG:?} to one of these:\n{}", seeds.join("\n"));
            }
        }
    }
    println!("{summary}");
    assert_eq!(summary.inputs, count);
    // Mutations that break everything, or nothing, would test nothing.
    let least = count / 20;
    let is_mixed = summary.refused > least && summary.stopped > least && summary.whole > least;
    assert!(is_mixed || count < 1_000, "{summary}");
}

fn replay(seed: u64) -> String {
    format!("{} (input 1)", random::replay("front_end::hostile::damaged_files_end_in_one_error", seed))
}

fn mutations() -> u64 {
    knob("VOXLINE_MUTATIONS").unwrap_or(MUTATIONS)
}

thread_local! {
    /// Crate, file and line of the last panic that was caught.
    static CAUGHT_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn quiet_caught_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if panic_is_caught() {
                let file = info.location().map(|place| place.file().rsplit('/').take(4).collect::<Vec<_>>());
                let file = file.into_iter().flatten().rev().collect::<Vec<_>>().join("/");
                let line = info.location().map_or(0, panic::Location::line);
                CAUGHT_AT.set(format!("{file}:{line}"));
            } else {
                hook(info);
            }
        }));
    });
}

/// Tries each seed, and reports the results now and then. If a seed fails, reports that seed.
fn try_all(
    corpus: &[Specimen],
    seeds: impl Iterator<Item = u64>,
    busy: &AtomicU64,
    results: &mpsc::Sender<Result<Summary, u64>>,
) {
    let meter: &'static Meter = Box::leak(Box::default());
    let mut summary = Summary::default();
    for seed in seeds {
        busy.store(seed, Relaxed);
        // A decoder's thread-local memory is the same for all inputs, and is allocated after the first
        // input.
        match panic::catch_unwind(AssertUnwindSafe(|| Case::draw(corpus, seed, meter).run(meter))) {
            Ok(outcome) => summary.note(seed, outcome),
            Err(_) => {
                // The receiver is gone if another input failed before.
                let _ = results.send(Err(seed));
                return;
            }
        }
        if summary.inputs == 256 && results.send(Ok(std::mem::take(&mut summary))).is_err() {
            return;
        }
    }
    let _ = results.send(Ok(summary));
}

/// Results of many inputs.
#[derive(Default)]
struct Summary {
    inputs: u64,
    /// Number of inputs that could not be opened, that stopped later, and that were decoded to their end.
    refused: u64,
    stopped: u64,
    whole: u64,
    /// Count and first seed of each caught panic, by message and place.
    panics: BTreeMap<String, (u64, u64)>,
    /// Slowest and largest input, each with its seed and specimen.
    slowest: (Duration, u64, &'static str),
    largest: (usize, u64, &'static str),
}

struct Outcome {
    name: &'static str,
    error: Option<String>,
    opened: bool,
    time: Duration,
    bytes: usize,
}

impl Summary {
    fn note(&mut self, seed: u64, outcome: Outcome) {
        self.inputs += 1;
        match (&outcome.error, outcome.opened) {
            (Some(_), false) => self.refused += 1,
            (Some(_), true) => self.stopped += 1,
            (None, _) => self.whole += 1,
        }
        if let Some((_, message)) =
            outcome.error.as_deref().and_then(|e| e.split_once("the decoder panicked: "))
        {
            // Numbers differ from input to input.
            let message = message.replace(|c: char| c.is_ascii_digit(), "#");
            self.panics.entry(format!("{message}, {}", CAUGHT_AT.take())).or_insert((0, seed)).0 += 1;
        }
        self.slowest = self.slowest.max((outcome.time, seed, outcome.name));
        self.largest = self.largest.max((outcome.bytes, seed, outcome.name));
    }

    fn add(&mut self, other: Summary) {
        self.inputs += other.inputs;
        self.refused += other.refused;
        self.stopped += other.stopped;
        self.whole += other.whole;
        for (message, (count, seed)) in other.panics {
            self.panics.entry(message).or_insert((0, seed)).0 += count;
        }
        self.slowest = self.slowest.max(other.slowest);
        self.largest = self.largest.max(other.largest);
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { inputs, refused, stopped, whole, .. } = self;
        writeln!(f, "{inputs} inputs: {refused} refused, {stopped} stopped on the way, {whole} whole")?;
        let ((time, slow, slow_name), (bytes, large, large_name)) = (self.slowest, self.largest);
        writeln!(
            f,
            "slowest {time:?} (seed {slow}, {slow_name}), largest {bytes} bytes (seed {large}, {large_name})"
        )?;
        let caught: u64 = self.panics.values().map(|(count, _)| count).sum();
        writeln!(f, "{caught} panics of decoders, caught")?;
        self.panics
            .iter()
            .try_for_each(|(message, (count, seed))| writeln!(f, "  {count}: {message} (seed {seed})"))
    }
}

/// One damaged input, and the way in which it is read.
struct Case<'a> {
    specimen: &'a Specimen,
    bytes: Vec<u8>,
    /// Most bytes that a read returns, or `None` if the input is not a stream.
    piece: Option<usize>,
    options: Options,
}

impl Case<'_> {
    fn draw<'a>(corpus: &'a [Specimen], seed: u64, meter: &'static Meter) -> Case<'a> {
        // Each input has a seed of its own, so that one of a million can be run alone.
        let mut dice = Random::seeded(seed);
        let specimen = &corpus[dice.below(corpus.len())];
        let other = &corpus[dice.below(corpus.len())];
        let channels = [Channels::Mix, Channels::Split, Channels::Only(1), Channels::Only(2)][dice.below(4)];
        let sample_rate = [None, Some(16_000)][dice.below(2)];
        // Some thousand frames are enough to see how decoding goes on. Otherwise the only budget is that of
        // the bytes.
        let frames = if specimen.pcm.is_some() || dice.below(50) == 0 { None } else { Some(8_000) };
        let limits = Limits { frames, ..Limits::default() };
        let piece = [None, None, Some(usize::MAX), Some(1 + dice.below(300))][dice.below(4)];
        let _counted = meter.join();
        meter.reset();
        let bytes = specimen.damaged(&other.bytes, &mut dice);
        Case { specimen, bytes, piece, options: Options { channels, sample_rate, limits } }
    }

    fn source(&self, bytes: Vec<u8>) -> Source {
        let source = match self.piece {
            None => Source::bytes(self.specimen.name, bytes),
            Some(most) => Source::stream(self.specimen.name, Pieces { bytes: Cursor::new(bytes), most }),
        };
        match self.specimen.format {
            Some(format) => source.headerless(format),
            None => source,
        }
    }

    fn run(mut self, meter: &'static Meter) -> Outcome {
        let clock = SystemClock::new();
        let bytes = std::mem::take(&mut self.bytes);
        let unharmed = bytes.iter().zip(&self.specimen.bytes).take_while(|(a, b)| a == b).count();
        let counted = meter.join();
        let start = clock.monotonic();
        let heard = self.decode(bytes);
        let time = clock.monotonic().saturating_sub(start);
        drop(counted);
        if let Some((header, frame)) = self.specimen.pcm
            && unharmed >= header
        {
            let whole = self.decode(self.specimen.bytes.clone());
            assert!(whole.error.is_none() || heard.error.is_some(), "{:?}", whole.error);
            let frames = ((unharmed - header) / frame).min(whole.frames as usize);
            for (heard, whole) in heard.planes.iter().zip(&whole.planes) {
                assert!(heard.len() >= frames, "{} of {frames} frames before the damage", heard.len());
                let is_same = heard.iter().zip(whole).take(frames).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(is_same, "{frames} frames before the damage are changed");
            }
        }
        let outcome = Outcome {
            name: self.specimen.name,
            error: heard.error,
            opened: heard.opened,
            time,
            bytes: meter.peak(),
        };
        assert!(outcome.time <= TIME_MAX, "{}: {:?}", self.specimen.name, outcome.time);
        assert!(outcome.bytes <= BYTES_MAX, "{}: {} bytes", self.specimen.name, outcome.bytes);
        outcome
    }

    /// Decodes to the end and checks the invariants of any input. The audio is kept only for PCM.
    fn decode(&self, bytes: Vec<u8>) -> Heard {
        let name = self.specimen.name;
        let mut heard = Heard { opened: false, frames: 0, planes: Vec::new(), error: None };
        let mut decoder = match Decoder::open(self.source(bytes), self.options) {
            Ok(decoder) => decoder,
            Err(error) => {
                heard.error = Some(checked_message(&error, name, 0));
                return heard;
            }
        };
        heard.opened = true;
        let planes = decoder.planes();
        assert!(decoder.info().channels > 0 && decoder.info().sample_rate > 0 && decoder.sample_rate() > 0);
        heard.planes.resize_with(planes, Vec::new);
        let mut block = Block::new();
        loop {
            match decoder.next_block(&mut block) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    heard.error = Some(checked_message(&error, name, heard.frames));
                    break;
                }
            }
            assert!(block.frames() > 0, "{name}: a block has a frame");
            assert_eq!(block.planes().len(), planes, "{name}: each block has all planes");
            assert!(
                block.planes().iter().all(|plane| plane.len() == block.frames()),
                "{name}: planes differ"
            );
            heard.frames += block.frames() as u64;
            assert!(self.options.limits.frames.is_none_or(|most| heard.frames <= most), "{name}: too many");
            if self.specimen.pcm.is_some() {
                heard.planes.iter_mut().zip(block.planes()).for_each(|(all, part)| all.extend(part));
            }
        }
        assert!(matches!(decoder.next_block(&mut block), Ok(false)), "{name}: nothing follows the end");
        assert_eq!(block.frames(), 0, "{name}: nothing comes with the end");
        heard
    }
}

struct Heard {
    opened: bool,
    frames: u64,
    planes: Vec<Vec<f32>>,
    error: Option<String>,
}

/// Returns the error's message. Checks that it names its source first, and that its position is the one
/// after the last frame delivered.
fn checked_message(error: &DecodeError, name: &str, frames: u64) -> String {
    let at = match error {
        DecodeError::Truncated { at, .. }
        | DecodeError::Corrupt { at, .. }
        | DecodeError::Changed { at, .. }
        | DecodeError::Limit { at, .. }
        | DecodeError::Read { at, .. } => Some(at.frame),
        _ => None,
    };
    assert!(at.is_none_or(|at| at == frames), "{error}, after {frames} frames");
    let message = chain(error).to_string();
    assert!(message.starts_with(name) && message.len() > name.len() + 2, "{message}");
    message
}

/// A stream that returns no more than `most` bytes at once.
struct Pieces {
    bytes: Cursor<Vec<u8>>,
    most: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.most);
        self.bytes.read(&mut buffer[..most])
    }
}

/// The specimens are whole before they are damaged: each of the small files gives audio, and those of PCM
/// give all of it.
#[test]
fn the_files_to_be_damaged_give_audio() {
    for specimen in &corpus() {
        let case = Case { specimen, bytes: Vec::new(), piece: None, options: Options::default() };
        let heard = case.decode(specimen.bytes.clone());
        assert!(heard.frames >= 100, "{}: {} frames, {:?}", specimen.name, heard.frames, heard.error);
        assert!(specimen.pcm.is_none() || heard.error.is_none(), "{}: {:?}", specimen.name, heard.error);
    }
}
