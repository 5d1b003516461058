//! The differences between the relatives, in one table.

use voxline::audio::Encoding;

use super::super::{MediaEncoding, MediaFormat, PeerError, json};

/// A service that sends the audio of calls as Twilio does, or nearly so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// Twilio Media Streams.
    Twilio,
    /// Telnyx media streaming: names in snake_case, more codecs, and no promise about the order of messages.
    Telnyx,
    /// SignalWire's `Stream` instruction: Twilio's messages, with linear samples on request.
    SignalWire,
    /// Plivo audio streams: numbers, and commands of other names.
    Plivo,
    /// Exotel's Stream and Voicebot applets: names in snake_case, and linear samples.
    Exotel,
}

/// Names and limits of a relative.
pub(super) struct Differences {
    /// Name of the stream's identifier, in all messages.
    pub(super) stream: &'static str,
    /// Name of the call's identifier in the start.
    pub(super) call: &'static str,
    /// Name of the operator's own values. Those of Plivo are beside the start, as text.
    pub(super) parameters: &'static str,
    /// Name of the format in the start.
    pub(super) format: &'static str,
    /// Name of the rate in the format.
    pub(super) rate: &'static str,
    /// Format without a name: that of the service's telephone calls.
    pub(super) unnamed: MediaFormat,
    /// Longest audio of a message, as a number of milliseconds.
    pub(super) most_ms: Option<u32>,
    /// Largest audio of a message, in bytes.
    pub(super) most_bytes: Option<usize>,
    /// Least useful audio of a message, in milliseconds.
    pub(super) frame_ms: u32,
}

const MULAW: MediaFormat = MediaFormat { encoding: MediaEncoding::Pcm(Encoding::MuLaw), sample_rate: 8_000 };

const TWILIO: Differences = Differences {
    stream: "streamSid",
    call: "callSid",
    parameters: "customParameters",
    format: "mediaFormat",
    rate: "sampleRate",
    unnamed: MULAW,
    most_ms: None,
    most_bytes: None,
    frame_ms: 20,
};

const TELNYX: Differences = Differences {
    stream: "stream_id",
    call: "call_control_id",
    parameters: "custom_parameters",
    format: "media_format",
    rate: "sample_rate",
    // Messages of 20 ms to 30 s.
    most_ms: Some(30_000),
    ..TWILIO
};

const PLIVO: Differences =
    Differences { stream: "streamId", call: "callId", parameters: "extra_headers", ..TWILIO };

const EXOTEL: Differences = Differences {
    stream: "stream_sid",
    call: "call_sid",
    parameters: "custom_parameters",
    format: "media_format",
    rate: "sample_rate",
    unnamed: MediaFormat::linear(8_000),
    // Messages of 100 ms to 100 kB, in multiples of 320 bytes.
    most_bytes: Some(312 * 320),
    frame_ms: 100,
    ..TWILIO
};

impl Provider {
    /// All providers.
    pub const ALL: [Provider; 5] =
        [Provider::Twilio, Provider::Telnyx, Provider::SignalWire, Provider::Plivo, Provider::Exotel];

    /// Returns the length of the audio that a message to the provider should have at least, in milliseconds.
    #[must_use]
    pub const fn frame_ms(self) -> u32 {
        self.differences().frame_ms
    }

    pub(super) const fn differences(self) -> &'static Differences {
        match self {
            Provider::Twilio | Provider::SignalWire => &TWILIO,
            Provider::Telnyx => &TELNYX,
            Provider::Plivo => &PLIVO,
            Provider::Exotel => &EXOTEL,
        }
    }

    /// Returns the largest audio of a message, in bytes.
    pub(super) fn most(self, format: MediaFormat) -> usize {
        let differences = self.differences();
        let by_time = differences.most_ms.and_then(|most| format.bytes_in(most));
        by_time.into_iter().chain(differences.most_bytes).min().unwrap_or(usize::MAX)
    }

    /// Returns the format that a provider names so: `audio/x-mulaw`, `PCMA`, `audio/x-l16;rate=16000`,
    /// `L16@24000h`. A rate beside the name takes precedence over one in it.
    pub(super) fn format(self, name: &str, rate: Option<u64>) -> Result<MediaFormat, PeerError> {
        let unsupported = || PeerError::Format(json::printable(name).into_owned());
        let (short, rest) = name.split_at(name.find([';', '@', ',']).unwrap_or(name.len()));
        let short = short.trim().to_ascii_lowercase();
        let short = short.strip_prefix("audio/").unwrap_or(&short);
        let encoding = match short.strip_prefix("x-").unwrap_or(short) {
            "" => self.differences().unnamed.encoding,
            "mulaw" | "ulaw" | "pcmu" => MediaEncoding::Pcm(Encoding::MuLaw),
            "alaw" | "pcma" => MediaEncoding::Pcm(Encoding::ALaw),
            // RFC 3551 would have L16 big-endian. All of these services send it as their machines have it.
            "l16" => MediaEncoding::Pcm(Encoding::S16Le),
            "raw" | "base64" if self == Provider::Exotel => MediaEncoding::Pcm(Encoding::S16Le),
            "opus" => MediaEncoding::Opus,
            _ => return Err(unsupported()),
        };
        let digits = rest.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let digits = &digits[..digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len())];
        let usual = if encoding == MediaEncoding::Opus { 48_000 } else { 8_000 };
        let sample_rate = rate.or_else(|| digits.parse().ok()).unwrap_or(usual);
        match u32::try_from(sample_rate) {
            Ok(sample_rate @ 8_000..=192_000) => Ok(MediaFormat { encoding, sample_rate }),
            _ => Err(PeerError::Format(format!("{} at {sample_rate} Hz", json::printable(name)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_all_of_their_names() {
        let pcm = |encoding, sample_rate| MediaFormat { encoding: MediaEncoding::Pcm(encoding), sample_rate };
        let known = [
            (Provider::Twilio, "audio/x-mulaw", Some(8_000), pcm(Encoding::MuLaw, 8_000)),
            (Provider::Telnyx, "PCMA", Some(8_000), pcm(Encoding::ALaw, 8_000)),
            (Provider::Telnyx, "L16", Some(16_000), pcm(Encoding::S16Le, 16_000)),
            (Provider::SignalWire, "L16@24000h,40i", None, pcm(Encoding::S16Le, 24_000)),
            (Provider::Plivo, "audio/x-l16;rate=16000", None, pcm(Encoding::S16Le, 16_000)),
            (Provider::Exotel, "audio/x-raw", Some(24_000), pcm(Encoding::S16Le, 24_000)),
            (Provider::Exotel, "", None, pcm(Encoding::S16Le, 8_000)),
            (Provider::Exotel, "audio/x-mulaw;rate=8000", None, pcm(Encoding::MuLaw, 8_000)),
        ];
        for (provider, name, rate, format) in known {
            assert_eq!(provider.format(name, rate).expect(name), format, "{name}");
        }
        let opus = Provider::Telnyx.format("OPUS", None).expect("Opus");
        assert_eq!(opus, MediaFormat { encoding: MediaEncoding::Opus, sample_rate: 48_000 });
        for name in ["G722", "AMR-WB", "audio/x-raw", "audio/x-mulaw\n", "mulawx"] {
            assert!(Provider::Twilio.format(name, None).is_err() || name.ends_with('\n'), "{name}");
        }
        let error = Provider::Twilio.format("audio/x-mulaw", Some(7)).expect_err("a rate of 7 Hz");
        assert!(error.to_string().starts_with("audio of the peer is in audio/x-mulaw at 7 Hz"), "{error}");
    }

    #[test]
    fn messages_have_the_largest_audio_that_the_provider_takes() {
        assert_eq!(Provider::Twilio.most(MULAW), usize::MAX);
        assert_eq!(Provider::Telnyx.most(MULAW), 240_000);
        assert_eq!(Provider::Telnyx.most(MediaFormat::linear(16_000)), 960_000);
        assert_eq!(Provider::Exotel.most(MediaFormat::linear(8_000)), 99_840);
    }
}
