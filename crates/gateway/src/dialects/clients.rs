//! Clients of dialects: the identity behind a token, or that of clients without one.

use axum::extract::Request;
use http::header;

use crate::authority::{AuthorityError, Identity, Scope, is_own_secret};
use crate::gateway::Gateway;
use crate::http::client::{has_known_address, peer};
use crate::http::connection_limiter::mark_busy;
use crate::http::error::ApiError;

/// Returns the identity of a client that asks for the service `scope` with this token, or without one.
pub(super) fn authorise(
    gateway: &Gateway,
    request: &Request,
    token: Option<&str>,
    scope: Scope,
) -> Result<Identity, ApiError> {
    identify(gateway, request, token, |token| gateway.authority.authorise(token, scope, peer(request)))
}

/// Returns the identity behind `token` if `check` accepts it. A client without a token has the identity that
/// the operator gives to such clients, and so has one with a key of another service: many programs don't
/// start without any. A token of a gateway is checked everywhere, so that its revocation counts.
pub(super) fn identify(
    gateway: &Gateway,
    request: &Request,
    token: Option<&str>,
    check: impl FnOnce(&str) -> Result<Identity, AuthorityError>,
) -> Result<Identity, ApiError> {
    // Behind a proxy that names no client, all clients of the world have its address.
    if !token.is_some_and(is_own_secret) && !is_page(request) && has_known_address(request) {
        match open_identity(gateway, request) {
            Err(AuthorityError::Address | AuthorityError::Token) => {}
            found => return found.map_err(|error| gateway.documented(error.into())),
        }
    }
    gateway.identify(request, token, check)
}

/// Returns the identity of a client that needs no token, if the operator admits such clients from its
/// address.
pub(super) fn open_identity(gateway: &Gateway, request: &Request) -> Result<Identity, AuthorityError> {
    let open = gateway.options.open.as_ref().ok_or(AuthorityError::Token)?;
    let identity = gateway.authority.admit_open(&open.project, &open.networks, peer(request))?;
    mark_busy(request);
    Ok(identity)
}

/// Returns whether a page in a browser sends the request. A page of any site could do so from the browser of
/// someone whose address is admitted.
pub(super) fn is_page(request: &Request) -> bool {
    request.headers().contains_key(header::ORIGIN)
}
