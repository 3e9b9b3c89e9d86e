//! One session.

use crate::clock::Now;
use crate::config::{Bind, TokenScope};
use crate::random::{self, NoRandomness};
use crate::store::SessionRow;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One agent's permission.
#[derive(Clone, Debug)]
pub struct Session {
    /// Unique for ever.
    pub id: String,
    /// Unique among live sessions.
    pub name: Name,
    /// What it may use.
    pub credentials: Vec<Name>,
    /// What it may do while it is not elevated.
    pub access_mode: AccessMode,
    /// Until when, on both clocks, it may read and write in spite of its mode.
    pub elevated_until: Option<Now>,
    /// What it demands besides its placeholder.
    pub bind: Bind,
    /// What its tokens may reach, where that is less than the credential's may.
    pub scopes: BTreeMap<Name, TokenScope>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// When it expires, on both clocks; `None`: it does not.
    pub expires: Option<Now>,
    /// When it was ended, or its time was seen to be over, in Unix milliseconds.
    pub ended_ms: Option<u64>,
    /// The digest of its declaration, if the config declares it.
    pub declaration: Option<String>,
}

/// What a session without an end has left: more than any grant asks for.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// A fresh id.
pub fn fresh_id() -> Result<String, NoRandomness> {
    Ok(format!("s-{}", random::id()?))
}

impl SessionRow {
    /// What time it is at least, as far as this session knows, in Unix milliseconds.
    pub fn known_ms(&self, now: Now) -> u64 {
        now.wall_ms.max(self.created_ms).max(self.seen_ms.unwrap_or_default())
    }

    /// Whether its time is over, or was when it ended.
    pub fn is_expired(&self, now: Now) -> bool {
        self.expires_ms.is_some_and(|at| at <= self.ended_ms.unwrap_or(self.known_ms(now)))
    }
}

impl Session {
    /// A session from its row: what the wall clock leaves of its life now also counts on the other. One
    /// that was set back since the session was last seen leaves no more than there was then.
    pub fn of_row(row: SessionRow, now: Now) -> Self {
        let known_ms = row.known_ms(now);
        let on_both_clocks = |wall_ms: u64| {
            let left = Duration::from_millis(wall_ms.saturating_sub(known_ms));
            Now { wall_ms, ..now.plus(left) }
        };
        Self {
            id: row.id,
            name: row.name,
            credentials: row.credentials,
            access_mode: row.access_mode,
            elevated_until: row.elevated_until_ms.map(on_both_clocks),
            bind: row.bind,
            scopes: row.scopes,
            created_ms: row.created_ms,
            expires: row.expires_ms.map(on_both_clocks),
            ended_ms: row.ended_ms,
            declaration: row.declaration,
        }
    }

    /// As it is stored.
    pub fn row(&self) -> SessionRow {
        SessionRow {
            id: self.id.clone(),
            name: self.name.clone(),
            credentials: self.credentials.clone(),
            access_mode: self.access_mode,
            elevated_until_ms: self.elevated_until.map(|until| until.wall_ms),
            bind: self.bind.clone(),
            scopes: self.scopes.clone(),
            created_ms: self.created_ms,
            expires_ms: self.expires.map(|expires| expires.wall_ms),
            ended_ms: self.ended_ms,
            seen_ms: None,
            declaration: self.declaration.clone(),
        }
    }

    /// How long it lives yet; nothing when it was ended or either clock says that its time is over.
    pub fn remaining(&self, now: Now) -> Duration {
        match (self.ended_ms, self.expires) {
            (Some(_), _) => Duration::ZERO,
            (None, None) => FOR_EVER,
            (None, Some(expires)) => now.until(expires),
        }
    }

    /// What it may do now. The end of an elevation needs nobody who brings it about.
    pub fn mode(&self, now: Now) -> AccessMode {
        if self.elevation(now).is_zero() { self.access_mode } else { AccessMode::ReadWrite }
    }

    /// How long it is elevated yet, in whole milliseconds; nothing when either clock says that it is over.
    pub fn elevation(&self, now: Now) -> Duration {
        let left = self.elevated_until.map_or(Duration::ZERO, |until| now.until(until));
        Duration::from_millis(crate::clock::millis(left))
    }

    /// How long it may do what it may do now, if no operator changes that.
    pub fn steady(&self, now: Now) -> Duration {
        match self.elevation(now) {
            Duration::ZERO => self.remaining(now),
            elevated => elevated.min(self.remaining(now)),
        }
    }

    /// When it was over, or will be, in Unix milliseconds.
    pub fn over_ms(&self) -> Option<u64> {
        self.ended_ms.or(self.expires.map(|expires| expires.wall_ms))
    }

    /// Whether it may do anything at all.
    pub fn is_live(&self, now: Now) -> bool {
        !self.remaining(now).is_zero()
    }

    /// Whether either clock says that its time is over.
    pub fn is_due(&self, now: Now) -> bool {
        self.expires.is_some_and(|expires| now.until(expires).is_zero())
    }

    /// Whether it was ended before its time.
    pub fn is_revoked(&self) -> bool {
        let expired = |ended| self.expires.is_some_and(|expires| expires.wall_ms <= ended);
        self.ended_ms.is_some_and(|ended| !expired(ended))
    }

    /// As it is once somebody has seen that its time is over.
    pub fn expired(&self, now: Now) -> Self {
        let expires_ms = self.expires.map_or(0, |expires| expires.wall_ms);
        // Not before its time, whatever the wall clock says: that tells it apart from one that was revoked.
        Self { ended_ms: Some(now.wall_ms.max(expires_ms)), ..self.clone() }
    }

    /// The live sessions that a connection can name as well as this one: whoever shows nothing else is
    /// in conflict as soon as both are there.
    pub fn rivals<'a>(&self, all: &'a [Arc<Session>], now: Now) -> impl Iterator<Item = &'a Arc<Session>> {
        let (id, bind) = (self.id.clone(), self.bind.clone());
        let named = |bind: &Bind| bind.session_token.is_none() && (bind.peer.is_some() || bind.listener.is_some());
        // Networks are not compared: what is told once too often harms nobody.
        all.iter().filter(move |other| {
            named(&bind) && named(&other.bind) && other.id != id && other.is_live(now) && bind.may_meet(&other.bind)
        })
    }

    /// `live`, `expired` or `revoked`, for people.
    pub fn state(&self, now: Now) -> &'static str {
        match self.is_revoked() {
            true => "revoked",
            false if self.is_live(now) => "live",
            false => "expired",
        }
    }
}
