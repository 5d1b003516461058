//! Comparison with reference decoders from Debian's packages: each format against a decoder that shares no
//! code with ours. Frames are counted, and samples are compared channel by channel at the stream's own
//! rate.

use std::fs;
use std::path::Path;
use std::process::Command;

use voxline::decode::{Channels, Options};
use voxline::resample::Resampler;
use voxline::source::Source;

use super::decode_as;
use voxline_fixtures::samples::{SAMPLES, sample};

/// A reference decoder from one of Debian's packages.
#[derive(Clone, Copy, Debug)]
enum Tool {
    /// libsndfile, to integers: PCM, G.711 and ADPCM in WAV, AIFF and CAF. Its conversion to floats may
    /// change the volume.
    Integers,
    /// libsndfile over libvorbis, the reference decoder, to floats; `oggdec` has 16 bits only.
    Vorbis,
    Flac,
    Mpg123,
    Faad,
    /// libopus, the reference decoder, always to 48 kHz.
    Opus,
}

impl Tool {
    /// Decodes a sample with this tool.
    fn decode(self, name: &str) -> Audio {
        let directory = tempfile::tempdir().unwrap();
        let (input, output) = (sample(name), directory.path().join("reference.wav"));
        let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
        let (package, arguments) = match self {
            Tool::Integers => ("sndfile-programs", vec!["sndfile-convert", "-pcm32", input, output]),
            Tool::Vorbis => ("sndfile-programs", vec!["sndfile-convert", "-float32", input, output]),
            Tool::Flac => ("flac", vec!["flac", "--decode", "--silent", "-o", output, input]),
            Tool::Mpg123 => ("mpg123", vec!["mpg123", "--quiet", "-e", "f32", "-w", output, input]),
            // 4 is 32-bit floats.
            Tool::Faad => ("faad", vec!["faad", "-q", "-b", "4", "-o", output, input]),
            Tool::Opus => {
                ("opus-tools", vec!["opusdec", "--quiet", "--float", "--rate", "48000", input, output])
            }
        };
        let mut command = Command::new(arguments[0]);
        let ran = command
            .args(&arguments[1..])
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}; run `apt-get install {package}`", arguments[0]));
        assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
        Audio::read(Path::new(output))
    }
}

/// Audio, one plane per channel.
struct Audio {
    rate: u32,
    planes: Vec<Vec<f32>>,
}

impl Audio {
    /// Reads a WAV file with hound.
    fn read(path: &Path) -> Audio {
        let mut wav = hound::WavReader::new(fs::File::open(path).unwrap()).unwrap();
        let spec = wav.spec();
        let samples: Vec<f32> = match spec.sample_format {
            hound::SampleFormat::Float => wav.samples().map(Result::unwrap).collect(),
            hound::SampleFormat::Int => {
                let scale = (1_i64 << (spec.bits_per_sample - 1)) as f32;
                wav.samples::<i32>().map(|sample| sample.unwrap() as f32 / scale).collect()
            }
        };
        let channels = usize::from(spec.channels);
        let plane = |channel| samples.iter().skip(channel).step_by(channels).copied().collect();
        Audio { rate: spec.sample_rate, planes: (0..channels).map(plane).collect() }
    }

    /// Decodes a sample with our decoder. Opus is decoded straight to a rate if one is given.
    fn ours(name: &str, sample_rate: Option<u32>) -> Audio {
        let options = Options { channels: Channels::Split, sample_rate, ..Options::default() };
        let decoded = decode_as(Source::open(sample(name)).unwrap(), options).unwrap();
        assert!(decoded.error.is_none(), "{name}: {:?}", decoded.error);
        let planes = [vec![decoded.mono], decoded.others].concat();
        Audio { rate: sample_rate.unwrap_or(decoded.info.sample_rate), planes }
    }

    fn frames(&self) -> usize {
        self.planes[0].len()
    }

    /// Returns the same audio at another rate, by our resampler, which has tests of its own.
    fn at(&self, rate: u32) -> Audio {
        let resample = |plane: &Vec<f32>| {
            let (mut resampler, mut out) = (Resampler::new(self.rate, rate).unwrap(), Vec::new());
            resampler.push(plane, &mut out);
            resampler.finish(&mut out);
            out
        };
        Audio { rate, planes: self.planes.iter().map(resample).collect() }
    }

    /// Returns the audio up to this number of frames.
    fn first(mut self, frames: usize) -> Audio {
        self.planes.iter_mut().for_each(|plane| plane.truncate(frames));
        self
    }
}

/// Returns the energy of the difference relative to that of the reference, in dB: minus infinity if both
/// are the same.
fn error_db(ours: &[f32], reference: &[f32]) -> f64 {
    let energy = |samples: &mut dyn Iterator<Item = f64>| samples.map(|x| x * x).sum::<f64>();
    let pairs = || ours.iter().zip(reference).map(|(&x, &y)| (f64::from(x), f64::from(y)));
    10.0 * (energy(&mut pairs().map(|(x, y)| x - y)) / energy(&mut pairs().map(|(_, y)| y))).log10()
}

/// Checks that each channel has as many frames as the reference and is within `bound_db` of it. One frame
/// earlier or later, or in place of another channel, it must be far from the reference.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the errors as measured, to see how much is to spare")]
fn assert_near(name: &str, ours: &Audio, reference: &Audio, bound_db: f64) {
    const NOWHERE_NEAR_DB: f64 = -30.0;
    assert_eq!((ours.rate, ours.planes.len()), (reference.rate, reference.planes.len()), "{name}");
    assert_eq!(ours.frames(), reference.frames(), "{name}");
    for (channel, (plane, expected)) in ours.planes.iter().zip(&reference.planes).enumerate() {
        let error = error_db(plane, expected);
        println!("{name}, channel {channel}: {error:.1} dB");
        assert!(error <= bound_db, "{name}, channel {channel}: {error:.1} dB");
        let others = reference.planes.iter().enumerate().filter(|(index, _)| *index != channel);
        let wrong = others.map(|(_, other)| error_db(plane, other));
        for wrong in wrong.chain([error_db(plane, &expected[1..]), error_db(&plane[1..], expected)]) {
            assert!(wrong > NOWHERE_NEAR_DB, "{name}, channel {channel}: {wrong:.1} dB in the wrong place");
        }
    }
}

/// For each sample: its name, its reference decoder, that decoder's input, and the largest error in dB. The
/// input differs from the sample if the tool does not read the sample's container; then it is the same
/// audio in another container, made by the same encoder with the same settings. Lossless formats allow no
/// error. The errors of MP3 and Vorbis come from float sums in another order, with 8 dB of room. IMA ADPCM
/// has two readings: our decoder and ffmpeg's multiply a step by the code, and libsndfile adds up its
/// rounded parts.
const REFERENCES: [(&str, Tool, &str, f64); 15] = [
    ("source.wav", Tool::Integers, "source.wav", EXACT),
    ("speech-16k-mono-s16.wav", Tool::Integers, "speech-16k-mono-s16.wav", EXACT),
    ("speech-8k-mono-mulaw.wav", Tool::Integers, "speech-8k-mono-mulaw.wav", EXACT),
    ("speech-8k-mono-adpcm-ima.wav", Tool::Integers, "speech-8k-mono-adpcm-ima.wav", -40.0),
    ("speech-48k-mono-s24.wav", Tool::Integers, "speech-48k-mono-s24.wav", EXACT),
    ("speech-44k1-stereo-s16.wav", Tool::Integers, "speech-44k1-stereo-s16.wav", EXACT),
    ("speech-8k-mono-alaw.caf", Tool::Integers, "speech-8k-mono-alaw.caf", EXACT),
    ("speech-16k-mono-s16.aiff", Tool::Integers, "speech-16k-mono-s16.aiff", EXACT),
    ("speech-44k1-stereo.flac", Tool::Flac, "speech-44k1-stereo.flac", EXACT),
    ("speech-16k-mono-alac.m4a", Tool::Integers, "speech-16k-mono-s16.wav", EXACT),
    ("speech-44k1-stereo.mp3", Tool::Mpg123, "speech-44k1-stereo.mp3", -120.0),
    ("speech-44k1-stereo-vorbis.ogg", Tool::Vorbis, "speech-44k1-stereo-vorbis.ogg", -127.0),
    ("speech-48k-stereo-opus.ogg", Tool::Opus, "speech-48k-stereo-opus.ogg", -150.0),
    ("speech-16k-mono-voip.opus", Tool::Opus, "speech-16k-mono-voip.opus", -150.0),
    ("speech-48k-stereo-opus.webm", Tool::Opus, "speech-48k-stereo-opus.ogg", -150.0),
];

const EXACT: f64 = f64::NEG_INFINITY;

/// Sample with a test of its own.
const AAC: &str = "speech-44k1-stereo-aac.m4a";

#[test]
fn every_sample_is_what_its_reference_decoder_makes_of_it() {
    let mut known: Vec<&str> = REFERENCES.iter().map(|(name, ..)| *name).chain([AAC]).collect();
    let mut samples = SAMPLES.map(|(name, ..)| name);
    known.sort_unstable();
    samples.sort_unstable();
    assert_eq!(known, samples);

    for (name, tool, input, bound_db) in REFERENCES {
        let (ours, reference) = (Audio::ours(name, None), tool.decode(input));
        let (_, container, .., frames) = SAMPLES.into_iter().find(|(sample, ..)| *sample == name).unwrap();
        assert_eq!(ours.frames(), frames, "{name}");
        // `SAMPLES` explains the extra frames of WebM's last packet.
        let ours = if container == "matroska" { ours.first(reference.frames()) } else { ours };
        assert_near(name, &ours, &reference, bound_db);
    }
}

/// The encoder replaced noise-like audio from 4 kHz up by noise parameters (ISO/IEC 14496-3, 4.6.13,
/// perceptual noise substitution). Only the energy of that noise is in the file; each decoder has random
/// numbers of its own. The audio below 4 kHz must be alike.
#[test]
#[expect(clippy::print_stdout, reason = "the errors as measured, to see how much is to spare")]
fn aac_is_what_its_reference_decoder_makes_of_it_but_for_noise() {
    let (ours, reference) = (Audio::ours(AAC, None), Tool::Faad.decode(AAC));
    // Both leave out the encoder's first 1,024 frames; faad keeps the 512 frames with which the encoder
    // filled the last packet.
    assert_eq!(ours.frames() + 512, reference.frames());
    let reference = reference.first(ours.frames());
    let (low, reference_low) = (ours.at(8_000), reference.at(8_000));
    assert_near(AAC, &low, &reference_low, -80.0);

    // The noise has the energy that it should have.
    let energy_above = |whole: &Audio, low: &Audio, channel: usize| {
        let low = low.at(whole.rate);
        let pairs = whole.planes[channel].iter().zip(&low.planes[channel]);
        pairs.map(|(&whole, &low)| f64::from(whole - low).powi(2)).sum::<f64>()
    };
    for channel in 0..2 {
        let energies = [(&ours, &low), (&reference, &reference_low)];
        let [above, expected] = energies.map(|(whole, low)| energy_above(whole, low, channel));
        let louder = 10.0 * (above / expected).log10();
        println!("{AAC}, channel {channel}: {louder:.2} dB louder above 4 kHz");
        assert!(louder.abs() < 0.5, "{AAC}, channel {channel}: {louder:.2} dB louder above 4 kHz");
    }
}

/// Opus is decoded straight to the rate of a session. libopus compensates the delay of its own resampler by
/// whole frames only: at 16 kHz the output of its speech layer is 0.6 frames, 37 microseconds, later than
/// at 48 kHz.
#[test]
#[expect(clippy::print_stdout, reason = "the errors as measured, to see how much is to spare")]
fn opus_decoded_straight_to_16_khz_is_the_same_audio_at_the_same_time() {
    const FINE: u32 = 192_000;
    const FRAME: usize = (FINE / 16_000) as usize;
    for name in ["speech-48k-stereo-opus.ogg", "speech-16k-mono-voip.opus"] {
        let direct = Audio::ours(name, Some(16_000));
        let resampled = Tool::Opus.decode(name).at(16_000);
        assert_eq!((direct.rate, direct.frames()), (resampled.rate, resampled.frames()), "{name}");
        // Towards 8 kHz the filters of libopus's resampler and ours differ, and its phase is not linear.
        for (band, bound_db) in [(16_000, -23.0), (8_000, -40.0)] {
            let fine = |audio: &Audio| audio.at(band).at(FINE);
            let (direct, resampled) = (fine(&direct), fine(&resampled));
            for (channel, (plane, expected)) in direct.planes.iter().zip(&resampled.planes).enumerate() {
                let late = |by: usize| error_db(&plane[by..], expected);
                let early = |by: usize| error_db(plane, &expected[by..]);
                let errors = (0..FRAME).map(|by| (late(by), by));
                let (error, lag) = errors.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
                println!(
                    "{name}, channel {channel}, up to {} Hz: {error:.1} dB, {lag}/12 frame late",
                    band / 2
                );
                assert!(error <= bound_db, "{name}, channel {channel}: {error:.1} dB");
                assert!((7..=8).contains(&lag), "{name}, channel {channel}: {lag}/12 frame late");
                for wrong in [late(lag + FRAME), early(FRAME - lag)] {
                    assert!(wrong > -13.0, "{name}, channel {channel}: {wrong:.1} dB a frame away");
                }
            }
        }
    }
}
