//! Authentication: token types, and where tokens are obtained and stored.
//!
//! A [`TokenProvider`] hands out unexpired access tokens: a service token, or those of a [`TokenSource`] of
//! the caller's own. With the feature `oauth` it renews them itself, in time. It then uses an `OAuthClient`,
//! which queries the token endpoint, and a `Vault`, which stores the responses on disk for later runs and
//! other processes. The module `renewal` decides when to renew, without clock, disk or network; `refresher`
//! carries the renewals out.

mod error;
#[cfg(feature = "oauth")]
mod logout;
#[cfg(feature = "oauth")]
mod oauth;
mod provider;
#[cfg(feature = "oauth")]
mod refresher;
#[cfg(feature = "oauth")]
mod refresher_handle;
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "its logic is played by our tests"))]
#[cfg(feature = "oauth")]
pub(crate) mod renewal;
#[cfg(feature = "oauth")]
mod slots;
mod token;
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "its disk is replaced by our tests"))]
#[cfg(feature = "oauth")]
pub(crate) mod vault;

pub use error::{AuthError, AuthErrorKind, Refusal};
#[cfg(feature = "oauth")]
pub use logout::{LoggedOut, log_out};
#[cfg(feature = "oauth")]
pub use oauth::{Credentials, OAuthClient};
pub use provider::{TokenFuture, TokenProvider, TokenSource};
#[cfg(feature = "oauth")]
pub use slots::{MAX_SLOTS, Slot, SlotState, Slots, SlotsError};
pub(crate) use token::renewal_margin;
pub use token::{AccessToken, RefreshToken, Scope, TokenGeneration, TokenSet};
#[cfg(feature = "oauth")]
pub use vault::{Account, LockedVault, Vault, VaultError, VaultKey};

/// Path of the token endpoint.
pub const TOKEN_PATH: &str = "/auth/oauth/v1/token";
/// Path of token revocation, modelled on RFC 7009. The original service has no such endpoint.
pub const REVOCATION_PATH: &str = "/auth/oauth/v1/revoke";
