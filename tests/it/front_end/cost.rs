//! CPU time of malicious files: bounded by their bytes and the audio they yield, whatever their tables say.
//! Cancellation of decoding is tested here too.

use std::fs;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use voxline::decode::{Block, Cancellation, CpuLimit, DecodeError, Decoder, Options};
use voxline::error::chain;
use voxline::source::Source;

use voxline_fixtures::attacks::ATTACKS;
use voxline_fixtures::cost::{Cost, OF_A_GATEWAY, cost};
use voxline_fixtures::knob::knob;
use voxline_fixtures::samples::{SAMPLES, sample};

/// Largest excess over a limit: the work between two reads, each of which fetches at most 32 KiB.
const OVERSHOOT: Duration = Duration::from_millis(250);

/// Most memory that a decoder may take in addition to the file: a constant, and so many bytes for each byte
/// of the file.
const MEMORY: usize = 100_000_000;
const MEMORY_A_BYTE: usize = 16;

/// Size of each file in an ordinary run, in bytes.
const BYTES: usize = 600_000;

/// Returns the cost of decoding AAC on this machine at this time, for each byte and for each sample.
fn honest_cost() -> (Duration, Duration) {
    const ROUNDS: u32 = 8;
    let file = fs::read(sample("speech-44k1-stereo-aac.m4a")).unwrap();
    let costs: Vec<Cost> = (0..ROUNDS).map(|_| cost(file.clone(), None)).collect();
    assert!(costs.iter().all(|cost| cost.error.is_none()));
    let cpu: Duration = costs.iter().map(|cost| cost.cpu).sum();
    (cpu / ROUNDS / file.len() as u32, cpu / ROUNDS / costs[0].samples as u32)
}

fn bytes() -> Option<usize> {
    knob("VOXLINE_COST_BYTES")
}

/// The whole proof uses files of 20 MB and the limit of a gateway, and prints the cost of each file:
///
/// ```text
/// VOXLINE_COST_BYTES=20000000 cargo test -p voxline --test it -- --exact --nocapture \
///     front_end::cost::files_that_lie_cost_what_their_bytes_and_audio_may
/// ```
///
/// The files of an ordinary run are so small that the limit must be small too: it is derived from the cost
/// of decoding on this machine at this time.
#[test]
#[allow(clippy::print_stdout, reason = "the table is what a long run is for")]
fn files_that_lie_cost_what_their_bytes_and_audio_may() {
    let (per_byte, per_sample) = honest_cost();
    let (limit, overshoot) = match bytes() {
        Some(_) => (OF_A_GATEWAY, OVERSHOOT),
        None => {
            let constant = per_byte * 500_000;
            let limit = CpuLimit { constant, per_byte: per_byte * 2, per_sample: per_sample * 8 };
            (limit, per_byte * 3_000_000)
        }
    };
    println!("honest: {per_byte:?} a byte, {per_sample:?} a sample; {limit:?}, and {overshoot:?} over it");
    println!(
        "{:<9} | {:<52} | {:>8} | {:>6} | {:>6} | {:>8} |",
        "container", "attack", "bytes", "CPU s", "MB", "audio s"
    );
    let mut exceeding = Vec::new();
    for (container, name, attack) in ATTACKS {
        let file = attack(bytes().unwrap_or(BYTES));
        let length = file.len();
        let Cost { cpu, memory, samples, seconds, error } = cost(file, Some(limit));
        let told = error.map_or_else(String::new, |error| chain(&error).to_string());
        let (cpu_seconds, megabytes) = (cpu.as_secs_f64(), memory / 1_000_000);
        println!(
            "{container:<9} | {name:<52} | {length:>8} | {cpu_seconds:>6.3} | {megabytes:>6} | {seconds:>8.1} | {told}"
        );
        if cpu > limit.allowance(length as u64, samples) + overshoot
            || memory > MEMORY + MEMORY_A_BYTE * length
        {
            exceeding.push((container, name));
        }
    }
    assert!(exceeding.is_empty(), "{exceeding:?}");
}

/// Symphonia would scan a table for each packet. It sees a short table instead, so no limit is needed.
#[test]
fn tables_cost_what_their_bytes_do() {
    let (per_byte, _) = honest_cost();
    for (container, name, attack) in ATTACKS {
        if container != "isomp4" && !name.starts_with("Vorbis setup: codebooks") {
            continue;
        }
        let file = attack(BYTES);
        let most = per_byte * 20 * file.len() as u32;
        let taken = cost(file, None).cpu;
        assert!(taken <= most, "{container}, {name}: {taken:?}, expected at most {most:?}");
    }
}

/// Telephones write an entry for each packet, since their clock is not the sound card's.
#[test]
fn a_time_table_with_an_entry_for_each_packet_is_no_attack() {
    let (_, _, jitter) = ATTACKS.iter().find(|(_, name, _)| *name == "stts: an entry a packet").unwrap();
    let decoded = cost(jitter(BYTES), None);
    assert!(decoded.error.is_none(), "{:?}", decoded.error);
    assert_eq!(decoded.samples, BYTES as u64 / 10);
}

#[test]
fn a_table_of_too_many_packets_is_refused_before_it_takes_memory() {
    let (_, _, packets) = ATTACKS.iter().find(|(container, ..)| *container == "caf").unwrap();
    let refused = cost(packets((2 << 20) + 1), None);
    let told = refused.error.expect("it is refused").to_string();
    assert_eq!(told, "audio: not supported: a table of 2097153 packets, expected at most 2097152");
    assert!(refused.memory < 1 << 20, "{} bytes", refused.memory);
    // A stream cannot skip the table, so the table is kept for the reader that follows.
    let stream = Source::stream("audio", Cursor::new(packets(1 << 20)));
    let told = Decoder::open(stream, Options::default()).expect_err("it is refused").to_string();
    assert_eq!(told, "audio: not supported: more than 1048576 bytes before the audio of a stream");
}

#[test]
fn samples_are_within_the_limit_of_a_gateway() {
    for (name, .., frames) in SAMPLES {
        let decoded = cost(fs::read(sample(name)).unwrap(), Some(OF_A_GATEWAY));
        assert!(decoded.error.is_none(), "{name}: {:?}", decoded.error);
        assert!(decoded.samples > 0 && frames > 0, "{name}");
    }
}

/// A source that sets the flag at one of its reads, and counts the reads from then on.
struct Cancelling {
    bytes: Cursor<Vec<u8>>,
    reads_before: u64,
    cancellation: Cancellation,
    reads_after: Arc<AtomicU64>,
}

impl Read for Cancelling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reads_before.checked_sub(1) {
            Some(left) => self.reads_before = left,
            None => {
                self.cancellation.cancel();
                self.reads_after.fetch_add(1, Relaxed);
            }
        }
        self.bytes.read(buffer)
    }
}

#[test]
fn decoding_that_is_cancelled_reads_no_further() {
    let mut cancelled = 0;
    for (container, name, attack) in ATTACKS {
        let (cancellation, reads_after) = (Cancellation::new(), Arc::new(AtomicU64::new(0)));
        let source = Cancelling {
            bytes: Cursor::new(attack(BYTES)),
            reads_before: 8,
            cancellation: cancellation.clone(),
            reads_after: Arc::clone(&reads_after),
        };
        let source = Source::stream("audio", source);
        let decode = || {
            let mut decoder = Decoder::open_cancellable(source, Options::default(), cancellation)?;
            let mut block = Block::new();
            while decoder.next_block(&mut block)? {}
            Ok(())
        };
        let ended: Result<(), DecodeError> = decode();
        // Other files were refused sooner.
        if reads_after.load(Relaxed) > 0 {
            assert!(matches!(ended, Err(DecodeError::Cancelled { .. })), "{container}, {name}: {ended:?}");
            assert_eq!(reads_after.load(Relaxed), 1, "{container}, {name}");
            cancelled += 1;
        }
    }
    assert!(cancelled >= 10, "{cancelled} of {}", ATTACKS.len());
}

#[test]
fn a_decoder_is_cancelled_between_blocks() {
    let cancellation = Cancellation::new();
    let source = Source::open(sample("speech-44k1-stereo.flac")).unwrap();
    let mut decoder = Decoder::open_cancellable(source, Options::default(), cancellation.clone()).unwrap();
    let mut block = Block::new();
    assert!(decoder.next_block(&mut block).unwrap());
    cancellation.cancel();
    let ended = decoder.next_block(&mut block);
    assert!(matches!(ended, Err(DecodeError::Cancelled { .. })), "{ended:?}");
    assert!(matches!(decoder.next_block(&mut block), Ok(false)), "nothing follows");
}
