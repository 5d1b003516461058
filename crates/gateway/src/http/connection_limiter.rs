//! Connection limiter: limits the connections of each client address, so that no address, nor several of
//! them together, can take all connections.
//!
//! A connection is idle unless it has a request with a valid token. Handshakes, heads and anonymous requests
//! don't count, since an attacker can prolong all of them. WebSockets have left the limiter, and a trusted
//! proxy's own connections are never closed for others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::Request;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::client::client_network;

/// Largest share of all connections that one address may have, so that some are left for others.
const LARGEST_PART: (usize, usize) = (3, 4);

/// A limiter of connections, by client address.
#[derive(Clone)]
pub(crate) struct ConnectionLimiter {
    /// Maximum number of connections of an address while the others have none; 0 allows any number.
    limit: usize,
    /// Maximum number of connections in all.
    places: usize,
    connections: Arc<Mutex<Connections>>,
    /// Notified when a connection becomes idle.
    idle_appeared: Arc<Notify>,
}

#[derive(Default)]
struct Connections {
    by_address: HashMap<IpAddr, AddressConnections>,
    /// Number of connections, including those that count for no address.
    total: usize,
    /// Last number given to an idle connection.
    last: u64,
}

#[derive(Default)]
struct AddressConnections {
    connections: usize,
    /// Tokens that close the idle connections of the address, which are those without a request under a
    /// valid token. The connection that has been idle longest comes first.
    idle: BTreeMap<u64, CancellationToken>,
    /// True once the log has reported that the address has too many connections: one line for each
    /// connection would be a flood of its own.
    warned: bool,
}

/// A connection that is counted until this value is dropped.
pub(crate) struct ConnectionPermit(Arc<ConnectionSlot>);

/// Place of a connection in the limiter, as the connection's requests share it.
pub(crate) struct ConnectionSlot {
    /// `None` if many clients share the address, as that of a proxy.
    address: Option<IpAddr>,
    limiter: ConnectionLimiter,
    /// Closes the connection. Once this is cancelled, the connection is no longer counted.
    closing: CancellationToken,
    /// Number among the idle connections of the address, or [`BUSY`]. It changes only while the table is
    /// locked.
    idle: AtomicU64,
}

/// Number of a connection that is not idle.
const BUSY: u64 = 0;

impl ConnectionLimiter {
    /// Creates a limiter of `places` connections, of which an address may have `limit` while the others
    /// have none.
    pub(crate) fn new(limit: usize, places: usize) -> ConnectionLimiter {
        let (part, whole) = LARGEST_PART;
        let largest = (places.saturating_mul(part) / whole).max(1);
        ConnectionLimiter {
            limit: limit.min(largest),
            places,
            connections: Arc::default(),
            idle_appeared: Arc::default(),
        }
    }

    /// Counts one more connection of `address`. Returns `None` if the address has as many as it may.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<ConnectionPermit> {
        self.count(&mut self.connections(), Some(client_network(address)), CancellationToken::new())
    }

    /// Counts one more connection of a proxy, whose address all its clients share.
    pub(crate) fn admit_proxy(&self) -> Option<ConnectionPermit> {
        self.count(&mut self.connections(), None, CancellationToken::new())
    }

    /// Returns whether there may be a place for one more connection: a free one, or that of an idle
    /// connection.
    pub(crate) fn has_place(&self) -> bool {
        let connections = self.connections();
        let is_any_idle = || connections.by_address.values().any(|entry| !entry.idle.is_empty());
        connections.total < self.places || self.limit != 0 && is_any_idle()
    }

    /// Waits until a connection becomes idle.
    pub(crate) async fn idle_appeared(&self) {
        self.idle_appeared.notified().await;
    }

    /// Gives `address` a free place, as long as its share of them allows. Otherwise gives it the place of
    /// an idle connection, of an address that has more idle connections.
    fn count(
        &self,
        connections: &mut Connections,
        address: Option<IpAddr>,
        closing: CancellationToken,
    ) -> Option<ConnectionPermit> {
        let own = address.map_or(0, |address| connections.connections(address));
        let is_allowed = self.limit == 0
            || self.has_share(own, self.places.saturating_sub(connections.total))
            || own < self.limit && connections.evict(own);
        if !is_allowed {
            if let Some(address) = address {
                connections.warn_once(
                    address,
                    "connection limit of the address reached, refusing further connections",
                );
            }
            return None;
        }
        connections.total += 1;
        let slot = ConnectionSlot { address, limiter: self.clone(), closing, idle: BUSY.into() };
        if let Some(address) = address {
            connections.by_address.entry(address).or_default().connections += 1;
            connections.set_idle(&slot, address);
        }
        Some(ConnectionPermit(Arc::new(slot)))
    }

    /// Returns whether one of the `free` places is available to an address with `own` connections. The
    /// share of an address shrinks with the number of free places (a dynamic threshold, as switches use for
    /// shared buffers), so that some places are left for new addresses, even if no connection is idle.
    fn has_share(&self, own: usize, free: usize) -> bool {
        // An address without competitors reaches its limit, since `places - limit` are then free.
        let threshold = self.limit * free;
        free > 0 && (own == 0 || own * (self.places - self.limit.min(self.places)) < threshold)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn connections(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).map_or(0, |entry| entry.connections)
    }

    /// Closes an idle connection in favour of an address with `own` connections. The candidate is the
    /// longest idle connection of the address that has most of them. It stays open if its address would
    /// then have fewer idle connections than the other address would have connections. An address without
    /// any connection takes even the only idle connection of another; otherwise as many addresses as there
    /// are places would shut out all others.
    fn evict(&mut self, own: usize) -> bool {
        let idle = self.by_address.iter().filter_map(|(address, entry)| {
            let (oldest, _) = entry.idle.first_key_value()?;
            Some((entry.idle.len(), Reverse(*oldest), *address))
        });
        let Some((count, Reverse(oldest), address)) = idle.max() else { return false };
        if own > 0 && count <= own + 1 {
            return false;
        }
        self.warn_once(address, "closing idle connections of the address in favour of others");
        let entry = self.by_address.get_mut(&address).expect("it was found there");
        entry.idle.remove(&oldest).expect("it was found there").cancel();
        self.leave(address);
        true
    }

    /// Removes one connection of `address` from the count.
    fn leave(&mut self, address: IpAddr) {
        self.total -= 1;
        let entry = self.by_address.get_mut(&address).expect("a connection of it is counted");
        entry.connections -= 1;
        if entry.connections == 0 {
            self.by_address.remove(&address);
        }
    }

    fn set_idle(&mut self, slot: &ConnectionSlot, address: IpAddr) {
        self.last += 1;
        slot.idle.store(self.last, Ordering::Relaxed);
        let entry = self.by_address.entry(address).or_default();
        entry.idle.insert(self.last, slot.closing.clone());
        slot.limiter.idle_appeared.notify_one();
    }

    fn set_busy(&mut self, slot: &ConnectionSlot, address: IpAddr) {
        let number = slot.idle.swap(BUSY, Ordering::Relaxed);
        if let Some(entry) = self.by_address.get_mut(&address) {
            entry.idle.remove(&number);
        }
    }

    fn warn_once(&mut self, address: IpAddr, message: &str) {
        let Some(entry) = self.by_address.get_mut(&address).filter(|entry| !entry.warned) else { return };
        tracing::warn!(%address, connections = entry.connections, "{message}");
        entry.warned = true;
    }
}

impl ConnectionPermit {
    /// Counts a proxy's connection as one of `client`. Returns `None` if the client has as many as it may.
    pub(crate) fn of_client(self, client: IpAddr) -> Option<ConnectionPermit> {
        let ConnectionSlot { limiter, closing, .. } = &*self.0;
        let (limiter, closing) = (limiter.clone(), closing.clone());
        drop(self);
        limiter.count(&mut limiter.connections(), Some(client_network(client)), closing)
    }

    pub(crate) fn slot(&self) -> Arc<ConnectionSlot> {
        self.0.clone()
    }

    /// Returns the token that is cancelled when the connection must close at once.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let slot = &self.0;
        let mut connections = slot.limiter.connections();
        match slot.address {
            None => connections.total -= 1,
            // Another connection has its place.
            Some(_) if slot.closing.is_cancelled() => {}
            Some(address) => {
                connections.set_busy(slot, address);
                connections.leave(address);
                slot.closing.cancel();
            }
        }
    }
}

impl ConnectionSlot {
    /// Marks the connection as busy after it brought a valid token, so that it is not closed in favour of
    /// others.
    pub(crate) fn mark_busy(&self) {
        let mut connections = self.limiter.connections();
        if let Some(address) = self.address.filter(|_| !self.closing.is_cancelled()) {
            connections.set_busy(self, address);
        }
    }

    /// Marks the connection as idle after the request under that token was answered.
    pub(crate) fn mark_idle(&self) {
        let mut connections = self.limiter.connections();
        let is_busy = self.idle.load(Ordering::Relaxed) == BUSY && !self.closing.is_cancelled();
        if let Some(address) = self.address.filter(|_| is_busy) {
            connections.set_idle(self, address);
        }
    }
}

/// Marks the connection of a request with a valid token as busy until the request is answered.
pub(crate) fn mark_busy(request: &Request) {
    if let Some(slot) = request.extensions().get::<Arc<ConnectionSlot>>() {
        slot.mark_busy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_limit_and_is_forgotten_when_idle() {
        let limiter = ConnectionLimiter::new(2, 800);
        let one = limiter.admit(address("192.0.2.1")).unwrap();
        let two = limiter.admit(address("192.0.2.1")).unwrap();
        assert!(limiter.admit(address("192.0.2.1")).is_none());
        let other = limiter.admit(address("192.0.2.2")).unwrap();
        drop(one);
        let again = limiter.admit(address("192.0.2.1")).unwrap();
        assert!(limiter.admit(address("192.0.2.1")).is_none());
        // For IPv6, a network counts as one address.
        let six = [1, 2].map(|n| limiter.admit(address(&format!("2001:db8::{n}"))).unwrap());
        assert!(limiter.admit(address("2001:db8::3")).is_none());
        drop((two, other, again, six));
        assert!(limiter.connections().by_address.is_empty());
        assert_eq!(limiter.connections().total, 0);
    }

    #[test]
    fn a_limit_of_zero_refuses_no_connection() {
        let limiter = ConnectionLimiter::new(0, 800);
        let many: Vec<_> = (0..1_000).map(|_| limiter.admit(address("192.0.2.1")).unwrap()).collect();
        assert_eq!(limiter.connections().by_address[&address("192.0.2.1")].connections, many.len());
    }

    /// Opens connections of `address` until one is refused.
    fn take_all(limiter: &ConnectionLimiter, name: &str) -> Vec<ConnectionPermit> {
        std::iter::from_fn(|| limiter.admit(address(name))).collect()
    }

    /// Opens connections as [`take_all`] does, each with a request under a valid token.
    fn take_all_busy(limiter: &ConnectionLimiter, name: &str) -> Vec<ConnectionPermit> {
        let busy = |permit: ConnectionPermit| {
            permit.0.mark_busy();
            permit
        };
        std::iter::from_fn(|| limiter.admit(address(name)).map(busy)).collect()
    }

    fn closed(connections: &[ConnectionPermit]) -> Vec<usize> {
        let closed = |(_, permit): &(usize, &ConnectionPermit)| permit.0.closing.is_cancelled();
        connections.iter().enumerate().filter(closed).map(|(index, _)| index).collect()
    }

    #[test]
    fn two_addresses_leave_places_for_a_third() {
        let limiter = ConnectionLimiter::new(600, 800);
        let first = take_all_busy(&limiter, "192.0.2.1");
        assert_eq!(first.len(), 600, "alone it has its limit");
        let second = take_all_busy(&limiter, "192.0.2.2");
        assert_eq!(second.len(), 150);
        let third = take_all_busy(&limiter, "192.0.2.3");
        assert!(third.len() > 30 && first.len() + second.len() + third.len() < 800, "{}", third.len());
        // The first address doesn't get back the places that it gives up, while the others are there.
        let mut first = first;
        first.truncate(300);
        let again = take_all_busy(&limiter, "192.0.2.1");
        assert!(again.len() < 200, "{}", again.len());

        // A limit that would leave no place for others, and a limiter with a single place.
        let limiter = ConnectionLimiter::new(600, 100);
        assert_eq!(take_all(&limiter, "192.0.2.1").len(), 75);
        let limiter = ConnectionLimiter::new(600, 1);
        assert_eq!(take_all(&limiter, "192.0.2.1").len(), 1);
    }

    #[test]
    fn an_address_with_few_connections_takes_idle_ones_of_an_address_with_many() {
        let limiter = ConnectionLimiter::new(7, 10);
        let first = take_all(&limiter, "192.0.2.1");
        assert_eq!(first.len(), 7);
        first[0].0.mark_busy();
        let second = take_all(&limiter, "192.0.2.2");
        // The longest idle connection is closed; the one under a token stays.
        assert_eq!((closed(&first), second.len()), (vec![1], 4));
        // Once its request is answered, the connection is idle like any other, and has been for the
        // shortest time.
        first[0].0.mark_idle();
        let third = take_all(&limiter, "192.0.2.3");
        assert_eq!((closed(&first), third.len()), (vec![1, 2, 3, 4], 3));
        assert!(closed(&second).is_empty(), "it has as few as the third would have");
        assert_eq!(limiter.connections().total, 10);
        drop((first, second, third));
        assert_eq!(limiter.connections().total, 0);
        assert!(limiter.connections().by_address.is_empty());
    }

    #[test]
    fn the_first_connection_of_an_address_takes_the_place_of_the_longest_idle() {
        let limiter = ConnectionLimiter::new(3, 4);
        let ones: Vec<_> = (1..=4).map(|n| limiter.admit(IpAddr::from([192, 0, 2, n])).unwrap()).collect();
        ones[0].0.mark_busy();
        let newcomer = limiter.admit(address("198.51.100.1")).expect("most hold a place and say nothing");
        assert_eq!(closed(&ones), [1]);
        assert!(limiter.admit(address("198.51.100.1")).is_none(), "it has as many as the others");
        // No connection is closed if all are under a token.
        ones.iter().for_each(|permit| permit.0.mark_busy());
        newcomer.0.mark_busy();
        assert!(!limiter.has_place());
        assert!(limiter.admit(address("198.51.100.2")).is_none());
        newcomer.0.mark_idle();
        assert!(limiter.has_place());
        assert!(limiter.admit_proxy().is_some(), "a proxy's come for many addresses");
        assert!(newcomer.closing().is_cancelled());
    }

    #[test]
    fn a_connection_that_is_gone_is_counted_once() {
        let limiter = ConnectionLimiter::new(3, 4);
        let gone = limiter.admit(address("192.0.2.1")).unwrap();
        let slot = gone.slot();
        slot.mark_busy();
        drop(gone);
        // The last request of the connection ends after the connection.
        slot.mark_idle();
        assert!(limiter.connections().by_address.is_empty());
        // Counted as a proxy's connection first, and then as its client's.
        let named = limiter.admit_proxy().unwrap().of_client(address("192.0.2.1")).unwrap();
        assert_eq!(limiter.connections().by_address.len(), 1);
        assert_eq!(limiter.connections().total, 1);
        drop(named);
        assert_eq!(limiter.connections().total, 0);
    }
}
