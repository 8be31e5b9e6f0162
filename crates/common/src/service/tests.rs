//! A small service, started, used and stopped within this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use clap::FromArgMatches as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;

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
        Router::new().route("/greeting", get(async move || greeting))
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
