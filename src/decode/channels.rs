//! Which channels of a recording are heard.

use std::fmt;
use std::str::FromStr;

/// Which channels are decoded, and into how many planes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Channels {
    /// The mean of all channels, as one plane.
    #[default]
    Mix,
    /// This channel alone, counted from 1.
    Only(usize),
    /// Every channel, each as a plane of its own.
    Split,
}

impl Channels {
    /// How many planes a stream of `channels` is decoded to; `None` if it has no such channel.
    #[must_use]
    pub fn planes(self, channels: usize) -> Option<usize> {
        match self {
            Channels::Mix => Some(1),
            Channels::Only(channel) => (1..=channels).contains(&channel).then_some(1),
            Channels::Split => Some(channels),
        }
    }
}

/// A text that names no channels.
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

/// A run of decoded frames, as 32-bit floats: one plane, or with [`Channels::Split`] one a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    planes: Vec<Vec<f32>>,
}

impl Block {
    /// A block without planes, to be filled by the decoder.
    #[must_use]
    pub fn new() -> Block {
        Block::default()
    }

    /// Frames in each plane.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.planes.first().map_or(0, Vec::len)
    }

    /// The planes, which are equally long.
    #[must_use]
    pub fn planes(&self) -> &[Vec<f32>] {
        &self.planes
    }

    /// The first plane: all there is, unless channels are split.
    #[must_use]
    pub fn samples(&self) -> &[f32] {
        self.planes.first().map_or(&[], Vec::as_slice)
    }

    pub(super) fn planes_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.planes
    }

    /// Makes it `planes` empty planes; what they have allocated is kept.
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
