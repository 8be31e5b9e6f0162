//! Requests that leave by the operator's proxy.

use std::sync::Mutex;

use super::exchange::exchange;
use super::*;
use crate::egress::counted::Counted;

/// What the proxy says to whoever wants a tunnel, by what is asked for: a port on loopback to lead it to, or an answer.
type Leads = fn(&str) -> Result<u16, &'static str>;

/// A proxy on loopback, and what it was asked for.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    async fn start(leads: impl Fn(&str) -> Result<u16, &'static str> + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, leads.clone(), Arc::clone(&noted)));
            }
        });
        Self {
            port,
            asked,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn client(&self, config: Config) -> Client {
        Client::new(&Config {
            proxy: Some(format!("http://127.0.0.1:{}", self.port).parse().unwrap()),
            ..config
        })
        .unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// What a proxy is asked; `None` at the end of the connection.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
            return None;
        }
    }
    Some(String::from_utf8(head).unwrap())
}

async fn serve(
    mut stream: TcpStream,
    leads: impl Fn(&str) -> Result<u16, &'static str>,
    noted: Arc<Mutex<Vec<String>>>,
) {
    let Some(head) = read_head(&mut stream).await else {
        return;
    };
    let target = head.lines().next().unwrap().to_owned();
    noted.lock().unwrap().push(target.clone());
    match leads(&target) {
        Ok(port) => {
            let mut receiver = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            // In one piece with what the receiver may say first.
            stream
                .write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
                .await
                .unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut receiver).await;
        }
        Err(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

fn only_http() -> Config {
    Config {
        allow_http: true,
        ..Config::default()
    }
}

#[tokio::test]
async fn http_and_https_are_tunnelled_and_names_are_the_proxys_to_resolve() {
    let authority = Authority::new();
    let receiver = authority.receiver("receiver.example", false).await;
    let plain = Receiver::answering(OK, false).await;
    let (tls_port, plain_port) = (receiver.port, plain.port);
    let proxy = Proxy::start(move |asked: &str| Ok(if asked.contains(":443 ") { tls_port } else { plain_port })).await;
    let client = proxy.client(Config {
        ca_file: Some(authority.file.path().to_owned()),
        ..only_http()
    });
    for _ in 0..2 {
        let exchange = exchange(&client, "https://receiver.example/in").await;
        assert_eq!(&exchange.outcome.unwrap().body[..], b"HTTP/2.0");
        assert_eq!(exchange.peer, None, "of the operator's network nothing is told");
        assert_eq!(exchange.timings.dns, None);
    }
    let answer = exchange(&client, "http://receiver.example:8080/in").await;
    assert_eq!(&answer.outcome.unwrap().body[..], b"ok");
    assert_eq!(
        proxy.asked(),
        [
            "CONNECT receiver.example:443 HTTP/1.1",
            "CONNECT receiver.example:8080 HTTP/1.1"
        ]
    );
    // What the name leads to from here does not matter, nor whether it is known here.
    let target = client.guard().check("https://receiver.example/").unwrap();
    assert_eq!(client.guard().vet(&target).await, Ok(()));
}

#[tokio::test]
async fn certificates_are_verified_through_the_tunnel() {
    let authority = Authority::new();
    let receiver = authority.receiver("other.example", false).await;
    let port = receiver.port;
    let proxy = Proxy::start(move |_: &str| Ok(port)).await;
    let client = proxy.client(Config {
        ca_file: Some(authority.file.path().to_owned()),
        ..Config::default()
    });
    let error = exchange(&client, "https://receiver.example/")
        .await
        .outcome
        .unwrap_err();
    assert_eq!(error.tls_fault, Some(TlsFault::WrongName));
}

#[tokio::test]
async fn shapes_and_literal_addresses_are_refused_here_as_before() {
    let receiver = Receiver::answering(OK, false).await;
    let port = receiver.port;
    let proxy = Proxy::start(move |_: &str| Ok(port)).await;
    let client = proxy.client(only_http());
    for url in [
        "http://127.0.0.1:8080/",
        "http://169.254.169.254/",
        "https://[fd00::1]/",
        "https://localhost/",
        "https://postgres/",
        "https://metadata.google.internal/",
        "https://example.com:22/",
    ] {
        assert!(client.guard().check(url).is_err(), "{url}");
    }
    // Not even a target that should not exist gets one through.
    let target = super::client().guard().check(&receiver.url()).unwrap();
    let request = Request {
        method: Method::POST,
        target: &target,
        tls: None,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        timeout: TIMEOUT,
    };
    let error = client.send(request).await.outcome.unwrap_err();
    assert_eq!(error.class, ErrorClass::RefusedAddress);
    assert!(proxy.asked().is_empty() && receiver.connections() == 0);
    // An address that is open is the proxy's to reach, like a name.
    assert!(exchange(&client, "http://8.8.8.8/").await.outcome.is_ok());
    assert_eq!(proxy.asked(), ["CONNECT 8.8.8.8:80 HTTP/1.1"]);
}

#[tokio::test]
async fn what_the_proxy_says_is_not_passed_on() {
    let cases: [(Leads, ErrorClass, &str); 4] = [
        (
            |_| Err("HTTP/1.1 403 Forbidden\r\nx-why: 10.0.0.1\r\n\r\n"),
            ErrorClass::RefusedAddress,
            "target address not allowed",
        ),
        (
            |_| Err("HTTP/1.1 502 Bad Gateway\r\n\r\n10.0.0.1"),
            ErrorClass::Connect,
            "no connection",
        ),
        (
            |_| Err("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
            ErrorClass::Connect,
            "no connection",
        ),
        (
            |_| Err("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            ErrorClass::Connect,
            "no connection",
        ),
    ];
    for (leads, class, text) in cases {
        let proxy = Proxy::start(leads).await;
        let client = proxy.client(Config::default());
        let failed = exchange(&client, "https://receiver.example/").await;
        let error = failed.outcome.unwrap_err();
        assert_eq!((error.class, error.to_string().as_str()), (class, text));
        assert_eq!(failed.peer, None);
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(&Config {
        proxy: Some(format!("http://{nobody}").parse().unwrap()),
        ..Config::default()
    });
    let error = exchange(&client.unwrap(), "https://receiver.example/")
        .await
        .outcome
        .unwrap_err();
    assert_eq!(
        (error.class, error.to_string().as_str()),
        (ErrorClass::Connect, "no connection")
    );
}

#[tokio::test]
async fn a_proxys_head_may_be_long_and_not_endless() {
    let long = Receiver::start(|mut stream| async move {
        read_head(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(8000));
        stream.write_all(head.as_bytes()).await.unwrap();
        // From here on it is the receiver.
        read_request(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let endless = Receiver::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        while stream.write_all(b"x: y\r\n").await.is_ok() {}
    })
    .await;
    for (proxy, outcome) in [(&long, Ok("ok")), (&endless, Err("no connection"))] {
        let client = Client::new(&Config {
            proxy: Some(format!("http://127.0.0.1:{}", proxy.port).parse().unwrap()),
            ..only_http()
        });
        let answered = exchange(&client.unwrap(), "http://receiver.example/").await.outcome;
        let answered = answered
            .map(|response| response.body)
            .map_err(|error| error.to_string());
        assert_eq!(answered, outcome.map(Bytes::from).map_err(str::to_owned));
    }
}

#[tokio::test]
async fn what_the_proxy_refuses_is_counted_and_what_it_cannot_reach_is_not() {
    let counted = Counted::new();
    for (leads, refusals) in [
        ((|_| Err("HTTP/1.1 403 Forbidden\r\n\r\n")) as Leads, 1),
        (|_| Err("HTTP/1.1 502 Bad Gateway\r\n\r\n"), 1),
    ] {
        let proxy = Proxy::start(leads).await;
        let config = Config {
            proxy: Some(format!("http://127.0.0.1:{}", proxy.port).parse().unwrap()),
            ..Config::default()
        };
        let guard = Guard {
            refusals: counted.counter("ssrf_refused"),
            ..Guard::new(&config).unwrap()
        };
        let client = Client::under(guard, &config).unwrap();
        assert!(exchange(&client, "https://receiver.example/").await.outcome.is_err());
        assert_eq!(counted.of("ssrf_refused", &[r#"rule="proxy""#]), refusals);
    }
}

/// The tests' clock goes on by itself while everybody waits.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_says_nothing_is_waited_for_no_longer_than_a_connection() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let silent = Receiver::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            read_head(&mut stream).await;
            // To the end of the connection.
            tell.send(read_head(&mut stream).await).await.unwrap();
        }
    })
    .await;
    let client = Client::new(&Config {
        proxy: Some(format!("http://127.0.0.1:{}", silent.port).parse().unwrap()),
        ..Config::default()
    });
    let begun = Instant::now();
    let failed = exchange(&client.unwrap(), "https://receiver.example/").await;
    let (error, took) = (failed.outcome.unwrap_err(), begun.elapsed());
    assert_eq!(
        (error.class, error.to_string().as_str()),
        (ErrorClass::Connect, "no connection in time")
    );
    assert!(took < TIMEOUT, "{took:?}");
    assert_eq!(told.recv().await, Some(None), "the connection to it is closed");
}
