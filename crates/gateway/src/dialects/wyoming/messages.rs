//! Events of the Wyoming protocol.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::frames::Event;
use crate::dialects::hints::keywords;

/// Most channels of audio, which are mixed.
const MAX_CHANNELS: usize = 8;
/// Bytes of a sample that is understood.
const SAMPLE_BYTES: u32 = 2;

/// A request of the client.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    Describe,
    /// A sign of life, which is answered with its own text.
    Ping(Option<String>),
    /// Parameters of the next transcription.
    Transcribe(Transcribe),
    AudioStart(AudioFormat),
    /// Audio, which is the payload.
    AudioChunk(AudioFormat),
    AudioStop,
    Synthesize {
        text: String,
        voice: VoiceName,
    },
    SynthesizeStart(VoiceName),
    SynthesizeChunk(String),
    SynthesizeStop,
    /// An event of another service, or of a later version.
    Other,
}

/// Parameters of a transcription.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Transcribe {
    language: Option<String>,
    /// Names that are likely to be spoken. They come before the terms.
    #[serde(default)]
    transcript_names: Option<Vec<String>>,
    #[serde(default)]
    transcript_terms: Option<Vec<String>>,
}

impl Transcribe {
    /// Returns the language that is asked for, if it is one.
    pub(super) fn language(&self) -> Option<&str> {
        self.language.as_deref().filter(|language| !matches!(*language, "" | "auto"))
    }

    /// Returns the words that are likely to be spoken, the most important first.
    pub(super) fn keywords(&self) -> Vec<String> {
        let lists = [&self.transcript_names, &self.transcript_terms];
        keywords(lists.into_iter().flatten().flatten().cloned())
    }
}

/// Format of PCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct AudioFormat {
    /// Sample rate in Hz.
    pub(super) rate: u32,
    /// Bytes of a sample.
    width: u32,
    pub(super) channels: usize,
}

impl AudioFormat {
    /// Checks that the format is understood. The session checks the sample rate.
    fn checked(self) -> Result<AudioFormat, BadEvent> {
        let AudioFormat { width, channels, .. } = self;
        if width != SAMPLE_BYTES {
            return Err(BadEvent(format!("width {width} is not supported, expected {SAMPLE_BYTES}")));
        }
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(BadEvent(format!("channels {channels} is not between 1 and {MAX_CHANNELS}")));
        }
        Ok(self)
    }
}

/// A voice, as the client names it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct VoiceName {
    name: Option<String>,
    pub(super) language: Option<String>,
    speaker: Option<String>,
}

impl VoiceName {
    /// Returns the name of a voice of the gateway, which includes that of the speaker.
    pub(super) fn name(&self) -> Option<String> {
        let name = self.name.as_deref().filter(|name| !name.is_empty())?;
        Some(match &self.speaker {
            Some(speaker) => format!("{name}:{speaker}"),
            None => name.to_owned(),
        })
    }
}

/// Error of an event whose data make no sense, described for the client.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadEvent(pub(super) String);

/// Data of `synthesize` and `synthesize-chunk`.
#[derive(Deserialize)]
struct Text {
    text: String,
    #[serde(flatten)]
    style: Style,
}

/// Settings of the speech of a text.
#[derive(Deserialize)]
struct Style {
    #[serde(default)]
    voice: Option<VoiceName>,
    #[serde(default)]
    text_format: Option<String>,
}

impl Style {
    /// Returns the voice of a text without marks.
    fn voice(self) -> Result<VoiceName, BadEvent> {
        match self.text_format.as_deref() {
            None | Some("text") => Ok(self.voice.unwrap_or_default()),
            Some(_) => Err(BadEvent("text_format is not supported, expected text".to_owned())),
        }
    }
}

/// Parses an event.
///
/// # Errors
/// Returns [`BadEvent`] if the data are not those of the event.
pub(crate) fn parse(event: Event) -> Result<Request, BadEvent> {
    let Event { kind, data, .. } = event;
    Ok(match kind.as_str() {
        "describe" => Request::Describe,
        "ping" => Request::Ping(data.get("text").and_then(Value::as_str).map(str::to_owned)),
        "transcribe" => Request::Transcribe(read(&kind, data)?),
        "audio-start" => Request::AudioStart(read::<AudioFormat>(&kind, data)?.checked()?),
        "audio-chunk" => Request::AudioChunk(read::<AudioFormat>(&kind, data)?.checked()?),
        "audio-stop" => Request::AudioStop,
        "synthesize" => {
            let Text { text, style } = read(&kind, data)?;
            Request::Synthesize { text, voice: style.voice()? }
        }
        "synthesize-start" => Request::SynthesizeStart(read::<Style>(&kind, data)?.voice()?),
        "synthesize-chunk" => Request::SynthesizeChunk(read::<Text>(&kind, data)?.text),
        "synthesize-stop" => Request::SynthesizeStop,
        _ => Request::Other,
    })
}

fn read<T: DeserializeOwned>(kind: &str, data: Map<String, Value>) -> Result<T, BadEvent> {
    serde_json::from_value(Value::Object(data)).map_err(|error| BadEvent(format!("{kind}: {error}")))
}

/// An event of the gateway: its type and its data.
pub(super) type Reply = (&'static str, Value);

/// Returns the answer to a ping.
pub(super) fn pong(text: Option<&str>) -> Reply {
    ("pong", json!({ "text": text }))
}

/// Returns the start of a transcript that is told in pieces.
pub(super) fn transcript_start(language: Option<&str>) -> Reply {
    ("transcript-start", with_language(json!({}), language))
}

/// Returns a piece of a transcript. The pieces add up to the text.
pub(super) fn transcript_chunk(text: &str) -> Reply {
    ("transcript-chunk", json!({ "text": text }))
}

/// Returns the whole transcript.
pub(super) fn transcript(text: &str, language: Option<&str>) -> Reply {
    ("transcript", with_language(json!({ "text": text }), language))
}

/// Returns the end of a transcript that was told in pieces.
pub(super) fn transcript_stop() -> Reply {
    ("transcript-stop", json!({}))
}

fn with_language(mut data: Value, language: Option<&str>) -> Value {
    if let Some(language) = language {
        data["language"] = language.into();
    }
    data
}

/// Returns the start of speech at this sample rate.
pub(super) fn audio_start(rate: u32) -> Reply {
    ("audio-start", audio(rate, 0))
}

/// Returns a piece of speech, which begins at this time in milliseconds.
pub(super) fn audio_chunk(rate: u32, timestamp: u64) -> Reply {
    ("audio-chunk", audio(rate, timestamp))
}

/// Returns the end of speech, at this time in milliseconds.
pub(super) fn audio_stop(timestamp: u64) -> Reply {
    ("audio-stop", json!({ "timestamp": timestamp }))
}

fn audio(rate: u32, timestamp: u64) -> Value {
    json!({ "rate": rate, "width": SAMPLE_BYTES, "channels": 1, "timestamp": timestamp })
}

/// Returns the end of the answer to a text that came in pieces.
pub(super) fn synthesize_stopped() -> Reply {
    ("synthesize-stopped", json!({}))
}

/// Returns the event of a failure.
pub(super) fn error(code: &str, text: &str) -> Reply {
    ("error", json!({ "text": text, "code": code }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(kind: &str, data: &Value) -> Result<Request, BadEvent> {
        let data = data.as_object().unwrap().clone();
        parse(Event { kind: kind.to_owned(), data, payload_length: 0 })
    }

    #[test]
    fn a_transcription_is_read_as_clients_write_it() {
        let all = json!({
            "name": "any", "language": "en-US", "context": { "a": 1 }, "vad_sensitivity": "relaxed",
            "transcript_terms": ["lamp"], "transcript_names": ["Ada", " "],
        });
        let Ok(Request::Transcribe(transcribe)) = parsed("transcribe", &all) else { panic!() };
        assert_eq!(transcribe.language(), Some("en-US"));
        assert_eq!(transcribe.keywords(), ["Ada", "lamp"]);
        for bare in [json!({}), json!({ "language": null }), json!({ "language": "auto" })] {
            let Ok(Request::Transcribe(transcribe)) = parsed("transcribe", &bare) else { panic!("{bare}") };
            assert_eq!((transcribe.language(), transcribe.keywords().len()), (None, 0), "{bare}");
        }
        for bad in [json!({ "language": 7 }), json!({ "transcript_terms": "a" })] {
            assert!(parsed("transcribe", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_format_is_that_of_pcm_of_16_bits() {
        let format = json!({ "rate": 16_000, "width": 2, "channels": 1, "timestamp": null });
        let expected = AudioFormat { rate: 16_000, width: 2, channels: 1 };
        assert_eq!(parsed("audio-start", &format), Ok(Request::AudioStart(expected)));
        assert_eq!(parsed("audio-chunk", &format), Ok(Request::AudioChunk(expected)));
        for (field, value) in [
            ("width", json!(4)),
            ("channels", json!(0)),
            ("channels", json!(9)),
            ("rate", json!(-1)),
            ("rate", json!(1e9)),
        ] {
            let mut bad = format.clone();
            bad[field] = value;
            assert!(parsed("audio-start", &bad).is_err(), "{bad}");
        }
        assert!(parsed("audio-chunk", &json!({})).is_err());
        assert_eq!(parsed("audio-stop", &json!({ "timestamp": 3 })), Ok(Request::AudioStop));
    }

    #[test]
    fn a_voice_is_named_with_its_speaker_or_by_its_language() {
        let voice = |voice: Value| match parsed("synthesize", &json!({ "text": "Hello", "voice": voice })) {
            Ok(Request::Synthesize { text, voice }) => {
                assert_eq!(text, "Hello");
                (voice.name(), voice.language)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(voice(Value::Null), (None, None));
        assert_eq!(voice(json!({ "name": "joe" })), (Some("joe".to_owned()), None));
        let speaker = json!({ "name": "libri", "speaker": "p1" });
        assert_eq!(voice(speaker), (Some("libri:p1".to_owned()), None));
        assert_eq!(voice(json!({ "name": "", "language": "ru" })), (None, Some("ru".to_owned())));
        assert_eq!(
            parsed("synthesize-start", &json!({})),
            Ok(Request::SynthesizeStart(VoiceName::default()))
        );
        let chunk = parsed("synthesize-chunk", &json!({ "text": "a" }));
        assert_eq!(chunk, Ok(Request::SynthesizeChunk("a".to_owned())));
        for kind in ["synthesize", "synthesize-chunk"] {
            assert!(parsed(kind, &json!({})).is_err(), "{kind}");
        }
        let marked = json!({ "text": "<speak/>", "text_format": "ssml" });
        assert!(parsed("synthesize", &marked).is_err());
        assert_eq!(parsed("select-program", &json!({ "name": "x" })), Ok(Request::Other));
    }
}
