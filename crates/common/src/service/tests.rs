//! A small service, started, used and stopped within this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::routing::get;
use axum::{Extension, Router};
use clap::FromArgMatches as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::http::rate_limit::Peer;
use crate::http::server::Limits;

const DEADLINE: Duration = Duration::from_secs(20);

/// Does nothing, well.
struct Idle {
    config: Config,
    context: Context,
}

#[derive(Debug, Clone, clap::Args)]
struct Config {
    /// What it answers.
    #[arg(long, default_value = "hello")]
    greeting: String,
    /// What `build` waits for.
    #[arg(skip)]
    ready: Arc<Notify>,
    #[arg(skip)]
    behaviour: Behaviour,
    /// Whether `run` has finished what it began.
    #[arg(skip)]
    flushed: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Behaviour {
    #[default]
    Good,
    FailsToBuild,
    EndsByItself,
    Panics,
}

fn config(behaviour: Behaviour) -> Config {
    let config = Config {
        greeting: "hello".to_owned(),
        ready: Arc::default(),
        behaviour,
        flushed: Arc::default(),
    };
    config.ready.notify_one();
    config
}

impl Service for Idle {
    const NAME: &'static str = "idle";
    const ABOUT: &'static str = "Does nothing, well";
    const DEFAULT_LISTEN: &'static str = "127.0.0.1:8099";
    type Config = Config;

    async fn build(config: Config, context: Context) -> anyhow::Result<Self> {
        context.health.set("greeting", Err("thinking of one".to_owned()));
        config.ready.notified().await;
        context.health.set("greeting", Ok(()));
        if let Behaviour::FailsToBuild = config.behaviour {
            anyhow::bail!("no greeting comes to mind");
        }
        Ok(Self { config, context })
    }

    fn router(&self) -> Router {
        let greeting = self.config.greeting.clone();
        Router::new()
            .route("/greeting", get(async move || greeting))
            .route("/whence", get(async |Extension(Peer(address))| address.to_string()))
    }

    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        match self.config.behaviour {
            Behaviour::EndsByItself => return Ok(()),
            Behaviour::Panics => panic!("out of order"),
            Behaviour::Good | Behaviour::FailsToBuild => {}
        }
        stop.cancelled().await;
        assert!(self.context.stop.is_cancelled(), "requests end before work does");
        self.config.flushed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

fn args() -> Args {
    Args::local(SocketAddr::from(([127, 0, 0, 1], 0)))
}

async fn get_from(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn end(running: Running) -> anyhow::Result<()> {
    timeout(DEADLINE, running.wait()).await.expect("it ends")
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop_and_then_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let ready_file = folder.path().join("ready.json");
    let config = config(Behaviour::Good);
    let flushed = Arc::clone(&config.flushed);
    let stop = CancellationToken::new();
    let args = Args {
        ready_file: Some(ready_file.clone()),
        ..args()
    };
    let running = start::<Idle>(config, args, stop.clone()).await.unwrap();

    let text = std::fs::read_to_string(&ready_file).unwrap();
    assert_eq!(
        text,
        format!("{{\"service\":\"idle\",\"listen\":\"http://{}\"}}\n", running.addr)
    );
    assert!(running.health.is_ready());
    assert!(get_from(running.addr, "/greeting").await.ends_with("hello"));
    assert!(get_from(running.addr, "/readyz").await.starts_with("HTTP/1.1 200 "));
    assert!(get_from(running.addr, "/livez").await.starts_with("HTTP/1.1 200 "));
    assert!(
        get_from(running.addr, "/metrics")
            .await
            .contains("process_cpu_time_seconds_total")
    );
    assert!(
        get_from(running.addr, "/elsewhere")
            .await
            .contains("urn:posthaste:problem:not_found")
    );

    stop.cancel();
    let (addr, health) = (running.addr, running.health.clone());
    end(running).await.unwrap();
    assert!(flushed.load(Ordering::SeqCst));
    assert!(!health.is_ready());
    assert!(!ready_file.exists());
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn while_it_starts_it_says_what_it_waits_for() {
    let config = Config {
        ready: Arc::default(),
        ..config(Behaviour::Good)
    };
    let ready = Arc::clone(&config.ready);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let stop = CancellationToken::new();
    let starting = tokio::spawn(start::<Idle>(config, Args { listen: addr, ..args() }, stop.clone()));

    let says_so = async {
        loop {
            if TcpStream::connect(addr).await.is_ok() {
                let answer = get_from(addr, "/readyz").await;
                if answer.contains("thinking of one") {
                    return answer;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let answer = timeout(DEADLINE, says_so).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let answer = get_from(addr, "/greeting").await;
    assert!(
        answer.contains("urn:posthaste:problem:starting") && answer.contains("retry-after: 1"),
        "{answer}"
    );

    ready.notify_one();
    let running = starting.await.unwrap().unwrap();
    assert!(get_from(addr, "/greeting").await.ends_with("hello"));
    stop.cancel();
    end(running).await.unwrap();
}

#[tokio::test]
async fn it_goes_on_serving_while_it_drains() {
    let stop = CancellationToken::new();
    let args = Args {
        drain_delay: Duration::from_millis(500),
        ..args()
    };
    let running = start::<Idle>(config(Behaviour::Good), args, stop.clone())
        .await
        .unwrap();
    stop.cancel();
    let unready = async {
        while running.health.is_ready() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, unready).await.unwrap();
    assert!(get_from(running.addr, "/greeting").await.ends_with("hello"));
    assert!(get_from(running.addr, "/readyz").await.contains("stopping"));
    end(running).await.unwrap();
}

#[tokio::test]
async fn a_failure_to_build_is_told_with_its_reason() {
    let error = start::<Idle>(config(Behaviour::FailsToBuild), args(), CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(format!("{error:#}"), "idle cannot start: no greeting comes to mind");
}

#[tokio::test]
async fn told_to_stop_before_it_is_ready_it_does_not_start() {
    let stop = CancellationToken::new();
    stop.cancel();
    let config = Config {
        ready: Arc::default(),
        ..config(Behaviour::Good)
    };
    let error = start::<Idle>(config, args(), stop).await.unwrap_err();
    assert_eq!(error.to_string(), "idle was told to stop before it was ready");
}

#[tokio::test]
async fn an_end_nobody_asked_for_is_a_failure() {
    let running = start::<Idle>(config(Behaviour::EndsByItself), args(), CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(
        end(running).await.unwrap_err().to_string(),
        "idle ended without being told to"
    );
    let running = start::<Idle>(config(Behaviour::Panics), args(), CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(end(running).await.unwrap_err().to_string(), "idle panicked");
}

#[tokio::test]
async fn an_address_in_use_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = taken.local_addr().unwrap();
    let error = start::<Idle>(
        config(Behaviour::Good),
        Args { listen, ..args() },
        CancellationToken::new(),
    )
    .await;
    let text = format!("{:#}", error.unwrap_err());
    assert!(text.contains(&format!("port {} of 127.0.0.1", listen.port())), "{text}");
    assert!(text.contains("--listen"), "{text}");
    assert!(text.contains("in use"), "{text}");
}

#[test]
fn what_the_server_puts_up_with_is_what_was_set() {
    let args = |flags: &[&str]| {
        let matches = command::<Idle>().try_get_matches_from([&["idle"], flags].concat());
        matches.map(|matches| Args::from_arg_matches(&matches).unwrap())
    };
    assert_eq!(args(&[]).unwrap().limits(), Limits::default());
    assert_eq!(self::args().limits(), Limits::default());
    let set = [
        "--max-connections",
        "7",
        "--max-connections-per-address",
        "3",
        "--max-body-memory",
        "20MiB",
    ];
    let expected = Limits {
        max_connections: 7,
        max_connections_per_address: 3,
        max_body_memory: 20 << 20,
        ..Limits::default()
    };
    assert_eq!(args(&set).unwrap().limits(), expected);
    let refused = args(&["--max-body-memory", "15MiB"]).unwrap_err().to_string();
    assert!(refused.contains("at least 16MiB"), "{refused}");
    assert!(args(&["--trusted-proxies", "everybody"]).is_err());
}

/// A connection that was answered once, and is kept.
async fn kept(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream
        .write_all(b"GET /greeting HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 15];
    timeout(DEADLINE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    stream
}

#[tokio::test]
async fn connections_are_limited_as_the_settings_say() {
    let settings = [
        Args {
            max_connections: 1,
            ..args()
        },
        Args {
            max_connections_per_address: 1,
            ..args()
        },
    ];
    for (args, waits) in settings.into_iter().zip([true, false]) {
        let stop = CancellationToken::new();
        let running = start::<Idle>(config(Behaviour::Good), args, stop.clone())
            .await
            .unwrap();
        let first = kept(running.addr).await;
        let mut second = TcpStream::connect(running.addr).await.unwrap();
        let early = timeout(Duration::from_millis(200), second.read(&mut [0])).await;
        assert_eq!(early.is_err(), waits, "{early:?}");
        drop((first, second));
        stop.cancel();
        end(running).await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_is_believed_where_the_settings_say_so_and_not_otherwise() {
    for (proxies, expected) in [
        ("127.0.0.0/8", "192.0.2.7"),
        ("", "127.0.0.1"),
        ("10.0.0.0/8", "127.0.0.1"),
    ] {
        let stop = CancellationToken::new();
        let args = Args {
            trusted_proxies: proxies.parse().unwrap(),
            ..args()
        };
        let running = start::<Idle>(config(Behaviour::Good), args, stop.clone())
            .await
            .unwrap();
        let path = "/whence HTTP/1.1\r\nx-forwarded-for: 1.1.1.1, 192.0.2.7\r\nx-rest:";
        let answer = get_from(running.addr, path).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{proxies}: {answer}");
        stop.cancel();
        end(running).await.unwrap();
    }
}

#[test]
fn the_command_line_is_complete() {
    command::<Idle>().debug_assert();
    let matches = command::<Idle>()
        .try_get_matches_from(["idle", "--drain-delay", "1s"])
        .unwrap();
    let args = Args::from_arg_matches(&matches).unwrap();
    assert_eq!(args.listen.to_string(), "127.0.0.1:8099");
    assert_eq!(args.drain_delay, Duration::from_secs(1));
    let help = command::<Idle>().render_help().to_string();
    assert!(help.starts_with("Does nothing, well\n"), "{help}");
    for said in [
        "--greeting",
        "--listen <IP:PORT>",
        "POSTHASTE_LISTEN",
        "127.0.0.1:8099",
        "POSTHASTE_LOG",
        "Process:",
    ] {
        assert!(help.contains(said), "{said} is not in\n{help}");
    }
    assert!(
        command::<Idle>()
            .try_get_matches_from(["idle", "--max-connections", "0"])
            .is_err()
    );
}
