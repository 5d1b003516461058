//! How many connections an address has, so that one can't take all that there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::attempts::household;

/// An address may have this part of all connections at most, so that there are some left for the others.
const LARGEST_PART: (usize, usize) = (3, 4);

/// Counts the connections of each address.
#[derive(Clone)]
pub(super) struct Households {
    /// How many one may have that is alone; any number where 0.
    limit: usize,
    /// How many there may be in all.
    places: usize,
    homes: Arc<Mutex<Homes>>,
}

#[derive(Default)]
struct Homes {
    by_address: HashMap<IpAddr, Home>,
    /// The connections of all addresses, and those that count for none.
    total: usize,
}

#[derive(Default)]
struct Home {
    connections: usize,
    /// Whether the log has said that it may have no more: a line for each refusal would be a flood of its own.
    told: bool,
}

/// A connection that is counted until this is dropped.
pub(super) struct Counted {
    /// None where many share the address.
    address: Option<IpAddr>,
    households: Households,
}

impl Households {
    /// Counts up to `places` connections, of which an address may have `limit` while the others have none.
    pub(super) fn new(limit: usize, places: usize) -> Households {
        let (part, whole) = LARGEST_PART;
        let largest = (places.saturating_mul(part) / whole).max(1);
        Households { limit: limit.min(largest), places, homes: Arc::default() }
    }

    /// Counts one more connection of `address`, unless it has as many as it may. Its share shrinks with the
    /// places that are left (a dynamic threshold, as switches share their buffers), so that there are some
    /// for whoever comes next.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Counted> {
        let address = household(address);
        let mut homes = self.homes();
        let free = self.places.saturating_sub(homes.total);
        let home = homes.by_address.entry(address).or_default();
        // Alone it comes to its limit: then `places - limit` are free.
        let has_share = home.connections * (self.places - self.limit.min(self.places)) < self.limit * free;
        if self.limit != 0 && home.connections > 0 && !has_share {
            if !home.told {
                tracing::warn!(%address, connections = home.connections, "more connections are refused");
                home.told = true;
            }
            return None;
        }
        home.connections += 1;
        homes.total += 1;
        Some(Counted { address: Some(address), households: self.clone() })
    }

    /// Counts one more connection of a proxy, whose address all its clients share.
    pub(super) fn admit_proxy(&self) -> Counted {
        self.homes().total += 1;
        Counted { address: None, households: self.clone() }
    }

    fn homes(&self) -> MutexGuard<'_, Homes> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut homes = self.households.homes();
        homes.total -= 1;
        let Some(address) = self.address else { return };
        if let Some(home) = homes.by_address.get_mut(&address) {
            home.connections -= 1;
            if home.connections == 0 {
                homes.by_address.remove(&address);
            }
        }
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
        // Of IPv6 a network is one household.
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

    /// Connections that `address` opens until it is refused.
    fn take_all(households: &Households, name: &str) -> Vec<Counted> {
        std::iter::from_fn(|| households.admit(address(name))).collect()
    }

    #[test]
    fn two_addresses_leave_places_for_a_third() {
        let households = Households::new(600, 800);
        let first = take_all(&households, "192.0.2.1");
        assert_eq!(first.len(), 600, "alone it has its limit");
        let second = take_all(&households, "192.0.2.2");
        assert_eq!(second.len(), 150);
        let third = take_all(&households, "192.0.2.3");
        assert!(third.len() > 30 && first.len() + second.len() + third.len() < 800, "{}", third.len());
        // What the first gives up it doesn't get back while the others are there.
        let mut first = first;
        first.truncate(300);
        let again = take_all(&households, "192.0.2.1");
        assert!(again.len() < 200, "{}", again.len());

        // A limit that would leave nothing for others, and one place.
        let households = Households::new(600, 100);
        assert_eq!(take_all(&households, "192.0.2.1").len(), 75);
        let households = Households::new(600, 1);
        assert_eq!(take_all(&households, "192.0.2.1").len(), 1);
    }
}
