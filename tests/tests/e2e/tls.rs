//! TLS to NATS and Postgres: with the authority that is named, with no other, for no other name, and never without.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Parser as _;
use common::bus::{self, Bus};
use posthaste::local::{Folder, Nats, Postgres, nats, postgres};
use posthaste_tests::{eventually, program};
use proto_schemas::stream::config_key::Key;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

/// Signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Certificate and key for a name or address.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// Files of PEM in a folder that is gone with the test.
struct Files(Folder);

impl Files {
    fn new() -> Self {
        Self(Folder::temporary().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Certificate and key, by the names of their files.
    fn pair(&self, name: &str, (certificate, key): &(String, String)) -> (String, String) {
        let certificate = self.write(&format!("{name}.crt"), certificate);
        let key = self.write(&format!("{name}.key"), key);
        (text(&certificate), text(&key))
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A service, ended with the test.
struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    fn start(files: &Files, role: &str, env: &[(&str, &str)]) -> Self {
        let log = files.path().join("log");
        let out = fs::File::create(&log).unwrap();
        let child = Command::new(program().unwrap())
            .args([role, "--listen", "127.0.0.1:0", "--startup-timeout", "20s"])
            .arg("--ready-file")
            .arg(files.path().join("ready"))
            .env_remove("NATS_URL")
            .env_remove("DATABASE_URL")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, log }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a service comes to with these settings: `Ok` where it gets ready, and what it has logged.
async fn start(files: &Files, role: &str, env: &[(&str, &str)]) -> (bool, String) {
    let ready = files.path().join("ready");
    let _ = fs::remove_file(&ready);
    let mut service = Service::start(files, role, env);
    let got_ready = eventually("ready, or ended", || {
        let ended = service.child.try_wait().unwrap().is_some();
        let is_ready = ready.exists();
        async move { (ended || is_ready).then_some(is_ready) }
    })
    .await;
    let log = fs::read_to_string(&service.log).unwrap();
    for (name, value) in env {
        let login = value.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
        if let Some((_, password)) = login.and_then(|(login, _)| login.split_once(':')) {
            assert!(
                !log.contains(password),
                "the password of {name} is not for the log: {log}"
            );
        }
    }
    (got_ready, log)
}

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    nats: bus::Config,
}

/// Has a bucket of definitions that config-api has filled: without it nobody gets ready.
async fn fill(arguments: &[&str]) {
    let arguments = Arguments::parse_from([&["test"], arguments].concat());
    let bus = Bus::connect(&arguments.nats, "test", Duration::from_secs(20))
        .await
        .unwrap();
    let bucket = bus.config_bucket().await.unwrap();
    bucket.put(&Key::Filled, b"1".to_vec()).await.unwrap();
}

async fn gets_ready(files: &Files, role: &str, env: &[(&str, &str)]) -> String {
    let (ready, log) = start(files, role, env).await;
    assert!(ready, "{role} {env:?}: {log}");
    log
}

async fn is_refused(files: &Files, role: &str, env: &[(&str, &str)], says: &[&str]) {
    let (ready, log) = start(files, role, env).await;
    assert!(!ready, "{role} {env:?} should not get ready: {log}");
    for text in says {
        assert!(log.contains(text), "`{text}` is not in: {log}");
    }
}

/// nats-server that speaks TLS as 127.0.0.1, and asks for certificates of this authority, if there is one.
async fn tls_nats(files: &Files, authority: &Authority, clients: Option<&str>) -> Nats {
    tls_nats_as("127.0.0.1", files, authority, clients).await
}

async fn tls_nats_as(name: &str, files: &Files, authority: &Authority, clients: Option<&str>) -> Nats {
    let (certificate, key) = files.pair("nats", &authority.sign(name));
    let verify = clients.map_or(String::new(), |ca| format!("ca_file: '{ca}', verify: true"));
    let options = nats::Options {
        more: format!("tls {{ cert_file: '{certificate}', key_file: '{key}', {verify} }}"),
        ..nats::Options::default()
    };
    Nats::start(&files.path().join("nats"), &options).await.unwrap()
}

#[tokio::test]
async fn nats_is_reached_over_tls_by_the_authority_and_the_name_only() {
    let (files, authority) = (Files::new(), Authority::new());
    let nats = tls_nats(&files, &authority, None).await;
    let ca = text(&files.write("ca.pem", &authority.pem()));
    let unknown = text(&files.write("unknown.pem", &Authority::new().pem()));
    let url = nats.url();
    fill(&["--nats-url", &url, "--nats-ca-file", &ca]).await;
    let log = gets_ready(&files, "ingest", &[("NATS_URL", &url), ("POSTHASTE_NATS_CA_FILE", &ca)]).await;
    assert!(!log.contains("WITHOUT TLS"), "{log}");
    let refused = ["no TLS with NATS at", "certificate"];
    is_refused(&files, "ingest", &[("NATS_URL", &url)], &refused).await;
    for other in [&unknown, &text(&files.path().join("nowhere.pem"))] {
        let env = [("NATS_URL", url.as_str()), ("POSTHASTE_NATS_CA_FILE", other)];
        is_refused(&files, "ingest", &env, &refused[..1]).await;
    }
    let by_name = format!("nats://localhost:{}", nats.port());
    let env = [("NATS_URL", by_name.as_str()), ("POSTHASTE_NATS_CA_FILE", &ca)];
    is_refused(&files, "ingest", &env, &refused).await;

    // Who names an authority wants no plain text, whoever answers.
    let plain = Nats::start(&files.path().join("plain"), &nats::Options::default())
        .await
        .unwrap();
    let env = [("NATS_URL", plain.url()), ("POSTHASTE_NATS_CA_FILE", ca)];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    is_refused(&files, "ingest", &env, &refused[..1]).await;
}

#[tokio::test]
async fn nats_may_ask_for_a_certificate() {
    let (files, authority, clients) = (Files::new(), Authority::new(), Authority::new());
    let clients_ca = text(&files.write("clients.pem", &clients.pem()));
    let nats = tls_nats(&files, &authority, Some(&clients_ca)).await;
    let ca = text(&files.write("ca.pem", &authority.pem()));
    let (certificate, key) = files.pair("ingest", &clients.sign("ingest"));
    let (stranger, strangers_key) = files.pair("stranger", &Authority::new().sign("ingest"));
    let as_ingest = [
        "--nats-client-certificate-file",
        &certificate,
        "--nats-client-key-file",
        &key,
    ];
    fill(
        &[
            &["--nats-url", &nats.url(), "--nats-ca-file", &ca],
            as_ingest.as_slice(),
        ]
        .concat(),
    )
    .await;
    // The address may be in a file, too.
    let address = text(&files.write("address", &format!("{}\n", nats.url())));
    let env = [("NATS_URL_FILE", address.as_str()), ("POSTHASTE_NATS_CA_FILE", &ca)];
    let with = |certificate: &str, key: &str| {
        let certificate = ("POSTHASTE_NATS_CLIENT_CERTIFICATE_FILE", certificate.to_owned());
        let key = ("POSTHASTE_NATS_CLIENT_KEY_FILE", key.to_owned());
        let env = env.map(|(name, value)| (name, value.to_owned()));
        [env.to_vec(), vec![certificate, key]].concat()
    };
    for (env, ready) in [
        (with(&certificate, &key), true),
        (env.map(|(name, value)| (name, value.to_owned())).to_vec(), false),
        (with(&stranger, &strangers_key), false),
        // The key of another.
        (with(&certificate, &strangers_key), false),
    ] {
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match ready {
            true => drop(gets_ready(&files, "ingest", &env).await),
            false => is_refused(&files, "ingest", &env, &["NATS at"]).await,
        }
    }
    let half = [("POSTHASTE_NATS_CLIENT_CERTIFICATE_FILE", certificate.as_str())];
    is_refused(&files, "ingest", &half, &["--nats-client-key-file"]).await;
}

#[tokio::test]
async fn postgres_is_reached_over_tls_by_the_authority_and_the_name_only() {
    let (files, authority) = (Files::new(), Authority::new());
    let (certificate, key) = authority.sign("127.0.0.1");
    let options = postgres::Options {
        tls: Some(postgres::Tls { certificate, key }),
        ..postgres::Options::default()
    };
    let postgres = Postgres::start(&files.path().join("postgres"), &options).await.unwrap();
    let nats = Nats::start(&files.path().join("nats"), &nats::Options::default())
        .await
        .unwrap();
    fill(&["--nats-url", &nats.url()]).await;
    let ca = text(&files.write("ca.pem", &authority.pem()));
    let unknown = text(&files.write("unknown.pem", &Authority::new().pem()));
    let verified = |ca: &str| format!("{}?sslmode=verify-full&sslrootcert={ca}", postgres.tcp_url());
    let nats_url = nats.url();
    let env = |url: &str| [("NATS_URL", nats_url.clone()), ("DATABASE_URL", url.to_owned())];
    let by_name = verified(&ca).replace(&format!("@{}:", Ipv4Addr::LOCALHOST), "@localhost:");
    // Postgres that has no TLS.
    let plain = Postgres::start(&files.path().join("plain"), &postgres::Options::default())
        .await
        .unwrap();
    let in_plain = format!("{}?sslmode=verify-full&sslrootcert={ca}", plain.tcp_url());
    for (url, ready) in [
        (verified(&ca), true),
        (verified(&unknown), false),
        (format!("{}?sslmode=verify-full", postgres.tcp_url()), false),
        (by_name, false),
        (in_plain, false),
    ] {
        let env = env(&url);
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        match ready {
            true => drop(gets_ready(&files, "retry-scheduler", &env).await),
            false => is_refused(&files, "retry-scheduler", &env, &["no TLS with Postgres at"]).await,
        }
    }
}

#[tokio::test]
async fn what_is_reached_over_a_network_without_tls_is_warned_of() {
    let files = Files::new();
    let nats = Nats::start(&files.path().join("nats"), &nats::Options::default())
        .await
        .unwrap();
    let postgres = Postgres::start(&files.path().join("postgres"), &postgres::Options::default())
        .await
        .unwrap();
    fill(&["--nats-url", &nats.url()]).await;
    let here = [("NATS_URL", nats.url()), ("DATABASE_URL", postgres.tcp_url())];
    // Leads here, too, and does not look like it.
    let away = |url: &str| url.replace(&Ipv4Addr::LOCALHOST.to_string(), "0.0.0.0");
    let there = here.each_ref().map(|(name, url)| (*name, away(url)));
    for (env, warns) in [(here, false), (there, true)] {
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        let log = gets_ready(&files, "retry-scheduler", &env).await;
        for what in [
            "NATS is reached over the network WITHOUT TLS",
            "Postgres is reached over the network WITHOUT TLS",
        ] {
            assert_eq!(log.contains(what), warns, "{what}: {log}");
        }
    }
}

#[tokio::test]
async fn a_role_that_postgres_keeps_nothing_from_is_warned_of() {
    let files = Files::new();
    let nats = Nats::start(&files.path().join("nats"), &nats::Options::default())
        .await
        .unwrap();
    let postgres = Postgres::start(&files.path().join("postgres"), &postgres::Options::default())
        .await
        .unwrap();
    let nats = nats.url();
    fill(&["--nats-url", &nats]).await;
    for (url, warns) in [(postgres.url(), false), (postgres.superuser_url(), true)] {
        let env = [("NATS_URL", nats.as_str()), ("DATABASE_URL", &url)];
        let log = gets_ready(&files, "retry-scheduler", &env).await;
        assert_eq!(log.contains("NOT KEEP PROJECTS APART"), warns, "{log}");
    }
}

#[tokio::test]
async fn tls_that_somebody_who_stands_between_can_take_away_is_warned_of() {
    let (files, authority) = (Files::new(), Authority::new());
    let away = Ipv4Addr::UNSPECIFIED.to_string();
    let elsewhere = |url: &str| url.replace(&Ipv4Addr::LOCALHOST.to_string(), &away);
    let (certificate, key) = authority.sign(&away);
    let options = postgres::Options {
        tls: Some(postgres::Tls { certificate, key }),
        ..postgres::Options::default()
    };
    let postgres = Postgres::start(&files.path().join("postgres"), &options).await.unwrap();
    let nats = tls_nats_as(&away, &files, &authority, None).await;
    let ca = text(&files.write("ca.pem", &authority.pem()));
    let (nats_url, database_url) = (elsewhere(&nats.url()), elsewhere(&postgres.tcp_url()));
    fill(&["--nats-url", &nats_url, "--nats-ca-file", &ca]).await;
    let insisted = nats_url.replacen("nats://", "tls://", 1);
    let verified = format!("{database_url}?sslmode=verify-full&sslrootcert={ca}");
    let unverified = format!("{database_url}?sslmode=require");
    for (nats_url, database_url, warnings) in [(&nats_url, &unverified, 2), (&insisted, &verified, 0)] {
        let env = [
            ("NATS_URL", nats_url.as_str()),
            ("DATABASE_URL", database_url),
            // The machine trusts the authority.
            ("SSL_CERT_FILE", &ca),
        ];
        let log = gets_ready(&files, "retry-scheduler", &env).await;
        let said = ["BECAUSE IT ASKS FOR IT", "NOT VERIFIED"];
        let found = said.iter().filter(|warning| log.contains(**warning)).count();
        assert_eq!(found, warnings, "{nats_url}, {database_url}: {log}");
        assert!(!log.contains("WITHOUT TLS"), "{log}");
    }
}
