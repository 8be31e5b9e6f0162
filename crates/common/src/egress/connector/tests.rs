use std::net::{Ipv4Addr, TcpStream as Blocking};

use tokio::net::{TcpListener, TcpSocket};

use super::*;

const DEAF: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const CLOSED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// A port at which [`DEAF`] says nothing, not even that nobody is there, since more wait there than are let in; and [`GOOD`]
/// takes whoever comes.
struct Port {
    number: u16,
    _listeners: [TcpListener; 2],
    _waiting: Vec<Blocking>,
}

impl Port {
    async fn open() -> Self {
        let (deaf, number, good) = loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(DEAF, 0)).unwrap();
            let number = socket.local_addr().unwrap().port();
            if let Ok(good) = TcpListener::bind(SocketAddr::new(GOOD, number)).await {
                break (socket.listen(1).unwrap(), number, good);
            }
        };
        let mut waiting = Vec::new();
        // The tests' clock stands still; the system's does not.
        while let Ok(stream) = Blocking::connect_timeout(&SocketAddr::new(DEAF, number), Duration::from_millis(200)) {
            waiting.push(stream);
            assert!(waiting.len() < 64, "the system accepts without end");
        }
        Self {
            number,
            _listeners: [deaf, good],
            _waiting: waiting,
        }
    }

    /// Who was reached or why nobody was, and how many milliseconds that took.
    async fn dial(&self, addresses: &[IpAddr]) -> (Result<IpAddr, String>, u128) {
        let at = Progress::begin();
        let dialled = dial(addresses, self.number, &at).await;
        let reached = dialled.map(|socket| socket.peer_addr().unwrap().ip());
        (
            reached.map_err(|error| error.to_string()),
            at.begun.elapsed().as_millis(),
        )
    }
}

#[tokio::test(start_paused = true)]
async fn each_address_has_its_share_of_the_time_for_a_connection_and_all_together_have_no_more() {
    let port = Port::open().await;
    for (addresses, reached, least) in [
        (&[GOOD, DEAF][..], Ok(GOOD), 0),
        (&[CLOSED, GOOD], Ok(GOOD), 0),
        (&[DEAF, GOOD], Ok(GOOD), 2500),
        (&[DEAF, DEAF, DEAF, GOOD], Ok(GOOD), 3750),
        (&[DEAF, DEAF, DEAF], Err("no connection in time"), 5000),
        (&[DEAF, CLOSED], Err("connection refused"), 2500),
        (&[], Err("no connection"), 0),
    ] {
        let (found, took) = port.dial(addresses).await;
        assert_eq!(found, reached.map_err(str::to_owned), "{addresses:?}");
        assert!((least..least + 100).contains(&took), "{addresses:?}: {took} ms");
    }
}

#[test]
fn the_timings_of_a_connection_are_those_of_the_one_request_it_was_made_for() {
    let begun = Instant::now();
    let (before, after) = (begun - Duration::from_secs(1), begun + Duration::from_secs(1));
    let timings = Timings {
        connect: Some(Duration::from_millis(7)),
        ..Timings::default()
    };
    let peer = || Peer {
        address: None,
        begun,
        timings,
        used: Arc::default(),
        fault: Arc::default(),
    };
    let for_one = peer();
    assert_eq!(for_one.timings_for(begun), timings);
    // Over HTTP/2 another that waited for a connection goes over the same one.
    assert_eq!(for_one.timings_for(before), Timings::default());
    // It was made for a request that has gone away; one that came later found it there.
    let for_nobody = peer();
    assert_eq!(for_nobody.timings_for(after), Timings::default());
    assert_eq!(for_nobody.timings_for(before), Timings::default());
}
