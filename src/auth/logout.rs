//! Giving tokens up.

use super::error::AuthError;
use super::oauth::OAuthClient;
use super::slots::SlotState;
use super::vault::Vault;

/// What became of the tokens that were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedOut {
    /// There were none.
    Nothing,
    /// The service has forgotten them, and their slot is free.
    Revoked,
    /// They are gone from here; the service may count their slot for as long as it likes.
    Abandoned,
}

/// Gives up the tokens in `vault`: has the service revoke them, unless `locally`, and forgets them. That a slot may still
/// be taken at the service is remembered.
///
/// # Errors
/// See [`AuthError`]. Where the service can't be asked, the tokens are kept.
pub async fn log_out(client: &OAuthClient, vault: &Vault, locally: bool) -> Result<LoggedOut, AuthError> {
    let mut vault = vault.lock().await?;
    let Some(tokens) = vault.account.tokens.take() else { return Ok(LoggedOut::Nothing) };
    let revoked = match &tokens.refresh {
        Some(refresh) if !locally => client.revoke(refresh).await?,
        _ => false,
    };
    let (state, outcome) = match revoked {
        true => (SlotState::Free, LoggedOut::Revoked),
        false => (SlotState::Abandoned, LoggedOut::Abandoned),
    };
    vault.account.slots.leave(state);
    match vault.account.slots.taken() {
        0 => vault.remove().await?,
        _ => drop(vault.save().await?),
    }
    Ok(outcome)
}
