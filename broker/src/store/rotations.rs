//! How far rotations have got, as rows.

use super::{Store, StoreError, from_column, to_column};
use attache_core::names::Name;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the next rotation is due.
    Idle,
    /// A new secret is asked for, or there and not in place yet.
    Asking,
    /// It is in place, and not every worker has heard of it yet.
    Telling,
    /// The old one waits to be retired.
    Overlap,
}

impl Step {
    const ALL: [(Self, &str); 4] =
        [(Self::Idle, "idle"), (Self::Asking, "asking"), (Self::Telling, "telling"), (Self::Overlap, "overlap")];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("idle", |(_, word)| word)
    }

    fn parse(word: &str) -> Result<Self, StoreError> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(step, _)| *step).ok_or(StoreError::Damaged)
    }
}

/// The rotation of one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationRow {
    /// The credential.
    pub credential: Name,
    /// What is done next.
    pub step: Step,
    /// Names the rotation under way to whoever makes the secret; `None`: none is.
    pub attempt: Option<String>,
    /// Whether an operator asked for it.
    pub operator: bool,
    /// When there was a new secret last, in Unix milliseconds.
    pub rotated_ms: Option<u64>,
    /// From when on the time until the next one is counted, in Unix milliseconds.
    pub since_ms: u64,
    /// Until when the old one is good, in Unix milliseconds; `None`: none waits.
    pub retire_ms: Option<u64>,
    /// Not before, in Unix milliseconds; `None`: the last attempt went well.
    pub retry_ms: Option<u64>,
    /// Since something went well.
    pub failures: u32,
    /// The last of them: names places, never content.
    pub error: Option<String>,
    /// What mends that.
    pub fix: Option<String>,
}

impl RotationRow {
    /// One of which nothing is known yet.
    pub fn new(credential: Name, now_ms: u64) -> Self {
        Self {
            credential,
            step: Step::Idle,
            attempt: None,
            operator: false,
            rotated_ms: None,
            since_ms: now_ms,
            retire_ms: None,
            retry_ms: None,
            failures: 0,
            error: None,
            fix: None,
        }
    }
}

impl Store {
    /// All rotations that are known.
    pub async fn rotations(&self) -> Result<Vec<RotationRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM rotations").fetch_all(&self.pool).await?;
        rows.iter().map(parse).collect()
    }

    /// Keeps how far one has got: durable when this returns.
    pub async fn keep_rotation(&self, row: &RotationRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR REPLACE INTO rotations
               (credential, step, attempt, operator, rotated_ms, since_ms, retire_ms, retry_ms, failures, error, fix)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.credential.as_str())
        .bind(row.step.as_str())
        .bind(row.attempt.as_deref())
        .bind(row.operator)
        .bind(row.rotated_ms.map(to_column))
        .bind(to_column(row.since_ms))
        .bind(row.retire_ms.map(to_column))
        .bind(row.retry_ms.map(to_column))
        .bind(row.failures)
        .bind(row.error.as_deref())
        .bind(row.fix.as_deref())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

fn parse(row: &SqliteRow) -> Result<RotationRow, StoreError> {
    let time = |column: &str| -> Result<Option<u64>, StoreError> {
        row.try_get::<Option<i64>, _>(column)?.map(from_column).transpose()
    };
    let (name, step): (&str, &str) = (row.try_get("credential")?, row.try_get("step")?);
    Ok(RotationRow {
        credential: Name::parse(name).map_err(|_| StoreError::Damaged)?,
        step: Step::parse(step)?,
        attempt: row.try_get("attempt")?,
        operator: row.try_get("operator")?,
        rotated_ms: time("rotated_ms")?,
        since_ms: from_column(row.try_get("since_ms")?)?,
        retire_ms: time("retire_ms")?,
        retry_ms: time("retry_ms")?,
        failures: row.try_get("failures")?,
        error: row.try_get("error")?,
        fix: row.try_get("fix")?,
    })
}
