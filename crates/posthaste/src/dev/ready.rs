//! What is said once everything is ready: to programs in the ready file, to people on standard output.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::servers::Servers;
use super::services::Services;
use super::state::{AdminToken, Password, Secrets, State};

/// Where everything is.
pub(super) struct Addresses {
    api: String,
    ingest: String,
    nats: String,
    database: secrecy::SecretString,
    admin_token: AdminToken,
    nats_password: Password,
}

impl Addresses {
    pub(super) fn new(services: &Services, servers: &Servers, secrets: Secrets) -> Self {
        Self {
            api: services.api_url(),
            ingest: services.ingest_url(),
            nats: servers.nats_url.clone(),
            database: servers.database_url.clone(),
            admin_token: secrets.admin_token,
            nats_password: secrets.nats_password,
        }
    }

    /// Tells people.
    pub(super) fn tell(&self, servers: &Servers, state: &State) {
        // Nobody may be there to read it.
        let _ = io::stdout().lock().write_all(self.summary(servers, state).as_bytes());
    }

    fn summary(&self, servers: &Servers, state: &State) -> String {
        let Self {
            api,
            ingest,
            admin_token,
            ..
        } = self;
        let token = &admin_token.in_shell;
        // An address that somebody gave us may hold a password.
        let nats = servers.nats.as_ref().map_or_else(
            || "as given by NATS_URL".to_owned(),
            // For a shell, like the token.
            |nats| {
                nats.url().replace(
                    self.nats_password.password.expose_secret(),
                    &self.nats_password.in_shell,
                )
            },
        );
        let postgres = servers
            .postgres
            .as_ref()
            .map_or_else(|| "as given by DATABASE_URL".to_owned(), |p| p.url());
        let data = match state.is_kept() {
            true => format!("kept in {}", state.folder().display()),
            false => "gone when this ends; --state-dir DIR keeps it".to_owned(),
        };
        format!(
            "
Posthaste is ready.

  API         {api}
  Ingest      {ingest}
  NATS        {nats}
  Postgres    {postgres}
  Data        {data}

  !! DEVELOPMENT MODE: webhooks may go to http:// addresses and to this machine itself.
  !! Whoever can create a webhook can reach what listens here. Never run it like this for others.

Try it, with the administrator's token:

  curl -X POST {api}/v1/projects -H \"Authorization: Bearer {token}\" \\
       -H 'Content-Type: application/json' -d '{{\"name\": \"hello\"}}'

Ctrl-C stops it.
"
        )
    }
}

/// Where the ready file will be.
pub(super) struct ReadyFile {
    path: Option<PathBuf>,
}

/// The ready file; removed when dropped.
pub(super) struct Written {
    path: Option<PathBuf>,
}

impl ReadyFile {
    /// Removes what an earlier process may have left there: it would be believed.
    pub(super) fn at(path: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = path {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove the ready file {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(Self {
            path: path.map(Path::to_owned),
        })
    }

    /// Writes it; a reader sees all of it or none of it. It holds a token, so only its owner may read it.
    pub(super) fn write(self, addresses: &Addresses) -> anyhow::Result<Written> {
        if let Some(path) = &self.path {
            let text = json!({
                "api": addresses.api,
                "ingest": addresses.ingest,
                "nats": addresses.nats,
                "database": addresses.database.expose_secret(),
                "admin_token": addresses.admin_token.token.expose_secret(),
            });
            write_private(path, &format!("{text:#}\n"))
                .with_context(|| format!("cannot write the ready file {}", path.display()))?;
        }
        Ok(Written { path: self.path })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.and_then(|()| fs::rename(&unfinished, path)).inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}
