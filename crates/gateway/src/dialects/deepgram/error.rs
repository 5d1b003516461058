//! Error answers in the format of Deepgram's API.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::messages::request_id;
use crate::authority::Exhausted;
use crate::http::error::ApiError;

/// Header that carries the id of the request, a UUID.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("dg-request-id");
/// Header that carries the message of an error, for clients that can't read the body of a refused upgrade.
const ERROR: HeaderName = HeaderName::from_static("dg-error");

/// Returns the answer of a request with this id that failed.
pub(super) fn answer(error: ApiError, request_id: &str) -> Response {
    // Status, headers and what the limit of failed authentications needs to know are those of every API.
    let mut response = error.clone().into_response();
    write(&error, request_id, &mut response);
    response
}

/// Gives an error of the layers around the handlers, which know no id, the shape of Deepgram.
pub(super) fn reshape(error: ApiError, response: &mut Response) {
    write(&error, &request_id(), response);
}

/// Writes the body and the headers.
fn write(error: &ApiError, request_id: &str, response: &mut Response) {
    let body = body_of(error, request_id);
    response.extensions_mut().remove::<ApiError>();
    *response.body_mut() = Body::from(body.to_string());
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(REQUEST_ID, HeaderValue::try_from(request_id).expect("a UUID fits a header"));
    // Bytes outside of ASCII have no meaning in a header (RFC 9110, section 5.5).
    let message = error.message.replace(|c: char| !c.is_ascii(), "?");
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(ERROR, message);
    }
}

/// Returns an error as JSON, with the fields of both generations of the API.
pub(super) fn body_of(error: &ApiError, request_id: &str) -> Value {
    let (category, message) = (category(error.status), &error.message);
    json!({
        "category": category,
        "message": message,
        "details": message,
        "err_code": category,
        "err_msg": message,
        "request_id": request_id,
    })
}

/// Returns the error of a budget that is used up: for good, it is a matter of payment.
pub(super) fn exhausted(exhausted: Exhausted) -> ApiError {
    match exhausted {
        Exhausted::Daily { .. } => exhausted.into(),
        Exhausted::Total { .. } => ApiError::new(StatusCode::PAYMENT_REQUIRED, 402, exhausted.to_string()),
    }
}

/// Returns the error of a recognition. The only one with status 403 is that of a total budget.
pub(super) fn of_budget(error: ApiError) -> ApiError {
    if error.status == StatusCode::FORBIDDEN {
        return ApiError::new(StatusCode::PAYMENT_REQUIRED, 402, error.message);
    }
    error
}

fn category(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "BAD_REQUEST",
        401 => "INVALID_AUTH",
        402 => "ASR_PAYMENT_REQUIRED",
        403 => "INSUFFICIENT_PERMISSIONS",
        405 => "METHOD_NOT_ALLOWED",
        408 => "REQUEST_TIMEOUT",
        413 => "PAYLOAD_TOO_LARGE",
        426 => "UPGRADE_REQUIRED",
        429 => "TOO_MANY_REQUESTS",
        501 => "NOT_IMPLEMENTED",
        503 => "SERVICE_UNAVAILABLE",
        _ => "INTERNAL_SERVER_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_a_value_of_the_client_is_one_line_of_ascii_in_the_header() {
        let answer = answer(ApiError::bad_request(400, "voice 'a\r\nb\u{e9}' is unknown"), "1");
        assert_eq!(answer.headers()[ERROR], "voice 'a  b?' is unknown");
    }
}
