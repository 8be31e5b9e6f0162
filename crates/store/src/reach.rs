//! Whose rows a connection is about.
//!
//! Nobody has a connection without having said it: [`Database::of_project`] or [`Database::of_all_projects`]. Postgres holds
//! every statement to it, whatever its conditions are (migration `0014_tenancy.sql`), and refuses statements of who has
//! said nothing. So a condition that is forgotten finds nothing of another project.
//!
//! It is said when a connection is handed out, in the place of the look whether the connection is still alive, and taken
//! back when it is returned, as is a transaction that nobody waited for to begin; a transaction says it as it begins.
//! Neither costs a round trip more.

use std::ops::{Deref, DerefMut};

use proto_schemas::id::ProjectId;
use sqlx::AssertSqlSafe;
use tokio::time::Instant;

use crate::Error;
use crate::pool::{ACQUIRE_TIMEOUT, Connection, Database};

/// Whose rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    AllProjects,
    Project(ProjectId),
}

impl Reach {
    /// The value of `posthaste.project`, as it stands in SQL: an id holds no quote.
    fn value(self) -> String {
        match self {
            Self::AllProjects => "'all'".to_owned(),
            Self::Project(id) => format!("'{id}'"),
        }
    }
}

impl Database {
    /// What is of one project, as if there were no other.
    #[must_use]
    pub fn of_project(&self, project: ProjectId) -> Store {
        self.within(Reach::Project(project))
    }

    /// What is of all projects and of none: for who works for all of them, and to find out who asks.
    #[must_use]
    pub fn of_all_projects(&self) -> Store {
        self.within(Reach::AllProjects)
    }

    /// What is of the project, or where there is none, of all.
    #[must_use]
    pub fn of_project_or_all(&self, project: Option<ProjectId>) -> Store {
        project.map_or_else(|| self.of_all_projects(), |project| self.of_project(project))
    }

    fn within(&self, reach: Reach) -> Store {
        Store {
            database: self.clone(),
            reach,
        }
    }
}

/// The rows of one project, or of all. Cloning is cheap; all clones share the database's pool.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    reach: Reach,
}

impl Store {
    /// The database itself.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// A connection for statements that need no transaction.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where none can be had in time.
    pub async fn connection(&self) -> Result<impl DerefMut<Target = Connection> + Send + use<>, Error> {
        let say = format!("-- reach::say\nSET posthaste.project = {}", self.reach.value());
        let deadline = Instant::now() + ACQUIRE_TIMEOUT;
        loop {
            let mut connection = self.database.pool().acquire().await?;
            let said = sqlx::raw_sql(AssertSqlSafe(say.as_str()))
                .execute(&mut *connection)
                .await;
            match said.map_err(Error::from) {
                Ok(_) => return Ok(connection),
                Err(error) => {
                    connection.close_on_drop();
                    goes_on(error, deadline)?;
                }
            }
        }
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where no connection can be had in time.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        let begin = format!(
            "-- reach::begin\nBEGIN; SET LOCAL posthaste.project = {}",
            self.reach.value()
        );
        let deadline = Instant::now() + ACQUIRE_TIMEOUT;
        loop {
            match self
                .database
                .pool()
                .begin_with(AssertSqlSafe(begin.clone()))
                .await
                .map_err(Error::from)
            {
                Ok(transaction) => return Ok(Transaction(transaction)),
                Err(error) => goes_on(error, deadline)?,
            }
        }
    }
}

/// Whether to take another connection: this one broke while nobody used it, when Postgres was restarted, say.
fn goes_on(error: Error, deadline: Instant) -> Result<(), Error> {
    match error {
        Error::Unavailable(_) if Instant::now() < deadline => Ok(()),
        error => Err(error),
    }
}

/// A transaction. Dropped without [`Transaction::commit`], it never happened.
#[derive(Debug)]
pub struct Transaction(sqlx::Transaction<'static, sqlx::Postgres>);

impl Transaction {
    /// Makes it lasting.
    ///
    /// # Errors
    /// Any [`Error`]; after [`Error::Unavailable`] it is unknown whether it happened.
    pub async fn commit(self) -> Result<(), Error> {
        Ok(self.0.commit().await?)
    }

    /// Undoes it now rather than when the connection is next used.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn rollback(self) -> Result<(), Error> {
        Ok(self.0.rollback().await?)
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}
