//! What a statement can come to other than rows.

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no address.
    #[error("no database is named (postgres://user:password@host:port/database)")]
    NoAddress(#[source] common::config::Error),
    /// `DATABASE_URL` is not an address.
    #[error("DATABASE_URL is not a Postgres address (postgres://user:password@host:port/database)")]
    Address(#[source] sqlx::Error),
    /// Nobody has answered there for as long as a service may wait at start.
    #[error("no Postgres at {address}: start it, or set DATABASE_URL to where it is")]
    Unreachable {
        /// Where, without user and password.
        address: String,
        /// The last failure.
        #[source]
        source: Box<Error>,
    },
    /// It answered, and does not let us in.
    #[error("Postgres at {address} does not take the connection: correct user, password or database in DATABASE_URL")]
    NotLetIn {
        /// Where, without user and password.
        address: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The two do not trust each other's certificates, or one of them has no TLS.
    #[error("no TLS with Postgres at {address}: check the name, sslmode and sslrootcert in DATABASE_URL")]
    NotTrusted {
        /// Where, without user and password.
        address: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// Nobody answers, no connection is free, or the connection broke. Worth trying again.
    #[error("Postgres cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// Serialization failure, deadlock or a lock not got in time: nothing was done. Worth trying again.
    #[error("another transaction was in the way")]
    Contention(#[source] sqlx::Error),
    /// A unique or foreign key says no.
    #[error("constraint {constraint} says no")]
    Constraint {
        /// The constraint's name in the migrations.
        constraint: String,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
    /// No partition of the table covers the row's day.
    #[error("no partition covers the row's day")]
    NoPartition(#[source] sqlx::Error),
    /// A row holds something this release cannot read.
    #[error("table {table} holds a row this release cannot read: {reason}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What is wrong with the row.
        reason: String,
    },
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// Anything else Postgres refuses: values out of range, missing tables, missing rights.
    #[error("Postgres refused the statement")]
    Refused(#[source] sqlx::Error),
}

impl Error {
    /// Whether the same call may succeed later: the fault is not in what was asked.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Contention(_))
    }

    /// Whether certificates are what is wrong.
    pub(crate) fn is_about_tls(&self) -> bool {
        match self {
            Self::Unavailable(sqlx::Error::Tls(_)) => true,
            // What rustls finds wrong comes as this; a broken connection has a kind of its own.
            Self::Unavailable(sqlx::Error::Io(error)) => error.kind() == std::io::ErrorKind::InvalidData,
            _ => false,
        }
    }

    /// Whether it is the values: the same rows will be refused again, others may not be.
    #[must_use]
    pub fn blames_values(&self) -> bool {
        match self {
            Self::Constraint { .. } | Self::NoPartition(_) => true,
            Self::Refused(sqlx::Error::Encode(_)) => true,
            // Data exceptions, and values too large for an index.
            Self::Refused(error) => error
                .as_database_error()
                .and_then(|database| database.code())
                .is_some_and(|code| code.starts_with("22") || code.starts_with("23") || code.starts_with("54")),
            _ => false,
        }
    }

    /// The name of the constraint that said no, if one did.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Constraint { constraint, .. } => Some(constraint),
            _ => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return match error {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
                _ => Self::Refused(error),
            };
        };
        // PostgreSQL 15, appendix A: error codes.
        match database.code().unwrap_or_default().as_ref() {
            // serialization failure, deadlock, lock not available, statement timeout
            "40001" | "40P01" | "55P03" | "57014" => Self::Contention(error),
            // connection exceptions, insufficient resources, operator intervention (shutdown, starting up, recovery),
            // a standby that takes no writes, system errors
            code if code.starts_with("08")
                || code.starts_with("53")
                || code.starts_with("57P")
                || code.starts_with("58")
                || code == "25006" =>
            {
                Self::Unavailable(error)
            }
            // A row without a partition is reported as a check violation that names no constraint.
            "23514" if database.constraint().is_none() => Self::NoPartition(error),
            code if code.starts_with("23") => match database.constraint() {
                Some(constraint) => Self::Constraint {
                    constraint: constraint.to_owned(),
                    source: error,
                },
                None => Self::Refused(error),
            },
            _ => Self::Refused(error),
        }
    }
}
