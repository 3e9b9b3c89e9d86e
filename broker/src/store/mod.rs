//! What outlives the process, in SQLite, in the state directory: sessions, what has been, and how
//! far rotations have got.
//!
//! No secret, no placeholder and no token is in it; of what was given out there are digests.

mod history;
mod rotations;
mod sessions;

pub use history::{ChangeRow, HeadRow, WorkerRow};
pub use rotations::{RotationRow, Step};
pub use sessions::SessionRow;

use crate::private_file::{PrivateDir, PrivateError};
use rustix::fs::OFlags;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::borrow::Cow;
use std::path::PathBuf;

/// The database's file in the state directory.
const FILE: &str = "attache.db";

/// All changes of the schema, in order. One that has been released is never touched again.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "sessions", include_str!("../../migrations/0001_sessions.sql")),
    (2, "elevation", include_str!("../../migrations/0002_elevation.sql")),
    (3, "history", include_str!("../../migrations/0003_history.sql")),
    (4, "bindings", include_str!("../../migrations/0004_bindings.sql")),
    (5, "seen", include_str!("../../migrations/0005_seen.sql")),
    (6, "scopes", include_str!("../../migrations/0006_scopes.sql")),
    (7, "rotations", include_str!("../../migrations/0007_rotations.sql")),
];

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is not ours alone.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// A newer version of Attaché has been here.
    #[error("the database was written by a newer attache (schema {0}): run that one, or restore a backup")]
    Newer(i64),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date: {0}")]
    Migrate(MigrateError),
    /// The file is no database any more, or its pages contradict each other.
    #[error(
        "{path} is damaged ({why}): restore a backup of it, or move it and its -wal and -shm files aside to begin \
         without the sessions in it (those of the config begin anew, with new placeholders)"
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What SQLite found.
        why: String,
    },
    /// A live session of that name is there already.
    #[error("a session of that name is alive already")]
    NameTaken,
    /// A row that we did not write.
    #[error(
        "attache.db holds a row that no attache wrote: restore a backup of it, or move it aside to begin without \
         the sessions in it"
    )]
    Damaged,
    /// The database said no.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// The database.
pub struct Store {
    /// One connection: writes happen one after the other.
    pool: SqlitePool,
    /// What is looked up while strangers wait for it is never in a writer's way.
    readers: SqlitePool,
}

impl Store {
    /// Opens (or begins) the database, checks that it is whole, and brings its schema up to date.
    pub async fn open(dir: &PrivateDir) -> Result<Self, StoreError> {
        // SQLite gives its side files the permissions of the main one, so that is made first.
        dir.open_file(FILE, OFlags::RDWR | OFlags::CREATE)?;
        let path = dir.path().join(FILE);
        let opened = Self::open_whole(&path).await;
        opened.map_err(|error| match damage(&error) {
            Some(why) => StoreError::Corrupt { path, why },
            None => error,
        })
    }

    async fn open_whole(path: &std::path::Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let one = || SqlitePoolOptions::new().max_connections(1);
        let pool = one().connect_with(options.clone()).await?;
        let found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_all(&pool).await?;
        if let Some(why) = found.into_iter().find(|line| line != "ok") {
            return Err(StoreError::Corrupt { path: path.to_owned(), why });
        }
        migrate(&pool).await?;
        let readers = one().connect_lazy_with(options.read_only(true));
        Ok(Self { pool, readers })
    }

    /// Whether the database can be written now: takes the lock that a write takes, and gives it back.
    pub async fn check(&self) -> Result<(), StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?.rollback().await?)
    }

    /// Writes everything into the main file and lets go of it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.pool.close().await;
    }
}

/// What SQLite calls damage, if that is what an error is about.
fn damage(error: &StoreError) -> Option<String> {
    let (StoreError::Database(error) | StoreError::Migrate(MigrateError::Execute(error))) = error else { return None };
    let error = error.as_database_error()?;
    // SQLITE_CORRUPT and SQLITE_NOTADB, and their extended codes: the low byte is the code itself.
    let code: i32 = error.code()?.parse().ok()?;
    matches!(code & 0xff, 11 | 26).then(|| error.message().to_owned())
}

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        let sql = sqlx::AssertSqlSafe(*sql);
        Migration::new(
            *version,
            Cow::Borrowed(*name),
            MigrationType::Simple,
            sqlx::SqlSafeStr::into_sql_str(sql),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect()).run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => StoreError::Newer(version),
        error => StoreError::Migrate(error),
    })
}

fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_column(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Damaged)
}

#[cfg(test)]
mod tests;
