//! Token renewal as a state machine: when to renew, and what callers get meanwhile, without clock, disk
//! or network.
//!
//! [`Renewal::ask`] serves a caller, and [`Renewal::next`] returns the next step: to wait or to renew.
//! One renewal is in progress at a time, and all callers share its outcome.

use std::time::Duration;

use secrecy::SecretString;

use super::error::AuthError;
use super::token::{AccessToken, TokenGeneration, TokenSet};
use crate::recovery::Recovery;
use voxline_support::clock::Moment;
use voxline_support::random::Random;

/// Ceiling of the random wait after the first failure. The ceiling doubles with each failure (full
/// jitter: many clients that failed together do not retry together). After [`DOUBLINGS`] failures the
/// wait is [`LAST_WAIT`] plus up to [`LAST_SPREAD`]: an endpoint that is down for an hour is asked at
/// most 70 times, and is back in use within a minute of its recovery.
const FIRST_CEILING: Duration = Duration::from_secs(2);
const DOUBLINGS: u32 = 5;
const LAST_WAIT: Duration = Duration::from_secs(57);
const LAST_SPREAD: Duration = Duration::from_secs(3);
/// Longest `Retry-After` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Age below which a refused replacement token is rejected for good, provided that less than half of its
/// lifetime has passed. Such a token replaced a refused one and cannot have been refused for its age, so
/// another one would be refused, too.
const FRESH: Duration = Duration::from_secs(60);

/// Response to a caller that asks for a token.
#[derive(Debug)]
pub enum TokenLookup {
    /// An unexpired token.
    Token(AccessToken),
    /// A renewal is due: ask again when it is done.
    Wait,
    /// No token is available.
    Failed(AuthError),
}

/// Next step of the renewal task.
#[derive(Debug)]
pub enum Step {
    /// Obtain a token other than `stale`, then call [`Renewal::done`].
    Renew {
        /// Access token in force, which was refused or is about to expire.
        stale: Option<SecretString>,
    },
    /// Wait for this long, unless a caller asks.
    Wait(Duration),
    /// Wait until a caller asks, or until the renewal in progress is done.
    Idle,
}

/// Result of a successful renewal.
#[derive(Debug)]
pub struct Renewed {
    /// Granted tokens.
    pub tokens: TokenSet,
    /// True if another process had obtained the tokens before. It is then unknown if they replaced
    /// refused ones.
    pub shared: bool,
}

/// The token in force, and the state of its renewal.
#[derive(Debug)]
pub struct Renewal {
    endpoint: String,
    held: Option<Held>,
    generation: TokenGeneration,
    /// True if a caller waits for a newer token than the one in force.
    wanted: bool,
    /// True if the token in force was refused.
    refused: bool,
    /// Start of the renewal in progress.
    under_way: Option<Moment>,
    failed: Option<Failed>,
    random: Random,
}

#[derive(Debug)]
struct Held {
    tokens: TokenSet,
    /// Time before the token's expiry at which its renewal is due.
    lead: Duration,
    /// True if the token replaced a refused one.
    by_refusal: bool,
}

/// The failed renewals since the last success.
#[derive(Debug)]
struct Failed {
    error: AuthError,
    count: u32,
    /// Start of the last renewal. `wait` counts from this moment, so that the duration of a slow renewal
    /// is part of the wait.
    began: Moment,
    wait: Duration,
}

impl Failed {
    /// Returns the time until the next attempt. If no clock can tell the age (the clock was set back and
    /// the machine rebooted), the attempt is due now.
    fn left(&self, now: &Moment) -> Duration {
        self.began.age(now).map_or(Duration::ZERO, |age| self.wait.saturating_sub(age))
    }

    fn is_transient(&self) -> bool {
        self.error.recovery() != Recovery::Fatal
    }
}

impl Renewal {
    /// Creates a renewal without a token. `seed` determines the jitter of the waits.
    pub fn new(endpoint: String, seed: u64) -> Renewal {
        Renewal {
            endpoint,
            held: None,
            generation: TokenGeneration::default(),
            wanted: false,
            refused: false,
            under_way: None,
            failed: None,
            random: Random::new(seed),
        }
    }

    /// Returns a token to a caller. `newer_than` names a token that was refused or is about to expire,
    /// and must not be returned again.
    pub fn ask(&mut self, newer_than: Option<TokenGeneration>, now: &Moment) -> TokenLookup {
        let stale = newer_than.is_some_and(|stale| self.generation <= stale);
        if let Some(held) = &self.held {
            let left = held.tokens.left(now);
            let age = held.tokens.lifetime.saturating_sub(left);
            // Close to the token's expiry, a caller may ask because of a refusal or merely ahead of the
            // expiry.
            if stale && left > held.tokens.margin() {
                if held.by_refusal && age < FRESH && left > age {
                    return TokenLookup::Failed(AuthError::Rejected { endpoint: self.endpoint.clone() });
                }
                self.refused = true;
            }
            if !stale && !self.refused && !left.is_zero() {
                return match AccessToken::new(&held.tokens.access, self.generation) {
                    Some(token) => TokenLookup::Token(token.with_lifetime(left)),
                    None => TokenLookup::Failed(AuthError::Token("access token")),
                };
            }
        }
        match &self.failed {
            Some(failed) if self.under_way.is_none() && !failed.left(now).is_zero() => {
                let error = Box::new(failed.error.clone());
                TokenLookup::Failed(AuthError::Waiting { error, wait: failed.left(now) })
            }
            _ => {
                self.wanted = true;
                TokenLookup::Wait
            }
        }
    }

    /// Returns the next step. [`Step::Renew`] is returned once for each renewal.
    pub fn next(&mut self, now: &Moment) -> Step {
        if self.under_way.is_some() {
            return Step::Idle;
        }
        let until_due = self.held.as_ref().map(|held| held.tokens.left(now).saturating_sub(held.lead));
        let until_wanted = if self.wanted { Some(Duration::ZERO) } else { until_due };
        let Some(wait) = until_wanted else { return Step::Idle };
        let wait = match &self.failed {
            // After a fatal error, retry only while the old token is still valid, or if a caller asks.
            Some(failed) if !self.wanted && !failed.is_transient() && !self.is_token_valid(now) => {
                return Step::Idle;
            }
            Some(failed) => wait.max(failed.left(now)),
            None => wait,
        };
        if !wait.is_zero() {
            return Step::Wait(wait);
        }
        self.under_way = Some(now.clone());
        Step::Renew { stale: self.held.as_ref().map(|held| held.tokens.access.clone()) }
    }

    /// Records the outcome of a renewal. Returns the error if there is still no other token.
    pub fn done(&mut self, outcome: Result<Renewed, AuthError>, now: &Moment) -> Result<(), AuthError> {
        let began = self.under_way.take().unwrap_or_else(|| now.clone());
        self.wanted = false;
        let endpoint = || self.endpoint.clone();
        let outcome = outcome.and_then(|renewed| match renewed.tokens.lifetime {
            Duration::ZERO => Err(AuthError::InvalidResponse {
                endpoint: endpoint(),
                missing: "a positive lifetime of the token",
            }),
            _ if renewed.tokens.is_expired(now) => Err(AuthError::Late { endpoint: endpoint() }),
            _ => Ok(renewed),
        });
        match outcome {
            Ok(Renewed { tokens, shared }) => {
                let margin = tokens.margin();
                let lead = margin - self.random.up_to(margin / 2);
                let by_refusal = std::mem::take(&mut self.refused) && !shared;
                self.held = Some(Held { tokens, lead, by_refusal });
                self.generation.0 += 1;
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                self.schedule_retry(error.clone(), began, now);
                Err(error)
            }
        }
    }

    /// Schedules the next attempt after the renewal that began at `began` failed.
    fn schedule_retry(&mut self, error: AuthError, began: Moment, now: &Moment) {
        let count = self.failed.as_ref().map_or(0, |failed| failed.count).saturating_add(1);
        let pause = match count {
            1..=DOUBLINGS => self.random.up_to(FIRST_CEILING * 2_u32.pow(count - 1)),
            _ => LAST_WAIT + self.random.up_to(LAST_SPREAD),
        };
        let wait = match error.recovery() {
            Recovery::RetryAfter(asked) => {
                let took = began.age(now).unwrap_or_default();
                pause.max(took + asked.min(LONGEST_RETRY_AFTER))
            }
            _ => pause,
        };
        self.failed = Some(Failed { error, count, began, wait });
    }

    /// Returns whether the token in force is unexpired.
    pub fn is_token_valid(&self, now: &Moment) -> bool {
        self.held.as_ref().is_some_and(|held| !held.tokens.is_expired(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::error::Refusal;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(seconds: u64) -> Moment {
        let time = Duration::from_secs(seconds);
        Moment { unix: time, since_boot: time, boot: "boot".into() }
    }

    fn renewal(seed: u64) -> Renewal {
        Renewal::new("http://localhost".to_owned(), seed)
    }

    fn tokens(access: &str, granted: u64, lifetime: Duration) -> TokenSet {
        let access = SecretString::from(access);
        TokenSet { access, refresh: None, granted: at(granted), lifetime, scope: None }
    }

    /// Asks for a token, and completes the renewal with `tokens`.
    fn renew(renewal: &mut Renewal, newer_than: Option<u64>, tokens: TokenSet, shared: bool, now: u64) {
        let newer_than = newer_than.map(TokenGeneration);
        assert!(matches!(renewal.ask(newer_than, &at(now)), TokenLookup::Wait));
        assert!(matches!(renewal.next(&at(now)), Step::Renew { .. }));
        renewal.done(Ok(Renewed { tokens, shared }), &at(now)).unwrap();
    }

    #[test]
    fn tokens_are_renewed_early_enough_and_not_by_everybody_at_once() {
        let lead = |seed| {
            let mut renewal = renewal(seed);
            renew(&mut renewal, None, tokens("one", 0, HOUR), false, 0);
            let Step::Wait(wait) = renewal.next(&at(0)) else { panic!("nothing is due yet") };
            HOUR - wait
        };
        let leads: Vec<u64> = (0..200).map(|seed| lead(seed).as_secs()).collect();
        let (least, most) = (leads.iter().min().unwrap(), leads.iter().max().unwrap());
        assert!((150..165).contains(least) && (285..=300).contains(most), "{least} to {most} s");
    }

    /// A token that another process obtained may be refused for its age: this process does not know
    /// whether the token replaced a refused one.
    #[test]
    fn a_refused_token_of_another_process_is_replaced() {
        for shared in [false, true] {
            let mut renewal = renewal(1);
            renew(&mut renewal, None, tokens("one", 0, HOUR), false, 0);
            renew(&mut renewal, Some(1), tokens("two", 10, HOUR), shared, 10);
            let answer = renewal.ask(Some(TokenGeneration(2)), &at(20));
            let rejected = matches!(answer, TokenLookup::Failed(AuthError::Rejected { .. }));
            assert_eq!(rejected, !shared, "{answer:?}");
        }
    }

    /// A token with a lifetime under two minutes may be refused for its age within one minute.
    #[test]
    fn a_token_in_the_second_half_of_a_short_life_is_replaced() {
        for (age, is_rejected) in [(20, true), (40, false)] {
            let mut renewal = renewal(1);
            let life = Duration::from_secs(70);
            renew(&mut renewal, None, tokens("one", 0, life), false, 0);
            renew(&mut renewal, Some(1), tokens("two", 10, life), false, 10);
            let answer = renewal.ask(Some(TokenGeneration(2)), &at(10 + age));
            let rejected = matches!(answer, TokenLookup::Failed(AuthError::Rejected { .. }));
            assert_eq!(rejected, is_rejected, "{answer:?} at an age of {age} s");
        }
    }

    /// Lets a request that starts at `now` and takes `took` seconds fail with `Retry-After`. Returns the
    /// wait before the next request, counted from `now`.
    fn schedule_retry(renewal: &mut Renewal, now: u64, took: u64, retry_after: u64) -> Duration {
        assert!(matches!(renewal.ask(None, &at(now)), TokenLookup::Wait));
        assert!(matches!(renewal.next(&at(now)), Step::Renew { .. }));
        let recovery = Recovery::RetryAfter(Duration::from_secs(retry_after));
        let endpoint = "http://localhost".to_owned();
        let error = AuthError::Refused {
            endpoint,
            grant: "refresh_token",
            status: 503,
            reason: Refusal::Unknown,
            message: None,
            recovery,
        };
        renewal.done(Err(error), &at(now + took)).unwrap_err();
        let failed = renewal.failed.as_ref().unwrap();
        Duration::from_secs(took) + failed.left(&at(now + took))
    }

    /// `Retry-After` counts from the response, not from the request.
    #[test]
    fn what_the_service_asks_for_counts_from_its_answer() {
        for seed in 0..100 {
            let wait = schedule_retry(&mut renewal(seed), 0, 15, 30);
            assert_eq!(wait, Duration::from_secs(45), "seed {seed}");
        }
    }

    #[test]
    fn a_service_that_asks_for_no_pause_is_given_one() {
        let mut renewal = renewal(1);
        let mut now = 0;
        for count in 1..20 {
            let wait = schedule_retry(&mut renewal, now, 0, 0);
            assert!(count <= DOUBLINGS || wait >= LAST_WAIT, "{wait:?} after {count} failures");
            now += wait.as_secs() + 1;
        }
    }
}
