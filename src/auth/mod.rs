//! Authentication: token types, and where tokens are obtained and stored.
//!
//! A [`TokenProvider`] hands out unexpired access tokens and renews them in time. It uses an
//! [`OAuthClient`], which queries the token endpoint, and a [`Vault`], which stores the responses on disk
//! for later runs and other processes. The module `renewal` decides when to renew, without clock, disk or
//! network; `keeper` carries the renewals out.

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
