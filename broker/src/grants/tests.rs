//! Grants over a real log and a real store.

use super::*;
use crate::audit::key::AuditKey;
use crate::clock::Now;
use crate::config::{Config, DeclaredSession, Overrides};
use crate::outstanding::Past;
use crate::private_file::PrivateDir;
use crate::sources::Environment;
use crate::state_dir::InstanceKey;
use crate::store::Store;
use attache_core::digest::Digest;
use attache_core::policy::AccessMode;
use std::pin::pin;
use std::task::{Context, Waker};

const DESTINATION: &str = "api.github.com:443";

struct World {
    _temp: tempfile::TempDir,
    grants: Grants,
    reviewer: Name,
}

impl World {
    async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let env = |name: &str| (name == "GITHUB_TOKEN").then(|| "ghp_0123456789abcdef0123456789abcdef0123".to_owned());
        let overrides = Overrides { state_dir: Some(temp.path().to_owned()), ..Overrides::default() };
        let mut config = Config::load(None, &overrides, &env).unwrap();
        let reviewer = Name::parse("reviewer").unwrap();
        config.sessions = vec![DeclaredSession {
            name: reviewer.clone(),
            credentials: vec![Name::parse("github").unwrap()],
            access_mode: AccessMode::ReadWrite,
            ttl: None,
            bind: Default::default(),
            scopes: Default::default(),
        }];
        config.audit.path = temp.path().join("audit.jsonl");
        let (now, stale) = (Now::read(), config.limits.stale_after);
        let key = Arc::new(InstanceKey::new([7; 32]));
        let store = Store::open(&PrivateDir::open_or_create(&temp.path().join("state")).unwrap()).await.unwrap();
        let (sessions, _) = Sessions::load(&config, key.clone(), store, now).await.unwrap();
        let feed = Arc::new(Feed::new("p".into(), stale).unwrap());
        let log = AuditLog::open(&config.audit, &config.instance, AuditKey::from_seed([1; 32])).unwrap();
        let audit = Arc::new(log);
        let past = Past::read(&config.audit.path, now).unwrap();
        let environment = Environment::read(&config, &|name| env(name).map(Into::into));
        let grants = Grants {
            destinations: by_id(config.policy()),
            caps: config.caps(),
            strict: config.strict(),
            max_unacked_uses: config.limits.max_unacked_uses,
            sessions: Arc::new(sessions),
            identities: Arc::new(Identities::new(&config.oidc).unwrap()),
            leases: Arc::new(Leases::load(&config, &environment, key, feed.clone()).await),
            outstanding: Arc::new(Outstanding::new(past, stale, feed.clone(), audit.clone())),
            feed,
            audit,
            meters: GrantMeters::default(),
            traces: Traces::new(None, &config.instance).0,
        };
        Self { _temp: temp, grants, reviewer }
    }

    fn ask(&self) -> GrantRequest {
        let session = self.grants.sessions.live(&self.reviewer, Now::read()).unwrap();
        let placeholder = self.grants.sessions.placeholder(&session, &Name::parse("github").unwrap()).unwrap();
        GrantRequest {
            nonce: "0".repeat(32),
            worker: "0badcafe".into(),
            destination: DESTINATION.into(),
            evidence: EvidenceDigests {
                placeholder: Some(Digest::of(placeholder.as_bytes())),
                ..EvidenceDigests::default()
            },
        }
    }

    fn change(&self, change: impl FnOnce(&Session) -> Session) {
        self.grants.sessions.narrow(&self.reviewer, Now::read(), change).unwrap();
    }
}

/// How long a right lasts here that ends by itself.
const SHORT: Duration = Duration::from_millis(100);

/// The answer, where something happens while the record of its grant is being written.
async fn meanwhile(before: impl Fn(&World), happens: impl AsyncFn(&World)) -> (World, GrantAnswer) {
    let asker = Asker { sight: Sight::All, peer: None };
    // The disk has a thread of its own: where that was done at once, nothing came in between.
    for _ in 0..100 {
        let world = World::new().await;
        before(&world);
        let answer = {
            let mut answer = pin!(world.grants.answer(world.ask(), &asker, None));
            if answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                continue;
            }
            assert_eq!(world.grants.outstanding.leases(), 1);
            happens(&world).await;
            answer.await
        };
        return (world, answer);
    }
    panic!("every record was on disk at once");
}

#[tokio::test]
async fn what_is_taken_while_a_grant_is_being_recorded_does_not_leave_with_it() {
    let narrower = |session: &Session| Session { access_mode: AccessMode::ReadOnly, ..session.clone() };
    let (world, answer) = meanwhile(|_| {}, async |world| world.change(narrower)).await;
    assert_eq!(answer.granted.unwrap().access_mode, AccessMode::ReadOnly);
    assert_eq!(world.grants.outstanding.leases(), 1, "the grant that was not given is not outstanding");
}

#[tokio::test]
async fn an_elevation_that_ends_while_a_grant_is_being_recorded_does_not_leave_with_it() {
    let elevated = |session: &Session| Session {
        access_mode: AccessMode::ReadOnly,
        elevated_until: Some(Now::read().plus(SHORT)),
        ..session.clone()
    };
    let (_world, answer) =
        meanwhile(|world| world.change(elevated), async |_| tokio::time::sleep(2 * SHORT).await).await;
    assert_eq!(answer.granted.unwrap().access_mode, AccessMode::ReadOnly);
}

#[tokio::test]
async fn a_session_that_ends_while_its_grant_is_being_recorded_gets_none() {
    let ended = |session: &Session| Session { ended_ms: Some(Now::read().wall_ms), ..session.clone() };
    let expiring = |session: &Session| Session { expires: Some(Now::read().plus(SHORT)), ..session.clone() };
    let revoked = meanwhile(|_| {}, async |world| world.change(ended)).await;
    let expired = meanwhile(|world| world.change(expiring), async |_| tokio::time::sleep(2 * SHORT).await).await;
    for (world, answer) in [revoked, expired] {
        assert!(answer.granted.is_none());
        assert_eq!(answer.denied.unwrap().reason, Reason::SessionExpired);
        assert_eq!(world.grants.outstanding.leases(), 0);
    }
}
