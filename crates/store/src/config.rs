//! What a service has to say to get at Postgres.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::Error;

/// Where Postgres is and how much of it a process may use.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Config {
    /// Address of the database: postgres://user:password@host:port/database. A Unix socket is written
    /// postgres:///database?host=/folder&user=name, and is preferable on the same machine; over a network, add
    /// ?sslmode=verify-full&sslrootcert=/path/to/ca.pem
    // sqlx 0.9.0 leaves TCP_NODELAY off: a small batch takes 44 ms over TCP, under 1 ms over a socket.
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        value_parser = common::config::secret_text
    )]
    pub database_url: Option<SecretString>,

    /// File that holds the address of the database
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "PATH")]
    pub database_url_file: Option<PathBuf>,

    /// Most connections this process opens
    #[arg(
        long,
        env = "POSTHASTE_DATABASE_CONNECTIONS",
        value_name = "COUNT",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub database_connections: u32,
}

impl Config {
    /// The address, which may hold a password.
    pub(crate) fn url(&self) -> Result<SecretString, Error> {
        common::config::required_secret(
            "DATABASE_URL",
            self.database_url.as_ref(),
            self.database_url_file.as_deref(),
        )
        .map_err(Error::NoAddress)
    }
}
