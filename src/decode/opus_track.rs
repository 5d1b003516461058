//! The Opus track of a container: its packets, the requested rate and channels, and its padding.

use symphonia::core::packet::Packet;

use super::Options;
use super::channels::{Channels, Spec};
use super::opus::{OPUS_RATE, OpusDecoder, OpusHead, packet_frames};
use crate::resample::frames_at;

/// Rates that Opus can be decoded to, in Hz.
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, OPUS_RATE];

/// An Opus decoder that yields the requested channels and, if Opus supports it, the requested rate.
pub(super) struct OpusTrack {
    decoder: OpusDecoder,
    channels: usize,
    sample_rate: u32,
    /// Buffer for all channels of a packet, used if one channel is requested.
    all: Vec<Vec<f32>>,
}

impl OpusTrack {
    pub(super) fn new(head: OpusHead, options: &Options) -> Result<OpusTrack, String> {
        let channels = head.channels;
        let sample_rate = options.sample_rate.filter(|rate| OPUS_RATES.contains(rate)).unwrap_or(OPUS_RATE);
        let decoder = OpusDecoder::new(&head, sample_rate, options.channels == Channels::Mix)?;
        let all = match options.channels {
            Channels::Only(_) => vec![Vec::new(); channels],
            Channels::Mix | Channels::Split => Vec::new(),
        };
        Ok(OpusTrack { decoder, channels, sample_rate, all })
    }

    pub(super) fn spec(&self) -> Spec {
        Spec { sample_rate: OPUS_RATE, channels: self.channels }
    }

    pub(super) fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Appends a packet to the planes. A broken packet is concealed, and the reason returned.
    pub(super) fn decode(
        &mut self,
        packet: &Packet,
        channels: Channels,
        planes: &mut [Vec<f32>],
    ) -> Result<(), String> {
        let Channels::Only(channel) = channels else { return self.decode_all(packet, planes) };
        let mut all = std::mem::take(&mut self.all);
        all.iter_mut().for_each(Vec::clear);
        let decoded = self.decode_all(packet, &mut all);
        planes[0].extend_from_slice(&all[channel - 1]);
        self.all = all;
        decoded
    }

    /// Appends the decoded frames of a packet, without those that the container declares as padding.
    fn decode_all(&mut self, packet: &Packet, planes: &mut [Vec<f32>]) -> Result<(), String> {
        let decoded = self.decoder.decode(&packet.data, planes);
        let frames = match &decoded {
            Ok(frames) => *frames,
            Err(_) => {
                let frames = packet_frames(&packet.data).unwrap_or(0);
                let frames = frames_at(frames, OPUS_RATE, self.sample_rate) as usize;
                self.decoder.conceal(frames, planes);
                frames
            }
        };
        let padding =
            frames_at(packet.trim_end.get(), OPUS_RATE, self.sample_rate).min(frames as u64) as usize;
        planes.iter_mut().for_each(|plane| plane.truncate(plane.len() - padding));
        decoded.map(drop)
    }
}
