//! `POST /v1/listen`: a recording, which is the body.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::API;
use super::error::{self, REQUEST_ID, exhausted};
use super::messages::{StreamInfo, TextForm, request_id};
use super::parameters::{AudioFormat, channels, format};
use super::query::{BadParameter, Query, SpokenLanguage};
use super::transcript::{Parts, Transcript};
use crate::authority::{Amount, Identity, Scope, to_rfc3339};
use crate::dialects::audio::PcmEncoding;
use crate::dialects::clients::authorise;
use crate::dialects::recordings::{self, Recording, body_error};
use crate::gateway::Gateway;
use crate::http::body::BodyReader;
use crate::http::client::bearer_or_key;
use crate::http::error::{ApiError, json_response};
use crate::recordings::uploads::Upload;
use crate::sessions::messages::millis;
use voxline::audio::{Encoding, PcmFormat};
use voxline::engine::Latency;

/// Pause that ends an utterance, as documented.
const UTTERANCE_SPLIT: f64 = 0.8;

/// Parameters of a recording.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameters {
    /// Format of headerless audio.
    format: Option<PcmFormat>,
    multichannel: bool,
    form: TextForm,
    language: SpokenLanguage,
    parts: Parts,
    keywords: Vec<String>,
}

impl Parameters {
    /// Parses a query. Parameters that are unknown, or ask for what no recogniser of the gateway does, are
    /// ignored.
    ///
    /// # Errors
    /// Returns [`BadParameter`] for a value that makes no sense, an encoding that is not supported, and a
    /// callback.
    pub(crate) fn parse(query: &str) -> Result<Parameters, BadParameter> {
        let query = Query::parse(query)?;
        let channels = channels(&query)?;
        let format = match format(&query, channels)? {
            AudioFormat::Pcm { encoding, sample_rate } => {
                let encoding = match encoding {
                    PcmEncoding::S16Le => Encoding::S16Le,
                    PcmEncoding::F32Le => Encoding::F32Le,
                    PcmEncoding::MuLaw => Encoding::MuLaw,
                    PcmEncoding::ALaw => Encoding::ALaw,
                };
                Some(PcmFormat { encoding, sample_rate, channels })
            }
            // A file with Opus is Ogg.
            AudioFormat::Opus | AudioFormat::Container => None,
        };
        let is_smart = query.flag("smart_format")?;
        let has_paragraphs = query.flag("paragraphs")? || is_smart;
        let pause = query.number("utt_split")?.unwrap_or(UTTERANCE_SPLIT);
        let pause = Duration::try_from_secs_f64(pause)
            .map_err(|_| BadParameter("utt_split should be a number of seconds".to_owned()))?;
        Ok(Parameters {
            format,
            multichannel: query.flag("multichannel")?,
            form: TextForm {
                punctuate: query.flag("punctuate")? || has_paragraphs,
                multilingual: query.is_multilingual()?,
            },
            language: query.language()?,
            parts: Parts {
                paragraphs: has_paragraphs,
                utterances: query.flag("utterances")?.then_some(pause),
            },
            keywords: query.keywords(),
        })
    }
}

pub(super) async fn transcribe(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let request_id = request_id();
    match answer(&gateway, request, &request_id).await {
        Ok(mut response) => {
            let id = HeaderValue::try_from(request_id).expect("a UUID fits a header");
            response.headers_mut().insert(REQUEST_ID, id);
            response
        }
        Err(refusal) => error::answer(refusal, &request_id),
    }
}

async fn answer(gateway: &Arc<Gateway>, request: Request, request_id: &str) -> Result<Response, ApiError> {
    let created = to_rfc3339(millis(gateway.authority.clock().unix()));
    let limit = gateway.uploads.max_bytes();
    let admitted = admit(gateway, &request);
    let ((identity, parameters), body) = recordings::take_body(gateway, request, admitted, limit)?;
    let (upload, sha256) = receive(gateway, body, limit).await?;
    let Parameters { format, multichannel, form, parts, .. } = parameters;
    let languages = || gateway.recognition_request(Some(&identity), None);
    let recognition = parameters.language.request(languages).latency(Latency::Relaxed);
    let recognition = recognition.keywords(parameters.keywords);
    let recording = Recording { upload, format, is_split: multichannel, recognition };
    let mut transcription =
        recordings::start(gateway, API, identity, recording).await.map_err(error::of_budget)?;
    let mut channels = vec![Vec::new(); transcription.channels()];
    while let Some((channel, segment)) = transcription.next().await.map_err(error::of_budget)? {
        channels[channel].push(segment);
    }
    let seconds = transcription.milliseconds() as f64 / 1e3;
    let model = gateway.recognizer()?.name().to_owned();
    let info = StreamInfo { request_id: request_id.to_owned(), model };
    let metadata = info.of_audio(&sha256, &created, seconds, channels.len());
    let results = Transcript { channels, form }.results(parts);
    Ok(json_response(StatusCode::OK, &serde_json::json!({ "metadata": metadata, "results": results })))
}

/// Checks the token and the query of a request.
fn admit(gateway: &Gateway, request: &Request) -> Result<(Identity, Parameters), ApiError> {
    let identity = authorise(gateway, request, bearer_or_key(request.headers()), Scope::AsrShort)?;
    gateway.authority.afford(&identity, Amount::audio(1)).map_err(exhausted)?;
    let query = request.uri().query().unwrap_or_default();
    let parameters = Parameters::parse(query).map_err(|bad| ApiError::bad_request(400, bad.to_string()))?;
    if is_json(request.headers()) {
        return Err(ApiError::bad_request(400, "a url is not fetched: send the recording itself"));
    }
    Ok((identity, parameters))
}

/// Returns whether the body is said to be JSON, which would name the address of a recording.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = content_type.map(|value| value.split(';').next().unwrap_or_default().trim());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

/// Receives a recording of up to `limit` bytes. Returns it with its SHA-256.
async fn receive(gateway: &Gateway, body: Body, limit: u64) -> Result<(Upload, Vec<u8>), ApiError> {
    let mut body = BodyReader::new(body, limit, gateway.options.connections.body_timeout);
    let received = receive_parts(gateway, &mut body, limit).await;
    if received.is_err() {
        body.discard();
    }
    received
}

async fn receive_parts(
    gateway: &Gateway,
    body: &mut BodyReader,
    limit: u64,
) -> Result<(Upload, Vec<u8>), ApiError> {
    let mut upload = gateway.uploads.begin()?;
    let mut hash = Sha256::new();
    while let Some(bytes) = body.next().await.map_err(|error| body_error(error, limit))? {
        hash.update(&bytes);
        upload.write(&bytes).await?;
    }
    if upload.length() == 0 {
        return Err(ApiError::bad_request(400, "the body has no recording"));
    }
    Ok((upload, hash.finalize().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_of_a_recording_is_read_as_clients_write_it() {
        let query =
            "model=nova-3&smart_format=true&utterances=True&utt_split=1.5&detect_language=true&summarize=v2";
        let parameters = Parameters::parse(query).unwrap();
        assert_eq!(parameters.form, TextForm { punctuate: true, multilingual: true });
        let utterances = Some(Duration::from_millis(1_500));
        assert_eq!(parameters.parts, Parts { paragraphs: true, utterances });
        assert_eq!((parameters.format, parameters.multichannel), (None, false));
        let telephone = Parameters::parse("encoding=mulaw&channels=2&multichannel=true").unwrap();
        let format = PcmFormat { encoding: Encoding::MuLaw, sample_rate: 8_000, channels: 2 };
        assert_eq!((telephone.format, telephone.multichannel), (Some(format), true));
        assert_eq!(
            Parameters::parse("utterances=true").unwrap().parts.utterances,
            Some(Duration::from_millis(800))
        );
        for bad in ["utt_split=-1", "utt_split=NaN", "utt_split=1e300", "paragraphs=no", "callback=http://a"]
        {
            assert!(Parameters::parse(bad).is_err(), "{bad}");
        }
    }
}
