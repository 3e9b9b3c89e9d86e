//! What was given out, who followed, what was told, and how far the audit log reached.

use super::{Store, StoreError, from_column, to_column};
use attache_core::digest::Digest;
use attache_core::names::Name;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

/// How many audit heads are kept: the newest.
const HEADS: i64 = 1000;

/// A worker, as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its id, as in audit records.
    pub id: String,
    /// Unix milliseconds.
    pub first_seen_ms: u64,
    /// Unix milliseconds; a few seconds late, for polls are not written down one by one.
    pub last_seen_ms: u64,
    /// The life of the broker that saw it last.
    pub epoch: String,
    /// The last change of that life it has applied.
    pub acked: u64,
}

/// Something the change feed has told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangeRow {
    /// The life of the broker that told it.
    pub epoch: String,
    /// Its number in that life.
    pub cursor: u64,
    /// `session`, `credential` or `all`.
    pub kind: String,
    /// The session's id, or the credential's name (` at ` its destination, where it is only that).
    pub scope: String,
    /// Unix milliseconds.
    pub told_ms: u64,
}

/// How far the audit log reached at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadRow {
    /// How many records it held.
    pub records: u64,
    /// The hash of the last of them.
    pub hash: String,
    /// Unix milliseconds.
    pub noted_ms: u64,
}

impl Store {
    /// Notes what is given out: durable when this returns. `None` in a credential's place: a token.
    pub async fn note_given(
        &self,
        session_id: &str,
        given: &[(Digest, Option<Name>)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let mut all = self.pool.begin().await?;
        for (digest, credential) in given {
            sqlx::query(
                "INSERT OR IGNORE INTO placeholders (digest, session_id, credential, given_ms) VALUES (?, ?, ?, ?)",
            )
            .bind(digest.to_hex())
            .bind(session_id)
            .bind(credential.as_ref().map(Name::as_str))
            .bind(to_column(now_ms))
            .execute(&mut *all)
            .await?;
        }
        Ok(all.commit().await?)
    }

    /// Whether this was ever given out. Waits for no writer.
    pub async fn was_given(&self, digest: &Digest) -> Result<bool, StoreError> {
        let found = sqlx::query("SELECT 1 FROM placeholders WHERE digest = ?").bind(digest.to_hex());
        Ok(found.fetch_optional(&self.readers).await?.is_some())
    }

    /// Notes how workers stand.
    pub async fn note_workers(&self, workers: &[WorkerRow]) -> Result<(), StoreError> {
        let mut all = self.pool.begin().await?;
        for worker in workers {
            sqlx::query(
                "INSERT INTO workers (id, first_seen_ms, last_seen_ms, epoch, acked) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET last_seen_ms = excluded.last_seen_ms, epoch = excluded.epoch,
                   acked = excluded.acked",
            )
            .bind(&worker.id)
            .bind(to_column(worker.first_seen_ms))
            .bind(to_column(worker.last_seen_ms))
            .bind(&worker.epoch)
            .bind(to_column(worker.acked))
            .execute(&mut *all)
            .await?;
        }
        Ok(all.commit().await?)
    }

    /// All workers that are known, the one seen last first.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM workers ORDER BY last_seen_ms DESC, id").fetch_all(&self.readers).await?;
        let parse = |row: &SqliteRow| {
            Ok(WorkerRow {
                id: row.try_get("id")?,
                first_seen_ms: from_column(row.try_get("first_seen_ms")?)?,
                last_seen_ms: from_column(row.try_get("last_seen_ms")?)?,
                epoch: row.try_get("epoch")?,
                acked: from_column(row.try_get("acked")?)?,
            })
        };
        rows.iter().map(parse).collect()
    }

    /// Notes what the feed has told: durable when this returns.
    pub async fn note_changes(&self, changes: &[ChangeRow]) -> Result<(), StoreError> {
        let mut all = self.pool.begin().await?;
        for change in changes {
            sqlx::query("INSERT OR IGNORE INTO changes (epoch, cursor, kind, scope, told_ms) VALUES (?, ?, ?, ?, ?)")
                .bind(&change.epoch)
                .bind(to_column(change.cursor))
                .bind(&change.kind)
                .bind(&change.scope)
                .bind(to_column(change.told_ms))
                .execute(&mut *all)
                .await?;
        }
        Ok(all.commit().await?)
    }

    /// The last changes, newest first, at most so many.
    pub async fn changes(&self, most: u32) -> Result<Vec<ChangeRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM changes ORDER BY number DESC LIMIT ?").bind(most);
        let parse = |row: &SqliteRow| {
            Ok(ChangeRow {
                epoch: row.try_get("epoch")?,
                cursor: from_column(row.try_get("cursor")?)?,
                kind: row.try_get("kind")?,
                scope: row.try_get("scope")?,
                told_ms: from_column(row.try_get("told_ms")?)?,
            })
        };
        rows.fetch_all(&self.readers).await?.iter().map(parse).collect()
    }

    /// Notes how far the audit log reaches, and forgets all but the newest notes.
    pub async fn note_head(&self, head: &HeadRow) -> Result<(), StoreError> {
        let mut all = self.pool.begin().await?;
        sqlx::query("INSERT OR REPLACE INTO audit_heads (records, hash, noted_ms) VALUES (?, ?, ?)")
            .bind(to_column(head.records))
            .bind(&head.hash)
            .bind(to_column(head.noted_ms))
            .execute(&mut *all)
            .await?;
        sqlx::query("DELETE FROM audit_heads WHERE records NOT IN (SELECT records FROM audit_heads ORDER BY records DESC LIMIT ?)")
            .bind(HEADS)
            .execute(&mut *all)
            .await?;
        Ok(all.commit().await?)
    }

    /// The furthest that the audit log is known to have reached.
    pub async fn last_head(&self) -> Result<Option<HeadRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM audit_heads ORDER BY records DESC LIMIT 1");
        let Some(row) = row.fetch_optional(&self.pool).await? else { return Ok(None) };
        Ok(Some(HeadRow {
            records: from_column(row.try_get("records")?)?,
            hash: row.try_get("hash")?,
            noted_ms: from_column(row.try_get("noted_ms")?)?,
        }))
    }

    /// Forgets workers and changes of before `before_ms` (Unix milliseconds).
    pub async fn forget_history(&self, before_ms: u64) -> Result<(), StoreError> {
        for query in ["DELETE FROM workers WHERE last_seen_ms < ?", "DELETE FROM changes WHERE told_ms < ?"] {
            sqlx::query(query).bind(to_column(before_ms)).execute(&self.pool).await?;
        }
        Ok(())
    }
}
