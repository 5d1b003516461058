//! Parts that the peers share: a recording of two legs, and the weather of their network.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use voxline::audio::sample::{quantise, to_f32};
use voxline::resample::Resampler;
use voxline_fixtures::clips;
use voxline_support::random::Random;

/// Samples of a packet: 20 ms at 8 kHz.
pub(super) const PACKET: usize = 160;
/// Length of a packet.
pub(super) const PACKET_TIME: Duration = Duration::from_millis(20);

/// Utterances in order: leg (0 is the customer) and clip.
const UTTERANCES: [(usize, &str); 3] = [(0, "austen_0930"), (1, "goforward"), (0, "something")];

/// A call of a few seconds: two legs of mu-law at 8 kHz, equally long.
pub(super) struct Recording {
    pub(super) legs: [Vec<u8>; 2],
}

impl Recording {
    pub(super) fn new() -> Recording {
        let mut legs = [Vec::new(), Vec::new()];
        for (speaker, clip) in UTTERANCES {
            let said = at_8k(&clips::audio("en-16k", clip));
            legs[1 - speaker].extend(vec![0xFF; said.len()]);
            legs[speaker].extend(said.into_iter().map(mu_law));
            legs.iter_mut().for_each(|leg| leg.extend([0xFF; 8_000]));
        }
        for leg in &mut legs {
            leg.truncate(leg.len() / PACKET * PACKET);
        }
        Recording { legs }
    }

    /// Writes the recording with the agent on the left, as `transcribe --channels split` has it.
    pub(super) fn write(&self, path: &Path) {
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 8_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut file = hound::WavWriter::create(path, spec).unwrap();
        for (&customer, &agent) in self.legs[0].iter().zip(&self.legs[1]) {
            file.write_sample(from_mu_law(agent)).unwrap();
            file.write_sample(from_mu_law(customer)).unwrap();
        }
        file.finalize().unwrap();
    }

    /// Returns the packets of a leg.
    pub(super) fn packets(&self, leg: usize) -> impl Iterator<Item = &[u8]> {
        self.legs[leg].chunks(PACKET)
    }
}

/// The weather of a network: what becomes of each packet.
pub(super) struct Weather {
    random: Random,
    /// Longest delay, in packets.
    jitter: u64,
    /// Packets of a thousand that are lost, and that come twice.
    lost: u64,
    twice: u64,
}

impl Weather {
    pub(super) fn calm() -> Weather {
        Weather { random: Random::new(0), jitter: 0, lost: 0, twice: 0 }
    }

    /// Packets overtake each other and come twice, and none is lost.
    pub(super) fn jittery(seed: u64) -> Weather {
        Weather { random: Random::new(seed), jitter: 2, lost: 0, twice: 10 }
    }

    /// As [`jittery`](Weather::jittery), and one packet of fifty is lost.
    pub(super) fn stormy(seed: u64) -> Weather {
        Weather { lost: 20, ..Weather::jittery(seed) }
    }

    /// Returns the times at which packets arrive, in packets, with their numbers, in the order of arrival.
    pub(super) fn arrivals(&mut self, packets: usize) -> Vec<(u64, usize)> {
        let mut arrivals = Vec::new();
        for number in 0..packets {
            // The first packet says where the audio begins.
            if number > 0 && self.random.below(1_000) < self.lost {
                continue;
            }
            let delayed = |random: &mut Random, jitter| number as u64 + random.below(jitter + 1);
            arrivals.push((delayed(&mut self.random, self.jitter), number));
            if self.random.below(1_000) < self.twice {
                arrivals.push((delayed(&mut self.random, self.jitter), number));
            }
        }
        arrivals.sort_unstable_by_key(|&(at, _)| at);
        arrivals
    }
}

#[expect(clippy::disallowed_methods, reason = "the peers play in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Waits until a packet that arrives this many packets after `began` is due.
pub(super) async fn until(began: Instant, packets: u64) {
    sleep_until(began + PACKET_TIME * u32::try_from(packets).unwrap()).await;
}

fn at_8k(samples: &[i16]) -> Vec<i16> {
    let samples: Vec<f32> = samples.iter().map(|&sample| to_f32(sample)).collect();
    let mut resampler = Resampler::new(16_000, 8_000).unwrap();
    let mut output = Vec::new();
    resampler.push(&samples, &mut output);
    resampler.finish(&mut output);
    quantise(&output)
}

/// Encodes a sample by mu-law (ITU-T G.711): the sign, the position of the highest bit, the four bits after
/// it.
pub(super) fn mu_law(sample: i16) -> u8 {
    let magnitude = (i32::from(sample).abs() + 132).min(32_767);
    let segment = (24 - magnitude.leading_zeros().cast_signed()).max(0);
    let step = (magnitude >> (segment + 3)) & 0x0F;
    let sign = if sample < 0 { 0x80 } else { 0 };
    !(sign | (segment << 4) | step) as u8
}

/// Decodes a code of mu-law.
pub(super) fn from_mu_law(code: u8) -> i16 {
    let code = i32::from(!code);
    let magnitude = ((((code & 0x0F) << 3) + 132) << ((code & 0x70) >> 4)) - 132;
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

/// Encodes bytes by base64 (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let is_padding = place > group.len();
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 0x3F) as usize];
            text.push(if is_padding { '=' } else { char::from(letter) });
        }
    }
    text
}
