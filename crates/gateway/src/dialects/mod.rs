//! Dialects: APIs of other speech services, so that programs written for them connect unchanged. Each is a
//! room of its own: its messages, and its handlers, which are thin over the live sessions, recordings and
//! speech that the gateway's own routes use.
//!
//! This room stands beside the routes: its handlers take the [`Gateway`](crate::gateway::Gateway).

pub(crate) mod audio;
mod clients;
mod container;
pub(crate) mod deepgram;
mod hints;
pub(crate) mod jambonz;
mod live;
pub(crate) mod openai;
pub(crate) mod opus_packets;
mod recordings;
mod stream;
mod texts;
pub(crate) mod vosk;
pub(crate) mod wyoming;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;

use crate::gateway::{Gateway, Route};
use crate::http::auth_rate_limiter::limit_failures;
use crate::http::error::{ApiError, wrong_method};
use crate::options::Dialect;

/// The routes of a dialect.
#[derive(Default)]
struct Routes {
    /// Routes that authenticate the client.
    guarded: Vec<Route>,
    /// Routes that every client may use, without authentication or rate limit.
    open: Vec<Route>,
    /// Other paths of guarded routes, which the description of the API leaves out.
    aliases: Vec<Route>,
    /// Writes an error of the layers around the handlers in the shape of the dialect, into an answer that has
    /// its status and headers. `None` for the shape of the gateway's own API.
    reshape: Option<fn(ApiError, &mut Response)>,
}

/// Returns the routes of a dialect.
fn routes(dialect: Dialect) -> Routes {
    match dialect {
        Dialect::OpenAi => openai::routes(),
        Dialect::Deepgram => deepgram::routes(),
        Dialect::Vosk => vosk::routes(),
        Dialect::Jambonz => jambonz::routes(),
    }
}

/// Returns the router of each dialect that is switched on.
pub(crate) fn routers(gateway: &Gateway) -> Vec<Router<Arc<Gateway>>> {
    let is_on = |dialect: &Dialect| gateway.options.dialects.contains(dialect);
    Dialect::ALL.into_iter().filter(is_on).map(|dialect| router(gateway, routes(dialect))).collect()
}

/// Returns the routes of a dialect behind the limit of failed authentications.
fn router(gateway: &Gateway, routes: Routes) -> Router<Arc<Gateway>> {
    let add = |router: Router<Arc<Gateway>>, (path, methods): Route| router.route(path, methods);
    let Routes { guarded, open, aliases, reshape } = routes;
    let guarded = guarded.into_iter().chain(aliases).fold(Router::new(), add);
    let guarded = guarded
        .method_not_allowed_fallback(wrong_method)
        .route_layer(from_fn_with_state(gateway.auth_limiter.clone(), limit_failures));
    let all = open.into_iter().fold(guarded, add).method_not_allowed_fallback(wrong_method);
    let Some(reshape) = reshape else { return all };
    all.route_layer(map_response(move |mut response: Response| async move {
        if let Some(error) = response.extensions_mut().remove::<ApiError>() {
            reshape(error, &mut response);
        }
        response
    }))
}

/// Returns the paths of a dialect, as the description of the API has them.
pub(crate) fn paths(dialect: Dialect) -> Vec<&'static str> {
    let Routes { guarded, open, .. } = routes(dialect);
    guarded.into_iter().chain(open).map(|(path, _)| path).collect()
}
