//! Decoding of Opus packets to mono or per-channel floats, at the requested rate, with libopus.
//!
//! Containers are handled elsewhere: this module takes the identification header and one packet at a
//! time. Decoding directly to 16 kHz mono saves the resampler and, for stereo, one of two synthesis
//! passes. The caller knows the granule positions, so it removes the pre-skip and the end padding.

use opus::{Channels, Decoder, MSDecoder};

use crate::resample::frames_at;

/// Rate of the clock of Opus (RFC 7845 section 4), in which pre-skip and durations are counted, in Hz.
pub(super) const OPUS_RATE: u32 = 48_000;

/// Most audio that one packet may hold, in frames of the clock: 120 ms (RFC 6716 section 3.2.5, rule R5).
const PACKET_MAX: u64 = 5760;

/// Shortest Opus frame, 2.5 ms (RFC 6716 section 2.1.4), in frames of the clock. Concealment works in
/// multiples of it.
const SHORTEST: usize = 120;

/// Longest concealment step, in frames of the clock: 20 ms, the usual frame.
const CONCEAL_STEP: usize = 960;

/// Level at which samples are clipped, 18 dB over full scale. The format itself has no limit: encoded
/// peaks are a little over 1, but broken packets decode to 1e12, which would stay in the state of every
/// filter that follows.
const PEAK_MAX: f32 = 8.0;

/// The identification header (RFC 7845 section 5.1). The same header is Matroska's CodecPrivate and, in
/// another byte order, MP4's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpusHead {
    /// Number of output channels.
    pub(super) channels: usize,
    /// Number of frames to drop at the start, at 48 kHz whatever the output rate.
    pub(super) pre_skip: u16,
    /// Rate before encoding, for information, in Hz; 0 if it is unknown.
    pub(super) input_sample_rate: u32,
    /// Gain to apply, in 1/256 dB.
    pub(super) output_gain: i16,
    /// Meaning of the channels: 0 mono or stereo, 1 the orders of Vorbis, 255 none.
    pub(super) mapping_family: u8,
    /// Number of Opus streams in each packet.
    streams: usize,
    /// Number of stereo streams, which come first.
    coupled: usize,
    /// Decoded channel of each output channel; 255 for silence.
    mapping: Vec<u8>,
}

impl OpusHead {
    /// Parses the header and checks each of its fields.
    ///
    /// # Errors
    /// Returns a description of the fault.
    pub(super) fn parse(header: &[u8]) -> Result<OpusHead, &'static str> {
        let rest = header.strip_prefix(b"OpusHead").ok_or("no Opus header")?;
        let (fixed, table) = rest.split_first_chunk::<11>().ok_or("Opus header cut short")?;
        let &[version, channels, skip0, skip1, rate0, rate1, rate2, rate3, gain0, gain1, mapping_family] =
            fixed;
        // The major version of Ogg and Matroska is the upper four bits, and the whole version was never
        // less than 1. MP4's box `dOps` is the same header, but big-endian and of version 0; symphonia
        // puts the magic before it.
        let mp4 = version == 0;
        if version >> 4 != 0 {
            return Err("Opus header of an unknown version");
        }
        let (skip, rate, gain) = ([skip0, skip1], [rate0, rate1, rate2, rate3], [gain0, gain1]);
        let channels = usize::from(channels);
        if channels == 0 {
            return Err("Opus header without channels");
        }
        let most = match mapping_family {
            0 => 2,
            1 => 8,
            255 => 255,
            _ => return Err("Opus channel mapping family not supported"),
        };
        if channels > most {
            return Err("Opus header with more channels than its mapping family has");
        }
        let Mapping { streams, coupled, mapping } = match mapping_family {
            0 => Mapping::without_table(channels),
            _ => Mapping::parse(table, channels)?,
        };
        Ok(OpusHead {
            channels,
            pre_skip: if mp4 { u16::from_be_bytes(skip) } else { u16::from_le_bytes(skip) },
            input_sample_rate: if mp4 { u32::from_be_bytes(rate) } else { u32::from_le_bytes(rate) },
            output_gain: if mp4 { i16::from_be_bytes(gain) } else { i16::from_le_bytes(gain) },
            mapping_family,
            streams,
            coupled,
            mapping,
        })
    }
}

/// Assignment of the decoded channels to the output, as [`OpusHead`] has it.
struct Mapping {
    streams: usize,
    coupled: usize,
    mapping: Vec<u8>,
}

impl Mapping {
    /// Returns the mapping of family 0, which has one stream (section 5.1.1.1).
    fn without_table(channels: usize) -> Mapping {
        Mapping { streams: 1, coupled: channels - 1, mapping: (0..channels as u8).collect() }
    }

    /// Parses the table at the end of a header (section 5.1.1).
    fn parse(table: &[u8], channels: usize) -> Result<Mapping, &'static str> {
        let (&[streams, coupled], mapping) =
            table.split_first_chunk::<2>().ok_or("Opus channel mapping cut short")?;
        let mapping = mapping.get(..channels).ok_or("Opus channel mapping cut short")?;
        let (streams, coupled) = (usize::from(streams), usize::from(coupled));
        if streams == 0 || coupled > streams || streams + coupled > 255 {
            return Err("Opus header with an impossible number of streams");
        }
        if mapping.iter().any(|&m| m != 255 && usize::from(m) >= streams + coupled) {
            return Err("Opus channel mapping names a channel that does not exist");
        }
        Ok(Mapping { streams, coupled, mapping: mapping.to_vec() })
    }
}

/// State of the codec.
enum Codec {
    /// A decoder of mono or stereo.
    One(Decoder),
    /// A decoder of several streams in each packet.
    Several(MSDecoder),
}

/// A decoder of the packets of one track, in order.
pub(super) struct OpusDecoder {
    codec: Codec,
    /// Frames per second of the output.
    sample_rate: u32,
    /// Number of channels that the codec interleaves.
    decoded: usize,
    /// Number of output channels.
    channels: usize,
    /// Gain of the header, as a factor.
    gain: f32,
    /// Buffer for the longest packet, interleaved.
    pcm: Box<[f32]>,
}

impl OpusDecoder {
    /// Creates a decoder to `sample_rate`: 8, 12, 16, 24 or 48 kHz. With `mono` the output has one
    /// channel. For stereo it is the codec's own downmix before synthesis, which is the mean except for
    /// channels that the codec made out of phase with each other; for more channels it is their mean.
    ///
    /// # Errors
    /// Returns a description if Opus does not decode to that rate.
    pub(super) fn new(head: &OpusHead, sample_rate: u32, mono: bool) -> Result<OpusDecoder, String> {
        let channels = if mono { 1 } else { head.channels };
        let refused = |error: opus::Error| error.description().to_owned();
        let (codec, decoded) = match (head.mapping_family, channels) {
            (0, 1) => (Codec::One(Decoder::new(sample_rate, Channels::Mono).map_err(refused)?), 1),
            (0, _) => (Codec::One(Decoder::new(sample_rate, Channels::Stereo).map_err(refused)?), 2),
            _ => {
                let [streams, coupled] = [head.streams, head.coupled].map(|count| count as u8);
                let codec = MSDecoder::new(sample_rate, streams, coupled, &head.mapping).map_err(refused)?;
                (Codec::Several(codec), head.channels)
            }
        };
        let longest = frames_at(PACKET_MAX, OPUS_RATE, sample_rate) as usize;
        Ok(OpusDecoder {
            codec,
            sample_rate,
            decoded,
            channels,
            gain: 10f32.powf(f32::from(head.output_gain) / (20.0 * 256.0)),
            pcm: vec![0.0; longest * decoded].into(),
        })
    }

    /// Decodes a packet, appends each channel to its plane in `planes`, and returns the number of frames.
    ///
    /// # Errors
    /// Returns a description if the packet breaks the rules of RFC 6716 section 3.4, or if the number of
    /// planes is not that of the channels. Nothing is appended then; [`conceal`](OpusDecoder::conceal)
    /// fills the gap.
    pub(super) fn decode(&mut self, packet: &[u8], planes: &mut [Vec<f32>]) -> Result<usize, String> {
        self.check(planes)?;
        let frames = packet_frames(packet).ok_or("not an Opus packet, or longer than 120 ms")?;
        // A packet of the TOC alone: the encoder sent no audio (RFC 6716 section 3.1), for the duration
        // that the TOC states.
        if packet.len() == 1 {
            let frames = frames_at(frames, OPUS_RATE, self.sample_rate) as usize;
            self.conceal(frames, planes);
            return Ok(frames);
        }
        let frames = self.run(packet, self.pcm.len());
        let frames = frames.map_err(|error| format!("broken Opus packet: {}", error.description()))?;
        self.append(frames, planes);
        Ok(frames)
    }

    /// Appends `frames` frames that continue the audio before them and fade, in place of a lost or broken
    /// packet.
    pub(super) fn conceal(&mut self, frames: usize, planes: &mut [Vec<f32>]) {
        if self.check(planes).is_err() {
            return;
        }
        let per_clock = (OPUS_RATE / self.sample_rate) as usize;
        let mut left = frames;
        while left > 0 {
            // The codec conceals only whole multiples of the shortest frame; the excess is cut off.
            let step = (left * per_clock).min(CONCEAL_STEP).next_multiple_of(SHORTEST) / per_clock;
            let take = step.min(left);
            if self.run(&[], step * self.decoded).is_err() {
                self.pcm.fill(0.0);
            }
            self.append(take, planes);
            left -= take;
        }
    }

    /// Decodes into the first `room` samples. An empty packet conceals that many samples.
    fn run(&mut self, packet: &[u8], room: usize) -> opus::Result<usize> {
        let pcm = &mut self.pcm[..room];
        match &mut self.codec {
            Codec::One(decoder) => decoder.decode_float(packet, pcm, false),
            Codec::Several(decoder) => decoder.decode_float(packet, pcm, false),
        }
    }

    /// Checks that there is one plane for each channel.
    fn check(&self, planes: &[Vec<f32>]) -> Result<(), String> {
        if planes.len() == self.channels {
            return Ok(());
        }
        Err(format!("{} planes for {} Opus channels", planes.len(), self.channels))
    }

    /// Appends the first `frames` frames that the codec decoded: each channel to its plane, or their mean
    /// to a single plane.
    fn append(&self, frames: usize, planes: &mut [Vec<f32>]) {
        // `max` and `min` in this order turn a NaN into a number as well, which `clamp` does not.
        #[expect(clippy::manual_clamp, reason = "NaN")]
        let level = |sample: f32| (sample * self.gain).max(-PEAK_MAX).min(PEAK_MAX);
        let (pcm, channels) = (&self.pcm[..frames * self.decoded], self.decoded);
        match planes {
            [plane] if channels == 1 => plane.extend(pcm.iter().map(|&sample| level(sample))),
            [plane] => {
                let share = 1.0 / channels as f32;
                plane
                    .extend(pcm.chunks_exact(channels).map(|frame| level(frame.iter().sum::<f32>() * share)));
            }
            planes => {
                for (channel, plane) in planes.iter_mut().enumerate() {
                    plane.extend(pcm.iter().skip(channel).step_by(channels).map(|&sample| level(sample)));
                }
            }
        }
    }
}

/// Returns the duration of a packet, in frames at 48 kHz, from its first two bytes (RFC 6716 sections 3.1
/// and 3.2); `None` if the packet is empty, or claims no frames or more than 120 ms.
pub(super) fn packet_frames(packet: &[u8]) -> Option<u64> {
    let &toc = packet.first()?;
    let config = toc >> 3;
    let frame = match config {
        // SILK: 10, 20, 40 and 60 ms.
        0..12 => [480, 960, 1920, 2880][usize::from(config & 3)],
        // Hybrid: 10 and 20 ms.
        12..16 => [480, 960][usize::from(config & 1)],
        // CELT: 2.5, 5, 10 and 20 ms.
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 0x3f),
    };
    Some(frame * count).filter(|frames| (1..=PACKET_MAX).contains(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a header of `family` with a pre-skip of 312, from 44.1 kHz, at +1 dB.
    fn head(channels: u8, family: u8, table: &[u8]) -> Vec<u8> {
        let mut head = b"OpusHead\x01".to_vec();
        head.extend([channels, 0x38, 0x01, 0x44, 0xac, 0, 0, 0, 1, family]);
        head.extend(table);
        head
    }

    /// Returns a decoder for a header of family 0.
    fn decoder(channels: u8, sample_rate: u32, mono: bool) -> OpusDecoder {
        OpusDecoder::new(&OpusHead::parse(&head(channels, 0, &[])).expect("a header"), sample_rate, mono)
            .expect("a decoder")
    }

    /// Returns bytes of xorshift64, which are the same in every run.
    fn bytes(state: &mut u64, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                (*state >> 32) as u8
            })
            .collect()
    }

    #[test]
    fn header_fields() {
        let head = OpusHead::parse(&head(2, 0, &[])).expect("a header");
        assert_eq!((head.channels, head.pre_skip, head.input_sample_rate), (2, 312, 44_100));
        assert_eq!((head.output_gain, head.mapping_family, head.streams, head.coupled), (256, 0, 1, 1));
    }

    #[test]
    fn header_of_mp4() {
        let mut mp4 = head(2, 0, &[]);
        mp4[8] = 0;
        mp4[10..12].reverse();
        mp4[12..16].reverse();
        mp4[16..18].reverse();
        assert_eq!(OpusHead::parse(&mp4), OpusHead::parse(&head(2, 0, &[])));
    }

    #[test]
    fn header_of_six_channels() {
        let head = OpusHead::parse(&head(6, 1, &[4, 2, 0, 4, 1, 2, 3, 255])).expect("a header");
        assert_eq!((head.streams, head.coupled, head.mapping), (4, 2, vec![0, 4, 1, 2, 3, 255]));
    }

    #[test]
    fn header_refuses() {
        let good = head(3, 1, &[2, 1, 0, 1, 2]);
        assert!(OpusHead::parse(&good).is_ok());
        for len in 0..good.len() {
            assert!(OpusHead::parse(&good[..len]).is_err(), "{len} bytes");
        }
        for (name, bad) in [
            ("no channels", head(0, 0, &[])),
            ("three channels in family 0", head(3, 0, &[])),
            ("nine channels in family 1", head(9, 1, &[9, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])),
            ("ambisonics", head(4, 2, &[4, 0, 0, 1, 2, 3])),
            ("no streams", head(1, 1, &[0, 0, 255])),
            ("more pairs than streams", head(1, 1, &[1, 2, 0])),
            ("too many decoded channels", head(1, 255, &[200, 100, 0])),
            ("a channel that is not there", head(2, 1, &[1, 0, 0, 1])),
        ] {
            assert!(OpusHead::parse(&bad).is_err(), "{name}");
        }
        let mut version = head(1, 0, &[]);
        version[8] = 0x0f;
        assert!(OpusHead::parse(&version).is_ok());
        version[8] = 0x10;
        assert!(OpusHead::parse(&version).is_err());
    }

    #[test]
    fn rates() {
        let head = OpusHead::parse(&head(1, 0, &[])).expect("a header");
        assert!(OpusDecoder::new(&head, 44_100, true).is_err());
        assert!(OpusDecoder::new(&head, 0, true).is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(packet_frames(&[]), None);
        // SILK 60 ms, hybrid 20 ms, CELT 2.5 ms.
        assert_eq!(packet_frames(&[11 << 3]), Some(2880));
        assert_eq!(packet_frames(&[13 << 3 | 1]), Some(1920));
        assert_eq!(packet_frames(&[28 << 3]), Some(120));
        // Code 3 needs a count, and 120 ms is the maximum.
        assert_eq!(packet_frames(&[31 << 3 | 3]), None);
        assert_eq!(packet_frames(&[31 << 3 | 3, 0]), None);
        assert_eq!(packet_frames(&[31 << 3 | 3, 6]), Some(5760));
        assert_eq!(packet_frames(&[31 << 3 | 3, 7]), None);
    }

    #[test]
    fn no_audio_in_a_packet() {
        let mut decoder = decoder(2, 16_000, true);
        let mut planes = [Vec::new()];
        assert!(decoder.decode(&[], &mut planes).is_err());
        assert!(decoder.decode(&[31 << 3 | 3, 7, 0, 0], &mut planes).is_err());
        assert!(planes[0].is_empty());
        // The TOC states the duration, not the packet before.
        assert_eq!(decoder.decode(&[31 << 3], &mut planes), Ok(320));
        assert_eq!(decoder.decode(&[11 << 3], &mut planes), Ok(960));
        assert_eq!(planes[0].len(), 1280);
    }

    #[test]
    fn planes_must_match() {
        let mut decoder = decoder(2, 16_000, false);
        assert!(decoder.decode(&[31 << 3], &mut [Vec::new()]).is_err());
        assert!(decoder.decode(&[31 << 3], &mut [Vec::new(), Vec::new()]).is_ok());
    }

    #[test]
    fn conceals_any_length() {
        for sample_rate in [8000, 12_000, 16_000, 24_000, 48_000] {
            let mut decoder = decoder(2, sample_rate, false);
            let mut planes = [Vec::new(), Vec::new()];
            let mut state = 7;
            let packet = [&[31 << 3 | 4][..], &bytes(&mut state, 150)].concat();
            assert_eq!(decoder.decode(&packet, &mut planes), Ok(sample_rate as usize / 50));
            let mut expected = planes[0].len();
            for frames in [0, 1, 7, 40, 333, 960, 4801] {
                decoder.conceal(frames, &mut planes);
                expected += frames;
                assert_eq!(
                    (planes[0].len(), planes[1].len()),
                    (expected, expected),
                    "{frames} at {sample_rate}"
                );
            }
        }
    }

    #[test]
    fn gain_is_applied() {
        let mut state = 3;
        let packet = [&[31 << 3][..], &bytes(&mut state, 100)].concat();
        let mut header = head(1, 0, &[]);
        let mut outputs = Vec::new();
        // 0 dB and -6.02 dB.
        for gain in [0i16, -1541] {
            header[16..18].copy_from_slice(&gain.to_le_bytes());
            let head = OpusHead::parse(&header).expect("a header");
            let mut planes = [Vec::new()];
            let mut decoder = OpusDecoder::new(&head, 16_000, true).expect("a decoder");
            decoder.decode(&packet, &mut planes).expect("audio");
            let [plane] = planes;
            outputs.push(plane);
        }
        assert!(outputs[0].iter().any(|&sample| sample.abs() > 1e-3));
        for (whole, half) in outputs[0].iter().zip(&outputs[1]) {
            assert!(whole.abs() >= PEAK_MAX || (whole / 2.0 - half).abs() < 1e-3 * whole.abs().max(1e-3));
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let multi = OpusHead::parse(&head(3, 1, &[2, 1, 0, 1, 2])).expect("a header");
        let mut decoders = [
            (decoder(2, 16_000, true), 1),
            (decoder(1, 48_000, false), 1),
            (decoder(2, 8000, false), 2),
            (OpusDecoder::new(&multi, 16_000, true).expect("a decoder"), 1),
            (OpusDecoder::new(&multi, 24_000, false).expect("a decoder"), 3),
        ];
        for round in 0..400 {
            let packet = bytes(&mut state, round % 200);
            for (decoder, channels) in &mut decoders {
                let mut planes = vec![Vec::new(); *channels];
                match decoder.decode(&packet, &mut planes) {
                    Ok(frames) => assert!(planes.iter().all(|plane| plane.len() == frames)),
                    Err(_) => decoder.conceal(160, &mut planes),
                }
                assert!(planes.iter().flatten().all(|sample| sample.abs() <= PEAK_MAX));
            }
        }
    }
}
