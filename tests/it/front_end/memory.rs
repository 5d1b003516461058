//! Memory use of the front end: no allocation for a block once it runs, and the same peak for a minute and
//! for hours.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};

use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use voxline::audio::Feed;
use voxline::chunk::Chunker;
use voxline::decode::{self, Block, Channels, Decoder};
use voxline::pipeline::{Options, Pipeline};
use voxline::resample::Resampler;
use voxline::source::Source;

use voxline_fixtures::allocations::{Joined, Meter};
use voxline_fixtures::formats::wav;
use voxline_fixtures::random::Random;
use voxline_fixtures::samples::sample;

/// Decodes and resamples until the end, as the pipeline does. Returns the number of allocations of each
/// block after the first `warm_up`.
fn allocations(source: Source, channels: Channels, warm_up: usize, meter: &'static Meter) -> Vec<u64> {
    let options = decode::Options { channels, sample_rate: Some(16_000), ..decode::Options::default() };
    let mut decoder = Decoder::open(source, options).unwrap();
    let resamplers = (0..decoder.planes()).map(|_| Resampler::new(decoder.sample_rate(), 16_000).unwrap());
    let mut resamplers: Vec<Resampler> = resamplers.collect();
    let (mut block, mut resampled, mut counts) = (Block::new(), Vec::new(), Vec::with_capacity(1 << 14));
    let _joined = meter.join();
    loop {
        meter.reset();
        let more = decoder.next_block(&mut block).unwrap();
        for (resampler, plane) in resamplers.iter_mut().zip(block.planes()) {
            resampled.clear();
            resampler.push(plane, &mut resampled);
        }
        let count = meter.allocations();
        if !more {
            break;
        }
        counts.push(count);
    }
    counts.drain(..warm_up);
    counts
}

#[test]
fn allocations_are_counted() {
    static METER: Meter = Meter::new();
    let joined = METER.join();
    let mut first = vec![0_u8; 1_000];
    first.reserve_exact(2_000);
    drop(first);
    let second = vec![1_u8; 500];
    drop(joined);
    let uncounted = vec![2_u8; 1 << 20];
    assert_eq!((METER.allocations(), METER.peak()), (3, 4_000));
    drop((second, uncounted));
}

#[test]
fn a_block_of_pcm_allocates_nothing() {
    static METER: Meter = Meter::new();
    let stereo: Vec<u8> = (0..2_000_000_u32).map(|byte| (byte * 31) as u8).collect();
    for (name, file) in [
        ("s16 stereo at 44.1 kHz", wav(1, 2, 44_100, 16, &stereo)),
        ("mu-law at 8 kHz", wav(7, 1, 8_000, 8, &stereo[..1_000_000])),
        ("s16 at the session's rate", wav(1, 1, 16_000, 16, &stereo)),
    ] {
        for channels in [Channels::Mix, Channels::Split, Channels::Only(1)] {
            let streamed = Source::stream("stream", io::Cursor::new(file.clone()));
            for source in [Source::bytes("memory", file.clone()), streamed] {
                // The first blocks determine the block length.
                let counts = allocations(source, channels, 3, &METER);
                assert!(counts.len() > 10, "{name}: {} blocks", counts.len());
                assert!(counts.iter().all(|&count| count == 0), "{name}, {channels}: {counts:?}");
            }
        }
    }
}

/// The test holds the chunks that are under way: one with the sender, some in the channel, one being
/// written.
#[test]
fn a_chunk_that_is_sent_on_allocates_nothing() {
    static METER: Meter = Meter::new();
    let (mut chunker, mut underway) = (Chunker::new(1_600), VecDeque::with_capacity(8));
    let samples = vec![0.25; 1_100];
    let _joined = METER.join();
    for round in 0..500 {
        // The first rounds allocate the buffers.
        if round == 30 {
            METER.reset();
        }
        let mut rest = samples.as_slice();
        while let Some(chunk) = chunker.push(&mut rest) {
            underway.push_back(chunk);
            if underway.len() > 4 {
                underway.pop_front();
            }
        }
    }
    assert_eq!(METER.allocations(), 0);
}

/// Returns the number of allocations that symphonia alone makes for each packet of a file: its demuxers
/// return each packet in memory of its own. It does not decode Opus.
fn allocations_of_symphonia(name: &str, warm_up: usize, meter: &'static Meter) -> Vec<u64> {
    let file = Box::new(File::open(sample(name)).unwrap());
    let stream = MediaSourceStream::new(file, MediaSourceStreamOptions::default());
    let probe = symphonia::default::get_probe();
    let mut format = probe.probe(&Hint::new(), stream, FormatOptions::default(), Default::default()).unwrap();
    let track = format.default_track(TrackType::Audio).unwrap();
    let params = track.codec_params.as_ref().unwrap().audio().unwrap();
    let mut decoder =
        symphonia::default::get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default()).ok();
    let mut counts = Vec::with_capacity(1 << 14);
    let _joined = meter.join();
    loop {
        meter.reset();
        let Some(packet) = format.next_packet().unwrap() else { break };
        if let Some(decoder) = &mut decoder {
            decoder.decode(&packet).unwrap();
        }
        counts.push(meter.allocations());
    }
    counts.drain(..warm_up);
    counts
}

#[test]
#[allow(clippy::print_stdout, reason = "what is measured is shown by a test that fails")]
fn a_packet_allocates_what_symphonia_does() {
    static METER: Meter = Meter::new();
    let mut worse = Vec::new();
    for name in [
        "speech-48k-stereo-opus.ogg",
        "speech-16k-mono-voip.opus",
        "speech-48k-stereo-opus.webm",
        "speech-44k1-stereo.mp3",
        "speech-44k1-stereo-aac.m4a",
        "speech-16k-mono-alac.m4a",
        "speech-44k1-stereo.flac",
        "speech-44k1-stereo-vorbis.ogg",
        "speech-8k-mono-adpcm-ima.wav",
    ] {
        const WARM_UP: usize = 5;
        let theirs = allocations_of_symphonia(name, WARM_UP, &METER);
        let ours = allocations(Source::open(sample(name)).unwrap(), Channels::Mix, WARM_UP, &METER);
        let (sum, sum_of_theirs) = (ours.iter().sum::<u64>(), theirs.iter().sum::<u64>());
        println!("{name}: {sum} for {} packets, symphonia {sum_of_theirs} for {}", ours.len(), theirs.len());
        // More is allowed only because a plane may grow once more: the longest packet may come late.
        if sum > sum_of_theirs + 4 {
            worse.push(name);
        }
    }
    assert!(worse.is_empty(), "{worse:?}");
}

thread_local! {
    /// `Some` if this thread is counted already. The guard is kept until the thread ends.
    static COUNTED: RefCell<Option<Joined>> = const { RefCell::new(None) };
}

/// A generated WAV file of any length. Threads that read from it are counted: there is no other way to
/// reach the pipeline's worker.
struct Generated {
    head: io::Cursor<Vec<u8>>,
    left: u64,
    random: Random,
    meter: &'static Meter,
}

impl Read for Generated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        COUNTED.with_borrow_mut(|counted| {
            counted.get_or_insert_with(|| self.meter.join());
        });
        let read = self.head.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        let most = (buffer.len() as u64).min(self.left) as usize;
        for piece in buffer[..most].chunks_mut(8) {
            piece.copy_from_slice(&self.random.next().to_le_bytes()[..piece.len()]);
        }
        self.left -= most as u64;
        Ok(most)
    }
}

/// Runs the whole front end over `seconds` of noise. Returns the peak number of bytes in use, and the
/// number of frames that came out.
fn peak_of(seconds: u64, meter: &'static Meter) -> (usize, u64) {
    const RATE: u32 = 8_000;
    // The size is that of a writer that does not know the length.
    let mut head = wav(1, 1, RATE, 16, &[]);
    head[40..].fill(0xFF);
    let random = Random::for_test("front_end::memory::three_hours_need_no_more_than_a_minute");
    let left = seconds * u64::from(RATE) * 2;
    let source = Source::stream("noise", Generated { head: io::Cursor::new(head), left, random, meter });
    meter.reset();
    let pipeline = Pipeline::open(source, Options::default()).unwrap();
    let (mut streams, worker) = pipeline.start();
    let mut stream = streams.remove(0);
    let mut frames = 0;
    loop {
        match stream.blocking_recv() {
            Some(Feed::Audio(chunk)) => frames += chunk.range().len(),
            Some(Feed::Flush | Feed::Gap(_)) => {}
            Some(Feed::End) | None => break,
        }
    }
    worker.join().unwrap();
    (meter.peak(), frames)
}

#[test]
#[allow(clippy::print_stdout, reason = "what is measured is shown by a test that fails")]
fn three_hours_need_no_more_than_a_minute() {
    const MORE_MAX: usize = 512 << 10;
    static METER: Meter = Meter::new();
    let (minute, frames) = peak_of(60, &METER);
    assert_eq!(frames, 60 * 16_000);
    let (hours, frames) = peak_of(3 * 3_600, &METER);
    assert_eq!(frames, 3 * 3_600 * 16_000);
    println!("a minute: {minute} bytes at most, three hours: {hours}");
    // Zero would mean that no thread was counted: the read buffer alone has 64 KiB.
    assert!(minute > 64 << 10, "{minute} bytes for a minute");
    assert!(hours.abs_diff(minute) <= MORE_MAX, "{minute} bytes for a minute, {hours} for three hours");
}
