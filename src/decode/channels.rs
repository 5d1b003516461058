//! Selection of the channels of a recording.

use std::fmt;
use std::str::FromStr;

/// Channels to decode, and the planes that they become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Channels {
    /// The mean of all channels, as one plane.
    #[default]
    Mix,
    /// One channel alone, counted from 1.
    Only(usize),
    /// Every channel, each as its own plane.
    Split,
}

/// Frames per second and channel count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) sample_rate: u32,
    pub(super) channels: usize,
}

impl Channels {
    /// Returns the number of planes that a stream of `channels` channels is decoded to; `None` if the
    /// stream lacks the selected channel.
    #[must_use]
    pub fn planes(self, channels: usize) -> Option<usize> {
        match self {
            Channels::Mix => Some(1),
            Channels::Only(channel) => (1..=channels).contains(&channel).then_some(1),
            Channels::Split => Some(channels),
        }
    }
}

/// Error of parsing a text that names no channels.
#[derive(Debug, thiserror::Error)]
#[error("`{given}` names no channels, expected mix, left, right, split or a number from 1")]
pub struct ChannelsError {
    given: String,
}

impl FromStr for Channels {
    type Err = ChannelsError;

    fn from_str(text: &str) -> Result<Channels, ChannelsError> {
        match text {
            "mix" => Ok(Channels::Mix),
            "left" => Ok(Channels::Only(1)),
            "right" => Ok(Channels::Only(2)),
            "split" => Ok(Channels::Split),
            number => match number.parse() {
                Ok(channel) if channel > 0 => Ok(Channels::Only(channel)),
                _ => Err(ChannelsError { given: text.to_owned() }),
            },
        }
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Channels::Mix => f.write_str("mix"),
            Channels::Only(channel) => channel.fmt(f),
            Channels::Split => f.write_str("split"),
        }
    }
}

/// A run of decoded frames as 32-bit floats: one plane, or one per channel with [`Channels::Split`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    planes: Vec<Vec<f32>>,
}

impl Block {
    /// Creates a block without planes, which the decoder fills.
    #[must_use]
    pub fn new() -> Block {
        Block::default()
    }

    /// Returns the number of frames in each plane.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.planes.first().map_or(0, Vec::len)
    }

    /// Returns the planes, which have equal lengths.
    #[must_use]
    pub fn planes(&self) -> &[Vec<f32>] {
        &self.planes
    }

    /// Returns the first plane, which is the only one unless channels are split.
    #[must_use]
    pub fn samples(&self) -> &[f32] {
        self.planes.first().map_or(&[], Vec::as_slice)
    }

    pub(super) fn planes_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.planes
    }

    /// Turns the block into `planes` empty planes, and keeps their allocations.
    pub(super) fn clear(&mut self, planes: usize) {
        self.planes.resize_with(planes, Vec::new);
        self.planes.iter_mut().for_each(Vec::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_read_as_they_are_written() {
        for (text, channels) in [
            ("mix", Channels::Mix),
            ("split", Channels::Split),
            ("1", Channels::Only(1)),
            ("17", Channels::Only(17)),
        ] {
            assert_eq!((text.parse::<Channels>().unwrap(), channels.to_string().as_str()), (channels, text));
        }
        assert_eq!("left".parse::<Channels>().unwrap(), Channels::Only(1));
        assert_eq!("right".parse::<Channels>().unwrap(), Channels::Only(2));
        for text in ["", "0", "-1", "both", "1.5"] {
            assert!(text.parse::<Channels>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_channel_must_be_there() {
        assert_eq!(Channels::Only(2).planes(2), Some(1));
        assert_eq!(Channels::Only(3).planes(2), None);
        assert_eq!((Channels::Mix.planes(6), Channels::Split.planes(6)), (Some(1), Some(6)));
    }
}
