//! Health: alive, and ready or not; what each thing is like that a grant depends on, and what mends it.

use super::answer::json_with;
use crate::audit::AuditLog;
use crate::changes::Feed;
use crate::clock::Now;
use crate::leases::{Leases, Standing};
use crate::mutual_tls::{self, Acceptor};
use crate::rotation::{RotationStanding, Rotations};
use crate::state_dir::StateDir;
use crate::store::Store;
use crate::witness::{self, Witness};
use attache_core::names::Name;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// How long the database may take to say that it can be written.
const DATABASE: Duration = Duration::from_secs(1);
/// How far the wall clock may fall behind the other one, in milliseconds, before that is told:
/// what a time service corrects unnoticed is less.
const CLOCK_MS: u64 = 5_000;

/// What health is judged by.
pub struct Health {
    /// Without it nothing is granted.
    pub audit: Arc<AuditLog>,
    /// What Envoy saw and no filter did.
    pub witness: Arc<Witness>,
    /// A credential that cannot be used is told, and is no reason to stop the others.
    pub leases: Arc<Leases>,
    /// A secret that cannot be replaced is told, and is no reason to stop.
    pub rotations: Arc<Rotations>,
    /// Who listens.
    pub feed: Arc<Feed>,
    /// What is to be remembered.
    pub store: Arc<Store>,
    /// Where all of it is.
    pub state_dir: Arc<StateDir>,
    /// The data plane's certificates, where it has some.
    pub acceptor: Option<Arc<Acceptor>>,
    /// When the broker began.
    pub began: Now,
}

/// `GET /readyz`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Readiness {
    /// Whether grants can be made: everything that is needed is well.
    pub ready: bool,
    /// How many workers poll the change feed.
    pub workers: usize,
    /// Everything that the broker depends on.
    pub dependencies: Vec<Dependency>,
}

/// One thing that the broker depends on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// `audit`, `credentials`, `state_dir`, `database`, `workers`, `witness`, `clock`, `certificates`, `credential NAME`, or `rotation NAME`.
    pub name: String,
    /// How it is.
    pub state: Condition,
    /// Whether no grant can be made while it has failed.
    pub needed: bool,
    /// What is wrong; `null`: nothing. Names places, never content.
    pub reason: Option<String>,
    /// What mends it; `null`: nothing has to.
    pub fix: Option<String>,
}

/// How a dependency is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Well.
    Ok,
    /// Not there yet, which is no error.
    Waiting,
    /// Not usable.
    Failed,
}

/// That the broker lives, and no more.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

impl Dependency {
    fn ok(name: &str, needed: bool) -> Self {
        Self { name: name.into(), state: Condition::Ok, needed, reason: None, fix: None }
    }

    fn judged(name: &str, needed: bool, wrong: Option<(String, String)>) -> Self {
        let Some((reason, fix)) = wrong else { return Self::ok(name, needed) };
        Self { state: Condition::Failed, reason: Some(reason), fix: Some(fix), ..Self::ok(name, needed) }
    }
}

impl Readiness {
    /// Told: 503 when no grant can be made.
    pub fn answer(&self) -> Response {
        json_with(if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, self)
    }
}

impl Health {
    /// Whether grants can be made, and what is wrong.
    pub async fn readiness(&self) -> Readiness {
        let standings = self.leases.standings();
        let workers = self.feed.workers();
        let mut dependencies = vec![self.audit(), credentials(&standings)];
        dependencies.extend([
            self.state_dir(),
            self.database().await,
            following(workers),
            witness(self.witness.standing()),
            clock(self.began, Now::read()),
        ]);
        dependencies.extend(self.acceptor.iter().map(|acceptor| certificates(acceptor.standing())));
        dependencies.extend(standings.into_iter().map(credential));
        dependencies.extend(self.rotations.standings().map(|(name, standing)| rotation(name, standing)));
        let ready = dependencies.iter().all(|one| !one.needed || one.state == Condition::Ok);
        Readiness { ready, workers, dependencies }
    }

    /// `GET /readyz`: 503 when no grant can be made.
    pub async fn readyz(&self) -> Response {
        self.readiness().await.answer()
    }

    fn audit(&self) -> Dependency {
        let fix = "free space on its disk, or mend what stands at its path; the broker tries again by itself";
        Dependency::judged("audit", true, self.audit.fault().map(|fault| (fault, fix.into())))
    }

    fn state_dir(&self) -> Dependency {
        let fix = "put the directory back as it was, 0700 and owned by the broker's user, and restart the broker";
        let wrong = self.state_dir.check().err();
        Dependency::judged("state_dir", false, wrong.map(|error| (error.to_string(), fix.into())))
    }

    async fn database(&self) -> Dependency {
        let wrong = match tokio::time::timeout(DATABASE, self.store.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("the database has not answered within {} s", DATABASE.as_secs())),
        };
        let fix = "look for what else has attache.db open, and for space on its disk; sessions cannot be changed \
                   until then";
        Dependency::judged("database", false, wrong.map(|reason| (reason, fix.into())))
    }
}

/// One that went ahead, as after a sleep, ends sessions early, which is safe; of one that was set back
/// the audit log's times are wrong.
fn clock(began: Now, now: Now) -> Dependency {
    let expected = began.plus(now.mono.saturating_duration_since(began.mono)).wall_ms;
    let behind = expected.saturating_sub(now.wall_ms);
    let wrong = (behind > CLOCK_MS).then(|| {
        let seconds = Duration::from_millis(behind).as_secs();
        let reason = format!("the wall clock was set back by {seconds} s since the broker began");
        (reason, "mend the machine's time synchronisation, and restart the broker".into())
    });
    Dependency::judged("clock", false, wrong)
}

/// Envoys that are connected stay so, and no other comes in.
fn certificates(standing: mutual_tls::Standing) -> Dependency {
    let fix = "put a certificate, its key and the peers' authorities in place: they are read within seconds";
    let (reason, needed) = match standing {
        mutual_tls::Standing::Well => return Dependency::ok("certificates", true),
        mutual_tls::Standing::Kept(reason) => (format!("{reason}; those of before stay in use"), false),
        mutual_tls::Standing::Over(reason) => (reason, true),
    };
    Dependency::judged("certificates", needed, Some((reason, fix.into())))
}

fn credentials(all: &[Standing]) -> Dependency {
    let none = !all.is_empty() && all.iter().all(|one| one.error.is_some());
    let reason = || format!("none of {} credentials can be used", all.len());
    Dependency::judged("credentials", true, none.then(|| (reason(), "mend one: each is listed with its fix".into())))
}

fn credential(standing: Standing) -> Dependency {
    let Standing { name, error, fix, .. } = standing;
    Dependency::judged(&format!("credential {name}"), false, error.map(|error| (error, fix.unwrap_or_default())))
}

fn rotation(name: &Name, RotationStanding { error, fix, .. }: RotationStanding) -> Dependency {
    Dependency::judged(&format!("rotation {name}"), false, error.map(|error| (error, fix.unwrap_or_default())))
}

fn following(workers: usize) -> Dependency {
    if workers > 0 {
        return Dependency::ok("workers", false);
    }
    Dependency {
        state: Condition::Waiting,
        reason: Some("no worker of an Envoy polls the change feed".into()),
        fix: Some("start Envoy with the bootstrap that `attache envoy-config` prints, or run `attache doctor`".into()),
        ..Dependency::ok("workers", false)
    }
}

/// A request that went by the filter is told until the broker ends: somebody has to look.
fn witness(standing: witness::Standing) -> Dependency {
    let (state, reason, fix) = match standing {
        witness::Standing::Well => return Dependency::ok("witness", false),
        witness::Standing::Silent => (
            Condition::Waiting,
            "requests are recorded, and no Envoy sends its access log".to_owned(),
            "take the access_log of the bootstrap that `attache envoy-config` prints",
        ),
        witness::Standing::Bypassed(reason) => (
            Condition::Failed,
            reason,
            "run `attache doctor` on that Envoy, mend the route, look at the `unaccounted` records in the audit log, \
             and restart the broker",
        ),
    };
    Dependency { state, reason: Some(reason), fix: Some(fix.into()), ..Dependency::ok("witness", false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_told_and_one_that_went_ahead_is_not() {
        let began = Now::read();
        let later = began.plus(Duration::from_secs(60));
        let moved = |wall_ms: u64| clock(began, Now { wall_ms, ..later });
        assert_eq!(moved(later.wall_ms).state, Condition::Ok);
        assert_eq!(moved(later.wall_ms + 3_600_000).state, Condition::Ok);
        assert_eq!(moved(later.wall_ms - CLOCK_MS).state, Condition::Ok);
        let back = moved(later.wall_ms - 90_000);
        assert_eq!(back.state, Condition::Failed);
        assert_eq!(back.reason.unwrap(), "the wall clock was set back by 90 s since the broker began");
    }

    #[test]
    fn what_is_not_needed_does_not_make_it_unready_and_no_credential_at_all_is_no_fault() {
        assert_eq!(credentials(&[]).state, Condition::Ok);
        assert!(!following(0).needed && following(0).state == Condition::Waiting);
    }
}
