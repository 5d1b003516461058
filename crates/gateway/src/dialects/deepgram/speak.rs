//! `POST /v1/speak`: speech, streamed while it is synthesised.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::API;
use super::error::{self, REQUEST_ID, of_budget};
use super::messages::request_id;
use super::query::{BadParameter, Query};
use crate::authority::Scope;
use crate::dialects::clients::authorise;
use crate::dialects::texts::{self, MAX_CHARACTERS};
use crate::gateway::Gateway;
use crate::http::client::bearer_or_key;
use crate::http::error::ApiError;
use crate::speech::encoder::Format;
use crate::speech::speakers::Speaker;
use crate::speech::synthesis::Synthesis;
use voxline::engine::{Voice, VoiceError, Voices, language_of};
use voxline::protocol::tts::PCM_RATE;

/// Sample rates of PCM and FLAC, as documented.
const SAMPLE_RATES: [u32; 5] = [8_000, 16_000, 24_000, 32_000, 48_000];
/// Names of the men among Deepgram's voices; all others are women.
const MEN: [&str; 20] = [
    "angus", "apollo", "arcas", "aries", "atlas", "draco", "helios", "hermes", "hyperion", "jupiter", "mars",
    "neptune", "odysseus", "orion", "orpheus", "perseus", "pluto", "saturn", "titan", "zeus",
];
/// Model of a request that names none, as documented.
const MODEL: &str = "aura-asteria-en";
/// Headers with the name of the voice, and with the number of characters that are charged.
const MODEL_NAME: HeaderName = HeaderName::from_static("dg-model-name");
const CHARACTERS: HeaderName = HeaderName::from_static("dg-char-count");

/// Parameters of a speech.
#[derive(Debug, PartialEq)]
pub(crate) struct Parameters {
    model: String,
    format: Format,
}

impl Parameters {
    /// Parses a query. `bit_rate` and parameters that are unknown are ignored.
    ///
    /// # Errors
    /// Returns [`BadParameter`] for a format that is not available, and a callback.
    pub(crate) fn parse(query: &str) -> Result<Parameters, BadParameter> {
        let query = Query::parse(query)?;
        let sample_rate = query.number("sample_rate")?.unwrap_or(PCM_RATE);
        let encoding = query.last("encoding").filter(|encoding| !encoding.is_empty());
        let format = match encoding.unwrap_or("mp3") {
            "linear16" if query.last("container") == Some("none") => Format::PcmLittleEndian(sample_rate),
            "linear16" => Format::Wav(sample_rate),
            "flac" => Format::Flac(sample_rate),
            "mp3" => Format::Mp3,
            "opus" => Format::Opus,
            other => {
                let shown: String = other.chars().take(20).collect();
                let message =
                    format!("encoding '{shown}' is not available; linear16, flac, mp3 and opus are");
                return Err(BadParameter(message));
            }
        };
        if !matches!(format, Format::Mp3 | Format::Opus) {
            check_rate(sample_rate)?;
        }
        Ok(Parameters { model: query.last("model").unwrap_or(MODEL).to_owned(), format })
    }

    /// Parses the query of a WebSocket, whose audio has no container.
    ///
    /// # Errors
    /// Returns [`BadParameter`] for a format that is not available.
    pub(super) fn parse_live(query: &str) -> Result<(String, u32), BadParameter> {
        let query = Query::parse(query)?;
        let encoding = query.last("encoding").filter(|encoding| !encoding.is_empty());
        if let Some(other) = encoding.filter(|encoding| *encoding != "linear16") {
            let shown: String = other.chars().take(20).collect();
            return Err(BadParameter(format!("encoding '{shown}' is not available; linear16 is")));
        }
        let sample_rate = query.number("sample_rate")?.unwrap_or(PCM_RATE);
        check_rate(sample_rate)?;
        Ok((query.last("model").unwrap_or(MODEL).to_owned(), sample_rate))
    }
}

fn check_rate(sample_rate: u32) -> Result<(), BadParameter> {
    if SAMPLE_RATES.contains(&sample_rate) {
        return Ok(());
    }
    let known = SAMPLE_RATES.map(|rate| rate.to_string()).join(", ");
    Err(BadParameter(format!("sample_rate {sample_rate} is none of {known}")))
}

/// Body of a request.
#[derive(Deserialize)]
struct Text {
    text: String,
}

pub(super) async fn speak(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let request_id = request_id();
    match answer(&gateway, request).await {
        Ok(mut response) => {
            let id = HeaderValue::try_from(request_id).expect("a UUID fits a header");
            response.headers_mut().insert(REQUEST_ID, id);
            response
        }
        Err(refusal) => error::answer(refusal, &request_id),
    }
}

async fn answer(gateway: &Gateway, request: Request) -> Result<Response, ApiError> {
    let identity = authorise(gateway, &request, bearer_or_key(request.headers()), Scope::Tts)?;
    let query = request.uri().query().unwrap_or_default();
    let parameters = Parameters::parse(query).map_err(|bad| ApiError::bad_request(400, bad.to_string()))?;
    let Text { text } = texts::read(gateway, request).await?;
    let synthesis = validate(gateway, parameters, text)?;
    let (format, characters) = (synthesis.format, synthesis.characters);
    let voice = HeaderValue::try_from(synthesis.voice.info().name.as_str());
    let speech = gateway.speak(API, Some(&identity), synthesis).await.map_err(of_budget)?;
    let mut response = Response::new(Body::from_stream(speech));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, format.content_type());
    headers.insert(CHARACTERS, HeaderValue::from(characters));
    if let Ok(voice) = voice {
        headers.insert(MODEL_NAME, voice);
    }
    Ok(response)
}

fn validate(gateway: &Gateway, parameters: Parameters, text: String) -> Result<Synthesis, ApiError> {
    let Parameters { model, format } = parameters;
    let (characters, bytes) = (text.chars().count(), text.len());
    if characters > MAX_CHARACTERS {
        let message = format!("text is longer than {MAX_CHARACTERS} characters");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, 413, message));
    }
    if text.trim().is_empty() {
        return Err(ApiError::bad_request(400, "text is empty"));
    }
    let voice = voice_named(&gateway.voices, &model, language_of(&text));
    let voice = voice.map_err(|error| ApiError::bad_request(400, error.to_string()))?;
    Ok(Synthesis { voice, text, tempo: 1.0, format, characters, bytes })
}

/// Returns the voice of a model for a text in `language`. A model of Deepgram, such as `aura-2-thalia-en`,
/// stands for a woman or a man who speaks the language, and any other name for the voice that has it.
pub(super) fn voice_named(
    voices: &Voices,
    model: &str,
    language: &str,
) -> Result<Arc<dyn Voice>, VoiceError> {
    if !model.starts_with("aura-") {
        return voices.find(Some(model), Some(language));
    }
    let name = model.rsplit('-').nth(1).unwrap_or_default();
    let speaker = if MEN.contains(&name) { Speaker::Male } else { Speaker::Female };
    speaker.find(voices, language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_a_speech_is_read_as_clients_write_it() {
        let format = |query: &str| Parameters::parse(query).map(|parameters| parameters.format);
        assert_eq!(format(""), Ok(Format::Mp3));
        assert_eq!(format("model=aura-2-thalia-en&bit_rate=48000"), Ok(Format::Mp3));
        assert_eq!(format("encoding=linear16"), Ok(Format::Wav(24_000)));
        let raw = "encoding=linear16&container=none&sample_rate=16000";
        assert_eq!(format(raw), Ok(Format::PcmLittleEndian(16_000)));
        assert_eq!(format("encoding=flac&sample_rate=48000"), Ok(Format::Flac(48_000)));
        assert_eq!(format("encoding=opus&container=ogg"), Ok(Format::Opus));
        for bad in
            ["encoding=aac", "encoding=linear16&sample_rate=11025", "sample_rate=x", "callback=http://a"]
        {
            assert!(format(bad).is_err(), "{bad}");
        }
    }
}
