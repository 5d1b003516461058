//! `POST /asr_stream/create_task`, `POST /asr_stream/add_chunk`, `GET /asr_stream/get_result`: the
//! documented stream of numbered chunks.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::authority::{Amount, AuthorityError, Fingerprint, Identity, Scope, new_id, random_bytes};
use crate::gateway::Gateway;
use crate::http::client::{bearer, peer};
use crate::http::connection_limiter;
use crate::http::error::{ApiError, json_response};
use crate::http::request_log::request_id;
use crate::http::upload;
use crate::sessions::chunked_registry::Lookup;
use crate::sessions::chunked_session::{Chunk, ChunkedSession};
use crate::sessions::credential::OpeningToken;
use crate::sessions::messages::millis;
use voxline::engine::{EngineError, RECOGNIZER_RATE};
use voxline::error::chain;
use voxline::protocol::Start;
use voxline_support::hex;

/// Documented limit of a chunk, in bytes: one second at 16 kHz with its header.
const MAX_BYTES: usize = 32_100;
/// Error code for an unknown task. The code is our own, since the documentation has none.
const NO_TASK: u16 = 4104;

/// Query of `create_task`. It is not part of the original service, which supports only Russian.
#[derive(Deserialize)]
struct CreateParameters {
    /// Language spoken. The default is that of the project or of the gateway.
    language: Option<String>,
}

/// Query of `add_chunk`.
#[derive(Deserialize)]
struct ChunkParameters {
    chunk_num: u64,
    /// 1 on the last chunk, otherwise 0.
    #[serde(default)]
    last: u8,
}

#[derive(Deserialize)]
struct TaskParameters {
    task_id: String,
}

pub(crate) async fn create_task(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(create(&gateway, &request))
}

pub(crate) async fn add_chunk(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(add(&gateway, request).await)
}

pub(crate) async fn get_result(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(result(&gateway, &request))
}

fn answer(result: Result<Value, ApiError>) -> Response {
    match result {
        Ok(result) => json_response(StatusCode::OK, &json!({ "qid": request_id(), "result": result })),
        Err(error) => error.into_response(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a task's deadlines are real time")]
fn create(gateway: &Arc<Gateway>, request: &Request) -> Result<Value, ApiError> {
    // Rounded down to milliseconds, like the expiry times of tokens, and taken before the check.
    let checked = Duration::from_millis(millis(gateway.authority.clock().unix()));
    let identity = gateway.authorise(request, Scope::AsrStream)?;
    let now = Instant::now();
    gateway.authority.afford(&identity, Amount::audio(1))?;
    let CreateParameters { language } = parameters(request)?;
    gateway.sessions.admit_session()?;
    let start = Start { language, ..Start::new(RECOGNIZER_RATE) };
    check(gateway, &identity, &start)?;
    let place = gateway.sessions.place_for_chunked(&identity)?;
    let (id, token) = (task_id(), task_token());
    tracing::info!(token = identity.token, "task created");

    let token_ends = identity.expires_in.and_then(|left| now.checked_add(left));
    let named = (id.clone(), Fingerprint::of(token.expose_secret()));
    let deadline = now.checked_add(gateway.options.chunked.opening);
    let task =
        Arc::new(ChunkedSession::new(named, OpeningToken::new(identity, checked), start, place, deadline));
    gateway.sessions.chunked.insert(task.clone());
    let sessions = gateway.sessions.clone();
    gateway.sessions.shutdown.spawn(async move { task.supervise(&sessions, token_ends).await });
    Ok(json!({ "task_id": id, "task_token": token.expose_secret() }))
}

/// Refuses a task that no session could begin with, before its client sends chunks.
fn check(gateway: &Gateway, identity: &Identity, start: &Start) -> Result<(), ApiError> {
    let recognizer = gateway.recognizer()?;
    if start.language.is_none() {
        // The default is the operator's choice, so no client can be wrong about it.
        return Ok(());
    }
    let request = gateway.recognition_request(Some(identity), start.language.clone());
    match recognizer.start(&request) {
        Ok(_) => Ok(()),
        Err(error @ EngineError::Unsupported(_)) => Err(ApiError::bad_request(400, error.to_string())),
        Err(error) => Err(ApiError::internal(&chain(&error))),
    }
}

async fn add(gateway: &Gateway, request: Request) -> Result<Value, ApiError> {
    let task = find(gateway, &request)?;
    let ChunkParameters { chunk_num: number, last } = parameters(&request)?;
    let last = match last {
        0 => false,
        1 => true,
        other => return Err(ApiError::bad_request(400, format!("last is {other}, expected 0 or 1"))),
    };
    // Receive the file before the chunk takes its turn: a chunk that never arrives must not hold up the
    // same chunk sent again.
    let file =
        upload::receive(request.into_body(), MAX_BYTES, gateway.options.connections.body_timeout, |_| true)
            .await?;
    let text = task.add(&gateway.sessions, Chunk { number, last, file }).await?;
    Ok(json!({ "text": text.plain, "punctuated_text": text.punctuated }))
}

fn result(gateway: &Gateway, request: &Request) -> Result<Value, ApiError> {
    let task = find(gateway, request)?;
    // Check this before reading the text: a task that is done has all of its text.
    let is_done = task.is_done();
    let text = task.text()?;
    if is_done {
        task.note_informed();
    }
    let status = if is_done { "done" } else { "in_progress" };
    Ok(json!({ "text": text.plain, "punctuated_text": text.punctuated, "status": status }))
}

/// Returns the task whose token the request carries. A client without a task's token learns nothing of any
/// task, and a client with one learns nothing of other tasks: the answer is the same for a task of another
/// token and for a task that doesn't exist.
fn find(gateway: &Gateway, request: &Request) -> Result<Arc<ChunkedSession>, ApiError> {
    let peer = peer(request);
    let refused = |id: Option<&str>, error: AuthorityError| {
        gateway.authority.tell_refused(id, &error, peer);
        gateway.documented(error.into())
    };
    let Some(token) = bearer(request.headers()) else {
        return Err(gateway.documented(ApiError::token()));
    };
    let task = match gateway.sessions.chunked.find(&Fingerprint::of(token)) {
        Lookup::Found(task) => {
            let admitted = || if task.admits(peer) { Ok(()) } else { Err(AuthorityError::Address) };
            let checked = task.check(&gateway.authority).and_then(|()| admitted());
            checked.map_err(|error| refused(Some(task.token_id()), error))?;
            connection_limiter::mark_busy(request);
            Some(task)
        }
        Lookup::Forgotten => None,
        Lookup::Unknown => return Err(refused(None, AuthorityError::Token)),
    };
    let TaskParameters { task_id } = parameters(request)?;
    let no_task = || ApiError::new(StatusCode::NOT_FOUND, NO_TASK, "no such task, or it was forgotten");
    task.filter(|task| task.id == task_id).ok_or_else(no_task)
}

/// Parses the query of a request whose client is already authenticated.
fn parameters<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, ApiError> {
    let parsed = Query::try_from_uri(request.uri());
    parsed
        .map(|Query(parameters)| parameters)
        .map_err(|error| ApiError::bad_request(400, error.body_text().to_lowercase()))
}

/// Returns a version 4 UUID with hyphens, as the service writes it.
fn task_id() -> String {
    let digits = new_id();
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    groups.join("-")
}

/// Returns a token of 256 bits in hexadecimal, as the service writes it.
fn task_token() -> SecretString {
    let bytes: [u8; 32] = random_bytes();
    SecretString::from(hex(&bytes))
}
