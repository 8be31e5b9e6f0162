use std::net::{Ipv4Addr, TcpStream as Blocking};

use rcgen::CertifiedKey;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

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

/// TLS takes what is written into a buffer of its own, where it stays while the other side reads nothing.
#[tokio::test]
async fn what_is_flushed_is_not_in_a_buffer_of_ours_any_more() {
    // More than these sockets hold, and less than TLS does.
    const LENGTH: usize = 48 * 1024;
    const SOCKET: u32 = 4096;
    let (socket, listening) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    socket.set_send_buffer_size(SOCKET).unwrap();
    listening.set_recv_buffer_size(SOCKET).unwrap();
    listening.bind(SocketAddr::new(DEAF, 0)).unwrap();
    let listener = listening.listen(1).unwrap();
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let (begun, connected) = (Progress::begin(), socket.connect(listener.local_addr().unwrap()));
    let (connected, accepted) = tokio::join!(connected, listener.accept());
    let client = TlsConnector::from(Arc::new(client));
    let server = TlsAcceptor::from(Arc::new(server));
    let name = ServerName::try_from("localhost").unwrap();
    let (session, reader) = tokio::join!(
        client.connect(name, connected.unwrap()),
        server.accept(accepted.unwrap().0)
    );
    let io = Io::Tls(Box::new(TokioIo::new(session.unwrap())));
    let (mut writer, mut reader) = (
        TokioIo::new(Stream::new(io, false, &begun, Counted::one_more(&Arc::default()))),
        reader.unwrap(),
    );

    writer.write_all(&[7; LENGTH]).await.unwrap();
    let flushed = tokio::time::timeout(Duration::from_millis(50), writer.flush()).await;
    assert!(flushed.is_err(), "nobody has read anything, and all of it is gone");
    let mut read = vec![0; LENGTH];
    let (flushed, whole) = tokio::join!(writer.flush(), reader.read_exact(&mut read));
    flushed.unwrap();
    whole.unwrap();
}
