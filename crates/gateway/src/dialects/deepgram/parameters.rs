//! The query of a live recognition.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::query::{BadParameter, Query, SpokenLanguage, truth};
use crate::dialects::audio::PcmEncoding;

/// Most channels: each is a session of its own.
pub(crate) const MAX_CHANNELS: usize = 8;
/// Least `utterance_end_ms`, as documented: results come about once a second.
const LEAST_UTTERANCE_END: u64 = 1_000;
/// Encodings that are supported, for the error about one that is not.
const ENCODINGS: &str =
    "linear16, linear32, mulaw, alaw, opus, ogg-opus and flac are, and containers without it";
/// Sample rates of headerless audio, in Hz.
const SAMPLE_RATES: RangeInclusive<u32> = 8_000..=48_000;

/// Format of the audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AudioFormat {
    Pcm {
        encoding: PcmEncoding,
        sample_rate: u32,
    },
    /// Opus packets, one in each message, or in Ogg.
    Opus,
    /// A container, which is recognised by its first bytes.
    Container,
}

/// Parameters of a live recognition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameters {
    pub(crate) format: AudioFormat,
    /// Number of channels of headerless audio.
    pub(crate) channels: usize,
    /// True if each channel is recognised by itself; otherwise they are mixed.
    pub(crate) multichannel: bool,
    pub(crate) interim_results: bool,
    /// False if results are not to tell where the speaker paused. The pause itself is the recogniser's.
    pub(crate) endpointing: bool,
    pub(crate) utterance_end: Option<Duration>,
    pub(crate) vad_events: bool,
    /// True if texts have punctuation and capitals.
    pub(crate) punctuate: bool,
    pub(crate) language: SpokenLanguage,
    /// True if results name the language of each word.
    pub(crate) multilingual: bool,
    pub(crate) keywords: Vec<String>,
}

impl Parameters {
    /// Parses a query. Parameters that are unknown, or ask for what no recogniser of the gateway does, are
    /// ignored: clients send many.
    ///
    /// # Errors
    /// Returns [`BadParameter`] for a value that makes no sense, an encoding that is not supported, and a
    /// callback, which would wait for results in vain.
    pub(crate) fn parse(query: &str) -> Result<Parameters, BadParameter> {
        let query = Query::parse(query)?;
        let channels = channels(&query)?;
        Ok(Parameters {
            format: format(&query, channels)?,
            channels,
            multichannel: query.flag("multichannel")?,
            interim_results: query.flag("interim_results")?,
            endpointing: endpointing(&query)?,
            utterance_end: utterance_end(&query)?,
            vad_events: query.flag("vad_events")?,
            punctuate: query.flag("punctuate")? || query.flag("smart_format")?,
            language: query.language()?,
            multilingual: query.is_multilingual()?,
            keywords: query.keywords(),
        })
    }
}

/// Returns the number of channels of headerless audio.
pub(super) fn channels(query: &Query) -> Result<usize, BadParameter> {
    let channels = query.number("channels")?.unwrap_or(1);
    if !(1..=MAX_CHANNELS).contains(&channels) {
        return Err(BadParameter(format!("channels {channels} is not between 1 and {MAX_CHANNELS}")));
    }
    Ok(channels)
}

/// Returns the format of the audio, which has this number of channels if it is headerless.
pub(super) fn format(query: &Query, channels: usize) -> Result<AudioFormat, BadParameter> {
    let encoding = match query.last("encoding") {
        None | Some("" | "ogg-opus" | "flac") => return Ok(AudioFormat::Container),
        Some("opus") if channels > 2 => {
            return Err(BadParameter("encoding 'opus' has 1 or 2 channels".to_owned()));
        }
        Some("opus") => return Ok(AudioFormat::Opus),
        Some("linear16") => PcmEncoding::S16Le,
        Some("linear32") => PcmEncoding::F32Le,
        Some("mulaw") => PcmEncoding::MuLaw,
        Some("alaw") => PcmEncoding::ALaw,
        Some(other) => {
            let shown: String = other.chars().take(20).collect();
            return Err(BadParameter(format!("encoding '{shown}' is not supported; {ENCODINGS}")));
        }
    };
    let is_telephone = matches!(encoding, PcmEncoding::MuLaw | PcmEncoding::ALaw);
    let sample_rate = query.number("sample_rate")?.or(is_telephone.then_some(8_000));
    let sample_rate = sample_rate.ok_or_else(|| BadParameter("sample_rate is missing".to_owned()))?;
    if !SAMPLE_RATES.contains(&sample_rate) {
        let (low, high) = SAMPLE_RATES.into_inner();
        return Err(BadParameter(format!("sample_rate {sample_rate} is not between {low} and {high}")));
    }
    Ok(AudioFormat::Pcm { encoding, sample_rate })
}

fn endpointing(query: &Query) -> Result<bool, BadParameter> {
    match query.last("endpointing") {
        None => Ok(true),
        Some(value) if value.parse::<u64>().is_ok() => Ok(true),
        Some(value) => truth(value).ok_or_else(|| {
            BadParameter("endpointing should be a number of milliseconds or false".to_owned())
        }),
    }
}

fn utterance_end(query: &Query) -> Result<Option<Duration>, BadParameter> {
    match query.number("utterance_end_ms")? {
        Some(least) if least < LEAST_UTTERANCE_END => {
            Err(BadParameter(format!("utterance_end_ms {least} is less than {LEAST_UTTERANCE_END}")))
        }
        end => Ok(end.map(Duration::from_millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Parameters {
        Parameters::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    #[test]
    fn the_query_of_the_released_client_is_understood() {
        let parameters = parse(
            "channels=1&encoding=linear16&endpointing=300&interim_results=true&keyterm=a&keyterm=b&model=nova-3\
             &sample_rate=16000&vad_events=true",
        );
        let expected = Parameters {
            format: AudioFormat::Pcm { encoding: PcmEncoding::S16Le, sample_rate: 16_000 },
            channels: 1,
            multichannel: false,
            interim_results: true,
            endpointing: true,
            utterance_end: None,
            vad_events: true,
            punctuate: false,
            language: SpokenLanguage::Default,
            multilingual: false,
            keywords: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(parameters, expected);
    }

    #[test]
    fn values_are_read_as_clients_write_them() {
        assert!(parse("punctuate=True").punctuate && parse("smart_format=true").punctuate);
        assert!(!parse("endpointing=false").endpointing && !parse("endpointing=False").endpointing);
        assert_eq!(parse("utterance_end_ms=1000").utterance_end, Some(Duration::from_secs(1)));
        assert_eq!(parse("keywords=snuffleupagus:5.3&keywords=a").keywords, ["snuffleupagus", "a"]);
        for query in ["", "encoding=flac", "encoding=ogg-opus&sample_rate=48000", "nonsense=1&diarize=true"] {
            assert_eq!(parse(query).format, AudioFormat::Container, "{query}");
        }
        let telephone = AudioFormat::Pcm { encoding: PcmEncoding::MuLaw, sample_rate: 8_000 };
        assert_eq!(parse("encoding=mulaw").format, telephone);
        let one_of =
            |languages: &[&str]| SpokenLanguage::OneOf(languages.iter().map(|&one| one.to_owned()).collect());
        assert_eq!(parse("language=en-US").language, one_of(&["en-US"]));
        assert_eq!(parse("language=multi").language, one_of(&[]));
        assert_eq!(parse("language=multi&language_hint=en&language_hint=ru").language, one_of(&["en", "ru"]));
        assert!(parse("language=multi").multilingual && parse("detect_language=true").multilingual);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for query in [
            "encoding=linear16",
            "encoding=linear16&sample_rate=x",
            "encoding=linear16&sample_rate=96000",
            "encoding=amr-nb&sample_rate=8000",
            "encoding=opus&channels=3",
            "channels=0",
            "channels=9",
            "channels=-1",
            "interim_results=maybe",
            "endpointing=soon",
            "utterance_end_ms=999",
            "callback=http://localhost",
        ] {
            assert!(Parameters::parse(query).is_err(), "{query}");
        }
    }
}
