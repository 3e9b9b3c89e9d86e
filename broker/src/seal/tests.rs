//! Sealing on a real file system: what is kept opens, what was swapped does not, and no kill loses anything.

use super::files::{self, OWN};
use super::rekey::{Change, Done, Step, rekey};
use super::*;
use crate::audit::key::AuditKey;
use crate::config::{Config, Overrides};
use crate::sources::Environment;
use crate::state_dir::{Locked, StateDir, StateDirError};
use attache_core::placeholder::Shape;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;

const SECRET: &str = "a-secret-of-an-operator-0123456789";
const OTHER: &str = "beside-them-and-nobodys";

/// One instance, with a secret that the config names, one deeper, and a file that it does not name.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.write("one", &"11".repeat(32));
        world.write("two", &"22".repeat(32));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.path("state/i").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// Sealed by this; `""`: not at all.
    fn config(&self, seal: &str) -> Config {
        let seal = if seal.is_empty() { String::new() } else { format!("state: {{seal: {seal}}}\n") };
        let yaml = format!(
            "instance: i\nstate_dir: state\n{seal}credentials:\n  a: {{source: {{file: a}}, inject: bearer, destinations: \
             [{{host: a.test}}]}}\n  b: {{source: {{file: team/b}}, inject: bearer, destinations: [{{host: b.test}}]}}\n"
        );
        self.write("attache.yaml", &yaml);
        Config::load(Some(&self.path("attache.yaml")), &Overrides::default(), &|_| None).unwrap()
    }

    /// Sealed by the key in this file; `""`: not at all.
    fn by(&self, key: &str) -> Config {
        self.config(&if key.is_empty() { String::new() } else { format!("{{file: {key}}}") })
    }

    async fn open(&self, config: &Config) -> Result<StateDir, StateDirError> {
        Ok(StateDir::unlock(config, &Environment::default()).await?.0)
    }

    /// A life of the broker, of which something secret is kept; and operators' files, plain.
    async fn begin(&self, config: &Config) -> Kept {
        let kept = self.keep(config).await;
        for (name, text) in [("a", SECRET), ("team/b", SECRET), ("other", OTHER)] {
            self.write(&format!("state/i/secrets/{name}"), text);
        }
        for dir in ["state/i/secrets", "state/i/secrets/team"] {
            fs::set_permissions(self.path(dir), PermissionsExt::from_mode(0o700)).unwrap();
        }
        kept
    }

    async fn keep(&self, config: &Config) -> Kept {
        let state = self.open(config).await.unwrap();
        let audit = AuditKey::open_or_create(state.safe()).unwrap();
        if state.safe().read("ca.key", 1024).unwrap().is_none() {
            state.safe().replace("ca.key", b"the authorities").unwrap();
        }
        Kept {
            placeholder: state.key().mint(&Shape::new("", 40), "s", "c"),
            audit: audit.public().id(),
            ca: state.safe().read("ca.key", 1024).unwrap().unwrap().to_vec(),
        }
    }

    /// What everything is that is there, opened; panics where something does not open.
    async fn found(&self, config: &Config) -> Result<(Kept, Vec<String>), StateDirError> {
        let state = self.open(config).await?;
        let read = |name: &str| {
            let path = config.sources.file_dir.join(name);
            let dir = PrivateDir::open(path.parent().unwrap()).unwrap().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let bytes = state.safe().sealer().read(&dir, name, 1024).unwrap().unwrap();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let secrets = ["a", "team/b", "other"].map(read).to_vec();
        drop(state);
        Ok((self.keep(config).await, secrets))
    }

    /// What the first bytes of a file say.
    fn form(&self, name: &str) -> Form {
        form(&fs::read(self.state(name)).unwrap())
    }

    /// Makes a copy of what is on the disk.
    fn copy(&self) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        copy(self.0.path(), world.0.path());
        world
    }

    async fn rekey(
        &self,
        to: Option<&str>,
        from: &[&str],
        data_key: bool,
        step: &mut (dyn FnMut(Step) + Send),
    ) -> Done {
        let config = self.by(to.unwrap_or_default());
        self.try_rekey(&config, to, from, data_key, step).await.unwrap()
    }

    async fn try_rekey(
        &self,
        config: &Config,
        to: Option<&str>,
        from: &[&str],
        data_key: bool,
        step: &mut (dyn FnMut(Step) + Send),
    ) -> Result<Done, UnlockError> {
        let locked = Locked::take(&config.state_dir).unwrap();
        let to = to.map(|key| Means::in_file(&self.path(key)).unwrap());
        let from: Vec<_> = from.iter().map(|key| Means::in_file(&self.path(key)).unwrap()).collect();
        rekey(&Change { config, dir: locked.dir(), to: to.as_ref(), from: &from, data_key }, step).await
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    placeholder: String,
    audit: String,
    ca: Vec<u8>,
}

fn secrets() -> Vec<String> {
    [SECRET, SECRET, OTHER].map(str::to_owned).to_vec()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            fs::create_dir(&to).unwrap();
            fs::set_permissions(&to, PermissionsExt::from_mode(0o700)).unwrap();
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

fn swap(from: PathBuf, world: &World) {
    fs::copy(from, world.state("instance.key")).unwrap();
}

fn words(error: &dyn std::error::Error, wanted: &[&str]) {
    let text = error.to_string();
    for word in wanted {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[tokio::test]
async fn plain_files_are_sealed_at_the_next_start_and_stay_what_they_are() {
    let world = World::new();
    let kept = world.begin(&world.config("")).await;
    assert!(OWN.iter().all(|name| world.form(name) == Form::Plain));
    world.write(&format!("state/i/{}", files::leftover("audit.key")), "what a kill has left, plain");
    let sealed = world.by("one");
    assert_eq!(world.found(&sealed).await.unwrap(), (kept, secrets()));
    assert!(OWN.iter().all(|name| matches!(world.form(name), Form::Sealed(_))));
    assert_eq!(world.form("secrets/a"), Form::Plain, "an operator's file is an operator's");
    assert!(!world.state(&files::leftover("audit.key")).exists());
}

#[tokio::test]
async fn a_kill_in_the_first_sealing_loses_nothing() {
    let world = World::new();
    let kept = world.begin(&world.config("")).await;
    let sealed = world.copy();
    let config = sealed.by("one");
    sealed.found(&config).await.unwrap();
    // The keyring first, then one file after the other: every state that a kill can leave behind.
    for count in 0..=OWN.len() {
        let killed = world.copy();
        for name in ["seal.json"].iter().chain(&OWN[..count]) {
            fs::copy(sealed.state(name), killed.state(name)).unwrap();
        }
        assert_eq!(killed.found(&killed.by("one")).await.unwrap(), (kept.clone(), secrets()), "{count}");
        assert!(OWN.iter().all(|name| matches!(killed.form(name), Form::Sealed(_))));
    }
}

#[tokio::test]
async fn without_the_key_or_with_another_nothing_opens_and_nothing_is_made_anew() {
    let world = World::new();
    world.begin(&world.by("one")).await;
    let before: Vec<_> = OWN.map(|name| fs::read(world.state(name)).unwrap()).to_vec();
    let one = Means::in_file(&world.path("one")).unwrap().name();
    let two = Means::in_file(&world.path("two")).unwrap().name();

    let error = world.open(&world.by("two")).await.err().unwrap();
    words(&error, &["seal.json", &one, &two, "--old-key-file"]);
    let error = world.open(&world.config("")).await.err().unwrap();
    words(&error, &["seal.json", &one, "state: {seal: …}"]);
    let error = world.open(&world.by("none")).await.err().unwrap();
    words(&error, &["the seal's key is not there", "/none"]);
    let error = world.open(&world.config("{env: NOT_SET}")).await.err().unwrap();
    words(&error, &["the seal's key is not there", "env NOT_SET"]);
    world.write("bad", "no-key-at-all");
    let error = world.open(&world.by("bad")).await.err().unwrap();
    words(&error, &["/bad", "expected 32 bytes"]);
    assert!(!error.to_string().contains("no-key-at-all"));
    fs::set_permissions(world.path("one"), PermissionsExt::from_mode(0o640)).unwrap();
    words(&world.open(&world.by("one")).await.err().unwrap(), &["/one", "chmod 600"]);
    fs::set_permissions(world.path("one"), PermissionsExt::from_mode(0o600)).unwrap();

    fs::rename(world.state("seal.json"), world.path("away")).unwrap();
    for config in [world.by("one"), world.config("")] {
        let error = world.open(&config).await.err().unwrap();
        words(&error, &["instance.key", "is sealed under data key"]);
    }
    assert!(!world.state("seal.json").exists(), "no new data key beside what an old one has sealed");
    assert_eq!(before, OWN.map(|name| fs::read(world.state(name)).unwrap()));
    fs::rename(world.path("away"), world.state("seal.json")).unwrap();
    assert!(world.open(&world.by("one")).await.is_ok());
}

#[tokio::test]
async fn damaged_swapped_and_foreign_files_are_found_by_their_names() {
    let world = World::new();
    let config = world.by("one");
    world.begin(&config).await;
    world.rekey(Some("one"), &[], false, &mut |_| {}).await;
    let other = World::new();
    other.begin(&other.by("one")).await;

    let swapped = world.copy();
    fs::copy(world.state("secrets/a"), swapped.state("secrets/team/b")).unwrap();
    let state = swapped.open(&swapped.by("one")).await.unwrap();
    let dir = PrivateDir::open(&swapped.state("secrets/team")).unwrap().unwrap();
    words(&state.safe().sealer().read(&dir, "b", 1024).unwrap_err(), &["team/b", "does not open"]);
    drop(state);

    type Harm = fn(&World, &World);
    let harms: [(Harm, &str); 5] = [
        (|world, _| swap(world.state("ca.key"), world), "does not open"),
        (|world, other| swap(other.state("instance.key"), world), "not in seal.json"),
        (|world, _| world.write("state/i/instance.key", ""), "is damaged"),
        (|world, _| world.write("state/i/instance.key", "attache-seale"), "does not open"),
        (|world, _| world.write("state/i/instance.key", "attache-sealed:v9:0123456789abcdef:AAAA\n"), "newer attache"),
    ];
    for (harm, wanted) in harms {
        let harmed = world.copy();
        harm(&harmed, &other);
        words(&harmed.open(&harmed.by("one")).await.err().unwrap(), &["instance.key", wanted]);
    }
    let foreign = world.copy();
    fs::copy(other.state("seal.json"), foreign.state("seal.json")).unwrap();
    assert!(foreign.open(&foreign.by("one")).await.is_err(), "another instance's data key, under the same key");
}

#[tokio::test]
async fn another_key_takes_one_file_and_seals_what_operators_left_plain() {
    let world = World::new();
    let kept = world.begin(&world.by("one")).await;
    let before = fs::read(world.state("instance.key")).unwrap();
    let done = world.rekey(Some("two"), &["one"], false, &mut |_| {}).await;
    assert_eq!((done.moved, done.left.len()), (2, 1), "{done:?}");
    assert_eq!(fs::read(world.state("instance.key")).unwrap(), before, "its data key is the same");
    assert!(
        matches!(world.form("secrets/a"), Form::Sealed(_)) && matches!(world.form("secrets/team/b"), Form::Sealed(_))
    );
    assert_eq!(world.form("secrets/other"), Form::Plain, "the config does not name it");
    assert_eq!(world.found(&world.by("two")).await.unwrap(), (kept, secrets()));
    words(&world.open(&world.by("one")).await.err().unwrap(), &["seal.json"]);
    let again = world.rekey(Some("two"), &[], false, &mut |_| {}).await;
    assert_eq!((again.moved, again.data_key), (0, done.data_key), "nothing is left to do");
}

#[tokio::test]
async fn another_data_key_seals_every_file_anew_and_the_old_one_is_given_up() {
    let world = World::new();
    let kept = world.begin(&world.by("one")).await;
    let first = world.rekey(Some("one"), &[], false, &mut |_| {}).await.data_key.unwrap();
    let done = world.rekey(Some("one"), &[], true, &mut |_| {}).await;
    assert_eq!(done.moved, OWN.len() + 2);
    let second = done.data_key.unwrap();
    assert_ne!(first, second);
    for name in OWN.iter().chain(&["secrets/a", "secrets/team/b"]) {
        assert_eq!(world.form(name), Form::Sealed(second.clone()), "{name}");
    }
    assert!(!fs::read_to_string(world.state("seal.json")).unwrap().contains(&first));
    assert_eq!(world.found(&world.by("one")).await.unwrap(), (kept, secrets()));
}

#[tokio::test]
async fn the_seal_comes_off_and_every_file_is_plain_again() {
    let world = World::new();
    let kept = world.begin(&world.by("one")).await;
    world.rekey(Some("one"), &[], false, &mut |_| {}).await;
    let done = world.rekey(None, &["one"], false, &mut |_| {}).await;
    assert_eq!((done.moved, done.by), (OWN.len() + 2, None));
    assert!(!world.state("seal.json").exists());
    assert_eq!(world.found(&world.config("")).await.unwrap(), (kept, secrets()));
}

#[tokio::test]
async fn a_change_that_cannot_open_what_is_there_changes_nothing() {
    let world = World::new();
    world.begin(&world.by("one")).await;
    let before = fs::read(world.state("seal.json")).unwrap();
    let config = world.by("two");
    for from in [&[][..], &["two"]] {
        let error = world.try_rekey(&config, Some("two"), from, true, &mut |_| {}).await.unwrap_err();
        words(&error, &["seal.json", "--old-key-file"]);
        assert_eq!(before, fs::read(world.state("seal.json")).unwrap());
    }
    world.rekey(Some("one"), &[], false, &mut |_| {}).await;
    fs::write(world.state("secrets/a"), fs::read(world.state("secrets/team/b")).unwrap()).unwrap();
    let config = world.by("one");
    let error = world.try_rekey(&config, Some("one"), &[], true, &mut |_| {}).await.unwrap_err();
    words(&error, &["secrets/a", "does not open"]);
    let keys = Keyring::load(&PrivateDir::open(&world.state("")).unwrap().unwrap(), &config.instance).unwrap().unwrap();
    assert!(!keys.is_moving(), "nothing has begun");
    assert!(world.open(&config).await.is_ok(), "what opened before opens");
}

#[tokio::test]
async fn a_directory_that_is_not_looked_through_stops_a_change_before_it_begins() {
    let world = World::new();
    world.begin(&world.by("one")).await;
    world.rekey(Some("one"), &[], false, &mut |_| {}).await;
    let before = fs::read(world.state("seal.json")).unwrap();
    let deep = world.copy();
    deep.write("state/i/secrets/1/2/3/4/5/6/7/8/9/it", SECRET);
    let mut path = deep.state("secrets");
    for name in 1..=9 {
        path = path.join(name.to_string());
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    }
    let linked = world.copy();
    std::os::unix::fs::symlink(linked.state("secrets/team"), linked.state("secrets/link")).unwrap();
    for (world, wanted) in
        [(deep, ["secrets/1/2/3/4/5/6/7/8/9", "8 deep"]), (linked, ["secrets/link", "symbolic link"])]
    {
        for (to, from, data_key) in [(Some("one"), &[][..], true), (None, &["one"][..], false)] {
            let config = world.by(to.unwrap_or_default());
            words(&world.try_rekey(&config, to, from, data_key, &mut |_| {}).await.unwrap_err(), &wanted);
            assert_eq!(fs::read(world.state("seal.json")).unwrap(), before, "nothing has begun");
        }
    }
}

#[test]
fn a_file_that_the_config_names_is_found_by_its_path_wherever_it_lies() {
    let world = World::new();
    let mut config = world.config("");
    world.write("state/i/secrets/a", SECRET);
    world.write("state/i/elsewhere/b", SECRET);
    fs::set_permissions(world.state("secrets"), PermissionsExt::from_mode(0o700)).unwrap();
    config.credentials[1].lookup = vec![crate::config::Lookup::File(world.state("elsewhere/b"))];
    let found = files::all(&config).unwrap();
    let named: Vec<_> = found.iter().filter(|file| file.kind == files::Kind::Named).map(|file| &file.path).collect();
    assert_eq!(named, [&world.state("secrets/a"), &world.state("elsewhere/b")]);
}

#[tokio::test]
async fn a_copy_of_a_sealed_file_stops_a_change_before_it_begins_and_is_named() {
    let world = World::new();
    world.begin(&world.by("one")).await;
    world.rekey(Some("one"), &[], false, &mut |_| {}).await;
    let before = fs::read(world.state("seal.json")).unwrap();
    for copy in ["secrets/a.bak", "secrets/team/b.old"] {
        fs::copy(world.state("secrets/a"), world.state(copy)).unwrap();
    }
    for (to, from, data_key) in CHANGES {
        let config = world.by(to.unwrap_or_default());
        let error = world.try_rekey(&config, to, from, data_key, &mut |_| {}).await.unwrap_err();
        words(
            &error,
            &["secrets/a.bak", "secrets/team/b.old", "Remove them, or move them", "nothing has been changed"],
        );
        assert_eq!(fs::read(world.state("seal.json")).unwrap(), before, "{to:?} {data_key}");
    }
    for copy in ["secrets/a.bak", "secrets/team/b.old"] {
        fs::remove_file(world.state(copy)).unwrap();
    }
    world.rekey(Some("one"), &[], true, &mut |_| {}).await;
}

#[tokio::test]
async fn what_kills_have_left_is_erased_though_nothing_stands_where_it_was_to_be() {
    let world = World::new();
    world.begin(&world.by("one")).await;
    let left = [".gone.new", "secrets/.it.new", "secrets/team/.b.new"];
    left.iter().for_each(|name| world.write(&format!("state/i/{name}"), SECRET));
    let mut found: Vec<_> = left.iter().map(|name| world.state(name)).collect();
    found.sort();
    assert_eq!(files::leftovers(&world.by("one")).unwrap(), found);
    // Who has it open sees what has become of it.
    let open = fs::File::open(world.state(left[1])).unwrap();
    world.rekey(Some("one"), &[], false, &mut |_| {}).await;
    assert!(found.iter().all(|path| !path.exists()));
    let text = std::io::read_to_string(open).unwrap();
    assert!(text.len() == SECRET.len() && text.bytes().all(|byte| byte == 0), "overwritten");
}

#[tokio::test]
async fn an_own_key_that_is_gone_from_beside_a_keyring_is_not_made_anew() {
    let world = World::new();
    let config = world.by("one");
    world.begin(&config).await;
    fs::remove_file(world.state("instance.key")).unwrap();
    words(&world.open(&config).await.err().unwrap(), &["instance.key is not there", "restore it from a backup"]);
    assert!(!world.state("instance.key").exists());
}

/// What is done, and from which key to which.
const CHANGES: [(Option<&str>, &[&str], bool); 4] =
    [(Some("two"), &["one"], false), (Some("two"), &["one"], true), (Some("one"), &[], true), (None, &["one"], false)];

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_a_change_loses_nothing_and_it_goes_on() {
    let world = World::new();
    let kept = world.begin(&world.by("one")).await;
    for (to, from, data_key) in CHANGES {
        let whole = world.copy();
        let mut steps = 0;
        whole.rekey(to, from, data_key, &mut |_| steps += 1).await;
        assert!(steps >= 3, "{steps}");
        for stop in 0..steps {
            let killed = world.copy();
            kill(&killed, (to, from, data_key), stop);
            // By the new key, by the old one, or by none: something opens all that is there, as it is.
            let mut opened = 0;
            for key in ["one", "two", ""] {
                let looked = killed.copy();
                if let Ok(found) = looked.found(&looked.by(key)).await {
                    assert_eq!(found, (kept.clone(), secrets()), "{to:?} {data_key} after {stop}");
                    opened += 1;
                }
            }
            assert!(opened > 0, "{to:?} {data_key}: nothing opens it after step {stop} of {steps}");
            let done = killed.rekey(to, from, data_key, &mut |_| {}).await;
            assert_eq!(done.by.is_some(), to.is_some());
            let config = killed.by(to.unwrap_or_default());
            assert_eq!(killed.found(&config).await.unwrap(), (kept.clone(), secrets()), "{to:?} {data_key} {stop}");
            let unfinished = Keyring::load(&PrivateDir::open(&killed.state("")).unwrap().unwrap(), &config.instance);
            assert!(unfinished.unwrap().is_none_or(|keyring| !keyring.is_moving()));
        }
    }
}

/// Ends it right behind a step, as a kill would: nothing is done any more.
fn kill(world: &World, (to, from, data_key): (Option<&str>, &[&str], bool), stop: usize) {
    let mut left = stop;
    let mut step = move |_| {
        if left == 0 {
            std::panic::resume_unwind(Box::new("killed"));
        }
        left -= 1;
    };
    let runs = AssertUnwindSafe(|| {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(world.rekey(to, from, data_key, &mut step))
        })
    });
    assert!(std::panic::catch_unwind(runs).is_err(), "it ended before step {stop}");
}

#[tokio::test]
async fn what_logs_in_elsewhere_and_secrets_are_read_sealed_or_plain() {
    let world = World::new();
    let config = world.by("one");
    world.begin(&config).await;
    let environment = Environment::default();
    let (state, _) = StateDir::unlock(&config, &environment).await.unwrap();
    let source = |name: &str| {
        let lookup = crate::config::Lookup::File(config.sources.file_dir.join(name));
        crate::sources::open(&lookup, &environment)
    };
    let text = async |name: &str| source(name).read().await.map(|found| found.unwrap().secret.expose().to_owned());
    assert_eq!(text("a").await.unwrap(), SECRET, "plain");
    let dir = PrivateDir::open(&config.sources.file_dir).unwrap().unwrap();
    state.safe().sealer().replace(&dir, "a", SECRET.as_bytes()).unwrap();
    assert!(matches!(world.form("secrets/a"), Form::Sealed(_)));
    assert_eq!(text("a").await.unwrap(), SECRET, "sealed");
    let mut bytes = fs::read(world.state("secrets/a")).unwrap();
    bytes[3] ^= 1;
    fs::write(world.state("secrets/a"), bytes).unwrap();
    let error = text("a").await.unwrap_err().to_string();
    assert!(error.contains("secrets/a") && !error.contains(SECRET), "nobody is sent what is damaged: {error}");
}

#[test]
fn a_key_beside_what_it_seals_is_a_caution() {
    let world = World::new();
    for (at, is_one) in [("one", false), ("state/i/key", true), ("state/key", true)] {
        let cautions = world.by(at).cautions().join("\n");
        assert_eq!(cautions.contains("state.seal.file"), is_one, "{at}: {cautions}");
    }
}

#[tokio::test]
async fn whatever_makes_the_broker_somebody_is_sealed_where_it_is_a_file() {
    let world = World::new();
    let config = world.by("one");
    world.begin(&config).await;
    let text = fs::read_to_string(world.path("attache.yaml")).unwrap();
    let rotated = "{source: {file: a}, rotation: {hook: {url: 'https://r.test', token: {file: rotator}}}, ";
    let sources = "sources: {infisical: {project: p, environment: e, auth: {universal: {client_id: c, client_secret: \
                   {file: infisical}}}}}\n";
    world.write("attache.yaml", &format!("{sources}{}", text.replace("{source: {file: a}, ", rotated)));
    let config = Config::load(Some(&world.path("attache.yaml")), &Overrides::default(), &|_| None).unwrap();
    for name in ["rotator", "infisical"] {
        world.write(&format!("state/i/secrets/{name}"), SECRET);
    }
    let done = world.try_rekey(&config, Some("one"), &[], false, &mut |_| {}).await.unwrap();
    for name in ["rotator", "infisical"] {
        assert!(matches!(world.form(&format!("secrets/{name}")), Form::Sealed(_)), "{name}");
    }
    assert_eq!(done.left, [world.state("secrets/other")], "the config names all but this one");
    // It is shown to the hook as it was written.
    let environment = Environment::read(&config, &|_| None);
    StateDir::unlock(&config, &environment).await.unwrap();
    let at = config.own_secrets().find(|at| at.file().is_some_and(|file| file.ends_with("rotator"))).unwrap();
    // Exposed to the comparison.
    assert_eq!(environment.handed(at).read(at).unwrap().unwrap().expose(), SECRET);
}
