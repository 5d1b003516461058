//! How many connections an address has, so that one can't take all that there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::attempts::household;

/// Counts the connections of each address.
#[derive(Clone)]
pub(super) struct Households {
    /// How many one may have; any number where 0.
    limit: usize,
    homes: Arc<Mutex<HashMap<IpAddr, Home>>>,
}

#[derive(Default)]
struct Home {
    connections: usize,
    /// Whether the log has said that it may have no more: a line for each refusal would be a flood of its own.
    told: bool,
}

/// A connection that is counted until this is dropped.
pub(super) struct Counted {
    address: IpAddr,
    households: Households,
}

impl Households {
    pub(super) fn new(limit: usize) -> Households {
        Households { limit, homes: Arc::default() }
    }

    /// Counts one more connection of `address`, unless it has as many as it may.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Counted> {
        let address = household(address);
        let mut homes = self.homes();
        let home = homes.entry(address).or_default();
        if self.limit != 0 && home.connections >= self.limit {
            if !home.told {
                tracing::warn!(%address, connections = home.connections, "more connections are refused");
                home.told = true;
            }
            return None;
        }
        home.connections += 1;
        Some(Counted { address, households: self.clone() })
    }

    fn homes(&self) -> MutexGuard<'_, HashMap<IpAddr, Home>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut homes = self.households.homes();
        if let Some(home) = homes.get_mut(&self.address) {
            home.connections -= 1;
            if home.connections == 0 {
                homes.remove(&self.address);
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
        let households = Households::new(2);
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
        assert!(households.homes().is_empty());
    }

    #[test]
    fn no_limit_refuses_nobody() {
        let households = Households::new(0);
        let many: Vec<_> = (0..1_000).map(|_| households.admit(address("192.0.2.1")).unwrap()).collect();
        assert_eq!(households.homes()[&address("192.0.2.1")].connections, many.len());
    }
}
