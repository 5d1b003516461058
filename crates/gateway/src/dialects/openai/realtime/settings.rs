//! Settings of a transcription session, in the two generations of the API.

use serde_json::{Map, Value, json};

use super::bad_event::BadEvent;
use super::fields::{object, one_of, optional, text, texts};
use crate::dialects::audio::PcmEncoding;
use crate::dialects::hints::keywords;
use voxline::engine::RecognitionRequest;
use voxline::protocol::MAX_PROMPT_BYTES;

/// Sample rate of PCM, in Hz, as documented.
const PCM_RATE: u32 = 24_000;
/// Sample rate of G.711, in Hz.
const G711_RATE: u32 = 8_000;
/// Sample rates of PCM that a session can have, in Hz. OpenAI has but one.
const PCM_RATES: std::ops::RangeInclusive<u64> = 8_000..=48_000;
/// Longest list of languages.
const MAX_LANGUAGES: usize = 100;
/// Values of `include`, as documented. The recogniser has no probabilities of tokens, so it changes nothing.
const INCLUDED: [&str; 1] = ["item.input_audio_transcription.logprobs"];
/// Values of `delay` and of `eagerness`, as documented.
const DELAYS: [&str; 5] = ["minimal", "low", "medium", "high", "xhigh"];
const EAGERNESS: [&str; 4] = ["low", "medium", "high", "auto"];

/// Generation of the API, which a client shows by the event that it sends its settings with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    Beta,
    Current,
}

/// Format of the audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AudioFormat {
    /// 16-bit little-endian PCM at this rate.
    Pcm(u32),
    MuLaw,
    ALaw,
}

impl AudioFormat {
    pub(super) fn sample_rate(self) -> u32 {
        match self {
            AudioFormat::Pcm(rate) => rate,
            AudioFormat::MuLaw | AudioFormat::ALaw => G711_RATE,
        }
    }

    pub(super) fn encoding(self) -> PcmEncoding {
        match self {
            AudioFormat::Pcm(_) => PcmEncoding::S16Le,
            AudioFormat::MuLaw => PcmEncoding::MuLaw,
            AudioFormat::ALaw => PcmEncoding::ALaw,
        }
    }

    /// Returns the number of bytes of a sample.
    pub(super) fn sample_bytes(self) -> usize {
        match self {
            AudioFormat::Pcm(_) => 2,
            AudioFormat::MuLaw | AudioFormat::ALaw => 1,
        }
    }

    /// Returns the name of the format in the beta, which has no rates.
    fn beta(self) -> &'static str {
        match self {
            AudioFormat::Pcm(_) => "pcm16",
            AudioFormat::MuLaw => "g711_ulaw",
            AudioFormat::ALaw => "g711_alaw",
        }
    }

    fn current(self) -> Value {
        match self {
            AudioFormat::Pcm(rate) => json!({ "type": "audio/pcm", "rate": rate }),
            AudioFormat::MuLaw => json!({ "type": "audio/pcmu" }),
            AudioFormat::ALaw => json!({ "type": "audio/pcma" }),
        }
    }
}

/// Parameters of the recogniser. A session with others is another one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Transcription {
    model: Option<String>,
    languages: Vec<String>,
    /// True if the client named a list of languages.
    is_list: bool,
    prompt: Option<String>,
    keywords: Vec<String>,
    delay: Option<String>,
}

/// The effective settings of a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(super) format: AudioFormat,
    pub(super) transcription: Transcription,
    /// `None` if the client says where utterances end.
    turn_detection: Option<Map<String, Value>>,
    noise_reduction: Option<String>,
    include: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            format: AudioFormat::Pcm(PCM_RATE),
            transcription: Transcription::default(),
            turn_detection: Some(server_vad()),
            noise_reduction: None,
            include: Vec::new(),
        }
    }
}

impl Settings {
    /// Creates the settings of a client that names a model in its address.
    pub(super) fn of_model(model: Option<String>) -> Settings {
        let transcription = Transcription { model, ..Transcription::default() };
        Settings { transcription, ..Settings::default() }
    }

    /// Returns whether the recogniser says where utterances end.
    pub(super) fn detects_turns(&self) -> bool {
        self.turn_detection.is_some()
    }

    /// Returns the request to the recogniser. Without a language, those of `default` hold.
    pub(super) fn request(&self, default: RecognitionRequest) -> RecognitionRequest {
        let Transcription { languages, prompt, keywords, .. } = &self.transcription;
        let mut request = default.keywords(keywords.iter().cloned());
        if !languages.is_empty() {
            request.languages.clone_from(languages);
        }
        request.prompt.clone_from(prompt);
        request
    }

    /// Returns the settings after an update, whose fields stand in the shape of either generation. Fields
    /// that are left out keep their values, and `null` clears.
    ///
    /// # Errors
    /// Returns [`BadEvent`] with the first field that makes no sense.
    pub(crate) fn updated(&self, session: &Value) -> Result<Settings, BadEvent> {
        let session = object("session", session)?;
        if let Some(kind) = session.get("type").filter(|kind| *kind != "transcription") {
            return Err(BadEvent::value("session.type", kind, "transcription"));
        }
        let mut settings = self.clone();
        let empty = Map::new();
        let audio = optional("session.audio", session.get("audio"))?.unwrap_or(&empty);
        let input = optional("session.audio.input", audio.get("input"))?.unwrap_or(&empty);
        for (prefix, fields, names) in [
            ("session.audio.input.", input, ["format", "transcription", "turn_detection", "noise_reduction"]),
            (
                "session.",
                session,
                [
                    "input_audio_format",
                    "input_audio_transcription",
                    "turn_detection",
                    "input_audio_noise_reduction",
                ],
            ),
        ] {
            let field = |index: usize| Some((format!("{prefix}{}", names[index]), fields.get(names[index])?));
            if let Some((param, value)) = field(0) {
                settings.format = format(&param, value)?;
            }
            if let Some((param, value)) = field(1) {
                settings.transcription = settings.transcription.updated(&param, value)?;
            }
            if let Some((param, value)) = field(2) {
                settings.turn_detection = turns(settings.turn_detection.as_ref(), &param, value)?;
            }
            if let Some((param, value)) = field(3) {
                let fields = optional(&param, Some(value))?;
                let kind = fields.map(|fields| one_of(&format!("{param}.type"), fields.get("type"), &NOISE));
                settings.noise_reduction = kind.transpose()?.flatten();
            }
        }
        if let Some(include) = session.get("include") {
            settings.include = texts("session.include", include, INCLUDED.len())?;
            if !settings.include.iter().all(|name| INCLUDED.contains(&name.as_str())) {
                return Err(BadEvent::value("session.include", include, &INCLUDED.join(", ")));
            }
        }
        Ok(settings)
    }

    /// Returns the session as the API tells it.
    pub(super) fn told(&self, id: &str, generation: Generation) -> Value {
        let Settings { format, transcription, turn_detection, noise_reduction, include } = self;
        let noise_reduction = noise_reduction.as_ref().map(|kind| json!({ "type": kind }));
        let transcription = transcription.told();
        let mut session = json!({ "id": id, "object": "realtime.transcription_session" });
        let fields = match generation {
            Generation::Beta => json!({
                "input_audio_format": format.beta(),
                "input_audio_transcription": transcription,
                "turn_detection": turn_detection,
                "input_audio_noise_reduction": noise_reduction,
                "include": include,
            }),
            Generation::Current => json!({
                "type": "transcription",
                "audio": { "input": {
                    "format": format.current(),
                    "transcription": transcription,
                    "turn_detection": turn_detection,
                    "noise_reduction": noise_reduction,
                } },
                "include": include,
            }),
        };
        for (name, value) in fields.as_object().into_iter().flatten() {
            session[name] = value.clone();
        }
        session
    }
}

/// Values of `noise_reduction.type`. The recogniser hears the audio as it is.
const NOISE: [&str; 2] = ["near_field", "far_field"];

impl Transcription {
    fn updated(&self, param: &str, value: &Value) -> Result<Transcription, BadEvent> {
        let Some(fields) = optional(param, Some(value))? else { return Ok(Transcription::default()) };
        let mut updated = self.clone();
        let named = |name: &str| Some((format!("{param}.{name}"), fields.get(name)?));
        if let Some((param, value)) = named("model") {
            updated.model = text(&param, value)?;
        }
        if let Some((param, value)) = named("language") {
            updated.languages =
                text(&param, value)?.into_iter().filter(|language| !language.is_empty()).collect();
            updated.is_list = false;
        }
        if let Some((param, value)) = named("languages") {
            updated.languages = texts(&param, value, MAX_LANGUAGES)?;
            updated.is_list = true;
        }
        if let Some((param, value)) = named("prompt") {
            updated.prompt = text(&param, value)?.filter(|prompt| !prompt.is_empty());
            if updated.prompt.as_ref().is_some_and(|prompt| prompt.len() > MAX_PROMPT_BYTES) {
                return Err(BadEvent::invalid(
                    &param,
                    format!("'{param}' is longer than {MAX_PROMPT_BYTES} bytes"),
                ));
            }
        }
        if let Some((param, value)) = named("keywords") {
            updated.keywords = keywords(texts(&param, value, usize::MAX)?.into_iter());
        }
        if let Some((param, value)) = named("delay") {
            updated.delay = one_of(&param, Some(value), &DELAYS)?;
        }
        Ok(updated)
    }

    /// Returns the fields that are set.
    fn told(&self) -> Value {
        let Transcription { model, languages, is_list, prompt, keywords, delay } = self;
        let mut fields = Map::new();
        let mut tell = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        if let Some(model) = model {
            tell("model", model.as_str().into());
        }
        match &languages[..] {
            [] => {}
            [language] if !is_list => tell("language", language.as_str().into()),
            languages => tell("languages", json!(languages)),
        }
        if let Some(prompt) = prompt {
            tell("prompt", prompt.as_str().into());
        }
        if !keywords.is_empty() {
            tell("keywords", json!(keywords));
        }
        if let Some(delay) = delay {
            tell("delay", delay.as_str().into());
        }
        Value::Object(fields)
    }
}

fn server_vad() -> Map<String, Value> {
    let defaults = json!({
        "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
    });
    defaults.as_object().cloned().unwrap_or_default()
}

/// Returns the turn detection after an update. Its numbers are checked and told, but where an utterance ends
/// is what the recogniser finds.
fn turns(
    before: Option<&Map<String, Value>>,
    param: &str,
    value: &Value,
) -> Result<Option<Map<String, Value>>, BadEvent> {
    let Some(fields) = optional(param, Some(value))? else { return Ok(None) };
    let named = |name: &str| format!("{param}.{name}");
    let usual = before.and_then(|before| before.get("type")).and_then(Value::as_str).unwrap_or("server_vad");
    let kind = one_of(&named("type"), fields.get("type"), &["server_vad", "semantic_vad"])?;
    let kind = kind.as_deref().unwrap_or(usual);
    let mut turns = match before {
        Some(before) if usual == kind => before.clone(),
        _ if kind == "server_vad" => server_vad(),
        _ => json!({ "type": kind, "eagerness": "auto" }).as_object().cloned().unwrap_or_default(),
    };
    if kind == "semantic_vad" {
        if let Some(eagerness) = one_of(&named("eagerness"), fields.get("eagerness"), &EAGERNESS)? {
            turns.insert("eagerness".to_owned(), eagerness.into());
        }
        return Ok(Some(turns));
    }
    for (name, most) in [("threshold", 1.0), ("prefix_padding_ms", 60e3), ("silence_duration_ms", 60e3)] {
        let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { continue };
        if !value.as_f64().is_some_and(|number| (0.0..=most).contains(&number)) {
            return Err(BadEvent::value(&named(name), value, &format!("a number from 0 to {most}")));
        }
        turns.insert(name.to_owned(), value.clone());
    }
    Ok(Some(turns))
}

fn format(param: &str, value: &Value) -> Result<AudioFormat, BadEvent> {
    let (kind, rate) = match value {
        // `null` clears.
        Value::Null => return Ok(Settings::default().format),
        Value::Object(fields) => (fields.get("type").and_then(Value::as_str), fields.get("rate")),
        other => (other.as_str(), None),
    };
    match kind {
        Some("audio/pcm" | "pcm16") => {
            let rate = rate.filter(|rate| !rate.is_null());
            let known = |rate: &Value| rate.as_u64().filter(|rate| PCM_RATES.contains(rate));
            match rate.map(|rate| known(rate).ok_or(rate)) {
                None => Ok(AudioFormat::Pcm(PCM_RATE)),
                Some(Ok(rate)) => Ok(AudioFormat::Pcm(rate as u32)),
                Some(Err(rate)) => {
                    let (low, high) = PCM_RATES.into_inner();
                    Err(BadEvent::value(&format!("{param}.rate"), rate, &format!("{low} to {high}")))
                }
            }
        }
        Some("audio/pcmu" | "g711_ulaw") => Ok(AudioFormat::MuLaw),
        Some("audio/pcma" | "g711_alaw") => Ok(AudioFormat::ALaw),
        _ => Err(BadEvent::value(param, value, "audio/pcm, audio/pcmu and audio/pcma")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updated(settings: &Settings, session: Value) -> Settings {
        settings.updated(&session).unwrap_or_else(|bad| panic!("{session}: {bad:?}"))
    }

    #[test]
    fn an_update_changes_what_it_names_alone() {
        let transcription =
            json!({ "model": "m", "language": "de", "prompt": "p", "keywords": ["k"], "delay": "low" });
        let first = updated(
            &Settings::default(),
            json!({ "type": "transcription", "audio": { "input": {
                "format": { "type": "audio/pcmu" },
                "transcription": transcription,
                "turn_detection": { "type": "server_vad", "threshold": 0.7 },
                "noise_reduction": { "type": "near_field" },
            } }, "include": ["item.input_audio_transcription.logprobs"] }),
        );
        assert_eq!((first.format, first.detects_turns()), (AudioFormat::MuLaw, true));
        let input = &first.told("id", Generation::Current)["audio"]["input"];
        assert_eq!(input["transcription"], transcription);
        let turns = json!({
            "type": "server_vad", "threshold": 0.7, "prefix_padding_ms": 300, "silence_duration_ms": 500
        });
        assert_eq!(
            (&input["turn_detection"], &input["noise_reduction"]["type"]),
            (&turns, &json!("near_field"))
        );
        assert_eq!(updated(&first, json!({})), first);
        let second = updated(&first, json!({ "audio": { "input": { "turn_detection": null } } }));
        assert!(!second.detects_turns() && second.transcription == first.transcription);
        let third =
            updated(&second, json!({ "audio": { "input": { "transcription": { "language": null } } } }));
        let request = third.request(RecognitionRequest::new().language("ru"));
        assert_eq!((request.languages, request.prompt.as_deref()), (vec!["ru".to_owned()], Some("p")));
        let request = second.request(RecognitionRequest::new().language("ru"));
        assert_eq!((request.languages, request.keywords), (vec!["de".to_owned()], vec!["k".to_owned()]));
        let cleared =
            updated(&first, json!({ "audio": { "input": { "transcription": null } }, "include": null }));
        assert_eq!((cleared.transcription, cleared.include.len()), (Transcription::default(), 0));
    }

    #[test]
    fn the_beta_has_its_fields_side_by_side() {
        let settings = updated(
            &Settings::of_model(Some("m".to_owned())),
            json!({
                "input_audio_format": "g711_alaw",
                "input_audio_transcription": { "languages": ["en", "ru"] },
                "turn_detection": { "type": "semantic_vad", "eagerness": "high" },
                "input_audio_noise_reduction": { "type": "far_field" },
            }),
        );
        assert_eq!(settings.format, AudioFormat::ALaw);
        let expected = json!({
            "id": "id", "object": "realtime.transcription_session",
            "input_audio_format": "g711_alaw",
            "input_audio_transcription": { "model": "m", "languages": ["en", "ru"] },
            "turn_detection": { "type": "semantic_vad", "eagerness": "high" },
            "input_audio_noise_reduction": { "type": "far_field" },
            "include": [],
        });
        assert_eq!(settings.told("id", Generation::Beta), expected);
        let rate = json!({ "audio": { "input": { "format": { "type": "audio/pcm", "rate": 16_000 } } } });
        let settings = updated(&settings, rate);
        assert_eq!((settings.format, settings.format.sample_rate()), (AudioFormat::Pcm(16_000), 16_000));
        assert_eq!(
            updated(&settings, json!({ "input_audio_format": "pcm16" })).format,
            AudioFormat::Pcm(24_000)
        );
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        let input = |field: &str, value: Value| json!({ "audio": { "input": { field: value } } });
        for (param, session) in [
            ("session", json!([])),
            ("session.type", json!({ "type": "realtime" })),
            ("session.audio", json!({ "audio": 1 })),
            ("session.audio.input", json!({ "audio": { "input": [] } })),
            ("session.audio.input.format", input("format", json!({ "type": "audio/opus" }))),
            ("session.audio.input.format", input("format", json!(7))),
            ("session.audio.input.format.rate", input("format", json!({ "type": "audio/pcm", "rate": 1e9 }))),
            ("session.audio.input.format.rate", input("format", json!({ "type": "audio/pcm", "rate": -1 }))),
            ("session.audio.input.transcription", input("transcription", json!("whisper-1"))),
            ("session.audio.input.transcription.language", input("transcription", json!({ "language": 1 }))),
            (
                "session.audio.input.transcription.languages",
                input("transcription", json!({ "languages": [1] })),
            ),
            ("session.audio.input.transcription.delay", input("transcription", json!({ "delay": "none" }))),
            (
                "session.audio.input.transcription.prompt",
                input("transcription", json!({ "prompt": "p".repeat(MAX_PROMPT_BYTES + 1) })),
            ),
            ("session.audio.input.turn_detection.type", input("turn_detection", json!({ "type": "none" }))),
            (
                "session.audio.input.turn_detection.threshold",
                input("turn_detection", json!({ "threshold": 2 })),
            ),
            ("session.audio.input.noise_reduction.type", input("noise_reduction", json!({ "type": "x" }))),
            ("session.input_audio_format", json!({ "input_audio_format": "mp3" })),
            (
                "session.turn_detection.silence_duration_ms",
                json!({ "turn_detection": { "silence_duration_ms": "1" } }),
            ),
            ("session.include", json!({ "include": "x" })),
        ] {
            let bad = Settings::default().updated(&session).expect_err(param);
            assert_eq!(bad.param.as_deref(), Some(param), "{session}");
            assert!(bad.message.len() < 300, "{}", bad.message);
        }
    }
}
