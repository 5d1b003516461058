//! When a token is renewed, and what callers are told meanwhile: the provider's logic, without clock, disk or network.
//!
//! [`Renewal::ask`] answers a caller; [`Renewal::next`] tells what to do next: wait, or renew. However many ask, one
//! renewal is under way at a time, and its outcome is everybody's.

use std::time::Duration;

use secrecy::SecretString;

use super::error::AuthError;
use super::token::{AccessToken, TokenGeneration, TokenSet};
use crate::recovery::Recovery;
use voxline_support::clock::Moment;
use voxline_support::random::Random;

/// After the first failures the wait is anything up to a ceiling that doubles from [`FIRST_CEILING`] ("full jitter":
/// many clients that failed together don't come back together). After [`DOUBLINGS`] of them it is [`LAST_WAIT`] and some
/// spread: so an endpoint that is down for an hour is asked at most 70 times, and is back in use a minute after it is back.
const FIRST_CEILING: Duration = Duration::from_secs(2);
const DOUBLINGS: u32 = 5;
const LAST_WAIT: Duration = Duration::from_secs(57);
const LAST_SPREAD: Duration = Duration::from_secs(3);
/// The longest `Retry-After` that is believed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// A token that replaced a refused one and is refused within this time, and within half of its life, is refused for
/// another reason than its age: one more would be refused, too.
const FRESH: Duration = Duration::from_secs(60);

/// What a caller is told.
#[derive(Debug)]
pub enum Answer {
    /// A token that lives.
    Token(AccessToken),
    /// A renewal is due: ask again when it is done.
    Wait,
    /// There is none.
    Failed(AuthError),
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Get a token other than this one, which is refused or at its end, then say [`Renewal::done`].
    Renew {
        /// The token in force.
        stale: Option<SecretString>,
    },
    /// Nothing for so long, unless somebody asks.
    Wait(Duration),
    /// Nothing, until somebody asks or the renewal under way is done.
    Idle,
}

/// What a renewal brought.
#[derive(Debug)]
pub struct Renewed {
    /// What was granted.
    pub tokens: TokenSet,
    /// Whether another process had got it before: then nobody knows what that knew of the service.
    pub shared: bool,
}

/// The token in force, and the way to the next one.
#[derive(Debug)]
pub struct Renewal {
    endpoint: String,
    held: Option<Held>,
    generation: TokenGeneration,
    /// Somebody waits for a newer token than the one in force.
    wanted: bool,
    /// The token in force was refused.
    refused: bool,
    /// Since when a renewal is under way.
    under_way: Option<Moment>,
    failed: Option<Failed>,
    random: Random,
}

#[derive(Debug)]
struct Held {
    tokens: TokenSet,
    /// How long before its end it is to be replaced.
    lead: Duration,
    /// It replaced one that was refused.
    by_refusal: bool,
}

/// The last renewals, where all of them failed.
#[derive(Debug)]
struct Failed {
    error: AuthError,
    count: u32,
    /// When the last of them began, and how long after that the next is due: one that took long has waited already.
    began: Moment,
    wait: Duration,
}

impl Failed {
    /// How long until the next try. A clock that was set back, on a machine started anew, says nothing: try now.
    fn left(&self, now: &Moment) -> Duration {
        self.began.age(now).map_or(Duration::ZERO, |age| self.wait.saturating_sub(age))
    }

    fn is_passing(&self) -> bool {
        self.error.recovery() != Recovery::Fatal
    }
}

impl Renewal {
    /// Holds no token yet. `seed` decides the spread of the waits.
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

    /// A token for a caller; `newer_than` is one that was refused, or is at its end, and must not be handed out again.
    pub fn ask(&mut self, newer_than: Option<TokenGeneration>, now: &Moment) -> Answer {
        let stale = newer_than.is_some_and(|stale| self.generation <= stale);
        if let Some(held) = &self.held {
            let left = held.tokens.left(now);
            let age = held.tokens.lifetime.saturating_sub(left);
            // Near its end nobody knows whether it was refused, or is only to be replaced.
            if stale && left > held.tokens.margin() {
                if held.by_refusal && age < FRESH && left > age {
                    return Answer::Failed(AuthError::Rejected { endpoint: self.endpoint.clone() });
                }
                self.refused = true;
            }
            if !stale && !self.refused && !left.is_zero() {
                return match AccessToken::new(&held.tokens.access, self.generation) {
                    Some(token) => Answer::Token(token.living(left)),
                    None => Answer::Failed(AuthError::Token("access token")),
                };
            }
        }
        match &self.failed {
            Some(failed) if self.under_way.is_none() && !failed.left(now).is_zero() => {
                let error = Box::new(failed.error.clone());
                Answer::Failed(AuthError::Waiting { error, wait: failed.left(now) })
            }
            _ => {
                self.wanted = true;
                Answer::Wait
            }
        }
    }

    /// What is to be done next. [`Step::Renew`] is said once for each renewal.
    pub fn next(&mut self, now: &Moment) -> Step {
        if self.under_way.is_some() {
            return Step::Idle;
        }
        let until_due = self.held.as_ref().map(|held| held.tokens.left(now).saturating_sub(held.lead));
        let until_wanted = if self.wanted { Some(Duration::ZERO) } else { until_due };
        let Some(wait) = until_wanted else { return Step::Idle };
        let wait = match &self.failed {
            // What can't help is tried again for the sake of a token that still serves, or of somebody who asks.
            Some(failed) if !self.wanted && !failed.is_passing() && !self.lives(now) => return Step::Idle,
            Some(failed) => wait.max(failed.left(now)),
            None => wait,
        };
        if !wait.is_zero() {
            return Step::Wait(wait);
        }
        self.under_way = Some(now.clone());
        Step::Renew { stale: self.held.as_ref().map(|held| held.tokens.access.clone()) }
    }

    /// A renewal ended so. Tells why there is still no other token, where that is so.
    pub fn done(&mut self, outcome: Result<Renewed, AuthError>, now: &Moment) -> Result<(), AuthError> {
        let began = self.under_way.take().unwrap_or_else(|| now.clone());
        self.wanted = false;
        let endpoint = || self.endpoint.clone();
        let outcome = outcome.and_then(|renewed| match renewed.tokens.lifetime {
            Duration::ZERO => Err(AuthError::Answer { endpoint: endpoint(), missing: "a token that lives" }),
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
                self.put_off(error.clone(), began, now);
                Err(error)
            }
        }
    }

    /// The renewal that began then has failed: when to try again.
    fn put_off(&mut self, error: AuthError, began: Moment, now: &Moment) {
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

    /// Whether the token in force can still be handed out.
    pub fn lives(&self, now: &Moment) -> bool {
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

    /// Somebody asks, and gets this.
    fn renew(renewal: &mut Renewal, newer_than: Option<u64>, tokens: TokenSet, shared: bool, now: u64) {
        let newer_than = newer_than.map(TokenGeneration);
        assert!(matches!(renewal.ask(newer_than, &at(now)), Answer::Wait));
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

    /// What another process has got may be refused for its age; nobody here knows whether it replaced a
    /// refused one.
    #[test]
    fn a_refused_token_of_another_process_is_replaced() {
        for shared in [false, true] {
            let mut renewal = renewal(1);
            renew(&mut renewal, None, tokens("one", 0, HOUR), false, 0);
            renew(&mut renewal, Some(1), tokens("two", 10, HOUR), shared, 10);
            let answer = renewal.ask(Some(TokenGeneration(2)), &at(20));
            let rejected = matches!(answer, Answer::Failed(AuthError::Rejected { .. }));
            assert_eq!(rejected, !shared, "{answer:?}");
        }
    }

    /// A token that lives for less than two minutes may be refused for its age within one.
    #[test]
    fn a_token_in_the_second_half_of_a_short_life_is_replaced() {
        for (age, is_rejected) in [(20, true), (40, false)] {
            let mut renewal = renewal(1);
            let life = Duration::from_secs(70);
            renew(&mut renewal, None, tokens("one", 0, life), false, 0);
            renew(&mut renewal, Some(1), tokens("two", 10, life), false, 10);
            let answer = renewal.ask(Some(TokenGeneration(2)), &at(10 + age));
            let rejected = matches!(answer, Answer::Failed(AuthError::Rejected { .. }));
            assert_eq!(rejected, is_rejected, "{answer:?} at an age of {age} s");
        }
    }

    /// A request that begins now, takes so long and is answered with `Retry-After`: when the next is due,
    /// from now.
    fn put_off(renewal: &mut Renewal, now: u64, took: u64, retry_after: u64) -> Duration {
        assert!(matches!(renewal.ask(None, &at(now)), Answer::Wait));
        assert!(matches!(renewal.next(&at(now)), Step::Renew { .. }));
        let recovery = Recovery::RetryAfter(Duration::from_secs(retry_after));
        let endpoint = "http://localhost".to_owned();
        let error = AuthError::Refused {
            endpoint,
            grant: "refresh_token",
            status: 503,
            reason: Refusal::Unknown,
            told: None,
            recovery,
        };
        renewal.done(Err(error), &at(now + took)).unwrap_err();
        let failed = renewal.failed.as_ref().unwrap();
        Duration::from_secs(took) + failed.left(&at(now + took))
    }

    /// It asks for a pause after its answer, not after the question.
    #[test]
    fn what_the_service_asks_for_counts_from_its_answer() {
        for seed in 0..100 {
            let wait = put_off(&mut renewal(seed), 0, 15, 30);
            assert_eq!(wait, Duration::from_secs(45), "seed {seed}");
        }
    }

    #[test]
    fn a_service_that_asks_for_no_pause_is_given_one() {
        let mut renewal = renewal(1);
        let mut now = 0;
        for count in 1..20 {
            let wait = put_off(&mut renewal, now, 0, 0);
            assert!(count <= DOUBLINGS || wait >= LAST_WAIT, "{wait:?} after {count} failures");
            now += wait.as_secs() + 1;
        }
    }
}
