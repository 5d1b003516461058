//! Generation and format of secrets and ids.
//!
//! A secret is 256 random bits behind a prefix for its kind, so that a secret scanner finds one in a place
//! where none should be. Only the SHA-256 of a secret is kept: it can't be guessed, so no slow hash is
//! needed. An id is no secret: it names a token in lists, in the audit log and for revocation.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use voxline_support::hex;

/// Prefix of client secrets.
pub const CLIENT_PREFIX: &str = "vxc_";
/// Prefix of refresh tokens.
pub const REFRESH_PREFIX: &str = "vxr_";
/// Prefix of access tokens.
pub const ACCESS_PREFIX: &str = "vxa_";
/// Prefix of service tokens.
pub const SERVICE_PREFIX: &str = "vxs_";
/// Prefix of session keys.
pub const RESUME_PREFIX: &str = "vxk_";
/// Prefix of short-lived keys: that of OpenAI, whose clients for browsers look for it.
pub const SHORT_LIVED_PREFIX: &str = "ek_";

/// Returns whether `secret` has the form of a secret that an authority makes, its own or another's.
pub(crate) fn is_own_secret(secret: &str) -> bool {
    [CLIENT_PREFIX, REFRESH_PREFIX, ACCESS_PREFIX, SERVICE_PREFIX, RESUME_PREFIX, SHORT_LIVED_PREFIX]
        .iter()
        .any(|prefix| secret.starts_with(prefix))
}

/// The SHA-256 of a secret. Its debug output is redacted, since it is the key of the token's look-up.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint(pub(super) [u8; 32]);

impl Fingerprint {
    pub(crate) fn of(secret: &str) -> Fingerprint {
        Fingerprint(Sha256::digest(secret).into())
    }

    /// Returns whether both fingerprints are equal, in constant time.
    pub(crate) fn is(&self, other: &Fingerprint) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Length of the random part of a secret: 256 bits at five bits per character.
const SECRET_LENGTH: usize = 52;
/// Length of the tag that identifies a refresh token's grant: 80 bits, so that a tag can't be guessed.
const TAG_BYTES: usize = 10;

/// The random seed of a grant's refresh tokens. See [`Seed::successor`].
#[derive(Serialize, Deserialize)]
pub(super) struct Seed([u8; 32]);

impl Seed {
    pub(super) fn random() -> Seed {
        Seed(random_bytes())
    }

    /// Returns the first refresh token of a grant.
    pub(super) fn first(&self) -> SecretString {
        self.tagged(&base32(&random_bytes::<32>()))
    }

    /// Returns the refresh token that follows `token`. The successor is deterministic, so that a client that
    /// repeats a request, since the response was lost or two requests ran at once, has one successor and not
    /// several. Neither the token nor the seed alone reveals the successor.
    pub(super) fn successor(&self, token: &SecretString) -> SecretString {
        let digest = Sha256::new().chain_update(self.0).chain_update(token.expose_secret()).finalize();
        self.tagged(&base32(&digest))
    }

    /// Returns whether `token` belongs to this grant, however long ago it was replaced. No list of old tokens
    /// is needed.
    pub(super) fn has_made(&self, token: &SecretString) -> bool {
        let body = token.expose_secret().strip_prefix(REFRESH_PREFIX);
        let parts = body.and_then(|body| body.split_at_checked(SECRET_LENGTH));
        parts.is_some_and(|(secret, tag)| self.tag(secret).as_bytes().ct_eq(tag.as_bytes()).into())
    }

    fn tagged(&self, secret: &str) -> SecretString {
        SecretString::from(format!("{REFRESH_PREFIX}{secret}{}", self.tag(secret)))
    }

    fn tag(&self, secret: &str) -> String {
        // The label separates these hashes from those of successors.
        let hash = Sha256::new().chain_update("grant of a refresh token").chain_update(self.0);
        base32(&hash.chain_update(secret).finalize()[..TAG_BYTES])
    }
}

/// Returns a new secret with this prefix.
pub(crate) fn random_secret(prefix: &str) -> SecretString {
    SecretString::from(format!("{prefix}{}", base32(&random_bytes::<32>())))
}

/// Returns a new id of this kind: 80 random bits, so that ids don't collide.
pub(super) fn random_id(kind: &str) -> String {
    format!("{kind}{}", base32(&random_bytes::<10>()))
}

/// Returns a new client id, in the format that the service's documentation shows.
pub(super) fn random_client_id() -> String {
    let digits = u64::from_le_bytes(random_bytes()) % 10_000_000_000;
    let mut name = base32(&random_bytes::<14>());
    name.truncate(21);
    format!("mcs{digits:010}.voice.{name}")
}

/// Returns a new id: a version 4 UUID without hyphens, as the service writes it.
pub(crate) fn new_id() -> String {
    let mut bytes: [u8; 16] = random_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    hex(&bytes)
}

/// Encodes five bits per character, without padding (the alphabet of RFC 4648 in lower case).
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |index: usize| bytes.get(index / 8).is_some_and(|byte| byte >> (7 - index % 8) & 1 == 1);
    let character = |first: usize| {
        let number = (first..first + 5).fold(0, |number, index| number << 1 | usize::from(bit(index)));
        char::from(ALPHABET[number])
    };
    (0..8 * bytes.len()).step_by(5).map(character).collect()
}

/// Returns random bytes of the system's generator. Without the generator no secret can be made, and the
/// process panics.
#[expect(clippy::disallowed_methods, reason = "this is where the gateway's secrets and ids come from")]
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has a random generator");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_all_the_bits() {
        // RFC 4648, section 10, in lower case and without padding.
        for (bytes, text) in [("f", "my"), ("fo", "mzxq"), ("foob", "mzxw6yq"), ("fooba", "mzxw6ytb")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        // 52 characters of five bits hold 256.
        assert_eq!(random_secret(ACCESS_PREFIX).expose_secret().len(), "vxa_".len() + SECRET_LENGTH);
    }

    #[test]
    fn a_client_id_has_the_documented_shape() {
        let id = random_client_id();
        let (number, name) = id.strip_prefix("mcs").and_then(|id| id.split_once(".voice.")).unwrap();
        assert_eq!((number.len(), name.len()), (10, 21));
        assert!(number.bytes().all(|digit| digit.is_ascii_digit()));
    }

    #[test]
    fn a_token_has_one_successor() {
        let (seed, token) = (Seed::random(), random_secret(REFRESH_PREFIX));
        let successor = seed.successor(&token);
        assert_eq!(successor.expose_secret(), seed.successor(&token).expose_secret());
        assert_ne!(successor.expose_secret(), Seed::random().successor(&token).expose_secret());
        assert_ne!(successor.expose_secret(), seed.successor(&successor).expose_secret());
    }

    #[test]
    fn a_token_is_known_to_its_grant_alone() {
        let (seed, other) = (Seed::random(), Seed::random());
        let mut token = seed.first();
        for _ in 0..10 {
            assert!(seed.has_made(&token) && !other.has_made(&token));
            let text = token.expose_secret();
            for index in 0..text.len() {
                let mut changed = text.to_owned().into_bytes();
                changed[index] = if changed[index] == b'a' { b'b' } else { b'a' };
                let changed = SecretString::from(String::from_utf8(changed).unwrap());
                assert!(!seed.has_made(&changed), "character {index}");
            }
            for wrong in [&text[..text.len() - 1], &text[..20], "", "vxr_"] {
                assert!(!seed.has_made(&SecretString::from(wrong)));
            }
            token = seed.successor(&token);
        }
        // Tokens minted before grants had tags.
        assert!(!seed.has_made(&random_secret(REFRESH_PREFIX)));
    }
}
