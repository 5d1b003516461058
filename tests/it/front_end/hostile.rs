//! Input that was damaged in transit, or on purpose.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor, Read};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once, mpsc};
use std::thread;
use std::time::Duration;

use voxline::clock::{Clock as _, SystemClock};
use voxline::decode::{Block, Channels, DecodeError, Decoder, Limits, Options, panic_is_caught};
use voxline::source::Source;

use super::decode;
use super::specimens::{Specimen, corpus};
use voxline_fixtures::allocations::Meter;
use voxline_fixtures::knob::knob;
use voxline_fixtures::random::{self, Random};
use voxline_fixtures::samples::sample;

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
    let message = error.to_string();
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

#[test]
fn noise_behind_each_magic_number_never_panics() {
    let mut random = Random::for_test("front_end::hostile::noise_behind_each_magic_number_never_panics");
    let magics: [&[u8]; 10] = [
        b"RIFF\xFF\xFF\xFF\xFFWAVEfmt ",
        b"FORM\0\xFF\xFF\xFFAIFFCOMM",
        b"caff\0\x01\0\0desc",
        b"fLaC\0\0\0\x22",
        b"OggS\0\x02",
        b"\x1A\x45\xDF\xA3",
        b"ID3\x04\0\0\0\0\0\x0A",
        b"\xFF\xFB\x90\x00",
        b"\0\0\0\x18ftypM4A ",
        b"\0\0\0\x18moov",
    ];
    quiet_caught_panics();
    for magic in magics {
        for _ in 0..40 {
            let mut bytes = magic.to_vec();
            let length = random.below(20_000);
            bytes.extend((0..length).map(|_| random.next() as u8));
            let _ = decode(Source::bytes("noise", bytes.clone()));
            let _ = decode(Source::stream("noise", Cursor::new(bytes)));
        }
    }
}

/// A header, followed by the same bytes again and again: an endless stream.
struct Looping {
    head: Cursor<Vec<u8>>,
    /// The repeated bytes, many times.
    turns: Vec<u8>,
    at: usize,
}

impl Read for Looping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.head.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        let read = (&self.turns[self.at..]).read(buffer)?;
        self.at = (self.at + read) % self.turns.len();
        Ok(read)
    }
}

/// The bytes of a stream that are read before its format is known stay in memory, so they must not be the
/// whole stream. If no format is found, reading must end.
#[test]
fn headers_without_end_have_an_end() {
    static METER: Meter = Meter::new();
    quiet_caught_panics();
    let cases: [(&str, &[u8], &[u8]); 8] = [
        ("empty chunks", b"RIFF\xFF\xFF\xFF\xFFWAVE", b"JUNK\0\0\0\0"),
        ("empty chunks", b"FORM\xFF\xFF\xFF\xFFAIFF", b"JUNK\0\0\0\0"),
        ("empty chunks", b"caff\0\x01\0\0", b"free\0\0\0\0\0\0\0\0"),
        ("empty boxes", b"\0\0\0\x0CftypM4A ", b"\0\0\0\x08free"),
        ("large boxes", b"\0\0\0\x0CftypM4A ", b"\x03\0\0\0free\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("a long header", b"\x1A\x45\xDF\xA3\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFE", b"\xEC\x80"),
        (
            "audio far away",
            b"FORM\xFF\xFF\xFF\xFFAIFFCOMM\0\0\0\x12\0\x01\0\0\x0F\xA0\0\x10\x40\x0C\xFA\0\0\0\0\0\0\0SSND\xFF\xFF\xFF\xFF\
              \xFF\xFF\xFF\0\0\0\0\0",
            b"\0\0",
        ),
        ("a long tag", b"ID3\x04\0\0\x7F\x7F\x7F\x7F", b"\0\0\0\0"),
    ];
    for (name, head, turn) in cases {
        let _counted = METER.join();
        METER.reset();
        let stream = Looping { head: Cursor::new(head.to_vec()), turns: turn.repeat(4_096), at: 0 };
        let error = decode(Source::stream(name, stream)).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        // An M4A file's index may have 64 MiB, and a vector that grows is there twice, once at double
        // length.
        assert!(METER.peak() <= 3 * (64 << 20), "{name}: {} bytes", METER.peak());
    }
}

/// An M4A file whose index says that each packet has a million frames, and in which most packets are
/// broken. The silence in their place must not be as long as they claim.
#[test]
fn broken_packets_that_claim_to_be_long_do_not_fill_the_memory() {
    static METER: Meter = Meter::new();
    quiet_caught_panics();
    let mut file = fs::read(sample("speech-44k1-stereo-aac.m4a")).unwrap();
    let at = |name: &[u8; 4]| file.windows(4).position(|window| window == name).unwrap();
    let (times, audio) = (at(b"stts") + 4, at(b"mdat") + 4);
    // After version and count each entry is a number of packets and their length.
    let entries = u32::from_be_bytes(*file[times + 4..].first_chunk().unwrap()) as usize;
    for entry in 0..entries {
        let length = times + 12 + 8 * entry;
        file[length..length + 4].copy_from_slice(&(1_u32 << 20).to_be_bytes());
    }
    // Some packets at both ends stay intact.
    let broken = audio + 1_000..file.len() - 3_000;
    let mut dice = Random::seeded(random::seed());
    file[broken].fill_with(|| dice.next() as u8);
    let _counted = METER.join();
    METER.reset();
    let error = decode(Source::bytes("long", file)).unwrap().error;
    let message = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("frames in a row are broken"), "{message}");
    assert!(METER.peak() <= BYTES_MAX, "{} bytes", METER.peak());
}

/// Only formats other than PCM reach a decoder with a rate of 0.
#[test]
fn a_rate_of_0_hz_is_an_error() {
    let mut file = corpus().into_iter().find(|specimen| specimen.name == "ima.wav").unwrap().bytes;
    file[24..28].fill(0);
    let error = decode(Source::bytes("still", file)).map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("0 Hz, 1 channels"), "{error}");
}

/// A decoder allocates a packet of every channel before the first packet is read.
#[test]
fn channels_that_nobody_has_are_refused() {
    static METER: Meter = Meter::new();
    let mut file = corpus().into_iter().find(|specimen| specimen.name == "s8.aiff").unwrap().bytes;
    file[20..22].fill(0xFF);
    let _counted = METER.join();
    METER.reset();
    let error = decode(Source::bytes("crowd", file)).map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("65535 channels"), "{error}");
    assert!(METER.peak() <= 1 << 20, "{} bytes", METER.peak());
}
