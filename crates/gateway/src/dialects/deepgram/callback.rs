//! Callbacks: the results of a recording, sent to an address of the client's instead of as an answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;
use url::Url;

use super::error::{REQUEST_ID, body_of};
use super::query::{BadParameter, Query};
use crate::admission::project_places::ProjectPlace;
use crate::gateway::Gateway;
use crate::http::error::ApiError;
use voxline::error::chain;

/// Most attempts of one callback: ten, as documented.
const ATTEMPTS: u32 = 10;
/// Wait after the first attempt that failed, which doubles with each further one, and the longest wait, as
/// documented.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest time of an attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Header with the id of the token that the request was made with.
const TOKEN: HeaderName = HeaderName::from_static("dg-token");

/// Address for results in a query. It is not checked yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CallbackAddress {
    address: String,
    method: Method,
}

impl CallbackAddress {
    /// Reads the parameters of a callback, if there is one.
    ///
    /// # Errors
    /// Returns [`BadParameter`] for another method than POST and PUT.
    pub(super) fn parse(query: &Query) -> Result<Option<CallbackAddress>, BadParameter> {
        let Some(address) = query.last("callback") else { return Ok(None) };
        let method = match query.last("callback_method").unwrap_or("post") {
            name if name.eq_ignore_ascii_case("post") => Method::POST,
            name if name.eq_ignore_ascii_case("put") => Method::PUT,
            _ => return Err(BadParameter("callback_method should be post or put".to_owned())),
        };
        Ok(Some(CallbackAddress { address: address.to_owned(), method }))
    }

    /// Returns the callback, if its host is listed.
    pub(super) fn check(&self, gateway: &Gateway, token: &str) -> Result<Callback, ApiError> {
        let url = gateway.urls.check(&self.address)?;
        Ok(Callback { url, method: self.method.clone(), token: token.to_owned() })
    }
}

/// A callback to a host that is listed.
pub(super) struct Callback {
    url: Url,
    method: Method,
    /// Id of the token.
    token: String,
}

impl Callback {
    /// Waits for the result of a recording and sends it, or the error that the recording ended with. It has a
    /// `place` of [`Gateway::callbacks`]. A gateway that stops waits for this as it waits for sessions.
    pub(super) fn spawn(
        self,
        gateway: &Arc<Gateway>,
        place: ProjectPlace,
        request_id: String,
        result: impl Future<Output = Result<Value, ApiError>> + Send + 'static,
    ) {
        let gateway = gateway.clone();
        let sessions = gateway.sessions.clone();
        sessions.shutdown.spawn(async move {
            let delivered = async {
                let body = match result.await {
                    Ok(result) => result,
                    Err(error) => body_of(&error, &request_id),
                };
                self.deliver(&gateway, &request_id, body.to_string().into()).await
            };
            let is_delivered = tokio::select! {
                is_delivered = delivered => is_delivered,
                () = gateway.sessions.shutdown.closing.cancelled() => false,
            };
            if !is_delivered {
                tracing::warn!(request_id, host = self.url.host_str(), "callback was not delivered");
            }
            drop(place);
        });
    }

    /// Sends the result until the server accepts it. Returns whether it did.
    async fn deliver(&self, gateway: &Gateway, request_id: &str, body: Bytes) -> bool {
        let value = |text: &str| HeaderValue::try_from(text).expect("an id fits a header");
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (REQUEST_ID, value(request_id)),
            (TOKEN, value(&self.token)),
        ]);
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            let sent =
                gateway.urls.send(self.method.clone(), self.url.clone(), headers.clone(), body.clone());
            match tokio::time::timeout(ATTEMPT_TIMEOUT, sent).await {
                Ok(Ok(status)) if status.is_success() => return true,
                Ok(Ok(status)) => tracing::info!(request_id, attempt, %status, "callback was refused"),
                Ok(Err(error)) => {
                    tracing::info!(request_id, attempt, error = %chain(&error), "callback failed");
                }
                Err(_) => tracing::info!(request_id, attempt, "callback was not answered in time"),
            }
            if attempt < ATTEMPTS {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
        false
    }
}
