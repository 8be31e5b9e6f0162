//! The private servers: started, killed, restarted, and gone with their launcher.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use posthaste::local::{Error, Folder, Nats, Postgres, nats, postgres};

use crate::support::{listens, processes_about, program_answering, psql, runs, until};

#[tokio::test]
async fn a_killed_nats_comes_back_on_its_port_with_its_messages() {
    let folder = Folder::temporary().unwrap();
    let mut server = Nats::start(&folder.path().join("nats"), &nats::Options::default())
        .await
        .unwrap();
    let (url, process) = (server.url(), server.process_id().unwrap());
    let jetstream = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    jetstream.create_stream(stream()).await.unwrap();
    jetstream.publish("kept.one", "1".into()).await.unwrap().await.unwrap();

    server.kill().unwrap();
    assert!(!runs(process) && !listens(server.port()) && server.process_id().is_none());
    server.restart().await.unwrap();

    assert_eq!(server.url(), url);
    let jetstream = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    assert_eq!(
        jetstream.get_stream("KEPT").await.unwrap().cached_info().state.messages,
        1
    );
    jetstream.publish("kept.two", "2".into()).await.unwrap().await.unwrap();

    server.stop().await.unwrap();
    assert!(!listens(server.port()));
    server.restart().await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(&url).await.unwrap());
    assert_eq!(
        jetstream.get_stream("KEPT").await.unwrap().cached_info().state.messages,
        2
    );
}

#[tokio::test]
async fn a_killed_postgres_comes_back_on_its_socket_and_port_with_its_rows() {
    let folder = Folder::temporary().unwrap();
    let mut server = Postgres::start(&folder.path().join("postgres"), &postgres::Options::default())
        .await
        .unwrap();
    let (url, process) = (server.url(), server.process_id().unwrap());
    psql(&url, "create table kept (n int); insert into kept values (1)").unwrap();

    server.kill().unwrap();
    assert!(!runs(process) && server.process_id().is_none());
    assert!(psql(&url, "select 1").is_err());
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    assert_eq!(
        psql(&url, "insert into kept values (2); select count(*) from kept")
            .unwrap()
            .lines()
            .last(),
        Some("2")
    );

    server.stop().await.unwrap();
    assert!(!listens(server.port()));
    server.restart().await.unwrap();
    assert_eq!(psql(&server.tcp_url(), "select count(*) from kept").unwrap(), "2");

    let other = server.create_database("other").await.unwrap();
    assert!(
        psql(&other, "select * from kept")
            .unwrap_err()
            .contains("does not exist")
    );
    assert!(matches!(
        server.create_database("other").await,
        Err(Error::Failed { .. })
    ));
}

#[tokio::test]
async fn a_postgres_without_its_password_is_closed_to_other_users_of_the_machine() {
    let folder = Folder::temporary().unwrap();
    let server = Postgres::start(&folder.path().join("postgres"), &postgres::Options::default())
        .await
        .unwrap();
    let without = format!("postgres://posthaste@127.0.0.1:{}/posthaste", server.port());
    assert!(psql(&without, "select 1").unwrap_err().contains("no password"));
    let wrong = without.replace("posthaste@", "posthaste:wrong@");
    assert!(
        psql(&wrong, "select 1")
            .unwrap_err()
            .contains("password authentication failed")
    );
    assert_eq!(mode(&folder.path().join("postgres/password")), 0o600);
    assert_eq!(mode(Path::new(&socket_folder(&server))), 0o700);
}

#[tokio::test]
async fn root_is_told_of_a_folder_that_the_account_of_postgres_cannot_reach() {
    let folder = Folder::temporary().unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let started = Postgres::start(&closed.join("postgres"), &postgres::Options::default()).await;
    if rustix::process::geteuid().is_root() {
        let error = started.unwrap_err().to_string();
        assert!(
            error.contains("cannot reach") && error.contains(closed.to_str().unwrap()),
            "{error}"
        );
    } else {
        // Whoever is not root runs Postgres themselves.
        started.unwrap();
    }
}

#[tokio::test]
async fn data_of_a_folder_is_found_again_by_the_next_start() {
    let folder = Folder::temporary().unwrap();
    let (nats_folder, postgres_folder) = (folder.path().join("nats"), folder.path().join("postgres"));
    for round in 0..2 {
        let nats = Nats::start(&nats_folder, &nats::Options::default()).await.unwrap();
        let postgres = Postgres::start(&postgres_folder, &postgres::Options::default())
            .await
            .unwrap();
        let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
        let stream = jetstream.get_or_create_stream(stream()).await.unwrap();
        assert_eq!(stream.cached_info().state.messages, round);
        jetstream.publish("kept.one", "1".into()).await.unwrap().await.unwrap();
        psql(
            &postgres.tcp_url(),
            "create table if not exists kept (n int); insert into kept values (1)",
        )
        .unwrap();
        assert_eq!(
            psql(&postgres.url(), "select count(*) from kept").unwrap(),
            (round + 1).to_string()
        );
        // Dropped, not stopped: as good as killed.
    }
}

#[tokio::test]
async fn a_port_that_somebody_took_meanwhile_is_named() {
    let folder = Folder::temporary().unwrap();
    let mut server = Nats::start(&folder.path().join("nats"), &nats::Options::default())
        .await
        .unwrap();
    server.kill().unwrap();
    let _taken = TcpListener::bind(("127.0.0.1", server.port())).unwrap();
    let error = server.restart().await.unwrap_err();
    assert!(
        matches!(&error, Error::PortTaken { port, .. } if *port == server.port()),
        "{error}"
    );
}

#[tokio::test]
async fn servers_started_at_once_get_ports_of_their_own() {
    let folder = Folder::temporary().unwrap();
    let options = nats::Options::default();
    let starts = (0..8).map(|n| folder.path().join(n.to_string()));
    let servers = futures::future::try_join_all(starts.map(|folder| {
        let options = options.clone();
        async move { Nats::start(&folder, &options).await }
    }));
    let mut ports: Vec<u16> = servers.await.unwrap().iter().map(Nats::port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 8);
}

#[tokio::test]
async fn a_nats_server_that_is_too_old_is_refused_with_the_fix() {
    let folder = Folder::temporary().unwrap();
    let program = program_answering(folder.path(), "nats-server: v2.9.10");
    let options = nats::Options {
        program: Some(program.clone()),
        ..nats::Options::default()
    };
    let error = Nats::start(&folder.path().join("nats"), &options)
        .await
        .unwrap_err()
        .to_string();
    for part in [
        program.to_str().unwrap(),
        "2.9.10",
        "2.12.0",
        "make setup",
        "POSTHASTE_NATS_SERVER",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_program_that_is_no_nats_server_is_refused() {
    let folder = Folder::temporary().unwrap();
    let program = program_answering(folder.path(), "hello");
    let options = nats::Options {
        program: Some(program),
        ..nats::Options::default()
    };
    let error = Nats::start(&folder.path().join("nats"), &options).await.unwrap_err();
    assert!(matches!(error, Error::NotNatsServer { .. }), "{error}");
}

#[tokio::test]
async fn what_a_server_said_before_it_failed_is_in_the_error() {
    let folder = Folder::temporary().unwrap();
    let home = folder.path().join("nats");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("store"), "not a folder").unwrap();
    let error = Nats::start(&home, &nats::Options::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("nats-server failed") && error.contains("storage directory"),
        "{error}"
    );
}

#[test]
fn servers_and_folders_are_gone_soon_after_their_launcher_was_killed() {
    let mut launcher = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local::launcher", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(launcher.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let said = lines
        .filter_map(|line| Some(line.split_once("LAUNCHED ")?.1.to_owned()))
        .next()
        .unwrap();
    let [nats, postgres, folder, socket] = said.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let ports: [u16; 2] = [nats.parse().unwrap(), postgres.parse().unwrap()];
    assert!(ports.iter().all(|port| listens(*port)) && Path::new(folder).exists() && Path::new(socket).exists());
    let processes = processes_about(folder);
    assert!(processes.len() >= 2, "{processes:?}");

    launcher.kill().unwrap();
    launcher.wait().unwrap();

    until("ports closed", || !ports.iter().any(|port| listens(*port)));
    until("processes gone", || !processes.iter().any(|process| runs(*process)));
    until("folders gone", || {
        !Path::new(folder).exists() && !Path::new(socket).exists()
    });
}

/// Not a test: what the test above kills.
#[tokio::test]
#[ignore = "only the test above runs it"]
async fn launcher() {
    let folder = Folder::temporary().unwrap();
    let nats = Nats::start(&folder.path().join("nats"), &nats::Options::default())
        .await
        .unwrap();
    let postgres = Postgres::start(&folder.path().join("postgres"), &postgres::Options::default())
        .await
        .unwrap();
    let (folder, socket) = (folder.path().display(), socket_folder(&postgres));
    println!("LAUNCHED {} {} {folder} {socket}", nats.port(), postgres.port());
    std::future::pending::<()>().await;
}

fn stream() -> async_nats::jetstream::stream::Config {
    async_nats::jetstream::stream::Config {
        name: "KEPT".to_owned(),
        subjects: vec!["kept.>".to_owned()],
        ..Default::default()
    }
}

fn socket_folder(server: &Postgres) -> String {
    server.url().split_once("?host=").unwrap().1.replace("%2F", "/")
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}
