//! Connection limiter: limits the connections of each client address, so that no address, nor several of
//! them together, can take all connections.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::Request;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::auth_rate_limiter::household;

/// Largest share of all connections that one address may have, so that some are left for others.
const LARGEST_PART: (usize, usize) = (3, 4);

/// A limiter of connections, by client address.
#[derive(Clone)]
pub(crate) struct Households {
    /// Maximum number of connections of an address while the others have none; 0 allows any number.
    limit: usize,
    /// Maximum number of connections in all.
    places: usize,
    homes: Arc<Mutex<Homes>>,
    /// Notified when a connection becomes idle.
    idle_appeared: Arc<Notify>,
}

#[derive(Default)]
struct Homes {
    by_address: HashMap<IpAddr, Home>,
    /// Number of connections, including those that count for no address.
    total: usize,
    /// Last number given to an idle connection.
    last: u64,
}

#[derive(Default)]
struct Home {
    connections: usize,
    /// Tokens that close the idle connections of the address, which are those without a request under a
    /// valid token. The connection that has been idle longest comes first.
    idle: BTreeMap<u64, CancellationToken>,
    /// True once the log has reported that the address has too many connections: one line for each
    /// connection would be a flood of its own.
    told: bool,
}

/// A connection that is counted until this value is dropped.
pub(crate) struct Counted(Arc<Seat>);

/// Place of a connection in the limiter, as the connection's requests share it.
pub(crate) struct Seat {
    /// `None` if many clients share the address, as that of a proxy.
    address: Option<IpAddr>,
    households: Households,
    /// Closes the connection. Once this is cancelled, the connection is no longer counted.
    closing: CancellationToken,
    /// Number among the idle connections of the address, or [`BUSY`]. It changes only while the table is
    /// locked.
    idle: AtomicU64,
}

/// Number of a connection that is not idle.
const BUSY: u64 = 0;

impl Households {
    /// Creates a limiter of `places` connections, of which an address may have `limit` while the others
    /// have none.
    pub(crate) fn new(limit: usize, places: usize) -> Households {
        let (part, whole) = LARGEST_PART;
        let largest = (places.saturating_mul(part) / whole).max(1);
        Households { limit: limit.min(largest), places, homes: Arc::default(), idle_appeared: Arc::default() }
    }

    /// Counts one more connection of `address`. Returns `None` if the address has as many as it may.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Counted> {
        self.count(&mut self.homes(), Some(household(address)), CancellationToken::new())
    }

    /// Counts one more connection of a proxy, whose address all its clients share.
    pub(crate) fn admit_proxy(&self) -> Option<Counted> {
        self.count(&mut self.homes(), None, CancellationToken::new())
    }

    /// Returns whether there may be a place for one more connection: a free one, or that of an idle
    /// connection.
    pub(crate) fn has_place(&self) -> bool {
        let homes = self.homes();
        let is_any_idle = || homes.by_address.values().any(|home| !home.idle.is_empty());
        homes.total < self.places || self.limit != 0 && is_any_idle()
    }

    /// Waits until a connection becomes idle.
    pub(crate) async fn idle_appeared(&self) {
        self.idle_appeared.notified().await;
    }

    /// Gives `address` a free place, as long as its share of them allows. Otherwise gives it the place of
    /// an idle connection, of an address that has more idle connections.
    fn count(
        &self,
        homes: &mut Homes,
        address: Option<IpAddr>,
        closing: CancellationToken,
    ) -> Option<Counted> {
        let own = address.map_or(0, |address| homes.connections(address));
        let is_allowed = self.limit == 0
            || self.has_share(own, self.places.saturating_sub(homes.total))
            || own < self.limit && homes.evict(own);
        if !is_allowed {
            if let Some(address) = address {
                homes.tell(address, "more connections are refused");
            }
            return None;
        }
        homes.total += 1;
        let seat = Seat { address, households: self.clone(), closing, idle: BUSY.into() };
        if let Some(address) = address {
            homes.by_address.entry(address).or_default().connections += 1;
            homes.set_idle(&seat, address);
        }
        Some(Counted(Arc::new(seat)))
    }

    /// Returns whether one of the `free` places is available to an address with `own` connections. The
    /// share of an address shrinks with the number of free places (a dynamic threshold, as switches use for
    /// shared buffers), so that some places are left for new addresses, even if no connection is idle.
    fn has_share(&self, own: usize, free: usize) -> bool {
        // An address without competitors reaches its limit, since `places - limit` are then free.
        let threshold = self.limit * free;
        free > 0 && (own == 0 || own * (self.places - self.limit.min(self.places)) < threshold)
    }

    fn homes(&self) -> MutexGuard<'_, Homes> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Homes {
    fn connections(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).map_or(0, |home| home.connections)
    }

    /// Closes an idle connection in favour of an address with `own` connections. The candidate is the
    /// longest idle connection of the address that has most of them. It stays open if its address would
    /// then have fewer idle connections than the other address would have connections. An address without
    /// any connection takes even the only idle connection of another; otherwise as many addresses as there
    /// are places would shut out all others.
    fn evict(&mut self, own: usize) -> bool {
        let idle = self.by_address.iter().filter_map(|(address, home)| {
            let (oldest, _) = home.idle.first_key_value()?;
            Some((home.idle.len(), Reverse(*oldest), *address))
        });
        let Some((count, Reverse(oldest), address)) = idle.max() else { return false };
        if own > 0 && count <= own + 1 {
            return false;
        }
        self.tell(address, "idle connections are closed for other addresses");
        let home = self.by_address.get_mut(&address).expect("it was found there");
        home.idle.remove(&oldest).expect("it was found there").cancel();
        self.leave(address);
        true
    }

    /// Removes one connection of `address` from the count.
    fn leave(&mut self, address: IpAddr) {
        self.total -= 1;
        let home = self.by_address.get_mut(&address).expect("a connection of it is counted");
        home.connections -= 1;
        if home.connections == 0 {
            self.by_address.remove(&address);
        }
    }

    fn set_idle(&mut self, seat: &Seat, address: IpAddr) {
        self.last += 1;
        seat.idle.store(self.last, Ordering::Relaxed);
        let home = self.by_address.entry(address).or_default();
        home.idle.insert(self.last, seat.closing.clone());
        seat.households.idle_appeared.notify_one();
    }

    fn set_busy(&mut self, seat: &Seat, address: IpAddr) {
        let number = seat.idle.swap(BUSY, Ordering::Relaxed);
        if let Some(home) = self.by_address.get_mut(&address) {
            home.idle.remove(&number);
        }
    }

    fn tell(&mut self, address: IpAddr, what: &str) {
        let Some(home) = self.by_address.get_mut(&address).filter(|home| !home.told) else { return };
        tracing::warn!(%address, connections = home.connections, "{what}");
        home.told = true;
    }
}

impl Counted {
    /// Counts a proxy's connection as one of `client`. Returns `None` if the client has as many as it may.
    pub(crate) fn of_client(self, client: IpAddr) -> Option<Counted> {
        let Seat { households, closing, .. } = &*self.0;
        let (households, closing) = (households.clone(), closing.clone());
        drop(self);
        households.count(&mut households.homes(), Some(household(client)), closing)
    }

    pub(crate) fn seat(&self) -> Arc<Seat> {
        self.0.clone()
    }

    /// Returns the token that is cancelled when the connection must close at once.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let seat = &self.0;
        let mut homes = seat.households.homes();
        match seat.address {
            None => homes.total -= 1,
            // Another connection has its place.
            Some(_) if seat.closing.is_cancelled() => {}
            Some(address) => {
                homes.set_busy(seat, address);
                homes.leave(address);
                seat.closing.cancel();
            }
        }
    }
}

impl Seat {
    /// Marks the connection as busy after it brought a valid token, so that it is not closed in favour of
    /// others.
    fn hold(&self) {
        let mut homes = self.households.homes();
        if let Some(address) = self.address.filter(|_| !self.closing.is_cancelled()) {
            homes.set_busy(self, address);
        }
    }

    /// Marks the connection as idle after the request under that token was answered.
    pub(crate) fn release(&self) {
        let mut homes = self.households.homes();
        let is_busy = self.idle.load(Ordering::Relaxed) == BUSY && !self.closing.is_cancelled();
        if let Some(address) = self.address.filter(|_| is_busy) {
            homes.set_idle(self, address);
        }
    }
}

/// Marks the connection of a request with a valid token as busy until the request is answered.
pub(crate) fn hold(request: &Request) {
    if let Some(seat) = request.extensions().get::<Arc<Seat>>() {
        seat.hold();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_limit_and_none_is_remembered_for_ever() {
        let households = Households::new(2, 800);
        let one = households.admit(address("192.0.2.1")).unwrap();
        let two = households.admit(address("192.0.2.1")).unwrap();
        assert!(households.admit(address("192.0.2.1")).is_none());
        let other = households.admit(address("192.0.2.2")).unwrap();
        drop(one);
        let again = households.admit(address("192.0.2.1")).unwrap();
        assert!(households.admit(address("192.0.2.1")).is_none());
        // For IPv6, a network counts as one address.
        let six = [1, 2].map(|n| households.admit(address(&format!("2001:db8::{n}"))).unwrap());
        assert!(households.admit(address("2001:db8::3")).is_none());
        drop((two, other, again, six));
        assert!(households.homes().by_address.is_empty());
        assert_eq!(households.homes().total, 0);
    }

    #[test]
    fn no_limit_refuses_nobody() {
        let households = Households::new(0, 800);
        let many: Vec<_> = (0..1_000).map(|_| households.admit(address("192.0.2.1")).unwrap()).collect();
        assert_eq!(households.homes().by_address[&address("192.0.2.1")].connections, many.len());
    }

    /// Opens connections of `address` until one is refused.
    fn take_all(households: &Households, name: &str) -> Vec<Counted> {
        std::iter::from_fn(|| households.admit(address(name))).collect()
    }

    /// Opens connections as [`take_all`] does, each with a request under a valid token.
    fn take_all_busy(households: &Households, name: &str) -> Vec<Counted> {
        let busy = |counted: Counted| {
            counted.0.hold();
            counted
        };
        std::iter::from_fn(|| households.admit(address(name)).map(busy)).collect()
    }

    fn closed(connections: &[Counted]) -> Vec<usize> {
        let closed = |(_, counted): &(usize, &Counted)| counted.0.closing.is_cancelled();
        connections.iter().enumerate().filter(closed).map(|(index, _)| index).collect()
    }

    #[test]
    fn two_addresses_leave_places_for_a_third() {
        let households = Households::new(600, 800);
        let first = take_all_busy(&households, "192.0.2.1");
        assert_eq!(first.len(), 600, "alone it has its limit");
        let second = take_all_busy(&households, "192.0.2.2");
        assert_eq!(second.len(), 150);
        let third = take_all_busy(&households, "192.0.2.3");
        assert!(third.len() > 30 && first.len() + second.len() + third.len() < 800, "{}", third.len());
        // The first address doesn't get back the places that it gives up, while the others are there.
        let mut first = first;
        first.truncate(300);
        let again = take_all_busy(&households, "192.0.2.1");
        assert!(again.len() < 200, "{}", again.len());

        // A limit that would leave no place for others, and a limiter with a single place.
        let households = Households::new(600, 100);
        assert_eq!(take_all(&households, "192.0.2.1").len(), 75);
        let households = Households::new(600, 1);
        assert_eq!(take_all(&households, "192.0.2.1").len(), 1);
    }

    #[test]
    fn an_address_with_few_connections_takes_idle_ones_of_an_address_with_many() {
        let households = Households::new(7, 10);
        let first = take_all(&households, "192.0.2.1");
        assert_eq!(first.len(), 7);
        first[0].0.hold();
        let second = take_all(&households, "192.0.2.2");
        // The longest idle connection is closed; the one under a token stays.
        assert_eq!((closed(&first), second.len()), (vec![1], 4));
        // Once its request is answered, the connection is idle like any other, and has been for the
        // shortest time.
        first[0].0.release();
        let third = take_all(&households, "192.0.2.3");
        assert_eq!((closed(&first), third.len()), (vec![1, 2, 3, 4], 3));
        assert!(closed(&second).is_empty(), "it has as few as the third would have");
        assert_eq!(households.homes().total, 10);
        drop((first, second, third));
        assert_eq!(households.homes().total, 0);
        assert!(households.homes().by_address.is_empty());
    }

    #[test]
    fn the_first_connection_of_an_address_takes_the_place_of_the_longest_idle() {
        let households = Households::new(3, 4);
        let ones: Vec<_> = (1..=4).map(|n| households.admit(IpAddr::from([192, 0, 2, n])).unwrap()).collect();
        ones[0].0.hold();
        let newcomer = households.admit(address("198.51.100.1")).expect("most hold a place and say nothing");
        assert_eq!(closed(&ones), [1]);
        assert!(households.admit(address("198.51.100.1")).is_none(), "it has as many as the others");
        // No connection is closed if all are under a token.
        ones.iter().for_each(|counted| counted.0.hold());
        newcomer.0.hold();
        assert!(!households.has_place());
        assert!(households.admit(address("198.51.100.2")).is_none());
        newcomer.0.release();
        assert!(households.has_place());
        assert!(households.admit_proxy().is_some(), "a proxy's come for many addresses");
        assert!(newcomer.closing().is_cancelled());
    }

    #[test]
    fn a_connection_that_is_gone_is_counted_once() {
        let households = Households::new(3, 4);
        let gone = households.admit(address("192.0.2.1")).unwrap();
        let seat = gone.seat();
        seat.hold();
        drop(gone);
        // The last request of the connection ends after the connection.
        seat.release();
        assert!(households.homes().by_address.is_empty());
        // Counted as a proxy's connection first, and then as its client's.
        let named = households.admit_proxy().unwrap().of_client(address("192.0.2.1")).unwrap();
        assert_eq!(households.homes().by_address.len(), 1);
        assert_eq!(households.homes().total, 1);
        drop(named);
        assert_eq!(households.homes().total, 0);
    }
}
