//! Against a stand-in for `op`, a script that keeps its documented contract: `op read --no-newline
//! REFERENCE` ends with 0 and the value and nothing else on standard output, or with 1 and a line that
//! begins `[ERROR]` on standard error. The lines are those of `op` 2.x. The real one needs an account.

use super::op::OpError;
use super::*;
use crate::sources::{Found, Mark, Source, SourceError};
use std::fs::{Permissions, read_to_string, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

const STAND_IN: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> asked
complain() { echo "[ERROR] 2026/01/31 12:00:00 could not read secret '$3': $1 s3cret-in-a-complaint" >&2; exit 1; }
[ "$1 $2" = "read --no-newline" ] || complain "unknown command"
[ -e behaviour ] && . ./behaviour
case "$3" in
  op://Private/GitHub/token) printf '%s' "$(cat value)" ;;
  op://Private/None/token) complain '"None" isn'"'"'t an item in the "Private" vault. Specify the item with its UUID, name, or domain.' ;;
  op://None/GitHub/token) complain '"None" isn'"'"'t a vault in this account. Specify the vault with its ID or name.' ;;
  op://Private/GitHub/none) complain 'item '"'"'Private/GitHub'"'"' does not have a field '"'"'none'"'"'' ;;
  op://Private/Twin/token) complain 'More than one item matches "Twin". Try again and specify the item by its ID:' ;;
  op://Private/Empty/token) ;;
  op://Private/Long/token) head -c 70000 /dev/zero | tr '\0' s; sleep 600 ;;
  op://Private/Bytes/token) printf '\377\376' ;;
  op://Private/Environment/token) env | sed 's/=.*//' | sort | tr '\n' ' ' ;;
  *) echo "[ERROR] something new: s3cret-in-a-complaint" >&2; exit 7 ;;
esac
"#;

struct World {
    temp: tempfile::TempDir,
    quiet: Arc<Quiet>,
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let world = Self { temp, quiet: Arc::default() };
        world.write("op", STAND_IN);
        set_permissions(world.temp.path().join("op"), Permissions::from_mode(0o700)).unwrap();
        world.write("value", "ghp_the-real-one");
        world
    }

    fn write(&self, name: &str, content: &str) {
        write(self.temp.path().join(name), content).unwrap();
    }

    /// From now on it fails in this way, whatever it is asked.
    fn fails(&self, words: &str) {
        self.write("behaviour", &format!("complain '{words}'\n"));
    }

    fn mends(&self) {
        std::fs::remove_file(self.temp.path().join("behaviour")).unwrap();
    }

    fn asked(&self) -> usize {
        read_to_string(self.temp.path().join("asked")).unwrap_or_default().lines().count()
    }

    fn item(&self, reference: &str, refresh: Duration) -> Remembered<Item> {
        let config =
            OnePassword { reference: reference.into(), op: self.temp.path().join("op"), connect: None, refresh };
        let given = ENVIRONMENT.map(|name| (name, Secret::new(if name == "PATH" { "/usr/bin:/bin" } else { "given" })));
        by_op(&config, &given, self.quiet.clone())
    }

    async fn read(&self, reference: &str) -> Result<String, SourceError> {
        text(self.item(reference, Duration::from_secs(600)).read().await)
    }
}

fn text(read: Result<Option<Found>, SourceError>) -> Result<String, SourceError> {
    read.map(|found| found.expect("never absent").secret.expose().to_owned())
}

fn why(read: Result<String, SourceError>) -> Trouble {
    match read {
        Err(SourceError::Remote { why, .. }) => why,
        other => panic!("{:?}", other.map(|_| "a secret")),
    }
}

/// Waits until the source has been answered so often.
async fn answers(item: &Remembered<Item>, wanted: u64) {
    for _ in 0..2000 {
        if item.mark() == Mark::Answers(wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?} is not {wanted}", item.mark());
}

#[tokio::test]
async fn a_reference_is_read_as_it_stands() {
    let world = World::new();
    assert_eq!(world.read("op://Private/GitHub/token").await.unwrap(), "ghp_the-real-one");
    let asked = read_to_string(world.temp.path().join("asked")).unwrap();
    assert_eq!(asked, "read --no-newline op://Private/GitHub/token\n");
}

#[tokio::test]
async fn what_is_not_there_is_an_error_and_each_error_is_known() {
    let world = World::new();
    for (reference, error) in [
        ("op://Private/None/token", OpError::NoSuchReference),
        ("op://None/GitHub/token", OpError::NoSuchReference),
        ("op://Private/GitHub/none", OpError::NoSuchReference),
        ("op://Private/Twin/token", OpError::Ambiguous),
        ("op://Private/Empty/token", OpError::Empty),
        ("op://Private/Long/token", OpError::TooLong),
        ("op://Private/Bytes/token", OpError::NotText),
        ("op://Private/Other/token", OpError::Failed(Some(7))),
    ] {
        let read = world.read(reference).await;
        let said = read.as_ref().unwrap_err().to_string();
        assert!(said.starts_with(&format!("1password {reference}: ")) && !said.contains("s3cret"), "{said}");
        assert_eq!(why(read), error.into(), "{reference}");
    }
    for (words, error) in [
        ("You are not currently signed in. Please run `op signin --help` for instructions", OpError::NotSignedIn),
        ("No accounts configured for use with 1Password CLI.", OpError::NotSignedIn),
        ("error initializing client: Validation: (failed to session.DecodeSACredentials)", OpError::NotSignedIn),
        ("(401) Unauthorized: invalid bearer token", OpError::NotSignedIn),
        ("Too many requests. Your client has been rate-limited.", OpError::RateLimited),
        ("dial tcp: lookup my.1password.com: no such host", OpError::Unreachable),
        ("error initializing client: read: context deadline exceeded", OpError::Unreachable),
    ] {
        world.fails(words);
        world.quiet.keep(Duration::ZERO);
        assert_eq!(why(world.read("op://Private/GitHub/token").await), error.into(), "{words}");
    }
}

#[tokio::test]
async fn op_gets_nothing_of_our_environment_but_what_it_needs() {
    let world = World::new();
    let seen = world.read("op://Private/Environment/token").await.unwrap();
    let shells_own = ["PWD", "OLDPWD", "SHLVL", "_"];
    let given: Vec<_> = seen.split_whitespace().filter(|name| !shells_own.contains(name)).collect();
    let mut all = ENVIRONMENT.to_vec();
    all.sort_unstable();
    let mut given_sorted = given.clone();
    given_sorted.sort_unstable();
    assert_eq!(given_sorted, all);
    // cargo's own, which every test has.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !seen.contains("CARGO"), "{seen}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_apart() {
    let world = World::new();
    std::fs::remove_file(world.temp.path().join("op")).unwrap();
    assert_eq!(why(world.read("op://Private/GitHub/token").await), OpError::NotInstalled.into());
    world.write("op", "no program");
    let error = why(world.read("op://Private/GitHub/token").await);
    assert!(error.to_string().contains("does not start"), "{error}");
    // Whoever can write where the operator stands must not be run.
    assert_eq!(find(Path::new("op"), "relative:.:"), None);
    assert_eq!(find(Path::new("sh"), "relative:/bin"), Some("/bin/sh".into()));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_ended_with_all_its_children() {
    let world = World::new();
    world.write("behaviour", "sleep 600 & echo $! > child; wait\n");
    let item = world.item("op://Private/GitHub/token", Duration::from_secs(600));
    let asking = tokio::spawn(async move { text(item.read().await) });
    let child = world.temp.path().join("child");
    // In real time: the clock that stands still is the runtime's.
    let pid = tokio::task::spawn_blocking(move || {
        (0..2000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            read_to_string(&child).ok()?.trim().parse::<u32>().ok()
        })
    });
    let pid = pid.await.unwrap().expect("the stand-in runs");
    assert_eq!(why(asking.await.unwrap()), OpError::TimedOut.into());
    let is_gone = || match read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
        Err(_) => true,
    };
    let waited = (0..2000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        is_gone()
    });
    assert!(waited, "what it has started lives on");
}

#[tokio::test]
async fn an_answer_is_remembered_and_asked_for_anew_behind_the_back_of_its_users() {
    let world = World::new();
    let item = world.item("op://Private/GitHub/token", Duration::from_millis(300));
    assert_eq!(item.mark(), Mark::Answers(0), "who has not been read asks nobody");
    assert_eq!(world.asked(), 0);
    assert_eq!(text(item.read().await).unwrap(), "ghp_the-real-one");
    for _ in 0..20 {
        assert_eq!(text(item.read().await).unwrap(), "ghp_the-real-one");
    }
    assert_eq!(world.asked(), 1);
    world.write("value", "ghp_another");
    answers(&item, 2).await;
    assert_eq!(text(item.read().await).unwrap(), "ghp_another");
}

#[tokio::test]
async fn a_passing_failure_leaves_what_was_found_and_says_so() {
    let world = World::new();
    let item = world.item("op://Private/GitHub/token", Duration::from_secs(600));
    assert_eq!(text(item.read().await).unwrap(), "ghp_the-real-one");
    assert_eq!(item.trouble(), None);
    world.fails("dial tcp: lookup my.1password.com: no such host");
    item.forget();
    assert_eq!(text(item.read().await).unwrap(), "ghp_the-real-one");
    assert!(item.trouble().unwrap().to_string().contains("does not reach"));
    // Whether it is there at all is another matter.
    world.fails("\"GitHub\" isn\\'\\'t an item in the \"Private\" vault".replace("\\'\\'", "'\\''").as_str());
    item.forget();
    assert_eq!(why(text(item.read().await)), OpError::NoSuchReference.into());
    world.mends();
    item.forget();
    assert_eq!(text(item.read().await).unwrap(), "ghp_the-real-one");
}

#[tokio::test]
async fn after_too_many_requests_no_secret_is_asked_for_a_long_time_and_what_was_found_holds() {
    let world = World::new();
    let [one, other] = [600, 300].map(|seconds| world.item("op://Private/GitHub/token", Duration::from_secs(seconds)));
    assert_eq!(text(one.read().await).unwrap(), "ghp_the-real-one");
    world.fails("Too many requests. Your client has been rate-limited.");
    one.forget();
    assert_eq!(text(one.read().await).unwrap(), "ghp_the-real-one");
    assert!(one.trouble().unwrap().to_string().contains("too many requests"));
    let next = one.next().unwrap();
    assert!(next > QUIET - Duration::from_secs(60) && next <= QUIET, "{next:?}");
    let asked = world.asked();
    world.mends();
    for _ in 0..3 {
        one.forget();
        assert!(text(one.read().await).is_ok() && why(text(other.read().await)).passes());
        other.forget();
    }
    assert_eq!(world.asked(), asked, "nobody asks");
    assert!(other.next().is_none(), "forgotten");
    world.quiet.keep(Duration::ZERO);
    assert_eq!(text(other.read().await).unwrap(), "ghp_the-real-one");
}

#[tokio::test]
async fn an_answer_to_a_question_from_before_is_not_taken_for_one_to_the_next() {
    let world = World::new();
    let item = Arc::new(world.item("op://Private/GitHub/token", Duration::from_secs(600)));
    // It has read the value, and answers when it is let.
    let slow = "old=$(cat value); touch begun; until [ -e go ]; do sleep 0.01; done; printf '%s' \"$old\"; exit 0\n";
    world.write("behaviour", slow);
    let asking = {
        let item = Arc::clone(&item);
        tokio::spawn(async move { item.read().await })
    };
    while !world.temp.path().join("begun").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.write("value", "ghp_the-next-one");
    item.forget();
    world.mends();
    world.write("go", "");
    let found = asking.await.unwrap().unwrap().unwrap();
    assert_eq!((found.secret.expose(), world.asked()), ("ghp_the-next-one", 2));
}
