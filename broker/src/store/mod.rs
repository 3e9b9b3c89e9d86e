//! What outlives the process: sessions, in SQLite, in the state directory.
//!
//! No secret, no placeholder and no token is in it.

use crate::config::Bind;
use crate::private_file::{PrivateDir, PrivateError};
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use rustix::fs::OFlags;
use sqlx::Row as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use std::borrow::Cow;

/// The database's file in the state directory.
const FILE: &str = "attache.db";

/// All changes of the schema, in order. One that has been released is never touched again.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "sessions", include_str!("../../migrations/0001_sessions.sql")),
    (10, "bindings", include_str!("../../migrations/0010_bindings.sql")),
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
    /// A live session of that name is there already.
    #[error("a session of that name is alive already")]
    NameTaken,
    /// A row that we did not write.
    #[error("the database holds a session that makes no sense")]
    Damaged,
    /// The database said no.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Unique for ever.
    pub id: String,
    /// Unique among the sessions that have not ended.
    pub name: Name,
    /// What it may use.
    pub credentials: Vec<Name>,
    /// What it may do.
    pub access_mode: AccessMode,
    /// What it demands besides its placeholder.
    pub bind: Bind,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; `None`: does not expire.
    pub expires_ms: Option<u64>,
    /// When it was revoked or replaced, in Unix milliseconds.
    pub ended_ms: Option<u64>,
    /// The digest of its declaration, if the config declares it.
    pub declaration: Option<String>,
}

/// The database.
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens (or begins) the database and brings its schema up to date.
    pub async fn open(dir: &PrivateDir) -> Result<Self, StoreError> {
        // SQLite gives its side files the permissions of the main one, so that is made first.
        dir.open_file(FILE, OFlags::RDWR | OFlags::CREATE)?;
        let options = SqliteConnectOptions::new()
            .filename(dir.path().join(FILE))
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        migrate(&pool).await?;
        Ok(Self { pool })
    }

    /// All sessions, oldest first.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM sessions ORDER BY created_ms, id").fetch_all(&self.pool).await?;
        rows.iter().map(parse).collect()
    }

    /// Stores a session, new or changed.
    pub async fn save(&self, session: &SessionRow) -> Result<(), StoreError> {
        let credentials: Vec<_> = session.credentials.iter().map(Name::as_str).collect();
        // Texts alone; that serializes.
        let bind = (!session.bind.is_empty()).then(|| serde_json::to_string(&session.bind).unwrap_or_default());
        let query = sqlx::query(
            "INSERT INTO sessions
               (id, name, credentials, access_mode, created_ms, expires_ms, ended_ms, declaration, bind)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET credentials = excluded.credentials, access_mode = excluded.access_mode,
               expires_ms = excluded.expires_ms, ended_ms = excluded.ended_ms, declaration = excluded.declaration,
               bind = excluded.bind",
        );
        let saved = query
            .bind(&session.id)
            .bind(session.name.as_str())
            .bind(serde_json::to_string(&credentials).unwrap_or_default())
            .bind(session.access_mode.as_str())
            .bind(to_column(session.created_ms))
            .bind(session.expires_ms.map(to_column))
            .bind(session.ended_ms.map(to_column))
            .bind(&session.declaration)
            .bind(bind)
            .execute(&self.pool)
            .await;
        match saved {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(StoreError::NameTaken),
            saved => saved.map(drop).map_err(StoreError::Database),
        }
    }

    /// Forgets sessions that were over before `before_ms` (Unix milliseconds).
    pub async fn forget(&self, before_ms: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE declaration IS NULL AND coalesce(ended_ms, expires_ms) < ?")
            .bind(to_column(before_ms))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Writes everything into the main file and lets go of it.
    pub async fn close(&self) {
        self.pool.close().await;
    }
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

fn parse(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    let name: String = row.try_get("name")?;
    let credentials: String = row.try_get("credentials")?;
    let mode: String = row.try_get("access_mode")?;
    let bind: Option<String> = row.try_get("bind")?;
    let millis = |column: Option<i64>| column.map(|ms| u64::try_from(ms).map_err(|_| StoreError::Damaged)).transpose();
    Ok(SessionRow {
        id: row.try_get("id")?,
        name: Name::parse(&name).map_err(|_| StoreError::Damaged)?,
        credentials: serde_json::from_str(&credentials).map_err(|_| StoreError::Damaged)?,
        access_mode: serde_json::from_value(mode.into()).map_err(|_| StoreError::Damaged)?,
        bind: match bind {
            Some(bind) => serde_json::from_str(&bind).map_err(|_| StoreError::Damaged)?,
            None => Bind::default(),
        },
        created_ms: millis(Some(row.try_get("created_ms")?))?.unwrap_or_default(),
        expires_ms: millis(row.try_get("expires_ms")?)?,
        ended_ms: millis(row.try_get("ended_ms")?)?,
        declaration: row.try_get("declaration")?,
    })
}

fn to_column(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
