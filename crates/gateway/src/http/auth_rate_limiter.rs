//! Rate limiting of failed authentication, per client address.
//!
//! A token of 256 bits can't be guessed. But each attempt costs a look-up in the store, and an attacker's
//! attempts hide among those of legitimate clients.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::client::client_network;
use super::error::{ApiError, AuthFailed};
use voxline_support::clock::Clock;

/// Time in which the bucket of an address regains one failure.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3);
/// Maximum number of addresses in the table, which then takes less than a megabyte.
const MAX_ADDRESSES: usize = 10_000;

/// A rate limiter of failed authentication: one token bucket per client address, stored as the time at
/// which the bucket will be full again.
pub(crate) struct AuthRateLimiter {
    burst: u32,
    clock: Arc<dyn Clock>,
    /// Time at which each bucket will be full. Full buckets need no entry.
    full_at: Mutex<HashMap<IpAddr, Duration>>,
}

impl AuthRateLimiter {
    /// Creates a limiter that allows each address `burst` failures at once, or any number if `burst` is 0.
    pub(crate) fn new(burst: u32, clock: Arc<dyn Clock>) -> AuthRateLimiter {
        AuthRateLimiter { burst, clock, full_at: Mutex::default() }
    }

    /// Counts a failed authentication of `address`.
    pub(crate) fn note_failure(&self, address: IpAddr) {
        self.failed(address, self.clock.monotonic());
    }

    /// Checks that `address` may try to authenticate at `now`, a monotonic time since any fixed moment.
    ///
    /// # Errors
    /// Returns the time that the client should wait if the bucket of `address` is empty.
    fn allow(&self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at().get(&client_network(address)).copied().unwrap_or(now);
        let after_one_more = full_at.max(now) - now + FORGIVEN_AFTER;
        match after_one_more.saturating_sub(self.capacity()) {
            Duration::ZERO => Ok(()),
            wait => Err(wait),
        }
    }

    /// Counts a failure of `address` at `now`. Several requests may fail at once after all were allowed
    /// while there was room for one: the bucket then stays empty and goes no lower.
    fn failed(&self, address: IpAddr, now: Duration) {
        if self.burst == 0 {
            return;
        }
        let address = client_network(address);
        let mut buckets = self.full_at();
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            buckets.retain(|_, full_at| *full_at > now);
            // The address with the fewest failures is forgotten first, so that a client can't have its own
            // failures forgotten by failing from many other addresses.
            let fullest = buckets.iter().min_by_key(|(_, full_at)| **full_at).map(|(address, _)| *address);
            if let Some(fullest) = fullest.filter(|_| buckets.len() >= MAX_ADDRESSES) {
                buckets.remove(&fullest);
            }
        }
        let full_at = buckets.entry(address).or_insert(now);
        *full_at = ((*full_at).max(now) + FORGIVEN_AFTER).min(now + self.capacity());
    }

    /// Returns the time that an empty bucket takes to fill.
    fn capacity(&self) -> Duration {
        match self.burst {
            0 => Duration::MAX,
            burst => FORGIVEN_AFTER * burst,
        }
    }

    fn full_at(&self) -> MutexGuard<'_, HashMap<IpAddr, Duration>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Middleware of every route that authenticates its client: refuses an address with too many failures
/// before the request is examined.
pub(crate) async fn limit_failures(
    State(limiter): State<Arc<AuthRateLimiter>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(wait) = limiter.allow(peer.ip(), limiter.clock.monotonic()) {
        let message = "too many wrong tokens or secrets from this address";
        return ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message, wait).into_response();
    }
    let response = next.run(request).await;
    if response.extensions().get::<AuthFailed>().is_some() {
        limiter.note_failure(peer.ip());
    }
    response
}

#[cfg(test)]
mod tests {
    use voxline_support::clock::SystemClock;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn with_burst(burst: u32) -> AuthRateLimiter {
        AuthRateLimiter::new(burst, Arc::new(SystemClock::new()))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    /// Returns the number of failures that `address` can have at `now` before it is refused.
    fn failures(limiter: &AuthRateLimiter, address: IpAddr, now: Duration) -> u32 {
        let mut count = 0;
        while count < 1_000 && limiter.allow(address, now).is_ok() {
            limiter.failed(address, now);
            count += 1;
        }
        count
    }

    #[test]
    fn failures_are_allowed_in_a_burst_then_at_a_steady_rate() {
        let (limiter, one) = (with_burst(20), v4(1));
        assert_eq!(failures(&limiter, one, NOW), 20);
        assert_eq!(limiter.allow(one, NOW), Err(FORGIVEN_AFTER));
        assert_eq!(limiter.allow(v4(2), NOW), Ok(()));
        assert_eq!(limiter.allow(one, NOW + FORGIVEN_AFTER / 3), Err(FORGIVEN_AFTER / 3 * 2));
        assert_eq!(failures(&limiter, one, NOW + FORGIVEN_AFTER), 1);
        assert_eq!(failures(&limiter, one, NOW + FORGIVEN_AFTER * 100), 20);
        // Failures of requests that were already under way when the bucket emptied make no client wait
        // longer.
        (0..50).for_each(|_| limiter.failed(one, NOW + FORGIVEN_AFTER * 100));
        assert_eq!(limiter.allow(one, NOW + FORGIVEN_AFTER * 101), Ok(()));
        assert_eq!(failures(&with_burst(0), one, NOW), 1_000);
    }

    #[test]
    fn ipv6_clients_are_limited_by_network() {
        let limiter = with_burst(5);
        assert_eq!(failures(&limiter, address("2001:db8:0:1::1"), NOW), 5);
        assert_eq!(failures(&limiter, address("2001:db8:0:1:ffff::2"), NOW), 0);
        assert_eq!(failures(&limiter, address("2001:db8:0:2::1"), NOW), 5);
        assert_eq!(failures(&limiter, address("192.0.2.1"), NOW), 5);
        assert_eq!(failures(&limiter, address("::ffff:192.0.2.1"), NOW), 0);
        assert_eq!(failures(&limiter, address("192.0.2.2"), NOW), 5);
    }

    #[test]
    fn the_table_is_bounded_and_evicts_the_address_with_fewest_failures() {
        let limiter = with_burst(20);
        assert_eq!(failures(&limiter, v4(0), NOW), 20);
        let many = MAX_ADDRESSES as u32 + 1_000;
        for number in 1..many {
            limiter.failed(v4(number), NOW);
            assert!(limiter.full_at().len() <= MAX_ADDRESSES);
        }
        assert_eq!(failures(&limiter, v4(0), NOW), 0);
        // By now all addresses but the first have full buckets again, and make room for one that fails.
        limiter.failed(v4(many), NOW + FORGIVEN_AFTER);
        assert_eq!(limiter.full_at().len(), 2);
    }
}
