//! The credential of a socket: its token, and the expiry of the token.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::authority::{Authority, AuthorityError, Identity};

/// Divisor of a token's life: the client is warned of the expiry when this part of the life is left. That
/// leaves time to fetch the next token, however long or short tokens live.
const WARNING_PART: u32 = 10;
/// Longest time before its expiry at which the client of a token is warned.
const WARNING_LIMIT: Duration = Duration::from_secs(30);

/// Expiry of the token that a socket runs under, and the time at which the client is warned of it.
pub(crate) struct TokenExpiry {
    ends: Option<Instant>,
    pub(crate) warn: Option<Instant>,
}

impl TokenExpiry {
    /// Returns the expiry of a token that lives for `expires_in` from `now` on; without `expires_in` there
    /// is none.
    pub(crate) fn new(expires_in: Option<Duration>, now: Instant) -> TokenExpiry {
        let life = expires_in.filter(|life| now.checked_add(*life).is_some());
        let warning = |life: Duration| (life / WARNING_PART).min(WARNING_LIMIT);
        TokenExpiry { ends: life.map(|life| now + life), warn: life.map(|life| now + (life - warning(life))) }
    }

    /// Returns the rest of the token's life.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_duration_since(now))
    }

    /// Returns the time of the next event. The warning always comes before the expiry, however late both
    /// are noticed.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.warn.or(self.ends)
    }
}

/// The token that a socket runs under, and the address of the client.
pub(crate) struct Credential {
    pub(crate) identity: Identity,
    pub(crate) expiry: TokenExpiry,
    pub(crate) peer: Option<IpAddr>,
}

impl Credential {
    /// Creates the credential for a token that was checked at `now`.
    pub(crate) fn new(identity: Identity, peer: Option<IpAddr>, now: Instant) -> Credential {
        let expiry = TokenExpiry::new(identity.expires_in, now);
        Credential { identity, expiry, peer }
    }
}

/// The token that a session began with, for clients that can't send another one. Its life limits the
/// beginning alone: the session goes on after the token has expired, but not after it was revoked.
pub(crate) struct OpeningToken {
    pub(crate) identity: Identity,
    /// Expiry of the token, on the authority's clock. Of a short-lived key, it is that of the token that it
    /// was made with: the revocation of that token ends the session.
    expires_at: Option<Duration>,
}

impl OpeningToken {
    /// Creates the record of a token whose check began at `checked`, on the authority's clock. An expiry
    /// that is too early keeps a session whose token was not revoked; one that is too late would take an
    /// expired token for a revoked one.
    pub(crate) fn new(identity: Identity, checked: Duration) -> OpeningToken {
        let expires_at = identity.token_expires_in().map(|left| checked.saturating_add(left));
        OpeningToken { identity, expires_at }
    }

    /// Checks that the token was not revoked, or after its expiry, that its project is active.
    pub(crate) fn check(&self, authority: &Authority) -> Result<(), AuthorityError> {
        let has_expired = || self.expires_at.is_some_and(|end| authority.clock().unix() >= end);
        match authority.check_again(&self.identity) {
            // Look at the expiry after the check: the token may expire between the two.
            Err(_) if has_expired() => authority.check_project(&self.identity),
            checked => checked.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an Instant can't be made otherwise")]
    fn the_expiry_warning_leaves_a_tenth_of_the_life_or_half_a_minute() {
        let now = Instant::now();
        let warned = |seconds| {
            let end = TokenExpiry::new(Some(Duration::from_secs(seconds)), now);
            end.ends.unwrap() - end.warn.unwrap()
        };
        assert_eq!(warned(1), Duration::from_millis(100));
        assert_eq!(warned(60), Duration::from_secs(6));
        assert_eq!(warned(3_600), Duration::from_secs(30));
        // An expiry too far away for an `Instant`, like no expiry, never comes.
        for endless in [Some(Duration::MAX), None] {
            assert_eq!(TokenExpiry::new(endless, now).next(), None);
        }
    }
}
