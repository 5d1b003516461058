//! The routes of the API, a file for each. A handler reads a request, calls the rooms below, and writes the
//! answer.
//!
//! This room may import every other room.

mod asr;
mod asr_chunks;
mod asr_stream;
mod demo;
mod health;
mod metrics;
mod openapi;
mod revoke;
mod token;
mod tts;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use crate::console;
use crate::dialects;
use crate::gateway::{Gateway, Route};
use crate::http::auth_rate_limiter::limit_failures;
use crate::http::{cors, error, proxies, request_log, request_metrics};
use crate::options::Options;
use voxline::protocol;

/// Returns the routes that authenticate the client, or that do costly work without authentication.
fn guarded_routes(options: &Options) -> Vec<Route> {
    let mut routes = vec![
        (voxline::auth::TOKEN_PATH, post(token::token)),
        (revoke::PATH, post(revoke::revoke)),
        (protocol::PATH, get(asr_stream::upgrade)),
        ("/asr_stream/create_task", post(asr_chunks::create_task)),
        ("/asr_stream/add_chunk", post(asr_chunks::add_chunk)),
        ("/asr_stream/get_result", get(asr_chunks::get_result)),
        ("/asr", post(asr::recognise)),
        (protocol::tts::PATH, get(tts::get).head(tts::head).post(tts::post)),
    ];
    if options.demo {
        routes.extend([("/tts_demo", post(demo::speak)), ("/asr_demo", post(demo::recognise))]);
    }
    if options.console {
        routes.extend(console::data());
    }
    routes
}

/// Returns the routes that every client may use, without authentication or rate limit.
fn open_routes(options: &Options) -> Vec<Route> {
    let mut routes = vec![
        ("/healthz", get(health::liveness)),
        ("/readyz", get(health::readiness)),
        (metrics::PATH, get(metrics::report)),
        (openapi::PATH, get(openapi::describe)),
    ];
    if options.console {
        routes.extend(console::pages());
    }
    routes
}

/// Returns the router of all routes, with the middleware around them.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let add = |router: Router<Arc<Gateway>>, (path, methods): Route| router.route(path, methods);
    let guarded = guarded_routes(&gateway.options).into_iter().fold(Router::new(), add);
    let guarded = guarded
        // Set here, too: an address over the rate limit is refused without being told of methods.
        .method_not_allowed_fallback(error::wrong_method)
        .route_layer(from_fn_with_state(gateway.auth_limiter.clone(), limit_failures));
    let guarded = dialects::routers(&gateway).into_iter().fold(guarded, Router::merge);
    let all = open_routes(&gateway.options).into_iter().fold(guarded, add);
    let all = all.method_not_allowed_fallback(error::wrong_method).fallback(error::unknown_path);
    let all = match cors::layer(&gateway.options.cors_origins) {
        Some(cors) => all.layer(cors),
        None => all,
    };
    observed(all, gateway)
}

/// Returns the router of a listener for clients of Vosk that have no token.
pub(crate) fn open_vosk_router(gateway: Arc<Gateway>) -> Router {
    observed(dialects::vosk::open_router(), gateway)
}

/// Adds what every listener needs around its routes: the client's address, metrics and the log.
fn observed(router: Router<Arc<Gateway>>, gateway: Arc<Gateway>) -> Router {
    router
        .layer(from_fn(proxies::refuse_bad_forwarding))
        .layer(from_fn_with_state(gateway.metrics.clone(), request_metrics::count))
        .layer(from_fn_with_state(gateway.authority.clock().clone(), request_log::log_request))
        .with_state(gateway)
}
