//! Opus packets without a container, one in each message.

use bytes::Bytes;
use opus::{Channels, Decoder};

use voxline::engine::RECOGNIZER_RATE;

/// Most frames of a packet: 120 ms (RFC 6716, section 3.2.5, rule R5).
const MAX_FRAMES: usize = RECOGNIZER_RATE as usize * 120 / 1_000;
/// Frames that stand in for a broken packet before there was a good one: 20 ms, the usual length.
const USUAL_FRAMES: usize = RECOGNIZER_RATE as usize * 20 / 1_000;
/// Most broken packets in a row: a second of the usual length.
const MAX_BROKEN: u32 = 50;

/// A decoder of packets at the recogniser's rate, to which Opus decodes directly.
pub(crate) struct OpusPackets {
    decoder: Decoder,
    channels: usize,
    is_mixed: bool,
    /// Length of the last good packet, in frames.
    frames: usize,
    /// Number of broken packets since the last good one.
    broken: u32,
    pcm: Box<[i16]>,
}

impl OpusPackets {
    /// Creates a decoder of one or two channels, whose planes are mixed to one if `is_mixed`. The codec mixes
    /// two channels itself, before it synthesises them.
    ///
    /// # Errors
    /// Returns [`opus::Error`] if the codec has no memory.
    pub(crate) fn new(channels: usize, is_mixed: bool) -> Result<OpusPackets, opus::Error> {
        let channels = if is_mixed { 1 } else { channels.min(2) };
        let layout = if channels == 1 { Channels::Mono } else { Channels::Stereo };
        let decoder = Decoder::new(RECOGNIZER_RATE, layout)?;
        let pcm = vec![0; MAX_FRAMES * channels].into();
        Ok(OpusPackets { decoder, channels, is_mixed, frames: USUAL_FRAMES, broken: 0, pcm })
    }

    pub(crate) fn planes(&self) -> usize {
        if self.is_mixed { 1 } else { self.channels }
    }

    /// Decodes a packet. A broken one is concealed, so that the audio after it keeps its place in time.
    /// Returns `None` if too many packets in a row were broken.
    pub(crate) fn push(&mut self, packet: &[u8]) -> Option<Vec<Bytes>> {
        let decoded =
            if packet.is_empty() { None } else { self.decoder.decode(packet, &mut self.pcm, false).ok() };
        let frames = match decoded {
            Some(frames) => {
                (self.frames, self.broken) = (frames, 0);
                frames
            }
            None => {
                self.broken += 1;
                if self.broken > MAX_BROKEN {
                    return None;
                }
                let room = self.frames * self.channels;
                // An empty packet stands for a lost one.
                if self.decoder.decode(&[], &mut self.pcm[..room], false).is_err() {
                    self.pcm[..room].fill(0);
                }
                self.frames
            }
        };
        let pcm = &self.pcm[..frames * self.channels];
        let plane = |channel| {
            let one = pcm.iter().skip(channel).step_by(self.channels);
            one.flat_map(|sample| sample.to_le_bytes()).collect()
        };
        Some((0..self.channels).map(plane).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opus::{Application, Encoder};

    #[test]
    fn packets_become_planes_and_broken_ones_keep_their_length() {
        let mut encoder = Encoder::new(48_000, Channels::Stereo, Application::Voip).unwrap();
        let packet = encoder.encode_vec(&[1_000; 2 * 960], 1_500).unwrap();
        for (is_mixed, planes) in [(true, 1), (false, 2)] {
            let mut packets = OpusPackets::new(2, is_mixed).unwrap();
            let lengths = |planes: Vec<Bytes>| planes.iter().map(Bytes::len).collect::<Vec<_>>();
            assert_eq!(lengths(packets.push(&packet).unwrap()), vec![640; planes]);
            assert_eq!(lengths(packets.push(&[0xFF, 0xFF]).unwrap()), vec![640; planes]);
            assert_eq!(packets.planes(), planes);
            for _ in 1..MAX_BROKEN {
                assert!(packets.push(b"\xff\xff").is_some());
            }
            assert!(packets.push(b"\xff\xff").is_none());
        }
    }
}
