//! Details of a refusal: the JSON body of an unsuccessful response.

use serde_json::Value;

/// Documented code of an invalid token, whose documented status is 400.
const BAD_TOKEN: u64 = 4048;
/// Documented code of a disabled project, whose status is 400.
const INACTIVE_PROJECT: u64 = 4049;
/// Code of a budget that is used up for good, with status 403. Only our own gateway sends it; an invalid
/// token has code 4048.
const USED_UP: u64 = 403;
/// Maximum number of characters of a message that are shown.
const MAX_MESSAGE: usize = 200;
/// Minimum length of a piece of a secret. A message that contains such a piece is not shown. The secrets
/// of our gateway have 256 bits, written as 43 characters or more.
const PIECE: usize = 12;

/// A refusal, as described by the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The service's own error code.
    pub(crate) code: Option<u64>,
    /// Reason in one line that is fit to be shown.
    pub(crate) message: Option<String>,
}

/// Categories of refusals that users distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The service does not accept the token, or not for this request.
    Authentication,
    /// A limit of the service or of the token was reached.
    Limit,
    /// Any other reason.
    Other,
}

impl Refusal {
    /// Parses the body of a response to a request that carried `secrets`. A message that repeats any of
    /// them is dropped.
    pub(crate) fn parse(body: &[u8], secrets: &[&str]) -> Refusal {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        // The service does not document the format of its errors. These paths are those of our gateway,
        // those that clients of the service have seen, and those of RFC 6749 (section 5.2).
        let code = ["/error/code", "/code", "/error_code", "/result/code"];
        let message = ["/error/message", "/error_description", "/message", "/error"];
        Refusal {
            code: code.into_iter().find_map(|place| body.pointer(place)?.as_u64()),
            message: message
                .into_iter()
                .find_map(|place| body.pointer(place)?.as_str())
                .and_then(|message| presentable(message, secrets)),
        }
    }

    /// Returns whether the refusal says that the access token is invalid, whatever its status.
    pub(crate) fn is_of_token(&self) -> bool {
        self.code == Some(BAD_TOKEN)
    }
}

/// Returns the category of a refusal with this status, and with the service's own `code` if it sent one.
pub(crate) fn kind(status: u16, code: Option<u64>) -> Kind {
    match (status, code) {
        (_, Some(BAD_TOKEN | INACTIVE_PROJECT)) => Kind::Authentication,
        (403, Some(USED_UP)) | (429 | 503, _) => Kind::Limit,
        (401 | 403, _) => Kind::Authentication,
        _ => Kind::Other,
    }
}

/// Returns the message as one line of bounded length, without control characters; `None` if nothing is
/// left or if the message contains a piece of a secret.
fn presentable(message: &str, secrets: &[&str]) -> Option<String> {
    let shown: String = message.chars().filter(|c| !is_unsafe_to_print(*c)).take(MAX_MESSAGE).collect();
    let shown = shown.trim();
    let repeats = |secret: &&str| {
        let length = secret.len().min(PIECE);
        length > 0 && secret.as_bytes().windows(length).any(|piece| contains(shown.as_bytes(), piece))
    };
    (!shown.is_empty() && !secrets.iter().any(repeats)).then(|| shown.to_owned())
}

/// Returns whether a character controls the terminal, or reorders or hides the text beside it: control
/// characters, bidirectional formatting (Unicode Annex 9, section 2), line and paragraph separators, and
/// zero-width characters.
fn is_unsafe_to_print(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn contains(text: &[u8], piece: &[u8]) -> bool {
    text.windows(piece.len()).any(|window| window == piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Option<String> {
        Refusal::parse(body.as_bytes(), &["vxa_0123456789abcdef", ""]).message
    }

    #[test]
    fn a_reason_is_found_where_services_put_it() {
        for body in [
            r#"{"qid":"1","error":{"code":4048,"message":"token is not for this address"}}"#,
            r#"{"error":"invalid_client","error_description":"token is not for this address"}"#,
            r#"{"message":"token is not for this address"}"#,
            r#"{"error":"token is not for this address"}"#,
        ] {
            assert_eq!(message(body).as_deref(), Some("token is not for this address"), "{body}");
        }
        for body in ["", "<html>", "[]", r#"{"error":{"message":7}}"#, r#"{"message":"  "}"#] {
            assert_eq!(Refusal::parse(body.as_bytes(), &[]), Refusal::default(), "{body}");
        }
    }

    #[test]
    fn a_reason_is_a_bounded_line_without_orders_to_the_terminal() {
        let long = format!(r#"{{"message":"{}"}}"#, "é".repeat(100_000));
        assert_eq!(message(&long).unwrap(), "é".repeat(MAX_MESSAGE));
        let wild = r#"{"message":"a\u001b[31m\nb\u202e\u0000c\u009b2J"}"#;
        assert_eq!(message(wild).unwrap(), "a[31mbc2J");
    }

    #[test]
    fn a_reason_with_a_piece_of_a_secret_is_left_out() {
        for told in [
            "no vxa_0123456789abcdef here",
            "so vxa_01234567...",
            "is 456789abcdef",
            "as vxa_\\u000001234567",
        ] {
            assert_eq!(message(&format!(r#"{{"message":"{told}"}}"#)), None, "{told}");
        }
        assert!(message(r#"{"message":"tokens begin with vxa_"}"#).is_some());
    }

    #[test]
    fn a_budget_is_a_limit_and_a_token_is_not() {
        assert_eq!(kind(403, Some(403)), Kind::Limit);
        assert_eq!(kind(403, Some(4048)), Kind::Authentication);
        assert_eq!(kind(403, None), Kind::Authentication);
        assert_eq!(kind(400, Some(4048)), Kind::Authentication);
        assert_eq!(kind(400, Some(4049)), Kind::Authentication);
        assert_eq!(kind(400, Some(4051)), Kind::Other);
        assert_eq!(kind(429, Some(429)), Kind::Limit);
        assert_eq!(kind(501, Some(501)), Kind::Other);
    }
}
