//! The audit: one line for each token minted, refused or revoked (target `voxline::audit`, level info), and counts of
//! them. It has ids only: no secret, and nothing that a client wrote unless it is known to be an id. `peer`
//! is the address of the client whose request it was; a line without one is an operator's doing.

use std::net::IpAddr;

use prometheus_client::metrics::counter::Counter;
use tracing::field::{DisplayValue, display};

use super::AuthorityError;
use crate::metrics::By;

/// Tells what becomes of tokens.
#[derive(Default)]
pub(crate) struct Audit {
    /// By kind.
    pub(crate) minted: By<Counter>,
    /// By reason.
    pub(crate) refused: By<Counter>,
}

impl Audit {
    /// A token was minted, or a client or project registered.
    pub(super) fn minted(&self, project: &str, client: Option<&str>, id: &str, peer: Option<IpAddr>) {
        tracing::info!(target: "voxline::audit", project, client, id, peer = shown(peer), "minted");
        let kind = match id.get(..3) {
            Some("at_") => "access",
            Some("rt_") => "refresh",
            Some("st_") => "service",
            _ => return,
        };
        self.minted.get_or_create(&[("kind", kind)]).inc();
    }

    /// Something was refused; `id` is whose it would have been, where that is known.
    pub(super) fn refused(&self, id: Option<&str>, reason: &AuthorityError, peer: Option<IpAddr>) {
        tracing::info!(target: "voxline::audit", id, %reason, peer = shown(peer), "refused");
        let reason = match reason {
            AuthorityError::Client => "client",
            AuthorityError::RefreshToken => "refresh_token",
            AuthorityError::Replaced => "replaced",
            AuthorityError::Limit(_) => "limit",
            AuthorityError::Token => "token",
            AuthorityError::Inactive => "inactive",
            AuthorityError::Scope(_) => "scope",
            AuthorityError::Address => "address",
            _ => "failed",
        };
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// A token, client or project is no longer good.
    pub(super) fn revoked(&self, project: &str, id: &str, why: &str, peer: Option<IpAddr>) {
        tracing::info!(target: "voxline::audit", project, id, why, peer = shown(peer), "revoked");
    }

    /// A project was disabled, or enabled again.
    pub(super) fn switched(&self, project: &str, active: bool) {
        tracing::info!(target: "voxline::audit", project, active, "switched");
    }
}

/// The address as it is written, whichever protocol it came by.
fn shown(peer: Option<IpAddr>) -> Option<DisplayValue<IpAddr>> {
    peer.map(|peer| display(peer.to_canonical()))
}
