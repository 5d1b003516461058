//! Format of a vault's file: a line with version, form and checksum, then an account as JSON, in plain
//! text or encrypted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Account;
use crate::auth::slots::Slots;
use crate::auth::token::{RefreshToken, Scope, TokenSet};
use voxline_support::clock::Moment;
use voxline_support::hex;

/// Version of the format. A file of a later version is neither read nor changed.
const VERSION: u32 = 2;
const MAGIC: &str = "voxline-vault";
const PLAIN: &str = "plain";
const ENCRYPTED: &str = "xchacha20poly1305";

/// A 256-bit key that encrypts a vault.
#[derive(Clone)]
pub struct VaultKey(Arc<SecretBox<[u8; 32]>>);

impl VaultKey {
    /// Parses the contents of a key file: 32 raw bytes, or 64 hexadecimal digits. Returns `None` if they
    /// are neither.
    #[must_use]
    pub fn parse(file: &[u8]) -> Option<VaultKey> {
        let mut key = SecretBox::new(Box::new([0; 32]));
        if let Ok(raw) = <&[u8; 32]>::try_from(file)
            // 32 printable characters are half of a hexadecimal key, or a password.
            && !raw.iter().all(u8::is_ascii_graphic)
        {
            key.expose_secret_mut().copy_from_slice(raw);
            return Some(VaultKey(Arc::new(key)));
        }
        let text = std::str::from_utf8(file).ok()?.trim();
        bytes_of(text, key.expose_secret_mut())?;
        Some(VaultKey(Arc::new(key)))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.expose_secret().into())
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultKey([redacted])")
    }
}

/// Reason why the contents of a file are not an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentsError {
    /// The contents differ from what was written.
    Damaged,
    /// The contents were written by a later version.
    Newer,
    /// The contents are encrypted, and no key is given.
    NoKey,
    /// The contents are encrypted by another key, or damaged: the two cannot be distinguished.
    Undecryptable,
}

/// Serialized form of an account.
#[derive(Serialize, Deserialize)]
struct StoredAccount {
    tokens: Option<StoredTokens>,
    slots: Slots,
    #[serde(default)]
    refreshing: bool,
}

impl From<&Account> for StoredAccount {
    fn from(account: &Account) -> StoredAccount {
        StoredAccount {
            tokens: account.tokens.as_ref().map(StoredTokens::from),
            slots: account.slots.clone(),
            refreshing: account.refreshing,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredTokens {
    access_token: String,
    refresh_token: Option<String>,
    granted: Moment,
    lifetime: Duration,
    scope: Option<Scope>,
}

impl From<&TokenSet> for StoredTokens {
    fn from(tokens: &TokenSet) -> StoredTokens {
        StoredTokens {
            access_token: tokens.access.expose_secret().to_owned(),
            refresh_token: tokens.refresh.as_ref().map(|token| token.0.expose_secret().to_owned()),
            granted: tokens.granted.clone(),
            lifetime: tokens.lifetime,
            scope: tokens.scope.clone(),
        }
    }
}

impl From<StoredTokens> for TokenSet {
    fn from(stored: StoredTokens) -> TokenSet {
        TokenSet {
            access: SecretString::from(stored.access_token),
            refresh: stored.refresh_token.map(|token| RefreshToken(SecretString::from(token))),
            granted: stored.granted,
            lifetime: stored.lifetime,
            scope: stored.scope,
        }
    }
}

/// Encodes `account` as a file, encrypted if `key` is given.
pub(super) fn encode(account: &Account, key: Option<&VaultKey>) -> Vec<u8> {
    let body = serde_json::to_vec(&StoredAccount::from(account)).expect("an account is strings and numbers");
    let (form, check, body) = match key {
        None => (PLAIN, hex(&Sha256::digest(&body)), body),
        Some(key) => {
            let nonce = random_nonce();
            let check = hex(&nonce);
            let aad = header(ENCRYPTED, &check);
            let payload = Payload { msg: &body, aad: aad.as_bytes() };
            let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload).expect("a few kilobytes");
            (ENCRYPTED, check, sealed)
        }
    };
    let mut file = header(form, &check).into_bytes();
    file.extend(body);
    file
}

/// Decodes the account in a file.
pub(super) fn decode(file: &[u8], key: Option<&VaultKey>) -> Result<Account, ContentsError> {
    let end = file.iter().position(|byte| *byte == b'\n').ok_or(ContentsError::Damaged)?;
    let (line, body) = file.split_at(end + 1);
    let words: Vec<&str> =
        std::str::from_utf8(line).map_err(|_| ContentsError::Damaged)?.split_whitespace().collect();
    let [MAGIC, version, rest @ ..] = &words[..] else { return Err(ContentsError::Damaged) };
    match version.parse::<u32>() {
        Ok(VERSION) => {}
        Ok(version) if version > VERSION => return Err(ContentsError::Newer),
        _ => return Err(ContentsError::Damaged),
    }
    let opened;
    let body = match (rest, key) {
        ([PLAIN, check], _) if *check == hex(&Sha256::digest(body)) => body,
        ([ENCRYPTED, _], None) => return Err(ContentsError::NoKey),
        ([ENCRYPTED, nonce], Some(key)) => {
            let mut bytes = [0; 24];
            bytes_of(nonce, &mut bytes).ok_or(ContentsError::Damaged)?;
            let payload = Payload { msg: body, aad: line };
            let plain = key.cipher().decrypt(&XNonce::from(bytes), payload);
            opened = SecretBox::new(Box::new(plain.map_err(|_| ContentsError::Undecryptable)?));
            opened.expose_secret()
        }
        _ => return Err(ContentsError::Damaged),
    };
    let stored: StoredAccount = serde_json::from_slice(body).map_err(|_| ContentsError::Damaged)?;
    let StoredAccount { tokens, slots, refreshing } = stored;
    Ok(Account { tokens: tokens.map(TokenSet::from), slots, refreshing })
}

fn header(form: &str, check: &str) -> String {
    format!("{MAGIC} {VERSION} {form} {check}\n")
}

/// Fills `bytes` from exactly as many pairs of hexadecimal digits.
fn bytes_of(hex: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * bytes.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(())
}

/// Returns a nonce from the system's random generator: 192 bits, so that no two files of one key ever
/// share a nonce.
#[expect(clippy::disallowed_methods, reason = "a nonce is random, and used here alone")]
fn random_nonce() -> [u8; 24] {
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).expect("the system has a random generator");
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let granted =
            Moment { unix: Duration::from_secs(9), since_boot: Duration::from_secs(1), boot: "b".into() };
        let tokens = TokenSet {
            access: SecretString::from("access"),
            refresh: Some(RefreshToken(SecretString::from("refresh"))),
            granted,
            lifetime: Duration::from_secs(3600),
            scope: Some(Scope(["tts".to_owned()].into())),
        };
        Account { tokens: Some(tokens), ..Account::default() }
    }

    fn key(byte: u8) -> VaultKey {
        VaultKey::parse(&[byte; 32]).unwrap()
    }

    fn text(account: &Account) -> String {
        serde_json::to_string(&StoredAccount::from(account)).unwrap()
    }

    #[test]
    fn what_was_written_is_read_again() {
        for key in [None, Some(key(1))] {
            let file = encode(&account(), key.as_ref());
            assert_eq!(text(&decode(&file, key.as_ref()).unwrap()), text(&account()));
            assert_eq!(key.is_some(), !String::from_utf8_lossy(&file).contains("refresh"));
        }
        // A plain file stays readable after a key was configured.
        assert!(decode(&encode(&account(), None), Some(&key(1))).is_ok());
    }

    #[test]
    fn no_changed_byte_goes_unnoticed() {
        for key in [None, Some(key(1))] {
            let file = encode(&account(), key.as_ref());
            for index in 0..file.len() {
                let mut changed = file.clone();
                changed[index] ^= 1;
                assert!(decode(&changed, key.as_ref()).is_err(), "byte {index}");
                assert!(decode(&file[..index], key.as_ref()).is_err(), "{index} bytes");
            }
        }
    }

    #[test]
    fn a_file_says_why_it_cannot_be_read() {
        let (sealed, other) = (encode(&account(), Some(&key(1))), key(2));
        let reason = |file: &[u8], key| decode(file, key).err().unwrap();
        assert_eq!(reason(&sealed, None), ContentsError::NoKey);
        assert_eq!(reason(&sealed, Some(&other)), ContentsError::Undecryptable);
        assert_eq!(reason(b"voxline-vault 3 new\n", None), ContentsError::Newer);
        assert_eq!(reason(b"{}", None), ContentsError::Damaged);
    }

    #[test]
    fn a_key_is_raw_or_hexadecimal() {
        assert!(VaultKey::parse(&[7; 32]).is_some());
        let digits = hex(&[7; 32]);
        let same = VaultKey::parse(format!("{digits}\n").as_bytes()).unwrap();
        assert_eq!(same.0.expose_secret(), &[7; 32]);
        for bad in ["", "short", &digits[1..], &digits[..32], &digits.replace('0', "g")] {
            assert!(VaultKey::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(format!("{same:?}"), "VaultKey([redacted])");
    }
}
