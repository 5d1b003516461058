//! The audit log: one line for each token minted, refused or revoked (target `voxline::audit`, level info),
//! and their counters. A line contains ids only: no secrets, and no client input unless it is known to be an
//! id. `peer` is the address of the client that made the request; a line without `peer` is an operator's
//! action, or was written under [`Policy::audit_addresses`](super::Policy::audit_addresses) `false`.

use std::net::IpAddr;

use tracing::field::{DisplayValue, display};

use super::AuthorityError;
use crate::metrics::TokenCounters;

/// Writer of the audit log, and counters of its events.
pub(super) struct Audit {
    /// `true` if lines name the addresses of clients.
    pub(super) addresses: bool,
    pub(super) counters: TokenCounters,
}

impl Audit {
    /// Records that a token was minted, or a client or project registered.
    pub(super) fn minted(&self, project: &str, client: Option<&str>, id: &str, peer: Option<IpAddr>) {
        tracing::info!(target: "voxline::audit", project, client, id, peer = self.shown(peer), "minted");
        let kind = match id.get(..3) {
            Some("at_") => "access",
            Some("rt_") => "refresh",
            Some("st_") => "service",
            _ => return,
        };
        self.counters.minted.get_or_create(&[("kind", kind)]).inc();
    }

    /// Records that a short-lived key was made with the token `id`.
    pub(super) fn minted_key(&self, project: &str, id: &str, peer: Option<IpAddr>) {
        tracing::info!(target: "voxline::audit", project, id, peer = self.shown(peer), "short-lived key minted");
        self.counters.minted.get_or_create(&[("kind", "short_lived")]).inc();
    }

    /// Records a refusal; `id` is the id of the token or client concerned, if known.
    pub(super) fn refused(&self, id: Option<&str>, reason: &AuthorityError, peer: Option<IpAddr>) {
        tracing::info!(target: "voxline::audit", id, %reason, peer = self.shown(peer), "refused");
        let reason = match reason {
            AuthorityError::Client => "client",
            AuthorityError::RefreshToken => "refresh_token",
            AuthorityError::Replaced => "replaced",
            AuthorityError::Limit(_) => "limit",
            AuthorityError::Token => "token",
            AuthorityError::Inactive => "inactive",
            AuthorityError::Scope(_) | AuthorityError::ShortLived => "scope",
            AuthorityError::Address | AuthorityError::NotOpen => "address",
            _ => "failed",
        };
        self.counters.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// Records that a token, client or project was revoked.
    pub(super) fn revoked(&self, project: &str, id: &str, why: &str, peer: Option<IpAddr>) {
        tracing::info!(target: "voxline::audit", project, id, why, peer = self.shown(peer), "revoked");
    }

    /// Records that a project was disabled or enabled.
    pub(super) fn switched(&self, project: &str, active: bool) {
        let change = if active { "enabled" } else { "disabled" };
        tracing::info!(target: "voxline::audit", project, active, "{change}");
    }

    /// Returns the address for display, with an IPv4-mapped IPv6 address as IPv4; `None` if lines name no
    /// addresses.
    fn shown(&self, peer: Option<IpAddr>) -> Option<DisplayValue<IpAddr>> {
        peer.filter(|_| self.addresses).map(|peer| display(peer.to_canonical()))
    }
}
