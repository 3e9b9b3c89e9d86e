//! Leases over real files.

use super::*;
use crate::config::{Lookup, OnePassword, Overrides};
use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const DESTINATION: &str = "api.github.com:443";

/// A session, as leases know it.
pub(super) struct Session {
    pub id: String,
    pub name: Name,
    pub scopes: BTreeMap<Name, TokenScope>,
}

impl Session {
    pub fn holder(&self) -> Holder<'_> {
        Holder { id: &self.id, name: &self.name, scopes: &self.scopes }
    }
}

pub(super) fn session(id: &str) -> Session {
    Session { id: id.into(), name: Name::parse(id).unwrap(), scopes: BTreeMap::new() }
}

/// A use by the session `one`, as its worker tells of it.
pub(super) fn used(credential: &Name, status: u16, fingerprint: &str) -> wire::UseRecord {
    let record = serde_json::json!({
        "seq": 1, "kind": "use", "at_ms": 1, "duration_ms": 1, "request_id": "r", "method": "GET", "authority": "a.test",
        "path": "/", "decision": "forward", "response_code": status, "auth_injected": true, "evidence": "placeholder",
        "session_id": "one", "credential": credential, "fingerprint": fingerprint,
    });
    serde_json::from_value(record).unwrap()
}

struct World {
    temp: tempfile::TempDir,
    config: Config,
}

impl World {
    /// One credential that is looked for in a variable, then in two files.
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        set_permissions(temp.path(), Permissions::from_mode(0o700)).unwrap();
        let overrides = Overrides { state_dir: Some(temp.path().to_owned()), ..Overrides::default() };
        let env = |name: &str| (name == "GITHUB_TOKEN").then(|| "x".to_owned());
        let mut config = Config::load(None, &overrides, &env).unwrap();
        let files = ["first", "second"].map(|name| Lookup::File(temp.path().join(name)));
        config.credentials[0].lookup = [vec![Lookup::Env("TOKEN".into())], files.into()].concat();
        Self { temp, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        write(self.path(name), content).unwrap();
        set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    async fn load(&self, variable: Option<&str>) -> Leases {
        let environment = Environment::read(&self.config, &|_| variable.map(Into::into));
        let feed = Arc::new(Feed::new("p".into(), Duration::from_secs(10)).unwrap());
        Leases::load(&self.config, &environment, Arc::new(InstanceKey::new([7; 32])), feed).await
    }

    fn name(&self) -> &Name {
        &self.config.credentials[0].name
    }

    fn issue(&self, leases: &Leases) -> Result<String, String> {
        let issued = leases.issue(self.name(), DESTINATION, session("one").holder(), Duration::from_secs(3600));
        issued.map(|i| i.unwrap().injections[0].value.expose().to_owned()).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn what_is_absent_falls_through_and_an_error_stops() {
    let world = World::new();
    let none = world.issue(&world.load(None).await).unwrap_err();
    assert!(none.starts_with("no source has it: env TOKEN, file ") && none.ends_with("/second"), "{none}");
    world.write("second", "the-secret-two");
    assert_eq!(world.issue(&world.load(None).await).unwrap(), "Bearer the-secret-two");
    world.write("first", "the-secret-one");
    assert_eq!(world.issue(&world.load(None).await).unwrap(), "Bearer the-secret-one");
    assert_eq!(world.issue(&world.load(Some("the-secret-zero")).await).unwrap(), "Bearer the-secret-zero");
    set_permissions(world.path("first"), Permissions::from_mode(0o644)).unwrap();
    let error = world.issue(&world.load(None).await).unwrap_err();
    assert!(error.contains("chmod 600"), "never the second: {error}");
}

#[tokio::test]
async fn onepassword_stands_between_environment_and_files_and_its_errors_stop() {
    let mut world = World::new();
    // A stand-in for `op`, whose contract is in sources/onepassword/tests.rs.
    world.write(
        "op",
        "#!/bin/sh\ncd \"$(dirname \"$0\")\" && cat vault || { echo \"[ERROR] isn't an item\" >&2; exit 1; }\n",
    );
    set_permissions(world.path("op"), Permissions::from_mode(0o700)).unwrap();
    let (reference, op) = ("op://v/i/f".to_owned(), world.path("op"));
    let item = Lookup::OnePassword(OnePassword { reference, op, connect: None, refresh: Duration::from_secs(600) });
    world.config.credentials[0].lookup.insert(1, item);
    world.write("first", "of-the-file");
    world.write("vault", "of-the-vault");
    assert_eq!(world.issue(&world.load(Some("of-the-environment")).await).unwrap(), "Bearer of-the-environment");
    world.config.credentials[0].lookup.remove(0);
    let leases = world.load(None).await;
    assert_eq!(world.issue(&leases).unwrap(), "Bearer of-the-vault");
    assert_eq!(leases.standings()[0].source.as_deref(), Some("1password op://v/i/f"));

    // `test` asks the source itself, and what it finds is in force.
    world.write("vault", "another-of-it");
    let standing = leases.test(world.name()).await.unwrap();
    assert_eq!((standing.error, world.issue(&leases).unwrap().as_str()), (None, "Bearer another-of-it"));
    let cursor = leases.feed.cursor();
    leases.test(world.name()).await.unwrap();
    assert_eq!(leases.feed.cursor(), cursor, "the same secret voids nothing");

    // It is named, so that it is not there is no reason to take the file.
    std::fs::remove_file(world.path("vault")).unwrap();
    let standing = leases.test(world.name()).await.unwrap();
    let error = standing.error.unwrap();
    assert!(error.starts_with("1password op://v/i/f: 1Password has no such vault"), "{error}");
    assert!(standing.fix.unwrap().contains("sources.onepassword.references"));
    assert_eq!(world.issue(&leases).unwrap_err(), error);
}

#[tokio::test]
async fn a_secret_that_its_service_rejects_is_asked_for_anew_once_in_a_minute() {
    let mut world = World::new();
    let op = "#!/bin/sh\ncd \"$(dirname \"$0\")\" && echo >> asked && cat vault\n";
    world.write("op", op);
    set_permissions(world.path("op"), Permissions::from_mode(0o700)).unwrap();
    let (reference, op) = ("op://v/i/f".to_owned(), world.path("op"));
    let item = Lookup::OnePassword(OnePassword { reference, op, connect: None, refresh: Duration::from_secs(600) });
    world.config.credentials[0].lookup = vec![item];
    world.write("vault", "the-secret-of-before");
    let leases = world.load(None).await;
    let asked = || std::fs::read_to_string(world.path("asked")).unwrap().lines().count();
    let fingerprint = || leases.standings()[0].fingerprint.clone().unwrap();
    let used = |status: u16, fingerprint: &str| leases.heard(&used(world.name(), status, fingerprint));
    let waits = async || tokio::time::timeout(Duration::ZERO, leases.renew_rejected()).await.is_err();
    let (before, first) = (fingerprint(), asked());

    // Not what is answered in another way, and not the secret of another time.
    used(200, &before);
    used(403, &before);
    used(401, "of-another-time");
    assert!(waits().await);
    world.write("vault", "the-secret-of-after");
    for _ in 0..3 {
        used(401, &before);
    }
    let renewed = leases.renew_rejected().await.unwrap();
    assert_eq!((renewed.replaced, renewed.fingerprint), (before.clone(), Some(fingerprint())));
    assert_eq!((renewed.credential, renewed.session_id), (world.name().clone(), None));
    assert_ne!(fingerprint(), before);
    assert_eq!(world.issue(&leases).unwrap(), "Bearer the-secret-of-after");
    assert_eq!(asked(), first + 1);

    // Nor soon again: whatever an agent has a service answer.
    used(401, &before);
    used(401, &fingerprint());
    assert!(waits().await);
    assert_eq!(asked(), first + 1);
}

#[tokio::test]
async fn slow_sources_are_asked_at_once() {
    let mut world = World::new();
    // Each waits for the other: one after the other, neither would answer.
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nexport PATH=/usr/bin:/bin\necho > \"came${3##*/}\"\n\
                  until [ -e camea ] && [ -e cameb ]; do sleep 0.01; done\nprintf of-the-vault\n";
    world.write("op", script);
    set_permissions(world.path("op"), Permissions::from_mode(0o700)).unwrap();
    let item = |field: &str| {
        let (reference, op) = (format!("op://v/i/{field}"), world.path("op"));
        vec![Lookup::OnePassword(OnePassword { reference, op, connect: None, refresh: Duration::from_secs(600) })]
    };
    let mut other = world.config.credentials[0].clone();
    other.name = Name::parse("other").unwrap();
    (world.config.credentials[0].lookup, other.lookup) = (item("a"), item("b"));
    world.config.credentials.push(other);
    let leases = world.load(None).await;
    assert!(leases.standings().iter().all(|standing| standing.error.is_none()), "{:?}", leases.standings());
}

#[tokio::test]
async fn a_secret_that_says_when_it_ends_is_believed() {
    let world = World::new();
    let expiry = async |secret: &str| world.load(Some(secret)).await.standings()[0].expires_ms;
    // {"exp":1893456000}
    assert_eq!(expiry("eyJhbGciOiJub25lIn0.eyJleHAiOjE4OTM0NTYwMDB9.c2ln").await, Some(1_893_456_000_000));
    for none in ["ghp_x", "a.b.c", "a.e30.c", "a.eyJleHAiOjE4OTM0NTYwMDB9"] {
        assert_eq!(expiry(none).await, None, "{none}");
    }
}

#[tokio::test]
async fn a_change_is_published_once_and_only_if_the_secret_is_another() {
    let world = World::new();
    world.write("second", "the-secret-two");
    let leases = world.load(None).await;
    let after = async |change: &dyn Fn()| {
        change();
        leases.refresh(world.name()).await;
        leases.refresh(world.name()).await;
        leases.feed.cursor()
    };
    assert_eq!(after(&|| {}).await, 0);
    assert_eq!(after(&|| world.write("second", "the-secret-two")).await, 0, "the same secret, written again");
    assert_eq!(after(&|| world.write("second", "the-secret-new")).await, 1);
    assert_eq!(after(&|| world.write("first", "the-secret-one")).await, 2, "a source that goes before appears");
    assert_eq!(after(&|| set_permissions(world.path("first"), Permissions::from_mode(0o640)).unwrap()).await, 3);
    assert!(world.issue(&leases).is_err());
    assert_eq!(after(&|| world.write("first", "the-secret-one")).await, 4);
    assert_eq!(after(&|| std::fs::remove_file(world.path("first")).unwrap()).await, 5);
    assert_eq!(world.issue(&leases).unwrap(), "Bearer the-secret-new");
}

#[tokio::test]
async fn a_secret_that_cannot_stand_where_it_must_is_not_leased() {
    let world = World::new();
    let leases = world.load(Some("two\r\nlines")).await;
    let error = world.issue(&leases).unwrap_err();
    assert!(error.starts_with("cannot be injected for api.github.com:443") && !error.contains("lines"), "{error}");
    let standing = &leases.standings()[0];
    assert_eq!((standing.error.as_deref(), &standing.fingerprint), (Some(&*error), &None));
}

#[tokio::test]
async fn what_must_not_come_back_is_said_unless_that_is_switched_off() {
    let mut world = World::new();
    let masked = |leases: &Leases, world: &World| {
        let issued = leases
            .issue(world.name(), DESTINATION, session("one").holder(), Duration::from_secs(8))
            .map_err(|error| error.to_string());
        issued.map(|issued| issued.unwrap().mask.iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(masked(&world.load(Some("the-secret")).await, &world).unwrap(), ["the-secret"]);
    let error = masked(&world.load(Some("1234567")).await, &world).unwrap_err();
    assert!(error.contains("too short to be masked") && !error.contains("1234567"), "{error}");
    world.config.credentials[0].destinations.iter_mut().for_each(|destination| destination.mask = false);
    for secret in ["the-secret", "1234567"] {
        assert!(masked(&world.load(Some(secret)).await, &world).unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_lease_is_bounded_and_bound() {
    let world = World::new();
    let leases = world.load(Some("the-secret")).await;
    let issue = |destination: &str, seconds| {
        leases.issue(world.name(), destination, session("one").holder(), Duration::from_secs(seconds))
    };
    let long = issue(DESTINATION, 3600).ok().flatten().unwrap().lease;
    assert_eq!((long.ttl_ms, long.refresh_after_ms), (300_000, 225_000));
    let short = issue(DESTINATION, 8).ok().flatten().unwrap().lease;
    assert_eq!((short.ttl_ms, short.refresh_after_ms), (8_000, 6_000));
    assert_ne!(long.id, short.id);
    assert!(long.id.len() == 18 && long.id.starts_with("l-"));
    assert!(matches!(issue("elsewhere:443", 8).err().as_deref(), Some(LeaseError::NotBound)));
}

const BUNDLE: &str = "{secret: tokens.access, headers: {x-account: tokens.account}, expires: until, fields: {plan: plan}, \
                      destinations: hosts}";

/// A world whose credential is a unit of several fields.
fn bundled() -> World {
    let mut world = World::new();
    let file = world.path("attache.yaml");
    let yaml = format!(
        "credentials:\n  it: {{source: {{file: it}}, inject: bearer, bundle: {BUNDLE}, destinations: [{{host: api.github.com}}, \
         {{host: other.test}}]}}\n"
    );
    write(&file, yaml).unwrap();
    let overrides = Overrides { state_dir: Some(world.temp.path().to_owned()), ..Overrides::default() };
    world.config = Config::load(Some(&file), &overrides, &|_| None).unwrap();
    world.config.credentials[0].lookup = vec![Lookup::File(world.path("first"))];
    world
}

fn document(account: &str, until_ms: u64, hosts: &str) -> String {
    format!(
        r#"{{"tokens":{{"access":"the-token-of-all","account":"{account}"}},"until":{until_ms},"hosts":{hosts},"plan":"p"}}"#
    )
}

#[tokio::test]
async fn a_bundle_is_one_version_of_several_fields_and_each_change_of_the_document_voids_it() {
    let world = bundled();
    let ahead = Now::read().wall_ms + 3_600_000;
    world.write("first", &document("account-one", ahead, r#"["api.github.com"]"#));
    let leases = world.load(None).await;
    let issued = leases.issue(world.name(), DESTINATION, session("one").holder(), Duration::from_secs(60));
    let issued = issued.ok().unwrap().unwrap();
    let set: Vec<_> =
        issued.injections.iter().map(|one| (one.header.as_deref().unwrap(), one.value.expose())).collect();
    assert_eq!(set, [("authorization", "Bearer the-token-of-all"), ("x-account", "account-one")]);
    assert_eq!(issued.mask.iter().map(Secret::expose).collect::<Vec<_>>(), ["the-token-of-all", "account-one"]);
    assert_eq!(leases.public(world.name(), "plan").ok().as_deref(), Some("p"));
    let standing = &leases.standings()[0];
    assert_eq!((standing.rung, standing.expires_ms), (Some(Rung::Static), Some(ahead)));
    assert_eq!(standing.destinations, [DESTINATION], "only what the document leaves");
    let elsewhere = leases.issue(world.name(), "other.test:443", session("one").holder(), Duration::from_secs(60));
    assert!(matches!(*elsewhere.err().unwrap(), LeaseError::Narrowed));
    // The same token, for another account.
    let cursor = leases.feed.cursor();
    world.write("first", &document("account-two", ahead, r#"["api.github.com"]"#));
    leases.refresh(world.name()).await;
    assert!(leases.feed.cursor() > cursor);
    let issued = leases.issue(world.name(), DESTINATION, session("one").holder(), Duration::from_secs(60));
    let issued = issued.ok().unwrap().unwrap();
    assert_eq!(issued.injections[1].value.expose(), "account-two");
    assert_ne!(leases.standings()[0].fingerprint, standing.fingerprint);
}

#[tokio::test]
async fn no_lease_outlives_what_a_document_says_of_itself_and_then_it_is_an_error() {
    let world = bundled();
    let ahead = Now::read().wall_ms + 1_500;
    world.write("first", &document("account-one", ahead, r#"["api.github.com"]"#));
    let leases = world.load(None).await;
    let issued = leases.issue(world.name(), DESTINATION, session("one").holder(), Duration::from_secs(60));
    let issued = issued.ok().unwrap().unwrap();
    assert!(issued.lease.ttl_ms <= 1_500, "{}", issued.lease.ttl_ms);
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        leases.refresh(world.name()).await;
        let Some(error) = leases.standings()[0].error.clone() else {
            assert!(std::time::Instant::now() < end, "never over");
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        assert_eq!(error, "its field until says that it has ended");
        break;
    }
    // Nobody restarts anything: a new document is in force by itself.
    world.write("first", &document("account-one", ahead + 3_600_000, r#"["api.github.com"]"#));
    leases.refresh(world.name()).await;
    assert!(world.issue(&leases).is_ok());
}
