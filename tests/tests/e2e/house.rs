//! What the code promises about its own shape.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every source file of the product, with its path from the root.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                false => {}
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join("crates"), &mut files);
    walk(&root().join("proto-schemas"), &mut files);
    assert!(files.len() > 50, "the sources are not where they were");
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root()).unwrap().display().to_string(), text)
        })
        .collect()
}

/// The lines of production code that hold one of `words`, outside `rooms`.
fn strays(words: &[&str], rooms: &[&str]) -> Vec<String> {
    sources()
        .iter()
        .filter(|(path, _)| !path.contains("/tests/") && !path.ends_with("tests.rs"))
        .filter(|(path, _)| !rooms.iter().any(|room| path.starts_with(room) || path.ends_with(room)))
        .flat_map(|(path, text)| {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            code.lines()
                .enumerate()
                .filter(|(_, line)| !line.trim_start().starts_with("//"))
                .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
                .map(move |(number, line)| format!("{path}:{}: {}", number + 1, line.trim()))
        })
        .collect()
}

fn depends_on(package: &str, dependency: &str) -> bool {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "-p",
            package,
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(tree.contains("common v"), "{package} has a tree");
    tree.lines().any(|line| line.starts_with(dependency))
}

#[test]
fn ingest_and_dispatcher_link_no_postgres_driver() {
    for package in ["ingest", "dispatcher"] {
        for driver in ["sqlx", "store v", "tokio-postgres"] {
            assert!(!depends_on(package, driver), "{package} depends on {driver}");
        }
    }
    assert!(
        depends_on("retry-scheduler", "sqlx"),
        "the test can see a driver where there is one"
    );
}

#[test]
fn sql_is_in_the_store_alone() {
    assert_eq!(
        strays(&["sqlx::", "query!(", "query_as!("], &["crates/store/"]),
        Vec::<String>::new()
    );
}

/// Who writes which table, by the functions of `store` that write it. `outbox` is a queue and not a fact: both append to
/// it, config-api alone takes from it.
#[test]
fn no_table_has_two_writers() {
    const RECORD: [&str; 29] = [
        "operational_events::",
        "alerts::insert",
        "events::insert",
        "attempts::insert",
        "rejected_events::insert",
        "poisoned_entries::insert",
        "pending_deliveries::settle",
        "pending_deliveries::step",
        "pending_deliveries::defer",
        "pending_deliveries::keep_back",
        "pending_deliveries::enqueue",
        "pending_deliveries::set_aside",
        "pending_deliveries::cancel_all",
        "pending_deliveries::promote",
        "pending_deliveries::claim",
        "pending_deliveries::mark_released",
        "pending_deliveries::rescue",
        "pending_deliveries::wait_on",
        "drains::note",
        "replay::supersede",
        "deliveries::make",
        "deliveries::withdraw",
        "deliveries::discard",
        "replay_progress::begin",
        "replay_progress::write",
        "replay_progress::put_off",
        "webhook_health::lock",
        "webhook_health::write",
        "partitions::ensure",
    ];
    const DEFINITIONS: [&str; 29] = [
        "projects::insert",
        "projects::set_",
        "tokens::insert",
        "tokens::upsert_global",
        "tokens::revoke",
        "tokens::mark_used",
        "sessions::insert",
        "sessions::touch",
        "sessions::delete",
        "audit::begin",
        "audit::finish",
        "audit::note_reveal",
        "audit::delete_before",
        "idempotency_keys::claim",
        "idempotency_keys::answer",
        "idempotency_keys::forget",
        "idempotency_keys::delete_before",
        "webhooks::insert",
        "webhooks::update",
        "webhooks::note_revision",
        "rows::insert",
        "rows::update",
        "rows::delete",
        "tests::insert",
        "tests::forget_secrets",
        "replays::insert",
        "replays::cancel",
        "replays::delete_before",
        "outbox::delete",
    ];
    let others = ["crates/store/", "crates/retry-scheduler/"];
    assert_eq!(strays(&RECORD, &others), Vec::<String>::new());
    let others = ["crates/store/", "crates/config-api/"];
    assert_eq!(strays(&DEFINITIONS, &others), Vec::<String>::new());
    // The test sees a writer where there is one, and nobody is looked for who is called something else by now.
    for writer in RECORD.iter().chain(&DEFINITIONS) {
        assert_ne!(strays(&[writer], &["crates/store/"]), Vec::<String>::new(), "{writer}");
    }
}

/// Who is not held to one project: whoever finds out who asks, works for all, or answers the administrator.
#[test]
fn who_works_for_all_projects_is_known() {
    let words = ["of_all_projects(", "of_project_or_all("];
    let known = [
        "crates/store/",
        "crates/retry-scheduler/src/lib.rs",
        // Who asks, and what they asked for.
        "crates/config-api/src/access.rs",
        "crates/config-api/src/audit.rs",
        "crates/config-api/src/http/audit.rs",
        "crates/config-api/src/http/idempotency.rs",
        "crates/config-api/src/http/projects.rs",
        "crates/config-api/src/http/rejected_events.rs",
        "crates/config-api/src/http/session.rs",
        // Public keys, which are everybody's.
        "crates/config-api/src/http/webhooks/jwks.rs",
        // What goes on by itself.
        "crates/config-api/src/forgetting.rs",
        "crates/config-api/src/lib.rs",
        "crates/config-api/src/reseal.rs",
        "crates/config-api/src/secrets.rs",
        "crates/config-api/src/uses.rs",
    ];
    assert_eq!(strays(&words, &known), Vec::<String>::new());
    assert_ne!(strays(&words, &[]), Vec::<String>::new());
}

/// Where a webhook leads, the guard alone may go: whatever opens a connection or asks for a name stands there, or is one of
/// the operator's own connections, to where configuration says.
#[test]
fn nothing_but_the_guard_opens_a_way_out() {
    let words = [
        // The system's own, and tokio's.
        "TcpStream::connect",
        "TcpSocket",
        "UnixStream",
        "UdpSocket",
        "lookup_host",
        "to_socket_addrs",
        "ToSocketAddrs",
        // Clients of HTTP and of name servers.
        "reqwest",
        "hyper_util::client",
        "hyper::client",
        "legacy::Client",
        "h2::client",
        "hickory_",
        "TokioResolver",
        // The operator's.
        "opentelemetry_otlp::",
        "lettre::",
        "SmtpTransport",
        "async_nats::connect",
        "async_nats::ConnectOptions",
        "ConnectOptions::new",
        "PgConnectOptions",
    ];
    const GUARD: &str = "crates/common/src/egress/";
    let operators = [
        // NATS, Postgres, where traces go, and the mail server.
        "crates/common/src/bus/connection.rs",
        "crates/store/src/pool.rs",
        "crates/common/src/telemetry/",
        "crates/retry-scheduler/src/alert.rs",
    ];
    let rooms: Vec<&str> = std::iter::once(GUARD).chain(operators).collect();
    assert_eq!(strays(&words, &rooms), Vec::<String>::new());
    // The test sees a way out where there is one: each of the rooms has one.
    for room in &rooms {
        let others: Vec<&str> = rooms.iter().copied().filter(|other| other != room).collect();
        assert_ne!(strays(&words, &others), Vec::<String>::new(), "{room}");
    }
}

#[test]
fn only_the_bus_acks() {
    let words = [
        ".ack()",
        "ack_with(",
        "AckKind",
        "\"+ACK\"",
        "\"-NAK",
        "PullConsumer",
        "AckPolicy",
    ];
    assert_eq!(strays(&words, &["crates/common/src/bus/"]), Vec::<String>::new());
}

#[test]
fn what_crosses_nats_is_named_in_proto_schemas_alone() {
    let words = [
        "\"events.",
        "\"deliveries.",
        "\"ledger.",
        "\"EVENTS\"",
        "\"DELIVERIES\"",
        "\"LEDGER\"",
        "\"CONFIG\"",
        "\"Nats-Msg-Id\"",
        "\"Posthaste-Id\"",
    ];
    // The README's and the help's own examples are text for people.
    assert_eq!(strays(&words, &["proto-schemas/"]), Vec::<String>::new());
}

#[test]
fn the_environment_is_read_in_config_modules_alone() {
    assert_eq!(
        strays(&["env::var", "env::vars"], &["config.rs", "config/mod.rs", "build.rs"]),
        Vec::<String>::new()
    );
}

#[test]
fn time_and_chance_are_parameters() {
    let words = [
        "SystemTime::now",
        "Timestamp::now",
        "Utc::now",
        "Uuid::new_v4",
        "Uuid::now_v7",
    ];
    assert_eq!(strays(&words, &["crates/common/src/clock.rs"]), Vec::<String>::new());
}

#[test]
fn no_file_is_longer_than_anybody_would_read() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, text)| {
            (
                path,
                text.split("#[cfg(test)]").next().unwrap_or_default().lines().count(),
            )
        })
        .filter(|(_, lines)| *lines > 600)
        .map(|(path, lines)| format!("{path}: {lines}"))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}
