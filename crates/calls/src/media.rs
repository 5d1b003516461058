//! Payloads of telephone media to samples.

use std::iter;

use opus::{Channels, Decoder};

use super::peers::{MediaEncoding, MediaFormat};
use voxline::audio::{Encoding, g711};

/// Longest audio that is made up for a packet that is lost: what follows is silent. G.711's own concealment
/// (ITU-T G.711, appendix I) fades in the same time.
const CONCEALED_MS: usize = 60;
/// Longest period that is repeated in place of lost audio: the pitch of a voice is 66 Hz or more (appendix
/// I).
const PITCH_MS: usize = 15;
/// Shortest such period: 200 Hz (appendix I).
const SHORTEST_PITCH_MS: usize = 5;
/// Longest packet of Opus (RFC 6716, section 3.2.5), in milliseconds.
const OPUS_PACKET_MS: usize = 120;
/// Highest rate at which libopus decodes.
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// A format that can't be decoded.
#[derive(Debug, thiserror::Error)]
#[error("{encoding} at {sample_rate} Hz can't be decoded: expected {expected}")]
pub struct MediaError {
    encoding: &'static str,
    sample_rate: u32,
    expected: &'static str,
}

/// A decoder of the payloads of one track.
#[derive(Debug)]
pub struct MediaDecoder {
    format: MediaFormat,
    /// `None` for payloads that are samples.
    opus: Option<Decoder>,
    /// Latest samples, from which lost ones are made.
    recent: Vec<i16>,
    /// Samples made up since the last that came.
    concealed: usize,
}

impl MediaDecoder {
    /// Creates a decoder.
    ///
    /// # Errors
    /// Returns [`MediaError`] if the format is not one of telephones: G.711, linear 16 bit and Opus, at 8 to
    /// 192 kHz.
    pub fn new(format: MediaFormat) -> Result<MediaDecoder, MediaError> {
        let MediaFormat { encoding, sample_rate } = format;
        let refused = |encoding, expected| Err(MediaError { encoding, sample_rate, expected });
        let opus = match encoding {
            MediaEncoding::Opus if !OPUS_RATES.contains(&sample_rate) => {
                return refused("Opus", "8, 12, 16, 24 or 48 kHz");
            }
            MediaEncoding::Opus => match Decoder::new(sample_rate, Channels::Mono) {
                Ok(decoder) => Some(decoder),
                Err(_) => return refused("Opus", "memory for its decoder"),
            },
            MediaEncoding::Pcm(encoding) if !is_of_telephones(encoding) => {
                return refused(encoding.name(), "mulaw, alaw, s16le or s16be");
            }
            MediaEncoding::Pcm(encoding) if !(8_000..=192_000).contains(&sample_rate) => {
                return refused(encoding.name(), "8 to 192 kHz");
            }
            MediaEncoding::Pcm(_) => None,
        };
        Ok(MediaDecoder { format, opus, recent: Vec::new(), concealed: 0 })
    }

    /// Returns the number of frames of a payload. A payload that can't be decoded has as many as its size
    /// says, or none.
    #[must_use]
    pub fn frames(&self, payload: &[u8]) -> u64 {
        let frames = match (&self.opus, self.format.encoding) {
            (Some(opus), _) => {
                opus.get_nb_samples(payload).unwrap_or(0).min(self.milliseconds(OPUS_PACKET_MS))
            }
            (None, MediaEncoding::Pcm(encoding)) => payload.len() / encoding.bytes(),
            (None, MediaEncoding::Opus) => 0,
        };
        frames as u64
    }

    /// Decodes a payload, and appends its samples. What can't be decoded is concealed.
    pub fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) {
        let (start, frames) = (samples.len(), self.frames(payload));
        match self.format.encoding {
            MediaEncoding::Pcm(Encoding::MuLaw) => {
                samples.extend(payload.iter().map(|&code| g711::mu_law(code)));
            }
            MediaEncoding::Pcm(Encoding::ALaw) => {
                samples.extend(payload.iter().map(|&code| g711::a_law(code)));
            }
            MediaEncoding::Pcm(Encoding::S16Be) => {
                samples.extend(payload.as_chunks().0.iter().map(|&bytes| i16::from_be_bytes(bytes)));
            }
            MediaEncoding::Pcm(_) => {
                samples.extend(payload.as_chunks().0.iter().map(|&bytes| i16::from_le_bytes(bytes)));
            }
            MediaEncoding::Opus => {
                let opus = self.opus.as_mut().expect("Opus has a decoder");
                samples.resize(start + frames as usize, 0);
                if opus.decode(payload, &mut samples[start..], false).is_err() {
                    samples.truncate(start);
                    return self.conceal(frames, samples);
                }
            }
        }
        self.concealed = 0;
        self.remember(&samples[start..]);
    }

    /// Appends samples in place of this many frames that are lost: the voice goes on for a moment and fades.
    pub fn conceal(&mut self, frames: u64, samples: &mut Vec<i16>) {
        let frames = frames as usize;
        let longest = self.milliseconds(CONCEALED_MS);
        let made = frames.min(longest.saturating_sub(self.concealed));
        let start = samples.len();
        if let Some(opus) = &mut self.opus {
            // libopus conceals multiples of 2.5 ms.
            let step = self.format.sample_rate as usize / 400;
            samples.resize(start + made / step * step, 0);
            if opus.decode(&[], &mut samples[start..], false).is_err() {
                samples[start..].fill(0);
            }
        } else if let Some(period) = self.pitch_period() {
            let voice =
                self.recent[self.recent.len() - period..].iter().cycle().skip(self.concealed % period);
            let faded = voice.take(made).enumerate().map(|(at, &sample)| {
                let left = longest - self.concealed - at;
                (f64::from(sample) * (left as f64 / longest as f64)) as i16
            });
            samples.extend(faded);
        }
        self.concealed += made;
        samples.resize(start + frames, 0);
    }

    /// Appends silence.
    pub fn silence(&mut self, frames: u64, samples: &mut Vec<i16>) {
        samples.extend(iter::repeat_n(0, frames as usize));
        self.recent.clear();
    }

    /// Keeps the latest samples.
    fn remember(&mut self, samples: &[i16]) {
        if self.opus.is_some() {
            return;
        }
        let kept = 2 * self.milliseconds(PITCH_MS);
        let new = &samples[samples.len().saturating_sub(kept)..];
        let old = kept - new.len();
        self.recent.drain(..self.recent.len().saturating_sub(old));
        self.recent.extend_from_slice(new);
    }

    /// Returns the period of the voice in the latest samples, in frames: the shift at which they resemble
    /// themselves most. `None` if there are too few.
    fn pitch_period(&self) -> Option<usize> {
        let (shortest, longest) = (self.milliseconds(SHORTEST_PITCH_MS), self.milliseconds(PITCH_MS));
        if self.recent.len() < 2 * longest {
            return None;
        }
        let latest = &self.recent[self.recent.len() - longest..];
        let before = self.recent.len() - longest;
        let likeness = |shift: usize| -> f64 {
            let shifted = &self.recent[before - shift..];
            let (mut product, mut energy) = (0_i64, 1_i64);
            for (&sample, &past) in latest.iter().zip(shifted) {
                product += i64::from(sample) * i64::from(past);
                energy += i64::from(past) * i64::from(past);
            }
            product as f64 / (energy as f64).sqrt()
        };
        (shortest..=longest).max_by(|one, other| likeness(*one).total_cmp(&likeness(*other)))
    }

    fn milliseconds(&self, milliseconds: usize) -> usize {
        self.format.sample_rate as usize * milliseconds / 1_000
    }
}

fn is_of_telephones(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::MuLaw | Encoding::ALaw | Encoding::S16Le | Encoding::S16Be)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    fn pcm(encoding: Encoding) -> MediaFormat {
        MediaFormat { encoding: MediaEncoding::Pcm(encoding), sample_rate: 8_000 }
    }

    fn decoded(format: MediaFormat, payload: &[u8]) -> Vec<i16> {
        let mut samples = Vec::new();
        let mut decoder = MediaDecoder::new(format).unwrap();
        decoder.decode(payload, &mut samples);
        assert_eq!(decoder.frames(payload), samples.len() as u64);
        samples
    }

    #[test]
    fn payloads_of_every_encoding_are_decoded() {
        assert_eq!(decoded(pcm(Encoding::MuLaw), &[0xFF, 0x00, 0x80]), [0, -32_124, 32_124]);
        assert_eq!(decoded(pcm(Encoding::ALaw), &[0xD5, 0xAA, 0x2A]), [8, 32_256, -32_256]);
        assert_eq!(decoded(pcm(Encoding::S16Le), &[1, 0, 0, 1, 9]), [1, 256]);
        assert_eq!(decoded(pcm(Encoding::S16Be), &[1, 0, 0, 1, 9]), [256, 1]);
    }

    #[test]
    fn formats_of_no_telephone_are_refused() {
        let refused = |encoding, sample_rate| {
            MediaDecoder::new(MediaFormat { encoding, sample_rate }).unwrap_err().to_string()
        };
        assert_eq!(
            refused(MediaEncoding::Pcm(Encoding::F32Le), 8_000),
            "f32le at 8000 Hz can't be decoded: expected mulaw, alaw, s16le or s16be"
        );
        assert!(refused(MediaEncoding::Pcm(Encoding::MuLaw), 0).ends_with("expected 8 to 192 kHz"));
        assert!(refused(MediaEncoding::Opus, 44_100).ends_with("expected 8, 12, 16, 24 or 48 kHz"));
    }

    /// A tone whose period is no divisor of a packet goes on through a lost packet.
    #[test]
    fn a_lost_packet_continues_the_voice_and_fades() {
        let tone: Vec<i16> =
            (0..800).map(|at| ((f64::from(at) * TAU * 150.0 / 8_000.0).sin() * 10_000.0) as i16).collect();
        let bytes =
            |samples: &[i16]| samples.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<u8>>();
        let mut decoder = MediaDecoder::new(pcm(Encoding::S16Le)).unwrap();
        let mut samples = Vec::new();
        decoder.decode(&bytes(&tone[..480]), &mut samples);
        decoder.conceal(160, &mut samples);
        for at in 480..520 {
            let error = (samples[at] - tone[at]).abs();
            assert!(error < 1_500, "sample {at} is {}, the tone has {}", samples[at], tone[at]);
        }
        decoder.conceal(800, &mut samples);
        assert_eq!(samples.len(), 480 + 960);
        assert!(samples[480 + 480..].iter().all(|&sample| sample == 0), "after 60 ms there is silence");
        let energy = |range: std::ops::Range<usize>| -> i64 {
            samples[range].iter().map(|&sample| i64::from(sample).pow(2)).sum()
        };
        assert!(energy(480..640) > energy(640..800) && energy(640..800) > energy(800..960));
        // Nothing is known of what was before the silence.
        let mut decoder = MediaDecoder::new(pcm(Encoding::S16Le)).unwrap();
        let mut samples = Vec::new();
        decoder.conceal(160, &mut samples);
        assert_eq!(samples, vec![0; 160]);
    }

    #[test]
    fn a_packet_of_opus_that_is_lost_or_broken_has_its_length() {
        let format = MediaFormat { encoding: MediaEncoding::Opus, sample_rate: 16_000 };
        let mut encoder = opus::Encoder::new(16_000, Channels::Mono, opus::Application::Voip).unwrap();
        let tone: Vec<i16> = (0..320).map(|at: i16| (at % 80) * 100).collect();
        let packet = encoder.encode_vec(&tone, 1_000).unwrap();
        let mut decoder = MediaDecoder::new(format).unwrap();
        let mut samples = Vec::new();
        assert_eq!(decoder.frames(&packet), 320);
        decoder.decode(&packet, &mut samples);
        decoder.conceal(320, &mut samples);
        decoder.conceal(101, &mut samples);
        assert_eq!(samples.len(), 741);
        decoder.decode(&[], &mut samples);
        decoder.decode(&[0xFF; 3], &mut samples);
        let broken = samples.len() - 741;
        assert_eq!(broken as u64, decoder.frames(&[]) + decoder.frames(&[0xFF; 3]));
    }
}
