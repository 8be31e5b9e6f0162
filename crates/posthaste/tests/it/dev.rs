//! `posthaste dev` as a process: ready, stopped, interrupted, killed, and started again.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use posthaste::local::{Folder, Nats, Postgres, nats, postgres};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{PATIENCE, listening, listens, processes_about, program_answering, psql, request, until};

#[test]
fn it_says_where_everything_is_and_leaves_nothing_behind() {
    let mut dev = Dev::start(&[]);
    let ready = dev.ready();
    assert_eq!(dev.ready_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<&str> = ready.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["api", "ingest", "nats", "database", "admin_token"]);

    let project = json!({ "name": "acme" });
    assert_eq!(
        request(
            "POST",
            &api(&ready, "/v1/projects"),
            &ready["admin_token"],
            Some(&project)
        )
        .0,
        201
    );
    assert_eq!(
        request("GET", &api(&ready, "/v1/projects"), &json!("wrong"), None).0,
        401
    );
    for service in ["api", "ingest"] {
        assert_eq!(
            request(
                "GET",
                &format!("{}/readyz", ready[service].as_str().unwrap()),
                &Value::Null,
                None
            )
            .0,
            200
        );
    }
    until("the summary", || dev.output().contains("DEVELOPMENT MODE"));
    let nats = ready["nats"].as_str().unwrap();
    let password = nats.split_once("@").unwrap().0.rsplit_once(':').unwrap().1;
    for secret in [ready["admin_token"].as_str().unwrap(), password] {
        assert!(
            secret.len() > 20 && !dev.output().contains(secret),
            "no secret on the screen"
        );
    }
    assert!(!dev.output().contains("LISTENS BEYOND"), "{}", dev.output());
    let processes = processes_about(dev.folder.path().to_str().unwrap());
    let listening: Vec<_> = processes
        .into_iter()
        .chain([dev.process.id()])
        .flat_map(listening)
        .collect();
    assert!(listening.len() >= 6, "two servers and four services: {listening:?}");
    for address in listening {
        assert!(address.ip().is_loopback(), "{address}");
    }

    assert!(dev.stop(Signal::TERM).success(), "{}", dev.output());
    assert!(!dev.ready_file().exists());
    for service in ["api", "ingest", "nats", "database"] {
        let (_, port) = ready[service]
            .as_str()
            .unwrap()
            .split_once("://")
            .unwrap()
            .1
            .rsplit_once(':')
            .unwrap();
        let port = port.split('/').next().unwrap().parse().unwrap();
        assert!(!listens(port), "{service} still listens on {port}");
    }
    assert_eq!(dev.remains(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn another_account_of_the_machine_is_not_let_into_its_nats() {
    let mut dev = Dev::start(&[]);
    let ready = dev.ready();
    let url = ready["nats"].as_str().unwrap();
    let (_, address) = url.split_once('@').unwrap();
    let refused = async_nats::connect(format!("nats://{address}")).await.unwrap_err();
    assert_eq!(
        refused.kind(),
        async_nats::ConnectErrorKind::AuthorizationViolation,
        "{refused}"
    );
    let login = url.strip_prefix("nats://").unwrap().split_once('@').unwrap().0;
    let (user, password) = login.split_once(':').unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    options.connect(address).await.unwrap();
}

#[test]
fn listening_to_others_is_warned_of() {
    let mut dev = Dev::start(&["--api-listen", "0.0.0.0:0"]);
    dev.ready();
    let output = dev.output();
    assert!(
        output.contains("--api-listen: DEVELOPMENT MODE LISTENS BEYOND THIS MACHINE"),
        "{output}"
    );
    assert!(!output.contains("--ingest-listen: DEVELOPMENT"), "{output}");
}

#[test]
fn stopped_at_any_moment_of_its_start_it_leaves_nothing_behind() {
    let some_file = |folder: &Path, name: &str| {
        let folders = std::fs::read_dir(folder).unwrap().flatten();
        folders.into_iter().any(|entry| entry.path().join(name).exists())
    };
    type Reached<'a> = &'a dyn Fn(&Path) -> bool;
    let moments: [(&str, Reached<'_>); 6] = [
        ("at once", &|_| true),
        ("a folder", &|folder| {
            let mut entries = std::fs::read_dir(folder).unwrap().flatten();
            entries.any(|entry| entry.path().is_dir())
        }),
        ("initdb", &|folder| some_file(folder, "postgres/data.unfinished/base")),
        ("a whole cluster", &|folder| some_file(folder, "postgres/data")),
        ("a postmaster", &|folder| {
            some_file(folder, "postgres/data/postmaster.pid")
        }),
        ("createdb", &|folder| some_file(folder, "postgres/createdb.log")),
    ];
    for (name, reached) in moments {
        // Before a program asks for SIGINT, it may be ignored: a shell starts what runs in its background so.
        let polite = if name == "at once" { Signal::TERM } else { Signal::INT };
        for signal in [polite, Signal::KILL] {
            let mut dev = Dev::start(&[]);
            let folder = dev.folder.path().to_owned();
            until(name, || reached(&folder));
            dev.stop(signal);
            until(&format!("everything gone ({name}, {signal:?})"), || {
                dev.remains().is_empty() && processes_about(folder.to_str().unwrap()).is_empty()
            });
        }
    }
}

#[test]
fn killed_outright_it_leaves_nothing_behind() {
    let mut dev = Dev::start(&[]);
    dev.ready();
    std::fs::remove_file(dev.ready_file()).unwrap();
    let folder = dev.folder.path().to_str().unwrap().to_owned();
    assert!(processes_about(&folder).len() >= 3);
    dev.stop(Signal::KILL);
    until("processes gone", || processes_about(&folder).is_empty());
    until("folders gone", || dev.remains().is_empty());
}

#[test]
fn a_state_folder_keeps_projects_and_token_even_over_a_kill() {
    let state = Folder::temporary().unwrap();
    let folder = state.path().join("kept");
    let flags = ["--state-dir", folder.to_str().unwrap()];
    let mut dev = Dev::start(&flags);
    let ready = dev.ready();
    let project = json!({ "name": "acme" });
    assert_eq!(
        request(
            "POST",
            &api(&ready, "/v1/projects"),
            &ready["admin_token"],
            Some(&project)
        )
        .0,
        201
    );

    let mut second = Dev::start(&flags);
    assert!(!second.ended().success());
    assert!(
        second.output().contains("another `posthaste dev` is using it"),
        "{}",
        second.output()
    );

    dev.stop(Signal::KILL);
    let mut dev = Dev::start(&flags);
    let again = dev.ready();
    assert_eq!(ready["admin_token"], again["admin_token"]);
    let (status, answer) = request("GET", &api(&again, "/v1/projects/acme"), &again["admin_token"], None);
    assert_eq!((status, &answer["name"]), (200, &json!("acme")));
    assert!(dev.stop(Signal::TERM).success(), "{}", dev.output());
}

#[tokio::test]
async fn servers_that_are_named_are_used_and_left_alone() {
    let folder = Folder::temporary().unwrap();
    let nats = Nats::start(&folder.path().join("nats"), &nats::Options::default())
        .await
        .unwrap();
    let postgres = Postgres::start(&folder.path().join("postgres"), &postgres::Options::default())
        .await
        .unwrap();
    let (nats_url, database_url) = (nats.url(), postgres.url());
    let mut dev = Dev::with(&[], &[("NATS_URL", &nats_url), ("DATABASE_URL", &database_url)]);
    let ready = dev.ready();
    assert_eq!(
        (&ready["nats"], &ready["database"]),
        (&json!(nats_url), &json!(database_url))
    );
    let project = json!({ "name": "acme" });
    assert_eq!(
        request(
            "POST",
            &api(&ready, "/v1/projects"),
            &ready["admin_token"],
            Some(&project)
        )
        .0,
        201
    );
    assert!(
        dev.output().contains("--state-dir or POSTHASTE_ENCRYPTION_KEYS"),
        "{}",
        dev.output()
    );

    assert!(dev.stop(Signal::TERM).success(), "{}", dev.output());
    assert!(listens(nats.port()));
    assert_eq!(
        psql(
            &format!("{database_url}&options=-c%20posthaste.project%3Dall"),
            "select name from projects"
        )
        .unwrap(),
        "acme"
    );
}

#[test]
fn a_dead_server_ends_it_with_the_servers_name() {
    let mut dev = Dev::start(&[]);
    dev.ready();
    let nats = processes_about(dev.folder.path().to_str().unwrap())
        .into_iter()
        .find(|process| std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap().trim() == "nats-server");
    kill_process(Pid::from_raw(nats.unwrap().cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert!(!dev.ended().success());
    assert!(dev.output().contains("nats-server failed"), "{}", dev.output());
    assert_eq!(dev.remains(), Vec::<PathBuf>::new());
}

#[test]
fn a_nats_server_that_is_too_old_is_refused_with_the_fix() {
    let folder = Folder::temporary().unwrap();
    let program = program_answering(folder.path(), "nats-server: v2.10.7");
    let mut dev = Dev::with(&[], &[("POSTHASTE_NATS_SERVER", program.to_str().unwrap())]);
    assert!(!dev.ended().success());
    let output = dev.output();
    assert!(
        output.contains("2.10.7") && output.contains("2.12.0") && output.contains("make setup"),
        "{output}"
    );
    assert_eq!(dev.remains(), Vec::<PathBuf>::new());
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut dev = Dev::start(&["--api-listen", &address.to_string()]);
    assert!(!dev.ended().success());
    let output = dev.output();
    assert!(
        output.contains(&address.port().to_string()) && output.contains("--api-listen"),
        "{output}"
    );
}

/// `posthaste dev` with all its temporary files in a folder of its own.
struct Dev {
    process: Child,
    folder: Folder,
}

impl Dev {
    fn start(flags: &[&str]) -> Self {
        Self::with(flags, &[])
    }

    fn with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = Folder::temporary().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_posthaste"))
            .arg("dev")
            .arg("--ready-file")
            .arg(folder.path().join("ready.json"))
            .args(flags)
            .env_remove("NATS_URL")
            .env_remove("DATABASE_URL")
            .env_remove("POSTHASTE_ADMIN_TOKEN")
            .env_remove("POSTHASTE_STATE_DIR")
            .env("TMPDIR", folder.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap();
        Self { process, folder }
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    fn ready(&mut self) -> Value {
        until("ready", || {
            assert!(self.process.try_wait().unwrap().is_none(), "{}", self.output());
            self.ready_file().exists()
        });
        serde_json::from_slice(&std::fs::read(self.ready_file()).unwrap()).unwrap()
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn stop(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_raw(self.process.id().cast_signed()).unwrap(), signal).unwrap();
        self.ended()
    }

    fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "it does not end; it said:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What is left of its temporary files.
    fn remains(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| !path.ends_with("log"))
            .collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn api(ready: &Value, path: &str) -> String {
    format!("{}{path}", ready["api"].as_str().unwrap())
}
