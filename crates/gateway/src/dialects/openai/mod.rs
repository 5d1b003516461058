//! The audio API of OpenAI: transcription, translation, speech, and the list of models.
//!
//! - `form`, `request`: the fields of a recording's form, received and read.
//! - `transcriptions`: the handlers of recordings; `answer` and `events` write the result, whole or while it
//!   is recognised, and `channel_order` joins the channels.
//! - `speech`, `voices`: synthesis, and the names of voices.
//! - `models`: the list of models.
//! - `realtime`: live transcription.
//! - `error`: errors in the shape of OpenAI.
//!
//! The tokens are the gateway's own. A program sends one where it would send its key. Names of models choose
//! nothing.

mod answer;
mod channel_order;
mod error;
mod events;
mod form;
mod models;
pub(crate) mod realtime;
mod request;
mod speech;
mod transcriptions;
mod voices;

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};

use self::error::OpenAiError;
use super::Routes;
use crate::gateway::Gateway;
use crate::options::Dialect;

/// Label of this dialect in the metrics.
const API: &str = Dialect::OpenAi.name();

/// Paths of the API, each with its handler in [`handlers`].
const PATHS: [&str; 7] = [
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
    "/v1/models",
    "/v1/models/{id}",
    "/v1/realtime",
    "/v1/realtime/client_secrets",
];
/// The same paths without `/v1`, and with one too many: users are unsure whether it belongs to the base
/// address, and programs differ.
const WITHOUT_VERSION: [&str; 7] = [
    "/audio/transcriptions",
    "/audio/translations",
    "/audio/speech",
    "/models",
    "/models/{id}",
    "/realtime",
    "/realtime/client_secrets",
];
const VERSION_TWICE: [&str; 7] = [
    "/v1/v1/audio/transcriptions",
    "/v1/v1/audio/translations",
    "/v1/v1/audio/speech",
    "/v1/v1/models",
    "/v1/v1/models/{id}",
    "/v1/v1/realtime",
    "/v1/v1/realtime/client_secrets",
];

/// Path of the same form in the server of whisper.cpp.
const WHISPER_CPP: &str = "/inference";

/// Returns the routes of the dialect.
pub(super) fn routes() -> Routes {
    let handled = |paths: [&'static str; 7]| paths.into_iter().zip(handlers());
    let inference = (WHISPER_CPP, post(transcriptions::transcribe));
    Routes {
        guarded: handled(PATHS).collect(),
        aliases: handled(WITHOUT_VERSION).chain(handled(VERSION_TWICE)).chain([inference]).collect(),
        reshape: Some(|error, response| OpenAiError::from(error).write(response)),
        ..Routes::default()
    }
}

fn handlers() -> [MethodRouter<Arc<Gateway>>; 7] {
    [
        post(transcriptions::transcribe),
        post(transcriptions::translate),
        post(speech::speak),
        get(models::list),
        get(models::one),
        get(realtime::upgrade),
        post(realtime::client_secrets::make),
    ]
}

/// Reads the fields of a form, for a fuzz target. A form that is accepted keeps its limits.
#[cfg(feature = "test-util")]
pub(crate) fn read_fields<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) {
    use self::request::TranscriptionRequest;
    use voxline::engine::{RecognitionRequest, Task};

    let fields = fields.collect();
    for task in [Task::Transcribe, Task::Translate] {
        let Ok(read) = TranscriptionRequest::read(&fields, task, RecognitionRequest::new()) else { continue };
        assert!(
            read.recognition.temperature.is_none_or(|temperature| temperature > 0.0 && temperature <= 1.0)
        );
    }
}
