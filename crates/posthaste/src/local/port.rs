//! Ports of 127.0.0.1 for servers of our own.
//!
//! A port is only a proposal until the server has bound it: a server that finds it taken is given another. Ports are
//! taken from below the range that Linux gives to outgoing connections (32768 and up): a server that is killed and
//! started again on its port would now and then find it used by somebody's outgoing connection, even by one of a client
//! that tries to reconnect to that very port and so connects to itself.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// How often a server is started on another port before giving up.
pub(super) const TRIES: usize = 20;

/// A port that was free a moment ago.
pub(super) fn propose() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that start servers at the same time begin at different places.
    let start = (process::id() % u32::from(COUNT)).wrapping_mul(7919) % u32::from(COUNT);
    let start = u16::try_from(start).unwrap_or(0);
    let next = || FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
    (0..COUNT)
        .map(|_| next())
        .find(|port| is_free(*port))
        .unwrap_or_else(next)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether a server's log says that its port was taken.
pub(super) fn was_taken(log: &str) -> bool {
    log.to_ascii_lowercase().contains("address already in use")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposed_ports_are_free_differ_and_lie_below_the_ephemeral_range() {
        let first = propose();
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        let second = propose();
        assert_ne!(first, second);
        assert!([first, second].iter().all(|port| (FIRST..FIRST + COUNT).contains(port)));
        drop(held);
    }
}
