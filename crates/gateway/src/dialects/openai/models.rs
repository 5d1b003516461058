//! `GET /v1/models` and `/v1/models/{id}`: the names that set-up pages offer. Any valid token may ask.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::error::OpenAiError;
use crate::dialects::clients::identify;
use crate::gateway::Gateway;
use crate::http::client::bearer;
use crate::http::client::peer;
use crate::http::error::json_response;

pub(super) async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let answer = || {
        admit(&gateway, &request)?;
        let data: Vec<Value> = names(&gateway).map(|name| model(&name)).collect();
        Ok(json_response(StatusCode::OK, &json!({ "object": "list", "data": data })))
    };
    answer().unwrap_or_else(OpenAiError::into_response)
}

pub(super) async fn one(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let answer = || {
        admit(&gateway, &request)?;
        let name = names(&gateway).find(|name| *name == id).ok_or_else(|| OpenAiError::no_model(&id))?;
        Ok(json_response(StatusCode::OK, &model(&name)))
    };
    answer().unwrap_or_else(OpenAiError::into_response)
}

/// Checks the token of a request that uses no service.
fn admit(gateway: &Gateway, request: &Request) -> Result<(), OpenAiError> {
    let admit = |token: &str| gateway.authority.admit(token, peer(request));
    identify(gateway, request, bearer(request.headers()), admit)?;
    Ok(())
}

/// Returns the configured names, and that of the recogniser.
fn names(gateway: &Gateway) -> impl Iterator<Item = String> {
    let configured = &gateway.options.openai.models;
    let own = gateway.recognizer_name().map(str::to_owned).into_iter();
    let own = own.filter(|name| !configured.contains(name));
    configured.iter().cloned().chain(own)
}

fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "voxline" })
}
