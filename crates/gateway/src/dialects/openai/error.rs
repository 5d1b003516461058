//! Errors in the shape of OpenAI.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::dialects::recordings::body_error;
use crate::http::body::BadBody;
use crate::http::error::ApiError;
use crate::http::multipart::MultipartError;
use crate::recordings::uploads::UploadError;

/// An error answer, with the field of the request that it concerns.
#[derive(Debug)]
pub(super) struct OpenAiError {
    error: ApiError,
    param: Option<&'static str>,
    /// Code of OpenAI; by the status if `None`.
    code: Option<&'static str>,
}

impl OpenAiError {
    /// Returns the error of a request whose field `param` can't be used.
    pub(super) fn invalid(param: &'static str, message: impl Into<String>) -> OpenAiError {
        OpenAiError::from(ApiError::bad_request(400, message)).of(param)
    }

    /// Returns the error of a model that is not listed.
    pub(super) fn no_model(name: &str) -> OpenAiError {
        let name: String = name.chars().take(100).collect();
        let message = format!("the model '{name}' does not exist");
        let error = ApiError::new(StatusCode::NOT_FOUND, 404, message);
        OpenAiError { error, param: Some("model"), code: Some("model_not_found") }
    }

    /// Returns the same error, which concerns the field `param`.
    pub(super) fn of(self, param: &'static str) -> OpenAiError {
        OpenAiError { param: Some(param), ..self }
    }

    /// Returns the error of a body that could not be read.
    pub(super) fn of_body(error: BadBody, limit: u64) -> OpenAiError {
        body_error(error, limit).into()
    }

    /// Returns the documented object.
    pub(super) fn object(&self) -> Value {
        let OpenAiError { error, param, code } = self;
        let (kind, usual) = match self.status() {
            StatusCode::UNAUTHORIZED => ("invalid_request_error", Some("invalid_api_key")),
            StatusCode::FORBIDDEN => ("invalid_request_error", Some("insufficient_permissions")),
            StatusCode::TOO_MANY_REQUESTS => ("requests", Some("rate_limit_exceeded")),
            status if status.is_server_error() => ("server_error", None),
            _ => ("invalid_request_error", None),
        };
        json!({ "message": error.message, "type": kind, "param": param, "code": code.or(usual) })
    }

    /// Returns the status. A bad token has status 401 even where the gateway's own routes answer 400, as the
    /// documentation of Cloud Voice prints.
    fn status(&self) -> StatusCode {
        match self.error.code {
            4048 if self.error.status == StatusCode::BAD_REQUEST => StatusCode::UNAUTHORIZED,
            _ => self.error.status,
        }
    }

    /// Writes the error into an answer that has its headers.
    pub(super) fn write(&self, response: &mut Response) {
        response.extensions_mut().remove::<ApiError>();
        *response.status_mut() = self.status();
        *response.body_mut() = Body::from(json!({ "error": self.object() }).to_string());
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

impl From<ApiError> for OpenAiError {
    fn from(error: ApiError) -> OpenAiError {
        // These codes are errors of a recording.
        let param = matches!(error.code, 4009 | 4033..=4045).then_some("file");
        OpenAiError { error, param, code: None }
    }
}

impl From<MultipartError> for OpenAiError {
    fn from(error: MultipartError) -> OpenAiError {
        let status = match error {
            MultipartError::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::new(status, status.as_u16(), error.to_string()).into()
    }
}

impl From<UploadError> for OpenAiError {
    fn from(error: UploadError) -> OpenAiError {
        OpenAiError::from(ApiError::from(error)).of("file")
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let mut response = self.error.clone().into_response();
        self.write(&mut response);
        response
    }
}
