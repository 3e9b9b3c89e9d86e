//! The change feed, for operators: who follows it, and what it told.

use super::answer::{ApiError, json};
use super::control::Control;
use super::view::{ChangeView, WorkerView};
use crate::clock::Now;
use crate::sessions::SessionError;
use crate::store::WorkerRow;
use axum::extract::State;
use axum::response::Response;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many changes are shown.
const MOST: u32 = 1000;

/// Workers: those that are alive as they are now, the others as they were seen last.
#[utoipa::path(get, path = "/v1/workers", responses((status = 200, body = Vec<WorkerView>)))]
pub async fn workers(State(door): State<Arc<Control>>) -> Result<Response, ApiError> {
    let rows = door.store.workers().await.map_err(SessionError::Store)?;
    let cursor = door.feed.cursor();
    let gone = |row: WorkerRow| WorkerView {
        id: row.id,
        live: false,
        first_seen_ms: row.first_seen_ms,
        last_seen_ms: row.last_seen_ms,
        behind: None,
    };
    let mut all: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id.clone(), gone(row))).collect();
    for follower in door.feed.followers(Now::read()) {
        let known = all.get(&follower.id).map_or(follower.first_seen_ms, |known| known.first_seen_ms);
        let view = WorkerView {
            id: follower.id.clone(),
            live: true,
            first_seen_ms: known.min(follower.first_seen_ms),
            last_seen_ms: follower.last_seen_ms,
            behind: Some(cursor.saturating_sub(follower.acked)),
        };
        all.insert(follower.id, view);
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.sort_by(|a, b| (b.live, b.last_seen_ms, &a.id).cmp(&(a.live, a.last_seen_ms, &b.id)));
    Ok(json(&all))
}

/// The last changes, newest first.
#[utoipa::path(get, path = "/v1/changes", responses((status = 200, body = Vec<ChangeView>)))]
pub async fn changes(State(door): State<Arc<Control>>) -> Result<Response, ApiError> {
    let rows = door.store.changes(MOST).await.map_err(SessionError::Store)?;
    Ok(json(&rows.into_iter().map(ChangeView::from).collect::<Vec<_>>()))
}
