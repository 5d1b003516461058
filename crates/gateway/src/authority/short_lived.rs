//! Short-lived keys: what the holder of a token gives to a browser, instead of the token.
//!
//! A key is signed and not stored. It names the token that it was made with, and says what that token says,
//! but for streams alone and for a while: its budgets, networks, sessions and revocation are those of the
//! token. The signing key is in the store, so that keys survive a restart, but in no backup.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::secrets::{SHORT_LIVED_PREFIX, random_bytes};

/// Length of the signature in bytes.
const MAC_BYTES: usize = 32;
/// Length of a block of SHA-256 in bytes.
const BLOCK_BYTES: usize = 64;

/// A short-lived key.
#[derive(Debug)]
pub struct ShortLivedKey {
    /// The key itself.
    pub key: SecretString,
    /// Expiry time in milliseconds since the Unix epoch.
    pub expires_at: u64,
}

/// The key of the signatures.
#[derive(Serialize, Deserialize)]
pub(super) struct Signer([u8; 32]);

/// Signed content of a short-lived key.
#[derive(Debug, PartialEq)]
pub(super) struct Claims {
    /// Key of the record of the token that it was made with.
    pub(super) record: String,
    pub(super) expires_at: u64,
    /// Settings of the streams that it opens, which are those of a dialect; often none.
    pub(super) settings: String,
}

impl Signer {
    pub(super) fn random() -> Signer {
        Signer(random_bytes())
    }

    /// Returns a key that says this.
    pub(super) fn sign(&self, claims: &Claims) -> SecretString {
        // Two keys of one token and one moment differ.
        let nonce: [u8; 8] = random_bytes();
        // A key of a record has no line feed.
        let said = format!("{}\n{}", claims.record, claims.settings);
        let mut bytes = [&claims.expires_at.to_be_bytes()[..], &nonce, said.as_bytes()].concat();
        bytes.extend(hmac(&self.0, &bytes));
        SecretString::from(format!("{SHORT_LIVED_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Returns what a key says, if it was signed here.
    pub(super) fn verify(&self, key: &str) -> Option<Claims> {
        let bytes = URL_SAFE_NO_PAD.decode(key.strip_prefix(SHORT_LIVED_PREFIX)?).ok()?;
        let (said, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        if !bool::from(hmac(&self.0, said).ct_eq(mac)) {
            return None;
        }
        let (expires_at, rest) = said.split_first_chunk::<8>()?;
        let (record, settings) = std::str::from_utf8(rest.get(8..)?).ok()?.split_once('\n')?;
        let expires_at = u64::from_be_bytes(*expires_at);
        Some(Claims { record: record.to_owned(), expires_at, settings: settings.to_owned() })
    }
}

/// Returns the HMAC of a message with SHA-256 (RFC 2104).
fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; MAC_BYTES] {
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5C)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        // Computed by Python's hmac module.
        let key: [u8; 32] = std::array::from_fn(|index| index as u8);
        let expected = "292c2b94fb2c0cd87b30403529508248deb713ccc63050816f485ac6ecc55c89";
        assert_eq!(voxline_support::hex(&hmac(&key, b"what a key says")), expected);
    }

    #[test]
    fn only_what_was_signed_here_is_believed() {
        let (signer, other) = (Signer::random(), Signer::random());
        let settings = r#"{"type":"transcription"}"#.to_owned();
        let expires_at = 1_700_000_000_000;
        let claims = || Claims { record: "pr_a/st_b".to_owned(), expires_at, settings: settings.clone() };
        let key = signer.sign(&claims());
        assert_ne!(key.expose_secret(), signer.sign(&claims()).expose_secret());
        assert_eq!(signer.verify(key.expose_secret()), Some(claims()));
        assert_eq!(other.verify(key.expose_secret()), None);
        for index in 0..key.expose_secret().len() {
            let mut changed = key.expose_secret().to_owned().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(signer.verify(std::str::from_utf8(&changed).unwrap()), None, "character {index}");
        }
        for wrong in ["", "ek_", "ek_AAAA", "vxs_AAAA", &format!("{}A", key.expose_secret())] {
            assert_eq!(signer.verify(wrong), None, "{wrong}");
        }
    }
}
