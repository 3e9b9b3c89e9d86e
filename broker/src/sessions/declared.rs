//! Sessions that the config declares, brought in line with what is stored.
//!
//! As long as a declaration stays as it is, the stored row rules: what an operator has changed or
//! revoked since stays so over a restart. A changed declaration rules over the row, and an id, with
//! its placeholders, lives on unless the session is over: what was ended never comes back.

use super::session::fresh_id;
use crate::clock::Now;
use crate::config::DeclaredSession;
use crate::random::NoRandomness;
use crate::store::SessionRow;
use attache_core::digest::Digest;

/// The rows to save, in order.
pub fn reconcile(rows: &[SessionRow], declared: &[DeclaredSession], now: Now) -> Result<Vec<SessionRow>, NoRandomness> {
    let mut save = Vec::new();
    let standing = |row: &&SessionRow| row.ended_ms.is_none();
    for row in rows.iter().filter(standing) {
        // No longer declared, or made by hand under a name that now is.
        let is_declared = declared.iter().any(|declared| declared.name == row.name);
        if is_declared != row.declaration.is_some() {
            // Declared once more, it counts as a new declaration.
            let declaration = row.declaration.as_ref().map(|_| String::new());
            save.push(SessionRow { declaration, ..ended(row, now) });
        }
    }
    for declared in declared {
        let digest = digest(declared);
        let mine = || rows.iter().rev().filter(|row| row.name == declared.name && row.declaration.is_some());
        // The one that stands, wherever a wall clock that was set back has sorted it.
        let last = mine().find(standing).or_else(|| mine().next());
        let Some(last) = last else {
            save.push(fresh(declared, digest, now)?);
            continue;
        };
        let unchanged = last.declaration.as_ref() == Some(&digest);
        let expired = last.is_expired(now);
        match (last.ended_ms.is_some(), unchanged) {
            (true, true) if !expired => {}
            (false, true) if !expired => {}
            (false, false) if !expired => {
                save.push(SessionRow { id: last.id.clone(), ..fresh(declared, digest, now)? });
            }
            (false, _) => save.extend([ended(last, now), fresh(declared, digest, now)?]),
            (true, _) => save.push(fresh(declared, digest, now)?),
        }
    }
    Ok(save)
}

fn ended(row: &SessionRow, now: Now) -> SessionRow {
    let expired_ms = row.expires_ms.filter(|_| row.is_expired(now)).unwrap_or_default();
    SessionRow { ended_ms: Some(now.wall_ms.max(expired_ms)), ..row.clone() }
}

fn fresh(declared: &DeclaredSession, digest: String, now: Now) -> Result<SessionRow, NoRandomness> {
    Ok(SessionRow {
        id: fresh_id()?,
        name: declared.name.clone(),
        credentials: declared.credentials.clone(),
        access_mode: declared.access_mode,
        elevated_until_ms: None,
        bind: declared.bind.clone(),
        scopes: declared.scopes.clone(),
        created_ms: now.wall_ms,
        expires_ms: declared.ttl.map(|ttl| now.plus(ttl).wall_ms),
        ended_ms: None,
        seen_ms: None,
        declaration: Some(digest),
    })
}

/// Changes whenever the declaration does.
fn digest(declared: &DeclaredSession) -> String {
    let DeclaredSession { name, credentials, access_mode, ttl, bind, scopes } = declared;
    let credentials: Vec<_> = credentials.iter().map(|name| name.as_str()).collect();
    let ttl = ttl.map_or(0, crate::clock::millis);
    let mut text = format!("{name}\n{}\n{}\n{ttl}", credentials.join(","), access_mode.as_str());
    if !bind.is_empty() {
        // Texts alone; that serializes. Without bindings the digest is what it was before there were any.
        text += &format!("\n{}", serde_json::to_string(bind).unwrap_or_default());
    }
    if !scopes.is_empty() {
        // The same of scopes.
        text += &format!("\nscopes {}", serde_json::to_string(scopes).unwrap_or_default());
    }
    Digest::of(text.as_bytes()).to_hex()
}
