//! The store on a real file.

use super::*;
use crate::config::Bind;
use attache_core::digest::Digest;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Dir {
    _temp: tempfile::TempDir,
    dir: PrivateDir,
}

fn dir() -> Dir {
    let temp = tempfile::tempdir().unwrap();
    let dir = PrivateDir::open_or_create(&temp.path().join("state")).unwrap();
    Dir { _temp: temp, dir }
}

fn session(id: &str, name: &str) -> SessionRow {
    SessionRow {
        id: id.into(),
        name: Name::parse(name).unwrap(),
        credentials: vec![Name::parse("github").unwrap()],
        bind: Bind::default(),
        scopes: std::collections::BTreeMap::new(),
        access_mode: AccessMode::ReadOnly,
        elevated_until_ms: None,
        created_ms: 1,
        expires_ms: Some(2_000),
        ended_ms: None,
        seen_ms: None,
        declaration: None,
    }
}

#[tokio::test]
async fn sessions_outlive_the_process_in_private_files() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    let mut row = session("s-1", "reviewer");
    store.save(&row).await.unwrap();
    row.access_mode = AccessMode::ReadWrite;
    row.elevated_until_ms = Some(1_500);
    row.expires_ms = None;
    row.declaration = Some("d".into());
    store.save(&row).await.unwrap();
    for entry in std::fs::read_dir(dir.dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    store.close().await;
    assert_eq!(Store::open(&dir.dir).await.unwrap().sessions().await.unwrap(), [row]);
}

#[tokio::test]
async fn a_name_is_unique_among_live_sessions_only() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    let mut first = session("s-1", "reviewer");
    store.save(&first).await.unwrap();
    let second = session("s-2", "reviewer");
    assert!(matches!(store.save(&second).await, Err(StoreError::NameTaken)));
    first.ended_ms = Some(5);
    store.save(&first).await.unwrap();
    store.save(&second).await.unwrap();
}

impl Store {
    /// Counts what is committed from now on.
    pub(crate) async fn count_commits(&self) -> Arc<AtomicUsize> {
        let commits = Arc::new(AtomicUsize::new(0));
        let counted = commits.clone();
        // The only connection that writes.
        let mut connection = self.pool.acquire().await.unwrap();
        connection.lock_handle().await.unwrap().set_commit_hook(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            true
        });
        commits
    }
}

#[tokio::test]
async fn many_are_stored_in_one_commit_or_not_at_all() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    let rows: Vec<_> = (0..100).map(|number| session(&format!("s-{number:03}"), &format!("n-{number}"))).collect();
    let commits = store.count_commits().await;
    store.save_all(&rows).await.unwrap();
    assert_eq!((commits.load(Ordering::SeqCst), store.sessions().await.unwrap()), (1, rows));
    let taken = [session("t-1", "free"), session("t-2", "n-7")];
    assert!(matches!(store.save_all(&taken).await, Err(StoreError::NameTaken)));
    assert_eq!(store.sessions().await.unwrap().len(), 100);
    store.save_all(&taken[..1]).await.unwrap();
}

#[tokio::test]
async fn what_is_long_over_is_forgotten() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    let rows = [
        session("s-1", "expired"),
        SessionRow { ended_ms: Some(5_000), ..session("s-2", "ended-late") },
        SessionRow { expires_ms: None, ..session("s-3", "for-ever") },
        SessionRow { declaration: Some("d".into()), ..session("s-4", "declared") },
    ];
    for row in &rows {
        store.save(row).await.unwrap();
    }
    store.forget(3_000).await.unwrap();
    let left: Vec<_> = store.sessions().await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(left, ["s-2", "s-3", "s-4"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_clearly() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (9, 'later', 0, 1, x'00', 0)").execute(&store.pool).await.unwrap();
    store.close().await;
    let error = Store::open(&dir.dir).await.err().unwrap();
    assert!(matches!(error, StoreError::Newer(9)), "{error}");
}

#[tokio::test]
async fn what_was_given_out_is_known_by_its_digest_alone() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    let (given, never) = (Digest::of(b"ghp_ATTACHEgiven"), Digest::of(b"ghp_ATTACHEnever"));
    for _ in 0..2 {
        store.note_given("s-1", &[(given, Some(Name::parse("github").unwrap()))], 5).await.unwrap();
    }
    store.forget_history(u64::MAX).await.unwrap();
    store.close().await;
    let store = Store::open(&dir.dir).await.unwrap();
    assert_eq!((store.was_given(&given).await.unwrap(), store.was_given(&never).await.unwrap()), (true, false));
    store.close().await;
    let files = std::fs::read_dir(dir.dir.path()).unwrap().flatten();
    for bytes in files.map(|entry| std::fs::read(entry.path()).unwrap()) {
        assert!(memchr::memmem::find(&bytes, b"ATTACHE").is_none());
    }
}

#[tokio::test]
async fn history_is_kept_and_forgotten_by_age() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    let worker = |id: &str, last_seen_ms| WorkerRow {
        id: id.into(),
        first_seen_ms: 10,
        last_seen_ms,
        epoch: "e".into(),
        acked: 1,
    };
    store.note_workers(&[worker("a", 20), worker("b", 30)]).await.unwrap();
    let again = WorkerRow { first_seen_ms: 99, acked: 2, ..worker("a", 40) };
    store.note_workers(std::slice::from_ref(&again)).await.unwrap();
    assert_eq!(store.workers().await.unwrap(), [WorkerRow { first_seen_ms: 10, ..again }, worker("b", 30)]);

    let change =
        |cursor, told_ms| ChangeRow { epoch: "e".into(), cursor, kind: "session".into(), scope: "s-1".into(), told_ms };
    let all = [change(1, 10), change(2, 35)];
    store.note_changes(&all).await.unwrap();
    store.note_changes(&all).await.unwrap();
    assert_eq!(store.changes(9).await.unwrap(), [change(2, 35), change(1, 10)]);
    store.forget_history(35).await.unwrap();
    assert_eq!((store.workers().await.unwrap().len(), store.changes(9).await.unwrap()), (1, vec![change(2, 35)]));
}

#[tokio::test]
async fn the_furthest_head_counts_and_few_are_kept() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    assert_eq!(store.last_head().await.unwrap(), None);
    let head = |records| HeadRow { records, hash: format!("h{records}"), noted_ms: 1 };
    for records in [7, 9, 8] {
        store.note_head(&head(records)).await.unwrap();
    }
    assert_eq!(store.last_head().await.unwrap(), Some(head(9)));
    for records in 10..1_050 {
        store.note_head(&head(records)).await.unwrap();
    }
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_heads").fetch_one(&store.pool).await.unwrap();
    assert_eq!((kept, store.last_head().await.unwrap()), (1_000, Some(head(1_049))));
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_what_to_do() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    for n in 0..200 {
        store.save(&session(&format!("s-{n}"), &format!("name-{n}"))).await.unwrap();
    }
    store.close().await;
    let path = dir.dir.path().join(FILE);
    let whole = std::fs::read(&path).unwrap();
    let mut no_database = whole.clone();
    no_database[..16].fill(b'x');
    let mut torn_pages = whole.clone();
    torn_pages[4096 * 2..].fill(0);
    let mut cut = whole.clone();
    cut.truncate(4096 * 3);
    for (damaged, how) in [(no_database, "no database"), (torn_pages, "pages of zeros"), (cut, "cut")] {
        std::fs::write(&path, damaged).unwrap();
        let error = Store::open(&dir.dir).await.err().unwrap_or_else(|| panic!("{how}: opened"));
        assert!(matches!(error, StoreError::Corrupt { .. }), "{how}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("attache.db is damaged") && text.contains("restore a backup"), "{how}: {text}");
    }
    std::fs::write(&path, whole).unwrap();
    assert_eq!(Store::open(&dir.dir).await.unwrap().sessions().await.unwrap().len(), 200);
}

#[tokio::test]
async fn how_far_a_rotation_has_got_outlives_the_process() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    let mut row = RotationRow::new(Name::parse("github").unwrap(), 5);
    store.keep_rotation(&row).await.unwrap();
    for step in [Step::Asking, Step::Telling, Step::Overlap, Step::Idle] {
        row = RotationRow {
            step,
            attempt: Some("r-1".into()),
            operator: true,
            rotated_ms: Some(6),
            since_ms: 7,
            retire_ms: Some(8),
            retry_ms: Some(9),
            failures: 10,
            error: Some("it fails".into()),
            fix: Some("mend it".into()),
            ..row
        };
        store.keep_rotation(&row).await.unwrap();
        assert_eq!(store.rotations().await.unwrap(), [row.clone()]);
    }
    store.close().await;
    assert_eq!(Store::open(&dir.dir).await.unwrap().rotations().await.unwrap(), [row]);
}

#[tokio::test]
async fn a_scope_is_stored_and_one_that_cannot_be_read_in_full_is_damage() {
    let dir = dir();
    let store = Store::open(&dir.dir).await.unwrap();
    let scope = r#"{"github":{"repositories":["one"],"permissions":{"contents":"read"}}}"#;
    let row = SessionRow { scopes: serde_json::from_str(scope).unwrap(), ..session("s-1", "narrow") };
    store.save(&row).await.unwrap();
    assert_eq!(store.sessions().await.unwrap(), [row]);
    for less in [
        r#"{"github":{"repositories":[]}}"#,
        r#"{"github":{"repository":["one"]}}"#,
        r#"{"github":{"repositories":["one"]},"github":{}}"#,
        "{",
        "{} {}",
        "[]",
    ] {
        sqlx::query("UPDATE sessions SET scopes = ?").bind(less).execute(&store.pool).await.unwrap();
        assert!(matches!(store.sessions().await, Err(StoreError::Damaged)), "{less}");
    }
}
