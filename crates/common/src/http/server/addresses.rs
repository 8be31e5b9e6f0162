//! How many connections come from where.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::rate_limit::{Peer, network};

/// Connections by the network they come from, of which none may have more than its share.
#[derive(Debug)]
pub(super) struct Addresses {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// None yet; at most so many from each.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: Mutex::default(),
        })
    }

    /// The place of one more connection, for as long as it is kept; `None` where there is none left.
    pub(super) fn enter(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let network = network(peer.0);
        let mut open = self.lock();
        let count = open.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place {
            addresses: Arc::clone(self),
            network,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing panics while it is held, and every write leaves it whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Arc<Addresses>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.lock();
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer(address.parse().unwrap())
    }

    #[test]
    fn each_network_has_its_share_and_takes_nothing_from_another() {
        let addresses = Addresses::new(2);
        let first = addresses.enter(peer("192.0.2.1")).unwrap();
        let _second = addresses.enter(peer("192.0.2.1")).unwrap();
        assert!(addresses.enter(peer("192.0.2.1")).is_none());
        let _other = addresses.enter(peer("192.0.2.2")).unwrap();
        drop(first);
        assert!(addresses.enter(peer("192.0.2.1")).is_some());
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_have_one_share() {
        let addresses = Addresses::new(2);
        let places = ["2001:db8::1", "2001:db8:0:0:ffff::2"].map(|address| addresses.enter(peer(address)));
        assert!(places.iter().all(Option::is_some));
        assert!(addresses.enter(peer("2001:db8::3")).is_none());
        assert!(addresses.enter(peer("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let addresses = Addresses::new(1);
        drop(addresses.enter(peer("192.0.2.1")));
        assert!(addresses.lock().is_empty());
    }
}
