//! The audio of a stream, in any of its formats, to PCM by channel.

use std::io;

use bytes::Bytes;

use super::parameters::{AudioFormat, MAX_CHANNELS, Parameters};
use crate::dialects::audio::PcmInput;
use crate::dialects::container::{ContainerInput, Decoded};
use crate::dialects::opus_packets::OpusPackets;
use voxline::decode::DecodeError;

/// Start of an Ogg stream (RFC 3533, section 6).
const OGG: &[u8] = b"OggS";

/// Audio that can't be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadAudio {
    #[error(transparent)]
    Undecodable(DecodeError),
    #[error("too many broken Opus packets in a row")]
    Packets,
    #[error("audio has {0} channels, {MAX_CHANNELS} are supported")]
    Channels(usize),
    #[error("no thread to decode on")]
    Thread(#[from] io::Error),
}

/// Audio of a stream.
pub(super) enum AudioInput {
    Pcm(PcmInput),
    /// Opus, of which nothing has come. The first bytes tell packets from Ogg.
    Opus {
        channels: usize,
        is_mixed: bool,
    },
    Packets(Box<OpusPackets>),
    Container(ContainerInput),
}

impl AudioInput {
    /// Creates the input that the parameters describe.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the system refuses a thread.
    pub(super) fn new(parameters: &Parameters) -> io::Result<AudioInput> {
        let (channels, is_mixed) = (parameters.channels, !parameters.multichannel);
        Ok(match parameters.format {
            AudioFormat::Pcm { encoding, .. } => AudioInput::Pcm(PcmInput::new(encoding, channels, is_mixed)),
            AudioFormat::Opus => AudioInput::Opus { channels, is_mixed },
            AudioFormat::Container => AudioInput::Container(ContainerInput::start(is_mixed)?),
        })
    }

    /// Returns the number of planes, if it is known already.
    pub(super) fn planes(&self) -> Option<usize> {
        match self {
            AudioInput::Pcm(pcm) => Some(pcm.planes()),
            AudioInput::Opus { is_mixed: true, .. } => Some(1),
            AudioInput::Opus { channels, .. } => Some(*channels),
            AudioInput::Packets(packets) => Some(packets.planes()),
            AudioInput::Container(_) => None,
        }
    }

    /// Returns whether more bytes can be pushed.
    pub(super) fn has_room(&self) -> bool {
        match self {
            AudioInput::Container(container) => container.has_room(),
            _ => true,
        }
    }

    /// Takes a message of audio. Returns the PCM that it completes, by plane; none if a decoder makes it
    /// later.
    pub(super) fn push(&mut self, bytes: Bytes) -> Result<Vec<Bytes>, BadAudio> {
        if let AudioInput::Opus { channels, is_mixed } = *self {
            *self = if bytes.starts_with(OGG) {
                AudioInput::Container(ContainerInput::start(is_mixed)?)
            } else {
                let packets = OpusPackets::new(channels, is_mixed).map_err(|_| BadAudio::Packets)?;
                AudioInput::Packets(Box::new(packets))
            };
        }
        match self {
            AudioInput::Pcm(pcm) => Ok(pcm.push(bytes)),
            AudioInput::Packets(packets) => packets.push(&bytes).ok_or(BadAudio::Packets),
            AudioInput::Container(container) => {
                container.push(bytes);
                Ok(Vec::new())
            }
            AudioInput::Opus { .. } => unreachable!("replaced above"),
        }
    }

    /// Ends the bytes. Returns whether a decoder still has audio, whose end follows by
    /// [`next`](AudioInput::next).
    pub(super) fn finish(&mut self) -> bool {
        let AudioInput::Container(container) = self else { return false };
        container.finish();
        true
    }

    /// Waits for the output of a decoder, if the caller `takes` it, and returns `None` once there is room for
    /// more bytes, if the caller waits for that. Cancel safe.
    pub(super) async fn next(&mut self, waits_for_room: bool, takes: bool) -> Option<Decoded> {
        let AudioInput::Container(container) = self else { return std::future::pending().await };
        if waits_for_room {
            // The decoder can only make room if its output is taken.
            if !takes {
                container.room().await;
                return None;
            }
            return container.next_or_room().await;
        }
        if takes { Some(container.next().await) } else { std::future::pending().await }
    }
}
