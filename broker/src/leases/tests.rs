//! Leases over real files.

use super::*;
use crate::config::{Lookup, Overrides};
use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const DESTINATION: &str = "api.github.com:443";

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
        let issued = leases.issue(self.name(), DESTINATION, Duration::from_secs(3600));
        issued.map(|i| i.injections[0].value.expose().to_owned()).map_err(|error| error.to_string())
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
        let issued = leases.issue(world.name(), DESTINATION, Duration::from_secs(8)).map_err(|error| error.to_string());
        issued.map(|issued| issued.mask.iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>())
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
    let issue = |destination: &str, seconds| leases.issue(world.name(), destination, Duration::from_secs(seconds));
    let long = issue(DESTINATION, 3600).ok().unwrap().lease;
    assert_eq!((long.ttl_ms, long.refresh_after_ms), (300_000, 225_000));
    let short = issue(DESTINATION, 8).ok().unwrap().lease;
    assert_eq!((short.ttl_ms, short.refresh_after_ms), (8_000, 6_000));
    assert_ne!(long.id, short.id);
    assert!(long.id.len() == 18 && long.id.starts_with("l-"));
    assert!(matches!(issue("elsewhere:443", 8).err().as_deref(), Some(LeaseError::NotBound)));
}
