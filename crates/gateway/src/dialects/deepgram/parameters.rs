//! The query of a live recognition.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::dialects::audio::PcmEncoding;
use crate::dialects::live::keywords;

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

/// Languages that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpokenLanguage {
    /// That of the project, or of the gateway.
    Default,
    /// Any of these; any at all if there are none.
    OneOf(Vec<String>),
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

/// Reason why a query can't be served, for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadParameter(String);

impl Parameters {
    /// Parses a query. Parameters that are unknown, or ask for what no recogniser of the gateway does, are
    /// ignored: clients send many.
    ///
    /// # Errors
    /// Returns [`BadParameter`] for a value that makes no sense, an encoding that is not supported, and a
    /// callback, which would wait for results in vain.
    pub(crate) fn parse(query: &str) -> Result<Parameters, BadParameter> {
        let query = Query(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect());
        if query.last("callback").is_some() {
            return Err(BadParameter("callback is not supported".to_owned()));
        }
        let language = query.last("language").filter(|language| !language.is_empty());
        let hints: Vec<String> = query.all("language_hint").map(str::to_owned).collect();
        let is_open = language == Some("multi") || query.flag("detect_language")?;
        let channels = query.number("channels")?.unwrap_or(1);
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(BadParameter(format!("channels {channels} is not between 1 and {MAX_CHANNELS}")));
        }
        let terms = query.all("keyterm").map(str::to_owned);
        // A keyword may have a boost behind it, which has no equivalent.
        let words =
            query.all("keywords").map(|word| word.split_once(':').map_or(word, |(word, _)| word).to_owned());
        Ok(Parameters {
            format: query.format(channels)?,
            channels,
            multichannel: query.flag("multichannel")?,
            interim_results: query.flag("interim_results")?,
            endpointing: query.endpointing()?,
            utterance_end: query.utterance_end()?,
            vad_events: query.flag("vad_events")?,
            punctuate: query.flag("punctuate")? || query.flag("smart_format")?,
            language: match language {
                Some(language) if !is_open => SpokenLanguage::OneOf(vec![language.to_owned()]),
                None if !is_open && hints.is_empty() => SpokenLanguage::Default,
                _ => SpokenLanguage::OneOf(hints),
            },
            multilingual: is_open,
            keywords: keywords(terms.chain(words)),
        })
    }
}

/// The parameters of a query, in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn last(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// Returns a switch. Older clients write it with a capital.
    fn flag(&self, name: &str) -> Result<bool, BadParameter> {
        match self.last(name) {
            None => Ok(false),
            Some(value) => {
                truth(value).ok_or_else(|| BadParameter(format!("{name} should be true or false")))
            }
        }
    }

    fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, BadParameter> {
        let parsed =
            |value: &str| value.parse().map_err(|_| BadParameter(format!("{name} should be a number")));
        self.last(name).map(parsed).transpose()
    }

    fn format(&self, channels: usize) -> Result<AudioFormat, BadParameter> {
        let encoding = match self.last("encoding") {
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
        let sample_rate = self.number("sample_rate")?.or(is_telephone.then_some(8_000));
        let sample_rate = sample_rate.ok_or_else(|| BadParameter("sample_rate is missing".to_owned()))?;
        if !SAMPLE_RATES.contains(&sample_rate) {
            let (low, high) = SAMPLE_RATES.into_inner();
            return Err(BadParameter(format!("sample_rate {sample_rate} is not between {low} and {high}")));
        }
        Ok(AudioFormat::Pcm { encoding, sample_rate })
    }

    fn endpointing(&self) -> Result<bool, BadParameter> {
        match self.last("endpointing") {
            None => Ok(true),
            Some(value) if value.parse::<u64>().is_ok() => Ok(true),
            Some(value) => truth(value).ok_or_else(|| {
                BadParameter("endpointing should be a number of milliseconds or false".to_owned())
            }),
        }
    }

    fn utterance_end(&self) -> Result<Option<Duration>, BadParameter> {
        match self.number("utterance_end_ms")? {
            Some(least) if least < LEAST_UTTERANCE_END => {
                Err(BadParameter(format!("utterance_end_ms {least} is less than {LEAST_UTTERANCE_END}")))
            }
            end => Ok(end.map(Duration::from_millis)),
        }
    }
}

fn truth(value: &str) -> Option<bool> {
    ["true", "false"].iter().position(|known| value.eq_ignore_ascii_case(known)).map(|index| index == 0)
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
