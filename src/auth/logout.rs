//! Revocation of stored tokens.

use super::error::AuthError;
use super::oauth::OAuthClient;
use super::slots::SlotState;
use super::vault::Vault;

/// Outcome of [`log_out`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedOut {
    /// The vault held no tokens.
    Nothing,
    /// The service has revoked the tokens, and their slot is free.
    Revoked,
    /// The tokens are deleted locally. The service may still count their slot, for any length of time.
    Abandoned,
}

/// Deletes the tokens in `vault` after having the service revoke them; `locally` skips the revocation. A
/// slot that may still be taken at the service stays on record.
///
/// # Errors
/// Returns [`AuthError`] if the vault cannot be read or written, or if the service cannot be asked to
/// revoke the tokens. In the latter case the tokens are kept.
pub async fn log_out(client: &OAuthClient, vault: &Vault, locally: bool) -> Result<LoggedOut, AuthError> {
    let mut vault = vault.lock().await?;
    let Some(tokens) = vault.account.tokens.take() else { return Ok(LoggedOut::Nothing) };
    let revoked = match &tokens.refresh {
        Some(refresh) if !locally => client.revoke(refresh).await?,
        _ => false,
    };
    let (state, outcome) = if revoked {
        (SlotState::Free, LoggedOut::Revoked)
    } else {
        (SlotState::Abandoned, LoggedOut::Abandoned)
    };
    vault.account.slots.release(state);
    match vault.account.slots.taken() {
        0 => vault.remove().await?,
        _ => drop(vault.save().await?),
    }
    Ok(outcome)
}
