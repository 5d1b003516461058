//! Tokens: what they are, where they come from, where they are kept.
//!
//! A [`TokenProvider`] hands out access tokens that live; behind it are an [`OAuthClient`], which asks the token
//! endpoint, and a [`Vault`], which keeps the answers on disk across runs.

mod oauth;
mod provider;
mod token;
mod vault;

pub use oauth::{AuthError, Credentials, OAuthClient, Refusal, TOKEN_PATH};
#[cfg(feature = "test-util")]
pub use provider::PlantedTokenBug;
pub use provider::TokenProvider;
pub use token::{AccessToken, RefreshToken, TokenGeneration, TokenSet};
pub use vault::{Vault, VaultError};
pub(crate) use vault::{create_private_dir, create_private_file, exposed};
