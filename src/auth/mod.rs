//! Tokens: what they are, where they come from, where they are kept.
//!
//! A [`TokenProvider`] hands out access tokens that live and renews them in time; behind it are an [`OAuthClient`], which
//! asks the token endpoint, and a [`Vault`], which keeps the answers on disk, for later runs and for other processes.
//! When to renew is decided in `renewal`, without clock, disk or network; `keeper` does it.

mod error;
mod keeper;
mod logout;
mod oauth;
mod provider;
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "its logic is played by our tests"))]
pub(crate) mod renewal;
mod slots;
mod token;
mod vault;

pub use error::{AuthError, AuthErrorKind, Refusal};
#[cfg(feature = "test-util")]
pub use keeper::PlantedTokenBug;
pub use logout::{LoggedOut, log_out};
pub use oauth::{Credentials, OAuthClient, REVOCATION_PATH, TOKEN_PATH};
pub use provider::{TokenFuture, TokenProvider, TokenSource};
pub use slots::{MAX_SLOTS, Slot, SlotState, Slots, SlotsError};
pub use token::{AccessToken, RefreshToken, Scope, TokenGeneration, TokenSet};
#[cfg(feature = "test-util")]
pub use vault::VaultStep;
pub use vault::{Account, LockedVault, Vault, VaultError, VaultKey};
