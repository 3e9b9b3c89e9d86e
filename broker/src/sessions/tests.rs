//! Sessions over a real store.

use super::*;
use crate::config::{DeclaredSession, Overrides, Required};
use crate::private_file::PrivateDir;
use attache_core::digest::Digest;
use attache_core::refusal::Reason;
use attache_core::wire::EvidenceDigests;

struct World {
    temp: tempfile::TempDir,
    config: Config,
}

impl World {
    fn new() -> Self {
        let env = |name: &str| ["GITHUB_TOKEN", "OPENAI_API_KEY"].contains(&name).then(|| "x".to_owned());
        let temp = tempfile::tempdir().unwrap();
        let overrides = Overrides { state_dir: Some(temp.path().to_owned()), ..Overrides::default() };
        let mut config = Config::load(None, &overrides, &env).unwrap();
        config.sessions = vec![declared("reviewer", None)];
        Self { temp, config }
    }

    async fn load(&self) -> Sessions {
        self.load_at(Now::read()).await
    }

    async fn load_at(&self, now: Now) -> Sessions {
        let dir = PrivateDir::open_or_create(&self.temp.path().join("state")).unwrap();
        let store = Store::open(&dir).await.unwrap();
        Sessions::load(&self.config, Arc::new(InstanceKey::new([7; 32])), store, now).await.unwrap().0
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn declared(called: &str, ttl: Option<Duration>) -> DeclaredSession {
    DeclaredSession {
        name: name(called),
        credentials: vec![name("github")],
        access_mode: AccessMode::ReadWrite,
        ttl,
        bind: Bind::default(),
        scopes: BTreeMap::new(),
    }
}

fn new(called: &str) -> NewSession {
    NewSession {
        name: name(called),
        credentials: vec![name("github")],
        access_mode: AccessMode::ReadOnly,
        ttl: None,
        bind: Bind::default(),
        scopes: BTreeMap::new(),
    }
}

async fn create(sessions: &Sessions, new: NewSession, now: Now) -> Result<Arc<Session>, SessionError> {
    sessions.change().await.begin(sessions.draft(new, now)?, now).await
}

fn shows(placeholder: Option<&str>, token: Option<&str>) -> EvidenceDigests {
    let digest = |text: &str| Digest::of(text.as_bytes());
    EvidenceDigests {
        placeholder: placeholder.map(digest),
        session_token: token.map(digest),
        ..EvidenceDigests::default()
    }
}

#[tokio::test]
async fn all_evidence_must_name_one_live_session() {
    let world = World::new();
    let sessions = world.load().await;
    let now = Now::read();
    let one = sessions.live(&name("reviewer"), now).unwrap();
    let other = create(&sessions, new("other"), now).await.unwrap();
    let placeholder = sessions.placeholder(&one, &name("github")).unwrap();
    let (token, other_token) = (sessions.token(&one), sessions.token(&other));
    assert!(placeholder.starts_with("ghp_ATTACHE") && token.starts_with("attache-session_ATTACHE"));

    let identify = |placeholder, token| sessions.identify(&shows(placeholder, token), None, &Sight::All, now);
    let found = identify(Some(&placeholder), Some(&token)).unwrap();
    assert_eq!((&found.session.id, found.credential), (&one.id, Some(name("github"))));
    assert_eq!(identify(None, Some(&token)).unwrap().credential, None);

    for (placeholder, token, why) in [
        (None, None, Reason::IdentityRequired),
        (Some("ghp_ATTACHEforged"), None, Reason::PlaceholderUnknown),
        (Some(&*placeholder), Some("forged"), Reason::PlaceholderUnknown),
        (Some(&*placeholder), Some(&*other_token), Reason::EvidenceConflict),
        (Some(&*token), None, Reason::PlaceholderMisplaced),
        (None, Some(&*placeholder), Reason::PlaceholderMisplaced),
    ] {
        assert_eq!(identify(placeholder, token).err(), Some(why), "{placeholder:?} {token:?}");
    }
}

#[tokio::test]
async fn every_demand_of_a_session_must_be_met() {
    let world = World::new();
    let sessions = world.load().await;
    let now = Now::read();
    let bind = Bind {
        peer: Some("spiffe://test/agent".parse().unwrap()),
        source: Some("10.1.0.0/16".parse().unwrap()),
        listener: Some(name("inner")),
        session_token: Some(Required::Required),
    };
    let bound = create(&sessions, NewSession { bind, ..new("bound") }, now).await.unwrap();
    let shown = EvidenceDigests {
        peer: Some("spiffe://test/agent".into()),
        source: Some("10.1.2.3".parse().unwrap()),
        listener: Some(name("inner")),
        ..shows(sessions.placeholder(&bound, &name("github")).as_deref(), Some(&sessions.token(&bound)))
    };
    let reason = |shown: EvidenceDigests| sessions.identify(&shown, None, &Sight::All, now).err();
    assert_eq!(reason(shown.clone()), None);
    let (missing, conflict) = (Some(Reason::IdentityRequired), Some(Reason::EvidenceConflict));
    assert_eq!(reason(EvidenceDigests { peer: None, ..shown.clone() }), missing);
    assert_eq!(reason(EvidenceDigests { source: None, ..shown.clone() }), missing);
    assert_eq!(reason(EvidenceDigests { listener: None, ..shown.clone() }), missing);
    assert_eq!(reason(EvidenceDigests { session_token: None, ..shown.clone() }), missing);
    assert_eq!(reason(EvidenceDigests { peer: Some("spiffe://test/agent2".into()), ..shown.clone() }), conflict);
    assert_eq!(reason(EvidenceDigests { source: "10.2.0.1".parse().ok(), ..shown.clone() }), conflict);
    assert_eq!(reason(EvidenceDigests { source: "::a01:203".parse().ok(), ..shown.clone() }), conflict);
    assert_eq!(reason(EvidenceDigests { listener: Some(name("outer")), ..shown.clone() }), conflict);
    // What is shown otherwise outweighs what is missing.
    let both = EvidenceDigests { peer: None, listener: Some(name("outer")), ..shown.clone() };
    assert_eq!(reason(both), conflict);
    // A session that demands nothing takes no offence at what a connection shows.
    let reviewer = sessions.live(&name("reviewer"), now).unwrap();
    let free = EvidenceDigests { session_token: None, ..shown };
    let free = EvidenceDigests {
        placeholder: shows(sessions.placeholder(&reviewer, &name("github")).as_deref(), None).placeholder,
        ..free
    };
    assert_eq!(reason(free), None);
    // Demands outlive a restart.
    sessions.close().await;
    let again = world.load().await;
    assert_eq!(again.live(&name("bound"), now).unwrap().bind, bound.bind);
}

#[tokio::test]
async fn a_connection_names_the_one_live_session_that_is_bound_to_it() {
    let world = World::new();
    let sessions = world.load().await;
    let now = Now::read();
    let peer = |id: &str| Bind { peer: Some(id.parse().unwrap()), ..Bind::default() };
    let listener = Bind { listener: Some(name("inner")), ..Bind::default() };
    let source = Bind { source: Some("10.0.0.0/8".parse().unwrap()), ..Bind::default() };
    create(&sessions, NewSession { bind: peer("spiffe://test/one"), ..new("one") }, now).await.unwrap();
    create(&sessions, NewSession { bind: listener, ..new("by-listener") }, now).await.unwrap();
    create(&sessions, NewSession { bind: source, ..new("by-source") }, now).await.unwrap();
    let twofold = Bind { session_token: Some(Required::Required), ..peer("spiffe://test/two") };
    create(&sessions, NewSession { bind: twofold, ..new("twofold") }, now).await.unwrap();
    let named = |peer: Option<&str>, listener: Option<&str>| {
        let shown = EvidenceDigests {
            peer: peer.map(Into::into),
            listener: listener.map(name),
            source: "10.0.0.1".parse().ok(),
            ..EvidenceDigests::default()
        };
        sessions.identify(&shown, None, &Sight::All, now).map(|found| found.session.name.as_str().to_owned())
    };
    assert_eq!(named(Some("spiffe://test/one"), None).as_deref(), Ok("one"));
    assert_eq!(named(None, Some("inner")).as_deref(), Ok("by-listener"));
    assert_eq!(named(Some("spiffe://test/one"), Some("outer")).as_deref(), Ok("one"));
    assert_eq!(named(Some("spiffe://test/one"), Some("inner")), Err(Reason::EvidenceConflict), "two sessions");
    assert_eq!(named(Some("spiffe://test/two"), None), Err(Reason::IdentityRequired), "its token is demanded, too");
    assert_eq!(named(None, None), Err(Reason::IdentityRequired), "an address names nobody");
    revoke(&sessions, "one", now).await;
    assert_eq!(named(Some("spiffe://test/one"), None), Err(Reason::IdentityRequired));
}

#[tokio::test]
async fn a_jwt_agrees_with_what_else_is_shown() {
    let world = World::new();
    let sessions = world.load().await;
    let now = Now::read();
    let other = create(&sessions, new("other"), now).await.unwrap();
    let placeholder = sessions.placeholder(&other, &name("github"));
    let named = |placeholder: Option<&str>, by_jwt: &str| {
        let found = sessions.identify(&shows(placeholder, None), Some(&name(by_jwt)), &Sight::All, now);
        found.map(|found| (found.session.name.as_str().to_owned(), found.credential))
    };
    assert_eq!(named(None, "other"), Ok(("other".into(), None)));
    assert_eq!(named(placeholder.as_deref(), "other"), Ok(("other".into(), Some(name("github")))));
    assert_eq!(named(placeholder.as_deref(), "reviewer"), Err(Reason::EvidenceConflict));
    assert_eq!(named(Some("ghp_ATTACHEforged"), "other"), Err(Reason::PlaceholderUnknown));
    assert_eq!(named(None, "nobody"), Err(Reason::SessionExpired));
    revoke(&sessions, "other", now).await;
    assert_eq!(named(None, "other"), Err(Reason::SessionExpired));
}

#[tokio::test]
async fn a_draft_is_known_to_nobody_until_it_begins() {
    let world = World::new();
    let sessions = world.load().await;
    let now = Now::read();
    let draft = sessions.draft(new("made"), now).unwrap();
    let namesake = sessions.draft(new("made"), now).unwrap();
    let evidence = shows(sessions.placeholder(&draft, &name("github")).as_deref(), None);
    let reason = || sessions.identify(&evidence, None, &Sight::All, now).err();
    assert_eq!((reason(), sessions.all().len()), (Some(Reason::PlaceholderUnknown), 1));
    sessions.change().await.begin(draft, now).await.unwrap();
    assert_eq!((reason(), sessions.all().len()), (None, 2));
    let second = sessions.change().await.begin(namesake, now).await;
    assert!(matches!(second, Err(SessionError::NameTaken(_))), "{second:?}");
}

#[tokio::test]
async fn a_session_ends_when_either_clock_says_so() {
    let world = World::new();
    let sessions = world.load().await;
    let now = Now::read();
    let minute = Duration::from_secs(60);
    let session = create(&sessions, NewSession { ttl: Some(minute), ..new("short") }, now).await.unwrap();
    let evidence = shows(sessions.placeholder(&session, &name("github")).as_deref(), None);
    let ended = |at: Now| sessions.identify(&evidence, None, &Sight::All, at).err();
    assert_eq!(ended(now.plus(minute - Duration::from_millis(1))), None);
    assert_eq!(ended(now.plus(minute)), Some(Reason::SessionExpired));
    assert_eq!(ended(Now { wall_ms: now.wall_ms + 60_000, ..now }), Some(Reason::SessionExpired));
    assert_eq!(ended(Now { wall_ms: now.wall_ms - 3_600_000, ..now.plus(minute) }), Some(Reason::SessionExpired));
    create(&sessions, new("short"), now.plus(minute)).await.unwrap();
}

#[tokio::test]
async fn modes_revocations_and_placeholders_outlive_a_restart() {
    let world = World::new();
    let now = Now::read();
    let sessions = world.load().await;
    let reviewer = sessions.live(&name("reviewer"), now).unwrap();
    let made = create(&sessions, new("made"), now).await.unwrap();
    let placeholder = sessions.placeholder(&reviewer, &name("github"));
    let read_only = |session: &Session| Session { access_mode: AccessMode::ReadOnly, ..session.clone() };
    let reviewer = sessions.narrow(&name("reviewer"), now, read_only).unwrap();
    revoke(&sessions, "made", now).await;
    sessions.keep(&reviewer.id).await.unwrap();
    sessions.close().await;

    let sessions = world.load().await;
    let again = sessions.live(&name("reviewer"), now).unwrap();
    assert_eq!((again.access_mode, sessions.placeholder(&again, &name("github"))), (AccessMode::ReadOnly, placeholder));
    assert!(matches!(sessions.live(&name("made"), now), Err(SessionError::Unknown(_))));
    let evidence = shows(None, Some(&sessions.token(&made)));
    assert_eq!(sessions.identify(&evidence, None, &Sight::All, now).err(), Some(Reason::SessionExpired));
}

#[tokio::test]
async fn a_revoked_declared_session_stays_so_until_its_declaration_changes() {
    let mut world = World::new();
    let now = Now::read();
    let sessions = world.load().await;
    let first = sessions.live(&name("reviewer"), now).unwrap();
    revoke(&sessions, "reviewer", now).await;
    sessions.close().await;

    let sessions = world.load().await;
    assert!(sessions.live(&name("reviewer"), now).is_err());
    sessions.close().await;

    world.config.sessions[0].access_mode = AccessMode::ReadOnly;
    let sessions = world.load().await;
    let second = sessions.live(&name("reviewer"), now).unwrap();
    assert_ne!(second.id, first.id, "what was revoked never comes back");
    sessions.close().await;

    world.config.sessions[0].credentials.push(name("openai"));
    let sessions = world.load().await;
    let third = sessions.live(&name("reviewer"), now).unwrap();
    assert_eq!((&third.id, third.credentials.len()), (&second.id, 2), "a changed declaration keeps its placeholders");
}

#[tokio::test]
async fn an_expired_declared_session_begins_anew_with_other_placeholders() {
    let mut world = World::new();
    let hour = Duration::from_secs(3600);
    world.config.sessions = vec![declared("reviewer", Some(hour))];
    let now = Now::read();
    let sessions = world.load_at(now).await;
    let first = sessions.live(&name("reviewer"), now).unwrap();
    sessions.close().await;
    let sessions = world.load_at(now.plus(hour / 2)).await;
    assert_eq!(sessions.live(&name("reviewer"), now.plus(hour / 2)).unwrap().id, first.id, "a restart extends nothing");
    sessions.close().await;
    let sessions = world.load_at(now.plus(hour)).await;
    assert_ne!(sessions.live(&name("reviewer"), now.plus(hour)).unwrap().id, first.id);
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_over_a_restart_gives_no_session_its_time_again() {
    let mut world = World::new();
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    world.config.sessions = vec![declared("reviewer", Some(minute))];
    let now = Now::read();
    let sessions = world.load_at(now).await;
    let first = sessions.live(&name("reviewer"), now).unwrap();
    let short = create(&sessions, NewSession { ttl: Some(minute), ..new("short") }, now).await.unwrap();
    let long = create(&sessions, NewSession { ttl: Some(hour), ..new("long") }, now).await.unwrap();
    let raised = Sessions::elevated(&long, minute, now).unwrap();
    sessions.change().await.elevate(&long, raised).await.unwrap();
    // Some time later two of them are over, and the third was seen to be alive.
    let later = now.plus(hour / 2);
    sessions.end_expired(later).await.unwrap();
    sessions.store.note_seen(later.wall_ms).await.unwrap();
    sessions.close().await;

    for day in 1..=2u64 {
        let back = Now { wall_ms: now.wall_ms - day * 86_400_000, ..now };
        let sessions = world.load_at(back).await;
        let evidence = shows(None, Some(&sessions.token(&short)));
        assert_eq!(sessions.identify(&evidence, None, &Sight::All, back).err(), Some(Reason::SessionExpired));
        let all = sessions.all();
        let standing = |id: &str| all.iter().find(|session| session.id == id).unwrap();
        assert_eq!([&short.id, &first.id].map(|id| standing(id).state(back)), ["expired"; 2]);
        assert_eq!(standing(&long.id).remaining(back), hour / 2, "what was left of it when it was seen last");
        assert_eq!(standing(&long.id).mode(back), AccessMode::ReadOnly, "and nothing of its elevation");
        let anew = sessions.live(&name("reviewer"), back).unwrap();
        assert!(anew.id != first.id && anew.remaining(back) == minute, "what begins anew has its whole time");
        sessions.close().await;
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_stored_when_its_time_is_over() {
    let world = World::new();
    let sessions = world.load().await;
    let (now, minute) = (Now::read(), Duration::from_secs(60));
    let made = create(&sessions, NewSession { ttl: Some(minute), ..new("short") }, now).await.unwrap();
    let over = now.plus(minute);
    let stored = async || sessions.store.sessions().await.unwrap().into_iter().find(|row| row.id == made.id).unwrap();
    sessions.end_expired(now).await.unwrap();
    assert_eq!(stored().await.ended_ms, None);
    // The wall clock has gone back: the other one says that it is over.
    sessions.end_expired(Now { wall_ms: now.wall_ms - 1_000, ..over }).await.unwrap();
    assert_eq!(stored().await.ended_ms, stored().await.expires_ms);
    let told = sessions.expired_between(now, over);
    assert_eq!(
        told.iter().map(|session| &session.id).collect::<Vec<_>>(),
        [&made.id],
        "stored first, told all the same"
    );
    assert_eq!(sessions.all().iter().find(|session| session.id == made.id).unwrap().state(now), "expired");
    create(&sessions, new("short"), now).await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_no_longer_declared_ends() {
    let mut world = World::new();
    world.load().await.close().await;
    world.config.sessions.clear();
    let sessions = world.load().await;
    let made = create(&sessions, new("reviewer"), Now::read()).await.unwrap();
    sessions.close().await;
    world.config.sessions = vec![declared("reviewer", None)];
    let sessions = world.load().await;
    assert_ne!(sessions.live(&name("reviewer"), Now::read()).unwrap().id, made.id, "made by hand, it gains nothing");
}

#[tokio::test]
async fn nonsense_is_refused() {
    let world = World::new();
    let sessions = world.load().await;
    let now = Now::read();
    let refusal =
        async |new| create(&sessions, new, now).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refusal(new("reviewer")).await.contains("declared in the config"));
    assert!(refusal(NewSession { credentials: vec![name("none")], ..new("a") }).await.contains("called none"));
    assert!(refusal(NewSession { credentials: vec![], ..new("a") }).await.contains("at least one"));
    assert!(refusal(NewSession { ttl: Some(Duration::ZERO), ..new("a") }).await.contains("some time"));
    assert_eq!(refusal(new("a")).await, "");
    assert!(refusal(new("a")).await.contains("alive already"));
}

/// A credential of which each session has a token of its own, in the place of `github`.
fn apart(world: &mut World) {
    let app = crate::config::GitHubApp {
        issuer: "1".into(),
        installation: 2,
        key: crate::config::handed::SecretAt::Env("KEY".into()),
        api: "https://api.github.com".into(),
        ca_file: None,
        refresh: Duration::from_secs(60),
    };
    let scope = scope(r#"{"repositories":["one","two"],"permissions":{"contents":"write"}}"#);
    let token = crate::config::GitHubAppToken { app: Arc::new(app), scope };
    let github = world.config.credentials.iter_mut().find(|one| one.name == name("github")).unwrap();
    github.lookup = vec![crate::config::Lookup::GitHubApp(token)];
}

fn scope(json: &str) -> TokenScope {
    serde_json::from_str(json).unwrap()
}

fn scopes(credential: &str, json: &str) -> BTreeMap<Name, TokenScope> {
    BTreeMap::from([(name(credential), scope(json))])
}

#[tokio::test]
async fn a_scope_narrows_what_its_credential_has_and_outlives_the_process() {
    let mut world = World::new();
    apart(&mut world);
    let narrow = scopes("github", r#"{"repositories":["one"],"permissions":{"contents":"read"}}"#);
    world.config.sessions = vec![DeclaredSession { scopes: narrow.clone(), ..declared("reviewer", None) }];
    let sessions = world.load().await;
    let now = Now::read();
    let made = create(&sessions, NewSession { scopes: narrow.clone(), ..new("made") }, now).await.unwrap();
    assert_eq!((&made.scopes, &sessions.live(&name("reviewer"), now).unwrap().scopes), (&narrow, &narrow));
    let first = sessions.live(&name("reviewer"), now).unwrap().id.clone();
    let refusal = async |scopes| {
        let error = create(&sessions, NewSession { scopes, ..new("a") }, now).await.err();
        error.map(|error| error.to_string()).unwrap_or_default()
    };
    let wide = refusal(scopes("github", r#"{"permissions":{"contents":"admin"}}"#)).await;
    assert!(wide.contains("github: permission contents: admin is more") && wide.contains("never widens"), "{wide}");
    assert!(refusal(scopes("github", r#"{"repositories":["three"]}"#)).await.contains("three is not among"));
    assert!(refusal(scopes("openai", "{}")).await.contains("which the session may not use"));
    let both = NewSession { credentials: vec![name("openai")], scopes: scopes("openai", "{}"), ..new("a") };
    let fixed = create(&sessions, both, now).await.unwrap_err().to_string();
    assert!(fixed.contains("the same for every session"), "{fixed}");
    sessions.close().await;
    let sessions = world.load().await;
    assert_eq!(sessions.live(&name("made"), now).unwrap().scopes, narrow);
    assert_eq!(sessions.live(&name("reviewer"), now).unwrap().id, first, "an unchanged declaration changes nothing");
    sessions.close().await;
    world.config.sessions[0].scopes = scopes("github", r#"{"repositories":["two"]}"#);
    let sessions = world.load().await;
    let changed = sessions.live(&name("reviewer"), now).unwrap();
    assert_eq!((&changed.id, &changed.scopes), (&first, &world.config.sessions[0].scopes));
}

#[tokio::test]
async fn what_has_been_over_for_long_is_forgotten() {
    let world = World::new();
    let sessions = world.load().await;
    let now = Now::read();
    let made = create(&sessions, NewSession { ttl: Some(Duration::from_secs(1)), ..new("short") }, now).await.unwrap();
    let evidence = shows(None, Some(&sessions.token(&made)));
    let reason = |at: Now| sessions.identify(&evidence, None, &Sight::All, at).err();
    let later = now.plus(REMEMBERED);
    sessions.forget(later).await.unwrap();
    assert_eq!(reason(later), Some(Reason::SessionExpired));
    let later = later.plus(Duration::from_secs(2));
    sessions.forget(later).await.unwrap();
    assert_eq!(reason(later), Some(Reason::PlaceholderUnknown));
    assert_eq!(sessions.all().len(), 1, "the declared one stays");
}

async fn revoke(sessions: &Sessions, session: &str, now: Now) {
    let ended = |session: &Session| Session { ended_ms: Some(now.wall_ms), ..session.clone() };
    let over = sessions.narrow(&name(session), now, ended).unwrap();
    sessions.keep(&over.id).await.unwrap();
}

#[tokio::test]
async fn whoever_gives_more_rights_never_undoes_what_was_taken_away_meanwhile() {
    let world = World::new();
    let now = Now::read();
    let sessions = world.load().await;
    for (narrow, stays_live) in [(true, true), (false, false)] {
        let made = create(&sessions, new(if narrow { "narrowed" } else { "ended" }), now).await.unwrap();
        let change = sessions.change().await;
        let before = sessions.live(&made.name, now).unwrap();
        // Needs no turn: it does not wait for the one who holds the sessions still.
        let narrowed = sessions.narrow(&made.name, now, |session| match narrow {
            true => Session { access_mode: AccessMode::ReadOnly, ..session.clone() },
            false => Session { ended_ms: Some(now.wall_ms), ..session.clone() },
        });
        assert!(narrowed.is_ok());
        let wider = change.widen(&before, Session { access_mode: AccessMode::ReadWrite, ..(*before).clone() }).await;
        assert!(matches!(wider, Err(SessionError::ChangedMeanwhile(_))));
        drop(change);
        assert_eq!(sessions.live(&made.name, now).is_ok(), stays_live);
    }
    sessions.close().await;
    let sessions = world.load().await;
    assert_eq!(sessions.live(&name("narrowed"), now).unwrap().access_mode, AccessMode::ReadOnly);
    assert!(sessions.live(&name("ended"), now).is_err());
}

#[tokio::test]
async fn many_sessions_begin_and_end_in_as_few_commits_as_one() {
    // What a start of the broker commits, and another one when all of it has expired.
    async fn commits(sessions: usize) -> [usize; 2] {
        let mut world = World::new();
        let one = |number| declared(&format!("s-{number}"), Some(Duration::from_secs(60)));
        world.config.sessions = (0..sessions).map(one).collect();
        let dir = PrivateDir::open_or_create(&world.temp.path().join("state")).unwrap();
        let store = Arc::new(Store::open(&dir).await.unwrap());
        let counted = store.count_commits().await;
        let now = Now::read();
        let key = Arc::new(InstanceKey::new([7; 32]));
        let loaded = Sessions::load(&world.config, key, store, now).await.unwrap().0;
        assert_eq!(loaded.all().len(), sessions);
        let begun = counted.load(std::sync::atomic::Ordering::SeqCst);
        loaded.end_expired(now.plus(Duration::from_secs(61))).await.unwrap();
        assert!(loaded.all().iter().all(|session| session.ended_ms.is_some()));
        [begun, counted.load(std::sync::atomic::Ordering::SeqCst) - begun]
    }
    let one = commits(1).await;
    assert!(one[0] > 0 && one[1] == 1, "commits are counted: {one:?}");
    assert_eq!(commits(200).await, one);
}

#[tokio::test]
async fn what_is_out_of_sight_is_not_there_however_it_is_shown() {
    let mut world = World::new();
    let listener = |name: &str| Bind { listener: Some(self::name(name)), ..Bind::default() };
    world.config.sessions =
        vec![declared("mine", None), declared("theirs", None), declared("bound", None), declared("other", None)];
    world.config.sessions[2].bind = listener("l");
    world.config.sessions[3].bind = listener("l");
    let (sessions, now) = (world.load().await, Now::read());
    let sight = Sight::These(Arc::new([name("mine"), name("bound")].into()));
    let token = |of: &str| sessions.token(&sessions.live(&name(of), now).unwrap());
    let reason = |shown: EvidenceDigests, sight: &Sight| sessions.identify(&shown, None, sight, now).err();
    let theirs = || shows(None, Some(&token("theirs")));
    assert_eq!(reason(theirs(), &sight), Some(Reason::PlaceholderUnknown));
    assert_eq!(sessions.unknown(&theirs(), &sight).await, Reason::PlaceholderUnknown);
    assert_eq!(reason(theirs(), &Sight::All), None);
    assert_eq!(reason(shows(None, Some(&token("mine"))), &sight), None);
    let by_rule = |of: &str| sessions.identify(&shows(None, None), Some(&name(of)), &sight, now).err();
    assert_eq!((by_rule("theirs"), by_rule("mine")), (Some(Reason::IdentityRequired), None));
    // What it does not see is no rival, either.
    let connection = || EvidenceDigests { listener: Some(name("l")), ..EvidenceDigests::default() };
    assert_eq!(reason(connection(), &Sight::All), Some(Reason::EvidenceConflict));
    assert_eq!(sessions.identify(&connection(), None, &sight, now).unwrap().session.name, name("bound"));
    let id = |of: &str| sessions.live(&name(of), now).unwrap().id.clone();
    for (told_id, told_name, may) in [
        (Some(id("mine")), Some("mine"), true),
        (Some(id("theirs")), Some("mine"), false),
        (Some(id("mine")), Some("theirs"), false),
        (Some(id("theirs")), None, false),
        (None, Some("theirs"), false),
        (Some("s-of-before".to_owned()), Some("mine"), true),
        (Some("s-of-before".to_owned()), Some("theirs"), false),
        (None, None, true),
    ] {
        let named = told_name.map(name);
        assert_eq!(sessions.may_tell_of(&sight, told_id.as_deref(), named.as_ref()), may, "{told_id:?} {told_name:?}");
        assert!(sessions.may_tell_of(&Sight::All, told_id.as_deref(), named.as_ref()));
    }
}
