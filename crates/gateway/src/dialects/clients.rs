//! Clients of dialects: the identity behind a token, or that of clients without one.

use std::net::IpAddr;

use axum::extract::Request;
use http::header;

use crate::authority::{AuthorityError, Identity, Scope, admits, is_own_secret};
use crate::gateway::Gateway;
use crate::http::client::{has_known_address, peer};
use crate::http::connection_limiter::mark_busy;
use crate::http::error::ApiError;
use crate::options::OpenAccess;

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
    let peer = peer(request);
    let goes_by_address = |open: &OpenAccess| token.is_none() || admits(&open.networks, peer);
    // Behind a proxy that names no client, all clients of the world have its address.
    let is_candidate = !token.is_some_and(is_own_secret) && !is_page(request) && has_known_address(request);
    // A client elsewhere is refused for its token, if it has one, and else for its address: for one of them,
    // as each refusal is audited.
    if is_candidate && gateway.options.open.as_ref().is_some_and(goes_by_address) {
        match open_identity(gateway, Origin::Address(peer)) {
            // It may come back with a token.
            Err(AuthorityError::NotOpen) => {}
            Ok(identity) => {
                mark_busy(request);
                return Ok(identity);
            }
            Err(error) => return Err(gateway.documented(error.into())),
        }
    }
    gateway.identify(request, token, check)
}

/// Origin of a client that needs no token.
#[derive(Debug)]
pub(super) enum Origin {
    /// Its address, if it is known.
    Address(Option<IpAddr>),
    /// The file of a Unix socket, whose permissions say who may connect.
    #[cfg(unix)]
    File,
}

/// Returns the identity of a client that needs no token, if the operator admits such clients from there.
pub(super) fn open_identity(gateway: &Gateway, origin: Origin) -> Result<Identity, AuthorityError> {
    let open = gateway.options.open.as_ref().ok_or(AuthorityError::Token)?;
    let (networks, peer) = match origin {
        Origin::Address(peer) => (&open.networks[..], peer),
        #[cfg(unix)]
        Origin::File => (&[][..], None),
    };
    gateway.authority.admit_open(&open.project, networks, peer)
}

/// Returns whether a page in a browser sends the request. A page of any site could do so from the browser of
/// someone whose address is admitted.
pub(super) fn is_page(request: &Request) -> bool {
    request.headers().contains_key(header::ORIGIN)
}
