//! Sessions, as rows.

use super::{Store, StoreError, from_column, to_column};
use crate::config::{Bind, TokenScope};
use attache_core::names::Name;
use attache_core::object::members_once;
use attache_core::policy::AccessMode;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteExecutor, SqliteRow};
use std::collections::BTreeMap;

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Unique for ever.
    pub id: String,
    /// Unique among the sessions that have not ended.
    pub name: Name,
    /// What it may use.
    pub credentials: Vec<Name>,
    /// What it may do while it is not elevated.
    pub access_mode: AccessMode,
    /// Until when it may read and write in spite of its mode, in Unix milliseconds.
    pub elevated_until_ms: Option<u64>,
    /// What it demands besides its placeholder.
    pub bind: Bind,
    /// What its tokens may reach, where that is less than the credential's may.
    pub scopes: BTreeMap<Name, TokenScope>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; `None`: does not expire.
    pub expires_ms: Option<u64>,
    /// When it was revoked or replaced, or its time was seen to be over, in Unix milliseconds.
    pub ended_ms: Option<u64>,
    /// When it was last seen alive, in Unix milliseconds. Written by [`Store::note_seen`] alone.
    pub seen_ms: Option<u64>,
    /// The digest of its declaration, if the config declares it.
    pub declaration: Option<String>,
}

impl Store {
    /// All sessions, oldest first.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM sessions ORDER BY created_ms, id").fetch_all(&self.pool).await?;
        rows.iter().map(parse).collect()
    }

    /// Stores a session, new or changed.
    pub async fn save(&self, session: &SessionRow) -> Result<(), StoreError> {
        write(&self.pool, session).await
    }

    /// Stores many, in this order and in one commit: all of them, or none.
    pub async fn save_all(&self, sessions: &[SessionRow]) -> Result<(), StoreError> {
        if sessions.is_empty() {
            return Ok(());
        }
        let mut all = self.pool.begin().await?;
        for session in sessions {
            write(&mut *all, session).await?;
        }
        Ok(all.commit().await?)
    }

    /// Notes that the sessions that will end by themselves, or whose elevation will, are alive now.
    pub async fn note_seen(&self, now_ms: u64) -> Result<(), StoreError> {
        let query = sqlx::query(
            "UPDATE sessions SET seen_ms = ?1
             WHERE ended_ms IS NULL AND (expires_ms IS NOT NULL OR elevated_until_ms IS NOT NULL)
               AND coalesce(seen_ms, 0) < ?1",
        );
        query.bind(to_column(now_ms)).execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets sessions that were over before `before_ms` (Unix milliseconds).
    pub async fn forget(&self, before_ms: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE declaration IS NULL AND coalesce(ended_ms, expires_ms) < ?")
            .bind(to_column(before_ms))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Writes one, by itself or as a part of a transaction.
async fn write(to: impl SqliteExecutor<'_>, session: &SessionRow) -> Result<(), StoreError> {
    let credentials: Vec<_> = session.credentials.iter().map(Name::as_str).collect();
    // Texts alone; that serializes.
    let bind = (!session.bind.is_empty()).then(|| serde_json::to_string(&session.bind).unwrap_or_default());
    let scopes = (!session.scopes.is_empty()).then(|| serde_json::to_string(&session.scopes).unwrap_or_default());
    let query = sqlx::query(
        "INSERT INTO sessions (id, name, credentials, access_mode, elevated_until_ms, created_ms, expires_ms,
           ended_ms, declaration, bind, scopes)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET credentials = excluded.credentials, access_mode = excluded.access_mode,
           elevated_until_ms = excluded.elevated_until_ms, expires_ms = excluded.expires_ms,
           ended_ms = excluded.ended_ms, declaration = excluded.declaration, bind = excluded.bind,
           scopes = excluded.scopes",
    );
    let saved = query
        .bind(&session.id)
        .bind(session.name.as_str())
        .bind(serde_json::to_string(&credentials).unwrap_or_default())
        .bind(session.access_mode.as_str())
        .bind(session.elevated_until_ms.map(to_column))
        .bind(to_column(session.created_ms))
        .bind(session.expires_ms.map(to_column))
        .bind(session.ended_ms.map(to_column))
        .bind(&session.declaration)
        .bind(bind)
        .bind(scopes)
        .execute(to)
        .await;
    match saved {
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(StoreError::NameTaken),
        saved => saved.map(drop).map_err(StoreError::Database),
    }
}

fn scopes_of(text: &str) -> Result<BTreeMap<Name, TokenScope>, serde_json::Error> {
    let mut input = serde_json::Deserializer::from_str(text);
    let scopes = members_once(&mut input)?;
    input.end().map(|()| scopes)
}

fn parse(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    let name: String = row.try_get("name")?;
    let credentials: String = row.try_get("credentials")?;
    let mode: String = row.try_get("access_mode")?;
    let bind: Option<String> = row.try_get("bind")?;
    let scopes: Option<String> = row.try_get("scopes")?;
    let millis = |column: &str| row.try_get::<Option<i64>, _>(column)?.map(from_column).transpose();
    Ok(SessionRow {
        id: row.try_get("id")?,
        name: Name::parse(&name).map_err(|_| StoreError::Damaged)?,
        credentials: serde_json::from_str(&credentials).map_err(|_| StoreError::Damaged)?,
        access_mode: serde_json::from_value(mode.into()).map_err(|_| StoreError::Damaged)?,
        elevated_until_ms: millis("elevated_until_ms")?,
        bind: match bind {
            Some(bind) => serde_json::from_str(&bind).map_err(|_| StoreError::Damaged)?,
            None => Bind::default(),
        },
        scopes: match scopes {
            Some(scopes) => scopes_of(&scopes).map_err(|_| StoreError::Damaged)?,
            None => BTreeMap::new(),
        },
        created_ms: millis("created_ms")?.unwrap_or_default(),
        expires_ms: millis("expires_ms")?,
        ended_ms: millis("ended_ms")?,
        seen_ms: millis("seen_ms")?,
        declaration: row.try_get("declaration")?,
    })
}
