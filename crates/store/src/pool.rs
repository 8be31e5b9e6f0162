//! The connection pool, and what holds for every connection of it.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::{Config, Error};

/// What every statement takes. A [`Transaction`](crate::Transaction) derefs to it.
pub type Connection = sqlx::PgConnection;

/// How long a caller waits for a free connection, and for a new one to be made: less than a request may take.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait between two looks at a Postgres that does not answer yet.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// Longest any statement may take. Migrations are exempt.
const STATEMENT_TIMEOUT: &str = "5s";

/// A transaction left open longer than this belongs to a process that hangs; its locks are freed.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "60s";

/// The database. Cloning is cheap; all clones share one pool. Whose rows are to be read and written, a
/// [`Store`](crate::Store) says.
#[derive(Clone, Debug)]
pub struct Database {
    pool: sqlx::PgPool,
}

impl Database {
    /// Connects, waiting up to `patience` for a Postgres that does not answer yet. `service` is what the connections
    /// are called in `pg_stat_activity`.
    ///
    /// # Errors
    /// [`Error::NoAddress`] or [`Error::Address`] at once, and [`Error::NotLetIn`] where Postgres answers and says no (a
    /// wrong password, no such database), or [`Error::NotTrusted`], since waiting would not help; [`Error::Unreachable`]
    /// after `patience`.
    pub async fn connect(config: &Config, service: &str, patience: Duration) -> Result<Self, Error> {
        let options: PgConnectOptions = config.url()?.expose_secret().parse().map_err(Error::Address)?;
        let address = address(&options);
        warn_of_plain_text(&options, &address);
        let options = options.application_name(service).options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
            // No remarks about tables that exist already.
            ("client_min_messages", "warning"),
            // A plan made for no particular values cannot leave out partitions, nor filters that are not given;
            // planning costs microseconds beside batches and pages.
            ("plan_cache_mode", "force_custom_plan"),
            // Compiling a plan takes a second; statements over all the days' partitions look expensive enough to be
            // compiled, and are done in milliseconds.
            ("jit", "off"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(config.database_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // Whoever takes a connection begins with a statement that does as well.
            .test_before_acquire(false)
            // Nobody has the rows that somebody before was about, nor a transaction that somebody before was beginning:
            // who goes away while BEGIN is on its way leaves one that sqlx knows nothing of. Where there is none, as
            // nearly always, nothing is said of that: what comes before ROLLBACK is undone by it.
            .after_release(|connection, _| {
                Box::pin(async move {
                    let unsay = sqlx::raw_sql(
                        "-- pool::unsay\nSET client_min_messages = error; ROLLBACK; SET posthaste.project = ''",
                    );
                    unsay.execute(connection).await.map(|_| true)
                })
            })
            .connect_lazy_with(options.clone());
        let deadline = tokio::time::Instant::now() + patience;
        let mut said = false;
        loop {
            // Not through the pool, which says that it has waited and not what for.
            let source = match tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await {
                Ok(Ok(mut connection)) => {
                    warn_of_a_role_that_sees_everything(&mut connection).await?;
                    connection.close().await?;
                    return Ok(Self { pool });
                }
                Ok(Err(error)) => Box::new(Error::from(error)),
                Err(_) => Box::new(Error::Unavailable(sqlx::Error::PoolTimedOut)),
            };
            if source.is_about_tls() {
                return Err(Error::NotTrusted { address, source });
            }
            if !source.is_transient() {
                return Err(Error::NotLetIn { address, source });
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::Unreachable { address, source });
            }
            if !said {
                tracing::info!(address, error = %source, "waiting for Postgres");
                said = true;
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// Brings the schema up to date. Safe from several processes at once: they take turns.
    ///
    /// # Errors
    /// [`Error::Migration`], also where the database is newer than this release.
    pub async fn migrate(&self) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await?;
        // Not only the statements but also the wait for another process' migrations may take long.
        sqlx::raw_sql("-- pool::migrate\nSET statement_timeout = 0; SET posthaste.project = 'all'")
            .execute(&mut *connection)
            .await?;
        // `run` takes any `Acquire<'_>`, which makes a future the compiler cannot see to be `Send`; this is what it calls.
        let migrated = sqlx::migrate!().run_direct(None, &mut *connection, false).await;
        // Not given back to the pool: it has no statement timeout any more, and is about all projects.
        connection.close().await?;
        migrated.map_err(Error::Migration)
    }

    /// Whether Postgres answers.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn check(&self) -> Result<(), Error> {
        sqlx::query("-- pool::check\nSELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) fn pool(&self) -> &sqlx::PgPool {
        &self.pool
    }

    /// Waits for the connections in use and closes all.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Where the database is, for messages: without user and password.
fn address(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or("(the user's)");
    match options.get_socket() {
        Some(folder) => format!("{}, database {database}", folder.display()),
        None => format!("{}:{}, database {database}", options.get_host(), options.get_port()),
    }
}

/// Says where Postgres does not keep projects apart.
async fn warn_of_a_role_that_sees_everything(connection: &mut Connection) -> Result<(), Error> {
    let role = sqlx::query!(
        r#"-- pool::role
         SELECT rolname::text AS "name!", rolsuper OR rolbypassrls AS "sees_everything!"
         FROM pg_roles WHERE rolname = current_user"#,
    )
    .fetch_one(connection)
    .await?;
    if role.sees_everything {
        tracing::warn!(
            role = role.name,
            "Postgres does NOT KEEP PROJECTS APART for this role, which is a superuser or has BYPASSRLS: nothing stands \
             behind the conditions of the statements; take a role without these in DATABASE_URL (docs/operating.md, \
             Postgres)"
        );
    }
    Ok(())
}

/// Says where the record or a password could be read on its way.
fn warn_of_plain_text(options: &PgConnectOptions, address: &str) {
    if options.get_socket().is_some() || common::config::is_this_machine(options.get_host()) {
        return;
    }
    match options.get_ssl_mode() {
        PgSslMode::VerifyFull | PgSslMode::VerifyCa => {}
        PgSslMode::Require => tracing::warn!(
            address,
            "Postgres is reached over the network and NOT VERIFIED: whoever stands between can take its place; set \
             sslmode=verify-full and sslrootcert in DATABASE_URL"
        ),
        _ => tracing::warn!(
            address,
            "Postgres is reached over the network WITHOUT TLS, or with it only if the server likes: the record can be \
             read and changed on its way; set sslmode=verify-full and sslrootcert in DATABASE_URL"
        ),
    }
}
