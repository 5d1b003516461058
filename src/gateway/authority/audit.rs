//! The audit: one line for each token minted, refused or revoked (target `voxline::audit`, level info). It has ids
//! only: no secret, and nothing that a client wrote unless it is known to be an id.

use super::AuthorityError;

/// A token was minted, or a client or project registered.
pub(super) fn minted(project: &str, client: Option<&str>, id: &str) {
    tracing::info!(target: "voxline::audit", project, client, id, "minted");
}

/// Something was refused; `id` is whose it would have been, where that is known.
pub(super) fn refused(id: Option<&str>, reason: &AuthorityError) {
    tracing::info!(target: "voxline::audit", id, %reason, "refused");
}

/// A token, client or project is no longer good.
pub(super) fn revoked(project: &str, id: &str, why: &str) {
    tracing::info!(target: "voxline::audit", project, id, why, "revoked");
}

/// A project was disabled, or enabled again.
pub(super) fn switched(project: &str, active: bool) {
    tracing::info!(target: "voxline::audit", project, active, "switched");
}
