//! Against an issuer that does as told.

use super::super::tests::{Session, session, used};
use super::super::*;
use super::*;
use crate::config::{Level, Overrides};
use crate::sources::{Found, Later, Mark, Reading, Source, Trouble};
use attache_core::Secret;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Semaphore;

const DESTINATION: &str = "a.test:443";
const HOUR: Duration = Duration::from_secs(3600);

/// What was asked of it, and what it is to answer.
struct Told {
    /// The scopes for which something was opened.
    opened: Mutex<Vec<TokenScope>>,
    asked: AtomicUsize,
    /// The tokens that were given back.
    closed: Mutex<Vec<String>>,
    /// Each answer takes one of these.
    answers: Semaphore,
    broken: AtomicBool,
    /// Changes with every answer that is to be found to be another.
    version: AtomicU64,
}

#[derive(Clone)]
struct Stand(Arc<Told>);

/// The place itself, or what a session has of it.
struct Token(Arc<Told>, Option<String>);

impl Issuer for Stand {
    fn place(&self) -> &dyn Source {
        // One for all: it holds nothing.
        static PLACE: std::sync::OnceLock<Token> = std::sync::OnceLock::new();
        PLACE.get_or_init(|| Token(Stand::new().0, None))
    }

    fn open(&self, scope: &TokenScope) -> Box<dyn Source> {
        let mut opened = self.0.opened.lock().unwrap();
        opened.push(scope.clone());
        Box::new(Token(self.0.clone(), Some(format!("the-token-of-session-{}", opened.len()))))
    }
}

impl Stand {
    fn new() -> Self {
        Self(Arc::new(Told {
            opened: Mutex::default(),
            asked: AtomicUsize::default(),
            closed: Mutex::default(),
            answers: Semaphore::new(1000),
            broken: AtomicBool::default(),
            version: AtomicU64::default(),
        }))
    }

    fn closed(&self) -> Vec<String> {
        self.0.closed.lock().unwrap().clone()
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }
}

impl Source for Token {
    fn read(&self) -> Reading<'_> {
        Box::pin(async {
            let Some(token) = &self.1 else { return Ok(Some(Secret::new("").into())) };
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            self.0.answers.acquire().await.unwrap().forget();
            if self.0.broken.load(Ordering::Relaxed) {
                let why = Trouble::lasting("it is suspended", "unsuspend it");
                return Err(SourceError::Remote { place: self.place(), why });
            }
            let version = self.0.version.load(Ordering::Relaxed);
            Ok(Some(Found { secret: Secret::new(format!("{token}-{version}")), ends: None }))
        })
    }

    fn mark(&self) -> Mark {
        Mark::Answers(self.0.version.load(Ordering::Relaxed))
    }

    fn place(&self) -> String {
        "somebody".into()
    }

    fn close(&self) -> Later<'_, ()> {
        Box::pin(async { self.0.closed.lock().unwrap().extend(self.1.clone()) })
    }
}

struct World {
    _dir: tempfile::TempDir,
    stand: Stand,
    leases: Arc<Leases>,
    name: Name,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attache.yaml");
    let yaml = "state_dir: s\nsources: {github_app: {app_id: 1, installation_id: 2, private_key: {file: k}}}\ncredentials:\n  \
                it: {source: {github_app: {permissions: {contents: write}}}, inject: bearer, destinations: [{host: a.test}]}\n  \
                other: {source: {env: X}, inject: bearer, destinations: [{host: b.test}]}\n";
    std::fs::write(&file, yaml).unwrap();
    let config = Config::load(Some(&file), &Overrides::default(), &|_| None).unwrap();
    let (stand, key) = (Stand::new(), Arc::new(InstanceKey::new([7; 32])));
    let credential = &config.credentials[0];
    let apart = Apart::new(credential, credential.scope().unwrap().clone(), Box::new(stand.clone()), key.clone());
    let environment = Environment::default();
    let slot = Slot::shared(&config.credentials[1], &environment, key);
    let leases = Leases {
        slots: BTreeMap::from([(slot.name().clone(), slot)]),
        apart: BTreeMap::from([(apart.name().clone(), apart)]),
        grant_ttl: HOUR,
        feed: Arc::new(Feed::new("p".into(), Duration::from_secs(10)).unwrap()),
        meters: LeaseMeters::default(),
        retiring: std::sync::RwLock::default(),
        closing: std::sync::Mutex::default(),
        rejections: Rejections::default(),
    };
    World { _dir: dir, stand, leases: Arc::new(leases), name: credential.name.clone() }
}

impl World {
    fn issue(&self, session: &Session) -> Result<Option<String>, String> {
        let issued =
            self.leases.issue(&self.name, DESTINATION, session.holder(), HOUR).map_err(|error| error.to_string())?;
        Ok(issued.map(|issued| issued.injections[0].value.expose().to_owned()))
    }

    fn standing(&self) -> Standing {
        self.leases.standings().into_iter().find(|standing| standing.name == self.name).unwrap()
    }
}

fn scoped(id: &str, scope: &str) -> Session {
    let scopes = BTreeMap::from([(Name::parse("it").unwrap(), serde_json::from_str(scope).unwrap())]);
    Session { scopes, ..session(id) }
}

#[tokio::test]
async fn each_session_has_its_own_as_narrow_as_it_says_and_gives_it_back() {
    let world = world();
    let (one, two) = (session("one"), scoped("two", r#"{"repositories":["r"],"permissions":{"contents":"read"}}"#));
    assert_eq!(world.issue(&one), Ok(None), "nobody has asked for it");
    assert_eq!(world.standing().sessions, Some(0));
    for session in [&one, &two] {
        world.leases.prepare(&world.name, session.holder()).await;
    }
    let first = world.issue(&one).unwrap().unwrap();
    assert_eq!(first, "Bearer the-token-of-session-1-0");
    assert_eq!(world.issue(&two).unwrap().unwrap(), "Bearer the-token-of-session-2-0");
    let opened = world.stand.0.opened.lock().unwrap().clone();
    assert_eq!(opened[0].permissions, Some(BTreeMap::from([("contents".into(), Level::Write)])));
    assert_eq!(
        opened[1],
        scoped("x", r#"{"repositories":["r"],"permissions":{"contents":"read"}}"#).scopes[&world.name]
    );
    assert_eq!(world.standing().sessions, Some(2));
    world.leases.give_back(|id| id == "two");
    assert_eq!(world.issue(&one), Ok(None), "it is over");
    world.leases.give_back(|id| id == "two");
    world.leases.close(HOUR).await;
    assert_eq!(world.stand.closed(), ["the-token-of-session-1", "the-token-of-session-2"], "each once");
}

#[tokio::test]
async fn of_what_a_service_rejects_only_that_of_its_session_is_made_anew() {
    let world = world();
    let (one, two) = (session("one"), session("two"));
    for session in [&one, &two] {
        world.leases.prepare(&world.name, session.holder()).await;
    }
    let issue = |session: &Session| world.leases.issue(&world.name, DESTINATION, session.holder(), HOUR);
    let fingerprint = || issue(&one).unwrap().unwrap().lease.fingerprint;
    world.stand.0.version.store(1, Ordering::Relaxed);
    world.leases.heard(&used(&world.name, 401, &fingerprint()));
    let renewed = world.leases.renew_rejected().await.unwrap();
    assert_eq!((renewed.session_id.as_deref(), renewed.fingerprint), (Some("one"), Some(fingerprint())));
    assert_eq!(world.issue(&one).unwrap().unwrap(), "Bearer the-token-of-session-1-1");
    assert_eq!(world.issue(&two).unwrap().unwrap(), "Bearer the-token-of-session-2-0");
}

#[tokio::test]
async fn many_that_come_first_ask_once_and_who_goes_away_loses_nothing() {
    let world = world();
    world.stand.0.answers.forget_permits(1000);
    let prepare = || {
        let (leases, name) = (world.leases.clone(), world.name.clone());
        tokio::spawn(async move { leases.prepare(&name, session("one").holder()).await })
    };
    let first = prepare();
    while world.stand.asked() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    let others: Vec<_> = (0..20).map(|_| prepare()).collect();
    tokio::task::yield_now().await;
    assert_eq!(world.issue(&session("one")), Ok(None));
    world.stand.0.answers.add_permits(1);
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(world.stand.asked(), 1);
    assert!(world.issue(&session("one")).unwrap().is_some());
}

#[tokio::test]
async fn what_is_wrong_with_one_sessions_is_told_and_says_nothing_of_the_others() {
    let world = world();
    world.leases.prepare(&world.name, session("well").holder()).await;
    world.stand.0.broken.store(true, Ordering::Relaxed);
    world.leases.prepare(&world.name, session("ill").holder()).await;
    let wide = scoped("wide", r#"{"permissions":{"contents":"admin"}}"#);
    world.leases.prepare(&world.name, wide.holder()).await;
    assert!(world.issue(&session("well")).unwrap().is_some());
    assert!(world.issue(&session("ill")).unwrap_err().contains("it is suspended"));
    assert!(world.issue(&wide).unwrap_err().contains("contents: admin is more than the credential has (write)"));
    let now = world.standing();
    assert_eq!((now.sessions, now.error), (Some(1), None));
    assert!(now.trouble.unwrap().starts_with("session ill: somebody: it is suspended"));
    assert_eq!(now.fix.as_deref(), Some("unsuspend it"));
    world.leases.test(&world.name).await;
    assert_eq!(world.stand.asked(), 3, "who got nothing asks again, and nobody else does");
    // It is looked at again when there is another answer, and a change is told to that session's grants alone.
    world.stand.0.broken.store(false, Ordering::Relaxed);
    world.stand.0.version.store(1, Ordering::Relaxed);
    let before = world.leases.feed.cursor();
    world.leases.refresh_apart(&world.leases.apart[&world.name]).await;
    assert!(world.issue(&session("ill")).unwrap().unwrap().ends_with("-1"));
    let poll = crate::changes::Poll { worker: "0123abcd", epoch: "", after: 0, wait: Duration::ZERO };
    let epoch = world.leases.feed.poll(poll).await.unwrap().epoch;
    let poll = crate::changes::Poll { epoch: &epoch, after: before, ..poll };
    let told: Vec<_> = world.leases.feed.poll(poll).await.unwrap().changes;
    let told: Vec<_> = told.into_iter().map(|change| (change.session_id, change.credential, change.left)).collect();
    assert_eq!(told, [(Some("ill".into()), None, None), (Some("well".into()), None, None)]);
}

#[tokio::test]
async fn a_narrow_session_never_gets_what_all_share() {
    let world = world();
    let other = Name::parse("other").unwrap();
    let scopes = BTreeMap::from([(other.clone(), TokenScope::default())]);
    let narrow = Session { scopes, ..session("narrow") };
    let refused = world.leases.issue(&other, "b.test:443", narrow.holder(), HOUR).err().unwrap();
    assert!(refused.to_string().contains("the same for every session"), "{refused}");
}

#[tokio::test]
async fn a_reload_gives_each_session_another() {
    let world = world();
    for id in ["one", "two"] {
        world.leases.prepare(&world.name, session(id).holder()).await;
    }
    world.stand.0.version.store(5, Ordering::Relaxed);
    let (standing, cursor) = world.leases.reload(&world.name).await.unwrap();
    assert_eq!((standing.sessions, cursor), (Some(2), world.leases.feed.cursor()));
    for id in ["one", "two"] {
        assert!(world.issue(&session(id)).unwrap().unwrap().ends_with("-5"));
    }
    assert_eq!(world.stand.asked(), 4);
}
