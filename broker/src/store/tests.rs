//! The store on a real file.

use super::*;
use std::os::unix::fs::PermissionsExt;

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
        access_mode: AccessMode::ReadOnly,
        created_ms: 1,
        expires_ms: Some(2_000),
        ended_ms: None,
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
