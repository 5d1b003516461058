//! Bytes that were damaged on the way, or on purpose.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor, Read};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once, mpsc};
use std::thread;
use std::time::Duration;

use voxline::audio::PcmFormat;
use voxline::clock::{Clock as _, SystemClock};
use voxline::decode::{Block, Channels, DecodeError, Decoder, Limits, Options, panic_is_caught};
use voxline::source::Source;

use super::{decode, sample, wav};
use crate::random::{self, Random};
use crate::support::allocations::Meter;

/// The longest that one input may take. The inputs have some 20 KB at most, which is a fraction of a second of audio.
const TIME_MAX: Duration = Duration::from_secs(5);

/// After so long without an answer a decoder is taken for one that will never give any.
const HANG: Duration = Duration::from_secs(60);

/// The most memory that one input may need at once: symphonia's own limits for what a header announces, and one
/// packet of a million frames for each of eight channels. Of a million inputs the worst needed 21 MB.
const BYTES_MAX: usize = 64 << 20;

/// Inputs in an ordinary run: a second's.
const MUTATIONS: u64 = 10_000;

/// Damages every format in every way known here, from memory and as streams: it must end, in one error that says where,
/// without a panic and within the budgets; and what PCM there was before the damage is heard.
///
/// `VOXLINE_MUTATIONS` is how many inputs are tried, over two threads. Input n has the seed `VOXLINE_SEED` + n. A
/// million, with what they cost:
///
/// ```text
/// VOXLINE_MUTATIONS=1000000 cargo test --test it -- --exact --nocapture front_end::hostile::damaged_files_end_in_one_error
/// ```
#[test]
#[allow(clippy::print_stdout, reason = "the numbers are what a long run is for")]
fn damaged_files_end_in_one_error() {
    const THREADS: u64 = 2;
    let (first, count) = (random::seed(), mutations());
    // Decoders' panics are counted below; printed one by one they would hide everything else.
    quiet_caught_panics();
    let corpus = Arc::new(corpus());
    let (sender, receiver) = mpsc::channel();
    let busy: [Arc<AtomicU64>; THREADS as usize] = Default::default();
    for (thread, busy) in busy.iter().enumerate() {
        let (corpus, sender, busy) = (Arc::clone(&corpus), sender.clone(), Arc::clone(busy));
        let seeds = (first + thread as u64..first + count).step_by(THREADS as usize);
        // Not scoped: a thread that hangs can't be joined, only reported.
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

#[allow(clippy::disallowed_methods, reason = "the other knob of the tests")]
fn mutations() -> u64 {
    std::env::var("VOXLINE_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(MUTATIONS)
}

thread_local! {
    /// Where in which crate the last panic was that was caught.
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

/// Tries each seed, and tells now and then what came of them; of one that fails, which it is.
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
        // What a decoder leaves in memory of the thread's own is the same for all inputs, and there after the first.
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

/// What came of many inputs.
#[derive(Default)]
struct Summary {
    inputs: u64,
    /// Those that could not be opened, stopped later, and went to their end.
    refused: u64,
    stopped: u64,
    whole: u64,
    /// By message and place.
    panics: BTreeMap<String, (u64, u64)>,
    /// With their seeds, and what was damaged.
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

/// One damaged input, and how it is read.
struct Case<'a> {
    specimen: &'a Specimen,
    bytes: Vec<u8>,
    /// How many bytes of a read are given at most; `None`: not as a stream.
    piece: Option<usize>,
    options: Options,
}

impl Case<'_> {
    fn draw<'a>(corpus: &'a [Specimen], seed: u64, meter: &'static Meter) -> Case<'a> {
        // A seed of its own for each input, so that one of a million can be run alone.
        let mut dice = Random::seeded(seed);
        let specimen = &corpus[dice.below(corpus.len())];
        let other = &corpus[dice.below(corpus.len())];
        let channels = [Channels::Mix, Channels::Split, Channels::Only(1), Channels::Only(2)][dice.below(4)];
        let sample_rate = [None, Some(16_000)][dice.below(2)];
        // Some thousand frames are enough to see how decoding goes on; only the budget of the bytes otherwise.
        let frames = if specimen.pcm.is_some() || dice.below(50) == 0 { None } else { Some(8_000) };
        let limits = Limits { frames, time: None };
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

    /// Decodes to the end and checks what holds for any input. Only of PCM is the audio kept.
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

/// The error as it is shown: it names its source first, and the place is the one after the last frame delivered.
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

/// A stream that gives no more than so many bytes at once.
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

/// A number that programs get wrong.
fn interesting(random: &mut Random, length: usize) -> u64 {
    let bits = [7, 8, 15, 16, 31, 32, 63, 64][random.below(8)];
    let power = 1_u64.checked_shl(bits).unwrap_or(0);
    match random.below(6) {
        0 => 0,
        1 => random.next() >> random.below(64),
        2 => (length as u64).wrapping_add(random.below(5) as u64).wrapping_sub(2),
        _ => power.wrapping_add(random.below(3) as u64).wrapping_sub(1),
    }
}

/// A small file to be damaged.
struct Specimen {
    name: &'static str,
    bytes: Vec<u8>,
    /// Of headerless audio.
    format: Option<PcmFormat>,
    /// Of PCM, how long the header is, and a frame.
    pcm: Option<(usize, usize)>,
    /// How much of it is header: where most of what can be got wrong is.
    head: usize,
    /// Where lengths stand: before and after what looks like a chunk's name.
    lengths: Vec<usize>,
}

impl Specimen {
    fn new(name: &'static str, head: usize, bytes: Vec<u8>) -> Specimen {
        let is_name = |name: &[u8]| name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b' ');
        let names = bytes[..head].windows(4).enumerate().filter(|(_, name)| is_name(name));
        let lengths = names.flat_map(|(at, _)| [at.saturating_sub(4), at + 4]).collect();
        Specimen { name, bytes, format: None, pcm: None, head, lengths }
    }

    fn pcm(name: &'static str, frame: usize, bytes: Vec<u8>) -> Specimen {
        let audio = bytes.windows(4).position(|window| matches!(window, b"data" | b"SSND"));
        let audio = audio.expect("a file of PCM has a chunk of audio");
        let head = match &bytes[..4] {
            b"FORM" => audio + 16,
            b"caff" => audio + 16,
            _ => audio + 8,
        };
        Specimen { pcm: Some((head, frame)), ..Specimen::new(name, head, bytes) }
    }

    /// The bytes after some damage; `other` is what they may be joined with.
    fn damaged(&self, other: &[u8], dice: &mut Random) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let rounds = if dice.below(4) > 0 { 1 } else { 2 + dice.below(6) };
        for _ in 0..rounds {
            if bytes.is_empty() {
                break;
            }
            self.damage(&mut bytes, other, dice);
        }
        // Where bytes are checked by a sum, damage would go no deeper than that.
        if dice.below(2) == 0 {
            mend_ogg(&mut bytes);
            mend_flac(&mut bytes);
        }
        bytes
    }

    fn damage(&self, bytes: &mut Vec<u8>, other: &[u8], dice: &mut Random) {
        let length = bytes.len();
        let reach = if dice.below(2) == 0 { self.head.clamp(1, length) } else { length };
        let place = dice.below(reach);
        let block = place..(place + 1 + dice.below(64)).min(length);
        match dice.below(12) {
            0 => bytes[place] = dice.next() as u8,
            1 => bytes[place] ^= 1 << dice.below(8),
            2 | 3 => write(bytes, place, interesting(dice, length), dice),
            4 if !self.lengths.is_empty() => {
                let place = self.lengths[dice.below(self.lengths.len())];
                write(bytes, place.min(length - 1), interesting(dice, length), dice);
            }
            4 | 5 => bytes[place] = bytes[place].wrapping_add([1, 255][dice.below(2)]),
            6 => {
                let from = dice.below(length - block.len() + 1);
                bytes.copy_within(from..from + block.len(), place);
            }
            7 => drop(bytes.drain(block)),
            8 => {
                let copy = bytes[block].to_vec();
                let to = dice.below(length);
                bytes.splice(to..to, copy).for_each(drop);
            }
            9 => bytes[block].fill(dice.next() as u8),
            10 => bytes.truncate(dice.below(length)),
            _ => {
                bytes.truncate(place);
                bytes.extend(&other[dice.below(other.len())..]);
            }
        }
    }
}

/// Writes a number of some width in some byte order, as far as there is room.
fn write(bytes: &mut [u8], place: usize, number: u64, dice: &mut Random) {
    let width = [1, 2, 4, 8][dice.below(4)];
    let number = match dice.below(2) {
        0 => number.to_le_bytes()[..width].to_vec(),
        _ => number.to_be_bytes()[8 - width..].to_vec(),
    };
    bytes[place..].iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
}

/// A checksum, highest bit first, that starts from nothing.
fn crc(bytes: &[u8], width: u32, polynomial: u32) -> u32 {
    let shift = 32 - width;
    let crc = bytes.iter().fold(0, |crc, &byte| {
        let crc = crc ^ u32::from(byte) << 24;
        (0..8).fold(crc, |crc: u32, _| (crc << 1) ^ if crc >> 31 == 1 { polynomial << shift } else { 0 })
    });
    crc >> shift
}

/// Makes the sums of all pages right again (RFC 3533, 6).
fn mend_ogg(bytes: &mut [u8]) {
    if !bytes.starts_with(b"OggS") {
        return;
    }
    let starts: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, window)| *window == b"OggS").map(|(at, _)| at).collect();
    for start in starts {
        let page = &mut bytes[start..];
        let Some(&segments) = page.get(26) else { continue };
        let header = 27 + usize::from(segments);
        let Some(lengths) = page.get(27..header) else { continue };
        let end = header + lengths.iter().map(|&length| usize::from(length)).sum::<usize>();
        let Some(page) = page.get_mut(..end) else { continue };
        page[22..26].fill(0);
        let sum = crc(page, 32, 0x04C1_1DB7);
        page[22..26].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Makes the sums of all frames right again (RFC 9639, 9.1.8 and 9.3).
fn mend_flac(bytes: &mut [u8]) {
    if !bytes.starts_with(b"fLaC") {
        return;
    }
    let mut starts: Vec<usize> =
        bytes.windows(2).enumerate().filter(|(_, sync)| *sync == [0xFF, 0xF8]).map(|(at, _)| at).collect();
    starts.push(bytes.len());
    for pair in starts.windows(2) {
        let frame = &mut bytes[pair[0]..pair[1]];
        let Some(&[_, _, sizes, _, number]) = frame.first_chunk::<5>() else { continue };
        let of_number = number.leading_ones().max(1) as usize;
        let of_block = usize::from(sizes >> 4 == 6) + 2 * usize::from(sizes >> 4 == 7);
        let of_rate = usize::from(sizes & 15 == 12) + 2 * usize::from(matches!(sizes & 15, 13 | 14));
        let header = 4 + of_number + of_block + of_rate;
        if frame.len() < header + 3 {
            continue;
        }
        frame[header] = crc(&frame[..header], 8, 0x07) as u8;
        let end = frame.len() - 2;
        let sum = crc(&frame[..end], 16, 0x8005) as u16;
        frame[end..].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Each format, small: what cannot be cut short is written here.
fn corpus() -> Vec<Specimen> {
    let read = |name: &str| fs::read(sample(name)).unwrap();
    let pcm = read("speech-44k1-stereo-s16.wav")[20_000..22_400].to_vec();
    let mut corpus = vec![
        Specimen::pcm("s16.wav", 4, wav(1, 2, 44_100, 16, &pcm)),
        Specimen::pcm("u8.wav", 1, wav(1, 1, 8_000, 8, &pcm)),
        Specimen::pcm("s24.wav", 3, wav(1, 1, 48_000, 24, &pcm)),
        Specimen::pcm("f32.wav", 24, wav(3, 6, 48_000, 32, &pcm)),
        Specimen::pcm("mulaw.wav", 1, wav(7, 1, 8_000, 8, &pcm)),
        Specimen::pcm("extensible.wav", 6, extensible(&wav(1, 2, 48_000, 24, &pcm))),
        Specimen::pcm("rf64.wav", 4, rf64(&wav(1, 2, 16_000, 16, &pcm))),
        Specimen::pcm("s16.aiff", 4, aiff(16, b"", &pcm)),
        Specimen::pcm("sowt.aifc", 4, aiff(16, b"sowt", &pcm)),
        Specimen::pcm("ulaw.aifc", 2, aiff(8, b"ulaw", &pcm)),
        // Left to symphonia.
        Specimen::new("s8.aiff", 54, aiff(8, b"", &pcm)),
        Specimen::pcm("s24.caf", 6, caf(b"lpcm", 0, 6, 1, 24, &pcm)),
        Specimen::pcm("f32.caf", 8, caf(b"lpcm", 3, 8, 1, 32, &pcm)),
        Specimen::pcm("alaw.caf", 2, caf(b"alaw", 0, 2, 1, 8, &pcm)),
        Specimen::new("ima4.caf", 72, caf(b"ima4", 0, 68, 64, 0, &pcm[..34 * 70])),
    ];
    for (name, format) in [("s16le", "s16le:8000:2"), ("f64be", "f64be:48000"), ("alaw", "alaw:8000")] {
        let format: PcmFormat = format.parse().unwrap();
        corpus.push(Specimen {
            format: Some(format),
            pcm: Some((0, format.frame_bytes())),
            ..Specimen::new(name, 0, pcm.clone())
        });
    }
    let mut adpcm = read("speech-8k-mono-adpcm-ima.wav");
    adpcm.truncate(60 + 3 * 1_024);
    adpcm[56..60].copy_from_slice(&(3 * 1_024_u32).to_le_bytes());
    corpus.push(Specimen::new("ima.wav", 60, adpcm));
    // Codes that keep the step small, in blocks that start with a pair of coefficients and a step of 16.
    let mut blocks: Vec<u8> = pcm[..256 * 8].iter().map(|codes| codes & 0x33).collect();
    blocks.chunks_mut(256).for_each(|block| block[..3].copy_from_slice(&[0, 16, 0]));
    let mut microsoft = wav(2, 1, 8_000, 4, &blocks);
    microsoft[32..34].copy_from_slice(&256_u16.to_le_bytes());
    corpus.push(Specimen::new("ms-adpcm.wav", 44, with_extension(&microsoft, &MS_ADPCM)));

    // The stream's description, said to be the last block, and two frames.
    let flac = read("speech-44k1-stereo.flac");
    let mut flac = [&flac[..42], &flac[8_256..13_318]].concat();
    flac[4] |= 0x80;
    corpus.push(Specimen::new("a.flac", 60, flac));
    let mp3 = read("speech-44k1-stereo.mp3");
    corpus.push(Specimen::new("tagged.mp3", 228, mp3[..4_000].to_vec()));
    corpus.push(Specimen::new("a.mp3", 40, mp3[228..4_000].to_vec()));
    // Whole pages.
    corpus.push(Specimen::new("vorbis.ogg", 3_700, read("speech-44k1-stereo-vorbis.ogg")[..14_069].to_vec()));
    corpus.push(Specimen::new("opus.ogg", 200, read("speech-48k-stereo-opus.ogg")[..4_397].to_vec()));
    corpus.push(Specimen::new("a.opus", 200, read("speech-16k-mono-voip.opus")[..3_907].to_vec()));
    let mut surround = read("speech-48k-stereo-opus.ogg")[..4_397].to_vec();
    // One page of a longer header: family 1, of one stream that is a pair.
    surround.splice(46..47, [1, 1, 1, 0, 1]).for_each(drop);
    surround[27] = 23;
    mend_ogg(&mut surround);
    corpus.push(Specimen::new("surround.opus", 200, surround));
    corpus.push(Specimen::new("a.webm", 500, read("speech-48k-stereo-opus.webm")[..3_500].to_vec()));
    for (name, sample, audio) in
        [("aac.m4a", "speech-44k1-stereo-aac.m4a", 1_494), ("alac.m4a", "speech-16k-mono-alac.m4a", 758)]
    {
        let mut file = read(sample);
        corpus.push(Specimen::new(name, audio + 8, file[..audio + 8_000].to_vec()));
        file.truncate(audio + 7_000);
        file[audio..audio + 4].copy_from_slice(&7_000_u32.to_be_bytes());
        corpus.push(Specimen::new(name, audio + 8, file));
    }
    corpus
}

/// Samples a block, and the seven pairs of coefficients that all files have.
const MS_ADPCM: [u8; 32] = [
    0xF4, 0x01, 7, 0, 0, 1, 0, 0, 0, 2, 0, 0xFF, 0, 0, 0, 0, 0xC0, 0, 0x40, 0, 0xF0, 0, 0, 0, 0xCC, 1, 0x30,
    0xFF, 0x88, 1, 0x18, 0xFF,
];

/// A WAV file with this behind its format chunk of 16 bytes.
fn with_extension(wav: &[u8], extension: &[u8]) -> Vec<u8> {
    let length = (18 + extension.len() as u32).to_le_bytes();
    let of_extension = (extension.len() as u16).to_le_bytes();
    let mut file = [&wav[..16], &length, &wav[20..36], &of_extension, extension, &wav[36..]].concat();
    let size = file.len() as u32 - 8;
    file[4..8].copy_from_slice(&size.to_le_bytes());
    file
}

fn extensible(wav: &[u8]) -> Vec<u8> {
    // Valid bits, speakers, and PCM's GUID.
    let extension = [24, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71];
    let mut file = with_extension(wav, &extension);
    file[20..22].copy_from_slice(&0xFFFE_u16.to_le_bytes());
    file
}

fn rf64(wav: &[u8]) -> Vec<u8> {
    let mut sizes = b"ds64\x1C\0\0\0".to_vec();
    sizes.extend([wav.len() as u64, wav.len() as u64 - 44, 0].map(u64::to_le_bytes).concat());
    sizes.extend(0_u32.to_le_bytes());
    let mut file =
        [b"RF64\xFF\xFF\xFF\xFF", &wav[8..12], &sizes, &wav[12..40], &[0xFF; 4], &wav[44..]].concat();
    // What follows the audio is no audio.
    file.extend(b"LIST\x04\0\0\0INFO");
    file
}

/// An AIFF file of two channels; with a codec it is an AIFF-C.
fn aiff(bits: u16, codec: &[u8], pcm: &[u8]) -> Vec<u8> {
    let frames = pcm.len() as u32 / u32::from(bits / 4);
    let mut common = 2_u16.to_be_bytes().to_vec();
    common.extend(frames.to_be_bytes());
    common.extend(bits.to_be_bytes());
    // 16,000 as an extended number.
    common.extend([0x40, 0x0C, 0xFA, 0, 0, 0, 0, 0, 0, 0]);
    if !codec.is_empty() {
        common.extend(codec);
        common.extend([0, 0]);
    }
    let mut file = b"FORM".to_vec();
    file.extend((4 + 8 + common.len() as u32 + 16 + pcm.len() as u32).to_be_bytes());
    file.extend(if codec.is_empty() { b"AIFFCOMM" } else { b"AIFCCOMM" });
    file.extend((common.len() as u32).to_be_bytes());
    file.extend(common);
    file.extend(b"SSND");
    file.extend((8 + pcm.len() as u32).to_be_bytes());
    file.extend([0; 8]);
    file.extend(pcm);
    file
}

/// A CAF file of two channels.
fn caf(codec: &[u8; 4], flags: u32, packet_bytes: u32, frames: u32, bits: u32, pcm: &[u8]) -> Vec<u8> {
    let mut file = b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20".to_vec();
    file.extend(8_000_f64.to_be_bytes());
    file.extend(codec);
    file.extend([flags, packet_bytes, frames, 2, bits].map(u32::to_be_bytes).concat());
    file.extend(b"data");
    file.extend((4 + pcm.len() as u64).to_be_bytes());
    file.extend([0; 4]);
    file.extend(pcm);
    file
}

/// What is damaged must be whole before: each of the small files gives audio, and those of PCM all of it.
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

/// A header, and then the same bytes again and again: a stream that never ends.
struct Looping {
    head: Cursor<Vec<u8>>,
    /// The bytes many times.
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

/// What is read of a stream before it is known what it is stays in memory, so it must not be all of it; and where
/// nothing comes of it, reading must end.
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
        // An M4A file's index may have 64 MiB, and a vector that grows is there twice, once at double length.
        assert!(METER.peak() <= 3 * (64 << 20), "{name}: {} bytes", METER.peak());
    }
}

/// An M4A file whose index says that each packet has a million frames, and of whose packets most are broken: what is
/// put in their place must not be what they claim.
#[test]
fn broken_packets_that_claim_to_be_long_do_not_fill_the_memory() {
    static METER: Meter = Meter::new();
    quiet_caught_panics();
    let mut file = fs::read(sample("speech-44k1-stereo-aac.m4a")).unwrap();
    let at = |name: &[u8; 4]| file.windows(4).position(|window| window == name).unwrap();
    let (times, audio) = (at(b"stts") + 4, at(b"mdat") + 4);
    // After version and count each entry is a number of packets and how long they are.
    let entries = u32::from_be_bytes(*file[times + 4..].first_chunk().unwrap()) as usize;
    for entry in 0..entries {
        let length = times + 12 + 8 * entry;
        file[length..length + 4].copy_from_slice(&(1_u32 << 20).to_be_bytes());
    }
    // Some at either end stay good.
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

/// Only what is not PCM gets as far as a decoder with that.
#[test]
fn a_rate_of_0_hz_is_an_error() {
    let mut file = corpus().into_iter().find(|specimen| specimen.name == "ima.wav").unwrap().bytes;
    file[24..28].fill(0);
    let error = decode(Source::bytes("still", file)).map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("0 Hz, 1 channels"), "{error}");
}

/// A decoder makes room for a packet of every channel before the first is read.
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
