//! Formats of headerless audio.

use std::fmt;
use std::str::FromStr;

/// The encoding of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// 8-bit unsigned.
    U8,
    /// 16-bit signed, little-endian.
    S16Le,
    /// 16-bit signed, big-endian.
    S16Be,
    /// 24-bit signed, little-endian, 3 bytes.
    S24Le,
    /// 24-bit signed, big-endian, 3 bytes.
    S24Be,
    /// 32-bit signed, little-endian.
    S32Le,
    /// 32-bit signed, big-endian.
    S32Be,
    /// 32-bit float, little-endian.
    F32Le,
    /// 32-bit float, big-endian.
    F32Be,
    /// 64-bit float, little-endian.
    F64Le,
    /// 64-bit float, big-endian.
    F64Be,
    /// G.711 mu-law, used by telephones in North America and Japan.
    MuLaw,
    /// G.711 A-law, used by telephones elsewhere.
    ALaw,
}

impl Encoding {
    /// All encodings.
    pub const ALL: [Encoding; 13] = [
        Encoding::U8,
        Encoding::S16Le,
        Encoding::S16Be,
        Encoding::S24Le,
        Encoding::S24Be,
        Encoding::S32Le,
        Encoding::S32Be,
        Encoding::F32Le,
        Encoding::F32Be,
        Encoding::F64Le,
        Encoding::F64Be,
        Encoding::MuLaw,
        Encoding::ALaw,
    ];

    /// Returns the short name of the codec, as in ffmpeg and symphonia.
    #[must_use]
    pub fn codec(self) -> &'static str {
        match self {
            Encoding::U8 => "pcm_u8",
            Encoding::S16Le => "pcm_s16le",
            Encoding::S16Be => "pcm_s16be",
            Encoding::S24Le => "pcm_s24le",
            Encoding::S24Be => "pcm_s24be",
            Encoding::S32Le => "pcm_s32le",
            Encoding::S32Be => "pcm_s32be",
            Encoding::F32Le => "pcm_f32le",
            Encoding::F32Be => "pcm_f32be",
            Encoding::F64Le => "pcm_f64le",
            Encoding::F64Be => "pcm_f64be",
            Encoding::MuLaw => "pcm_mulaw",
            Encoding::ALaw => "pcm_alaw",
        }
    }

    /// Returns the name used on the command line: the codec's without `pcm_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.codec().trim_start_matches("pcm_")
    }

    /// Returns the number of bytes per sample.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Encoding::U8 | Encoding::MuLaw | Encoding::ALaw => 1,
            Encoding::S16Le | Encoding::S16Be => 2,
            Encoding::S24Le | Encoding::S24Be => 3,
            Encoding::S32Le | Encoding::S32Be | Encoding::F32Le | Encoding::F32Be => 4,
            Encoding::F64Le | Encoding::F64Be => 8,
        }
    }

    fn is_telephone(self) -> bool {
        matches!(self, Encoding::MuLaw | Encoding::ALaw)
    }
}

/// The format of headerless audio, which its bytes don't reveal. The samples of a frame are interleaved,
/// one per channel.
///
/// The text form is `ENCODING:RATE:CHANNELS`, such as `s16le:16000:2`. The number of channels may be
/// omitted if it is 1, and so may the rate of G.711, which is then 8000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PcmFormat {
    /// Encoding of a sample.
    pub encoding: Encoding,
    /// Frames per second.
    pub sample_rate: u32,
    /// Samples per frame.
    pub channels: usize,
}

impl PcmFormat {
    /// Most channels that headerless audio may have: the number that WAV writers and multichannel
    /// recorders reach.
    pub const CHANNELS_MAX: usize = 64;

    /// Returns the number of bytes per frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.encoding.bytes() * self.channels
    }
}

impl fmt::Display for PcmFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.encoding.name(), self.sample_rate, self.channels)
    }
}

/// The error for a text that is no valid [`PcmFormat`].
#[derive(Debug, thiserror::Error)]
#[error("`{given}` is no format of headerless audio: {why}")]
pub struct PcmFormatError {
    given: String,
    why: String,
}

impl FromStr for PcmFormat {
    type Err = PcmFormatError;

    fn from_str(text: &str) -> Result<PcmFormat, PcmFormatError> {
        let refused = |why: String| PcmFormatError { given: text.to_owned(), why };
        let mut parts = text.split(':');
        // ffmpeg's muxers, sox, and many telephones call mu-law `ulaw`.
        let name = match parts.next().unwrap_or_default() {
            "ulaw" => "mulaw",
            name => name,
        };
        let Some(encoding) = Encoding::ALL.into_iter().find(|encoding| encoding.name() == name) else {
            let names = Encoding::ALL.map(Encoding::name).join(", ");
            return Err(refused(format!("expected ENCODING:RATE:CHANNELS with an encoding of {names}")));
        };
        let sample_rate = match parts.next() {
            Some(rate) => rate.parse().ok().filter(|&rate| rate > 0),
            None if encoding.is_telephone() => Some(8_000),
            None => return Err(refused(format!("it has no rate, expected such as {name}:16000"))),
        };
        let sample_rate = sample_rate.ok_or_else(|| refused("expected a rate in Hz".to_owned()))?;
        let channels = parts.next().map_or(Some(1), |count| count.parse().ok());
        let channels = channels.filter(|count| (1..=PcmFormat::CHANNELS_MAX).contains(count));
        let channels =
            channels.ok_or_else(|| refused(format!("expected 1 to {} channels", PcmFormat::CHANNELS_MAX)))?;
        match parts.next() {
            None => Ok(PcmFormat { encoding, sample_rate, channels }),
            Some(_) => Err(refused("expected ENCODING:RATE:CHANNELS".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_as_it_is_written() {
        for encoding in Encoding::ALL {
            let format = PcmFormat { encoding, sample_rate: 44_100, channels: 2 };
            assert_eq!(format.to_string().parse::<PcmFormat>().unwrap(), format);
        }
        let telephone: PcmFormat = "alaw".parse().unwrap();
        assert_eq!(telephone.to_string(), "alaw:8000:1");
        assert_eq!("ulaw:16000".parse::<PcmFormat>().unwrap().to_string(), "mulaw:16000:1");
        assert_eq!("s16le:16000".parse::<PcmFormat>().unwrap().to_string(), "s16le:16000:1");
    }

    #[test]
    fn what_is_no_format_is_refused() {
        let refused = |text: &str| text.parse::<PcmFormat>().unwrap_err().to_string();
        assert_eq!(
            refused("s16le"),
            "`s16le` is no format of headerless audio: it has no rate, expected such as s16le:16000"
        );
        assert!(
            refused("mp3:8000").contains("expected ENCODING:RATE:CHANNELS with an encoding of u8, s16le")
        );
        for text in ["s16le:0", "s16le:x", "s16le:-1", "s16le:"] {
            assert!(refused(text).ends_with("expected a rate in Hz"), "{text}");
        }
        for text in ["alaw:8000:0", "alaw:8000:65", "alaw:8000:"] {
            assert!(refused(text).ends_with("expected 1 to 64 channels"), "{text}");
        }
        assert!(refused("alaw:8000:1:1").ends_with("expected ENCODING:RATE:CHANNELS"));
    }
}
