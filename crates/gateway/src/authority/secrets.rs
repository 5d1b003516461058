//! Secrets and ids: where they come from, and how they look.
//!
//! A secret is 256 random bits behind a prefix that says what it opens, so that a scanner finds one in a place where
//! none should be. It is kept as SHA-256 only: there is nothing to guess, and no need for a slow hash. An id is no
//! secret: it names a token in lists, in the audit and to revoke it.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What each secret of a client begins with.
pub const CLIENT_PREFIX: &str = "vxc_";
/// What each refresh token begins with.
pub const REFRESH_PREFIX: &str = "vxr_";
/// What each access token begins with.
pub const ACCESS_PREFIX: &str = "vxa_";
/// What each service token begins with.
pub const SERVICE_PREFIX: &str = "vxs_";
/// What each key of a session begins with.
pub const RESUME_PREFIX: &str = "vxk_";

/// The SHA-256 of a secret. What finds a token is still nothing to print.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint(pub(super) [u8; 32]);

impl Fingerprint {
    pub(crate) fn of(secret: &str) -> Fingerprint {
        Fingerprint(Sha256::digest(secret).into())
    }

    /// Whether both are of one secret, in a time that says nothing of either.
    pub(crate) fn is(&self, other: &Fingerprint) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The length of the random part of a secret: 256 bits, five to a character.
const SECRET_LENGTH: usize = 52;
/// The length of the tag that names a refresh token's grant: 80 bits, so that nobody guesses one.
const TAG_BYTES: usize = 10;

/// Random bits from which the refresh tokens of a grant are made. See [`Seed::successor`].
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

    /// The refresh token that follows `token`: always the same one, so that a client that asks again, since it lost the
    /// answer or asked twice at once, has one successor and not several. Whoever has only the token, or only the seed,
    /// can't know it.
    pub(super) fn successor(&self, token: &SecretString) -> SecretString {
        let digest = Sha256::new().chain_update(self.0).chain_update(token.expose_secret()).finalize();
        self.tagged(&base32(&digest))
    }

    /// Returns whether `token` is of this grant, however long ago it was replaced. No list of old tokens is
    /// kept for that.
    pub(super) fn has_made(&self, token: &SecretString) -> bool {
        let body = token.expose_secret().strip_prefix(REFRESH_PREFIX);
        let parts = body.and_then(|body| body.split_at_checked(SECRET_LENGTH));
        parts.is_some_and(|(secret, tag)| self.tag(secret).as_bytes().ct_eq(tag.as_bytes()).into())
    }

    fn tagged(&self, secret: &str) -> SecretString {
        SecretString::from(format!("{REFRESH_PREFIX}{secret}{}", self.tag(secret)))
    }

    fn tag(&self, secret: &str) -> String {
        // The label keeps these hashes apart from those that are successors.
        let hash = Sha256::new().chain_update("grant of a refresh token").chain_update(self.0);
        base32(&hash.chain_update(secret).finalize()[..TAG_BYTES])
    }
}

/// A new secret with this prefix.
pub(crate) fn random_secret(prefix: &str) -> SecretString {
    SecretString::from(format!("{prefix}{}", base32(&random_bytes::<32>())))
}

/// A new id of this kind: 80 bits, so that no two are ever the same.
pub(super) fn random_id(kind: &str) -> String {
    format!("{kind}{}", base32(&random_bytes::<10>()))
}

/// A new client id, in the shape that the service's documentation shows.
pub(super) fn random_client_id() -> String {
    let digits = u64::from_le_bytes(random_bytes()) % 10_000_000_000;
    let mut name = base32(&random_bytes::<14>());
    name.truncate(21);
    format!("mcs{digits:010}.voice.{name}")
}

/// Five bits a character, without padding (the alphabet of RFC 4648 in lower case).
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |index: usize| bytes.get(index / 8).is_some_and(|byte| byte >> (7 - index % 8) & 1 == 1);
    let character = |first: usize| {
        let number = (first..first + 5).fold(0, |number, index| number << 1 | usize::from(bit(index)));
        char::from(ALPHABET[number])
    };
    (0..8 * bytes.len()).step_by(5).map(character).collect()
}

/// From the system's generator. Without it no secret can be made, and the process must not go on.
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
        // Those made before grants had tags.
        assert!(!seed.has_made(&random_secret(REFRESH_PREFIX)));
    }
}
