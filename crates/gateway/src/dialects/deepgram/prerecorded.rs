//! `POST /v1/listen`: a recording, which is the body, or what is at the address in the body.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::API;
use super::callback::{Callback, CallbackAddress};
use super::error::{self, REQUEST_ID, exhausted};
use super::messages::{StreamInfo, TextForm, request_id};
use super::parameters::{AudioFormat, channels, format};
use super::query::{BadParameter, Query, SpokenLanguage};
use super::transcript::{Parts, Transcript};
use crate::admission::project_places::ProjectPlace;
use crate::authority::{Amount, Identity, Scope, to_rfc3339};
use crate::dialects::audio::PcmEncoding;
use crate::dialects::clients::authorise;
use crate::dialects::recordings::{self, Recording, body_error};
use crate::gateway::Gateway;
use crate::http::body::{self, BadBody, BodyReader};
use crate::http::client::bearer_or_key;
use crate::http::error::{ApiError, json_response};
use crate::http::url_client::UrlError;
use crate::recordings::transcription::Transcription;
use crate::recordings::uploads::Upload;
use crate::sessions::messages::millis;
use voxline::audio::{Encoding, PcmFormat};
use voxline::engine::Latency;

/// Pause that ends an utterance, as documented.
const UTTERANCE_SPLIT: f64 = 0.8;

/// Longest body with an address, in bytes.
const MAX_ADDRESS: usize = 16 * 1024;

/// Body that names a recording.
#[derive(Deserialize)]
struct Address {
    url: String,
}

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
    callback: Option<CallbackAddress>,
}

impl Parameters {
    /// Parses a query. Parameters that are unknown, or ask for what no recogniser of the gateway does, are
    /// ignored.
    ///
    /// # Errors
    /// Returns [`BadParameter`] for a value that makes no sense, and an encoding that is not supported.
    pub(crate) fn parse(query: &str) -> Result<Parameters, BadParameter> {
        let query = Query::with_callback(query);
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
            callback: CallbackAddress::parse(&query)?,
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
    let is_address = is_json(request.headers());
    let admitted = admit(gateway, &request);
    let ((identity, parameters, callback), body) = recordings::take_body(gateway, request, admitted, limit)?;
    let (upload, sha256) =
        if is_address { fetch(gateway, body, limit).await? } else { receive(gateway, body, limit).await? };
    let Parameters { format, multichannel, form, parts, .. } = parameters;
    let languages = || gateway.recognition_request(Some(&identity), None);
    let recognition = parameters.language.request(languages).latency(Latency::Relaxed);
    let recognition = recognition.keywords(parameters.keywords);
    let recording = Recording { upload, format, is_split: multichannel, recognition };
    // A callback without a place is refused before anything is recognised.
    let callback = match callback {
        Some(callback) => Some((callback, callback_place(gateway, &identity)?)),
        None => None,
    };
    let transcription =
        recordings::start(gateway, API, identity, recording).await.map_err(error::of_budget)?;
    let model = gateway.recognizer()?.name().to_owned();
    let info = StreamInfo { request_id: request_id.to_owned(), model };
    let result = result(transcription, info, created, sha256, form, parts);
    let Some((callback, place)) = callback else { return Ok(json_response(StatusCode::OK, &result.await?)) };
    callback.spawn(gateway, place, request_id.to_owned(), result);
    Ok(json_response(StatusCode::OK, &json!({ "request_id": request_id })))
}

fn callback_place(gateway: &Gateway, identity: &Identity) -> Result<ProjectPlace, ApiError> {
    gateway.callbacks.admit(&identity.project).ok_or_else(ApiError::too_many_requests)
}

/// Returns the result of a recording, once it is recognised.
async fn result(
    mut transcription: Transcription,
    info: StreamInfo,
    created: String,
    sha256: Vec<u8>,
    form: TextForm,
    parts: Parts,
) -> Result<Value, ApiError> {
    let mut channels = vec![Vec::new(); transcription.channels()];
    while let Some((channel, segment)) = transcription.next().await.map_err(error::of_budget)? {
        channels[channel].push(segment);
    }
    let seconds = transcription.milliseconds() as f64 / 1e3;
    let metadata = info.of_audio(&sha256, &created, seconds, channels.len());
    let results = Transcript { channels, form }.results(parts);
    Ok(json!({ "metadata": metadata, "results": results }))
}

/// Checks the token and the query of a request, and the callback in the query.
fn admit(gateway: &Gateway, request: &Request) -> Result<(Identity, Parameters, Option<Callback>), ApiError> {
    let identity = authorise(gateway, request, bearer_or_key(request.headers()), Scope::AsrShort)?;
    gateway.authority.afford(&identity, Amount::audio(1)).map_err(exhausted)?;
    let query = request.uri().query().unwrap_or_default();
    let parameters = Parameters::parse(query).map_err(|bad| ApiError::bad_request(400, bad.to_string()))?;
    if is_json(request.headers()) && gateway.urls.is_off() {
        return Err(UrlError::Off.into());
    }
    let callback = parameters.callback.as_ref();
    let callback = callback.map(|callback| callback.check(gateway, &identity.token)).transpose()?;
    Ok((identity, parameters, callback))
}

/// Returns whether the body is said to be JSON, which names the address of a recording.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = content_type.map(|value| value.split(';').next().unwrap_or_default().trim());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

/// Receives a recording of up to `limit` bytes. Returns it with its SHA-256.
async fn receive(gateway: &Gateway, body: Body, limit: u64) -> Result<(Upload, Vec<u8>), ApiError> {
    let mut body = BodyReader::new(body, limit, gateway.options.connections.body_timeout);
    let bad = |error| body_error(error, limit);
    let received = store(gateway, &mut body, bad, "the body has no recording").await;
    if received.is_err() {
        body.discard();
    }
    received
}

/// Fetches the recording whose address the body has. A server has the time that a client has to send one.
async fn fetch(gateway: &Gateway, body: Body, limit: u64) -> Result<(Upload, Vec<u8>), ApiError> {
    let patience = gateway.options.connections.body_timeout;
    let body = body::read(body, MAX_ADDRESS, patience).await;
    let body = body.map_err(|error| body_error(error, MAX_ADDRESS as u64))?;
    let Address { url } = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(400, format!("the body can't be read: {error}")))?;
    let url = gateway.urls.check(&url)?;
    let error = |error: BadBody| match error {
        BadBody::TooLarge => {
            let message = format!("the recording at the address is larger than {limit} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, 413, message)
        }
        BadBody::Late => ApiError::bad_request(400, "the recording at the address did not arrive in time"),
        BadBody::NoRoom => ApiError::too_many_requests(),
        BadBody::Broken => ApiError::bad_request(400, "the recording at the address broke off"),
    };
    let found = timeout(patience, gateway.urls.get(url)).await.map_err(|_| error(BadBody::Late))??;
    let mut recording = BodyReader::new(Body::from_stream(found), limit, patience);
    store(gateway, &mut recording, error, "there is nothing at the address").await
}

/// Stores a recording while it arrives. Returns it with its SHA-256.
async fn store(
    gateway: &Gateway,
    body: &mut BodyReader,
    bad: impl Fn(BadBody) -> ApiError,
    empty: &str,
) -> Result<(Upload, Vec<u8>), ApiError> {
    let mut upload = gateway.uploads.begin()?;
    let mut hash = Sha256::new();
    while let Some(bytes) = body.next().await.map_err(&bad)? {
        hash.update(&bytes);
        upload.write(&bytes).await?;
    }
    if upload.length() == 0 {
        return Err(ApiError::bad_request(400, empty));
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
        for bad in [
            "utt_split=-1",
            "utt_split=NaN",
            "utt_split=1e300",
            "paragraphs=no",
            "callback=a&callback_method=get",
        ] {
            assert!(Parameters::parse(bad).is_err(), "{bad}");
        }
    }
}
