//! How often an address may be wrong about who it is.
//!
//! Nobody guesses 256 bits. But whoever tries costs a look into the store each time, and hides among those who are
//! right.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::Gateway;
use super::error::ApiError;

/// How long until one failure is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3);
/// How many addresses are remembered, in less than a megabyte.
const MAX_ADDRESSES: usize = 10_000;

/// Extends an answer that says: you are not who you say you are.
#[derive(Clone, Copy)]
pub(super) struct Failed;

/// Counts the failures of each address: a token bucket, which is kept as the time at which it will be full again.
pub(super) struct Attempts {
    burst: u32,
    /// Buckets that are full need no entry.
    full_at: Mutex<HashMap<IpAddr, Duration>>,
}

impl Attempts {
    /// Allows each address `burst` failures at once; any number where that is 0.
    pub(super) fn new(burst: u32) -> Attempts {
        Attempts { burst, full_at: Mutex::default() }
    }

    /// Whether `address` may try at `now`, a time that never steps back, counted from any fixed moment; else how long it
    /// should wait.
    fn allow(&self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at().get(&household(address)).copied().unwrap_or(now);
        let after_one_more = full_at.max(now) - now + FORGIVEN_AFTER;
        match after_one_more.saturating_sub(self.capacity()) {
            Duration::ZERO => Ok(()),
            wait => Err(wait),
        }
    }

    /// `address` was wrong at `now`. Several may be wrong at once, all of them allowed while there was room for one: an
    /// empty bucket doesn't become emptier.
    fn failed(&self, address: IpAddr, now: Duration) {
        if self.burst == 0 {
            return;
        }
        let address = household(address);
        let mut buckets = self.full_at();
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            buckets.retain(|_, full_at| *full_at > now);
            // Whoever failed least is forgotten first, so that nobody gets out by coming from many addresses.
            let fullest = buckets.iter().min_by_key(|(_, full_at)| **full_at).map(|(address, _)| *address);
            if let Some(fullest) = fullest.filter(|_| buckets.len() >= MAX_ADDRESSES) {
                buckets.remove(&fullest);
            }
        }
        let full_at = buckets.entry(address).or_insert(now);
        *full_at = ((*full_at).max(now) + FORGIVEN_AFTER).min(now + self.capacity());
    }

    /// How long an empty bucket takes to be full.
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

/// What one client has to itself: an address of IPv4; of IPv6 a network of 64 bits, in which it may take any.
pub(super) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

impl Gateway {
    /// An address showed a wrong token where no answer of HTTP says so.
    pub(super) fn note_failure(&self, address: IpAddr) {
        self.attempts.failed(address, self.authority.clock().monotonic());
    }
}

/// In front of every route that asks who it is: refuses an address that was wrong too often before anything is looked
/// at.
pub(super) async fn limit(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let now = gateway.authority.clock().monotonic();
    if let Err(wait) = gateway.attempts.allow(peer.ip(), now) {
        let message = "too many wrong tokens or secrets from this address";
        return ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message, wait).into_response();
    }
    let response = next.run(request).await;
    if response.extensions().get::<Failed>().is_some() {
        gateway.note_failure(peer.ip());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    /// How often `address` can fail at `now` before it is refused.
    fn failures(attempts: &Attempts, address: IpAddr, now: Duration) -> u32 {
        let mut count = 0;
        while count < 1_000 && attempts.allow(address, now).is_ok() {
            attempts.failed(address, now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let (attempts, one) = (Attempts::new(20), v4(1));
        assert_eq!(failures(&attempts, one, NOW), 20);
        assert_eq!(attempts.allow(one, NOW), Err(FORGIVEN_AFTER));
        assert_eq!(attempts.allow(v4(2), NOW), Ok(()));
        assert_eq!(attempts.allow(one, NOW + FORGIVEN_AFTER / 3), Err(FORGIVEN_AFTER / 3 * 2));
        assert_eq!(failures(&attempts, one, NOW + FORGIVEN_AFTER), 1);
        assert_eq!(failures(&attempts, one, NOW + FORGIVEN_AFTER * 100), 20);
        // What was under way when the last place was taken makes nobody wait longer.
        (0..50).for_each(|_| attempts.failed(one, NOW + FORGIVEN_AFTER * 100));
        assert_eq!(attempts.allow(one, NOW + FORGIVEN_AFTER * 101), Ok(()));
        assert_eq!(failures(&Attempts::new(0), one, NOW), 1_000);
    }

    #[test]
    fn a_client_is_known_by_its_network() {
        let attempts = Attempts::new(5);
        assert_eq!(failures(&attempts, address("2001:db8:0:1::1"), NOW), 5);
        assert_eq!(failures(&attempts, address("2001:db8:0:1:ffff::2"), NOW), 0);
        assert_eq!(failures(&attempts, address("2001:db8:0:2::1"), NOW), 5);
        assert_eq!(failures(&attempts, address("192.0.2.1"), NOW), 5);
        assert_eq!(failures(&attempts, address("::ffff:192.0.2.1"), NOW), 0);
        assert_eq!(failures(&attempts, address("192.0.2.2"), NOW), 5);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_failed_least() {
        let attempts = Attempts::new(20);
        assert_eq!(failures(&attempts, v4(0), NOW), 20);
        let many = MAX_ADDRESSES as u32 + 1_000;
        for number in 1..many {
            attempts.failed(v4(number), NOW);
            assert!(attempts.full_at().len() <= MAX_ADDRESSES);
        }
        assert_eq!(failures(&attempts, v4(0), NOW), 0);
        // All but the first are forgiven by now, and make room for one that fails.
        attempts.failed(v4(many), NOW + FORGIVEN_AFTER);
        assert_eq!(attempts.full_at().len(), 2);
    }
}
