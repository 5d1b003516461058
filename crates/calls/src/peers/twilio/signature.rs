//! Signatures of Twilio's requests.
//!
//! The source is the page "Security" of Twilio's documentation. A request has the header [`HEADER`], which is
//! the base64 of an HMAC with SHA-1 over the whole URL, as the operator gave it to Twilio, followed by the
//! sorted parameters of a form. The upgrade to a WebSocket has no form. The key is the account's auth token.
//!
//! Behind a proxy the URL is not the one that this machine sees: the scheme is `wss`, and the host that of
//! the operator's TwiML. So the caller puts it together from the configuration.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// Name of the header.
pub const HEADER: &str = "x-twilio-signature";

/// Returns whether a signature was made with the token for this URL, in a time that does not depend on how
/// much of the signature is right.
#[must_use]
pub fn verify(auth_token: &str, url: &str, signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else { return false };
    let mut mac = Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(url.as_bytes());
    mac.verify_slice(&signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by Python: `base64.b64encode(hmac.new(token, url, "sha1").digest())`.
    const TOKEN: &str = "12345678901234567890123456789012";
    const URL: &str = "wss://calls.example.com/twilio/inbound";
    const SIGNATURE: &str = "L+JjXHdpfaKRhr2pnXSD22STXng=";

    #[test]
    fn what_twilio_signed_is_believed() {
        assert!(verify(TOKEN, URL, SIGNATURE));
    }

    #[test]
    fn nothing_else_is_believed() {
        assert!(!verify(TOKEN, "wss://calls.example.com/twilio/inbound/", SIGNATURE));
        assert!(!verify("12345678901234567890123456789013", URL, SIGNATURE));
        assert!(!verify(TOKEN, URL, &SIGNATURE.to_lowercase()));
        for wrong in ["", "=", "AAAA", &SIGNATURE[..24], &format!("{SIGNATURE}AAAA"), "%"] {
            assert!(!verify(TOKEN, URL, wrong), "{wrong}");
        }
        for index in 0..27 {
            let mut other = SIGNATURE.to_owned().into_bytes();
            other[index] = if other[index] == b'A' { b'B' } else { b'A' };
            assert!(!verify(TOKEN, URL, &String::from_utf8(other).expect("ASCII")), "{index}");
        }
    }

    #[test]
    fn the_mac_is_that_of_the_standard() {
        // RFC 2202, test case 2 of HMAC-SHA-1, in base64.
        let digest = "7/zfauXrL6LSdBbV8YTfnCWafHk=";
        assert!(verify("Jefe", "what do ya want for nothing?", digest));
    }
}
