//! Killed at any moment, the broker loses nothing that it said was done.
//!
//! A real `attache serve` is killed (-9) two hundred times under traffic. What was answered must be
//! there afterwards; what was under way may be, wholly or not at all.

use crate::world::{NONCE, WORKER, World, try_send};
use attache_broker::audit::verify::{Against, verify};
use attache_broker::private_file::PrivateDir;
use attache_broker::state_dir::{Runtime, announced};
use attache_broker::store::Store;
use attache_core::digest::Digest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};

const KILLS: u32 = 200;
const NAMES: u64 = 3;

/// What one operator was answered so far.
#[derive(Default)]
struct Told {
    /// By name: the id and the mode of the live session, or none.
    sessions: BTreeMap<String, Option<(String, String)>>,
    /// The name that an operation was under way for when the broker died.
    under_way: Option<String>,
    /// Placeholders that were given out.
    given: HashSet<String>,
    /// How many changes of each session were said to be in force.
    changes: HashMap<String, usize>,
    operations: usize,
}

/// A generator of small numbers, the same on every run: where kills fall is up to the machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn serve(world: &World) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attache"));
    command.arg("serve").arg("--config").arg(world.temp.path().join("attache.yaml"));
    command.env("ATTACHE_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits until this very process serves.
async fn serving(world: &World, child: &mut Child, kill: u32) -> Runtime {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = announced(&world.config.state_dir).ok().flatten();
        if let Some(runtime) = found.filter(|runtime| runtime.pid == child.id()) {
            return runtime;
        }
        assert!(child.try_wait().unwrap().is_none(), "kill {kill}: it does not start any more");
        assert!(Instant::now() < deadline, "kill {kill}: it does not serve in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An export to a standard output that nobody reads keeps the broker from nothing, its end included.
#[tokio::test]
async fn a_standard_output_that_nobody_reads_delays_no_end() {
    let world = World::stopped();
    let file = world.temp.path().join("attache.yaml");
    let config = std::fs::read_to_string(&file).unwrap() + "audit: {export: [{stdout: json}]}\n";
    std::fs::write(&file, config).unwrap();
    // A pipe that is full already, whose reading end stays open.
    let (_unread, mut full) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&full, rustix::fs::OFlags::NONBLOCK).unwrap();
    while std::io::Write::write(&mut full, &[b' '; 4096]).is_ok() {}
    while std::io::Write::write(&mut full, b" ").is_ok() {}
    rustix::fs::fcntl_setfl(&full, rustix::fs::OFlags::empty()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_attache"));
    command.arg("serve").arg("--config").arg(&file).env("ATTACHE_LOG", "error");
    let mut child = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::null()).spawn().unwrap();
    let runtime = serving(&world, &mut child, 0).await;
    // Records are on their way to the pipe by now, or will be when the broker ends.
    let wish = json!({"name": "made", "credentials": ["github"]});
    assert_eq!(operate(&world, "POST", "/v1/sessions", &wish).await.unwrap().0, 201);
    let pid = rustix::process::Pid::from_raw(runtime.pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let told = Instant::now();
    let ended = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if told.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("it does not end");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(ended.success(), "{ended}");
    assert_eq!(world.records().iter().rfind(|record| record["kind"] == "stop").unwrap()["worker"], "broker");
}

/// Calls the operators' door; `None`: the broker died.
async fn operate(world: &World, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let stream = UnixStream::connect(&world.config.listen.control).await.ok()?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = try_send(stream, method, path, &[], body.as_bytes()).await.ok()?;
    Some((answer.status, serde_json::from_slice(&answer.body).ok()?))
}

/// One operation after the other, until the broker dies.
async fn operator(world: &World, who: &str, dice: &mut Dice, told: &mut Told) {
    loop {
        let name = format!("{who}-{}", dice.roll(NAMES));
        let live = told.sessions.get(&name).cloned().flatten();
        told.under_way = Some(name.clone());
        let session = |path: &str| format!("/v1/sessions/{name}{path}");
        let Some((id, mode)) = live else {
            let wish = json!({"name": name, "credentials": ["github"], "access_mode": "read-only"});
            let Some((status, made)) = operate(world, "POST", "/v1/sessions", &wish).await else { return };
            assert_eq!(status, 201, "{made}");
            let id = made["id"].as_str().unwrap().to_owned();
            told.sessions.insert(name, Some((id, "read-only".into())));
            told.operations += 1;
            continue;
        };
        match dice.roll(4) {
            0 => {
                let Some((status, done)) = operate(world, "POST", &session("/revoke"), &Value::Null).await else {
                    return;
                };
                assert_eq!(status, 200, "{done}");
                told.sessions.insert(name, None);
            }
            1 => {
                let Some((_, env)) = operate(world, "GET", &session("/env"), &Value::Null).await else { return };
                let values = env.as_array().unwrap().iter().map(|variable| variable["value"].as_str().unwrap());
                told.given.extend(values.filter(|value| value.contains("ATTACHE")).map(str::to_owned));
                told.operations += 1;
                continue;
            }
            _ => {
                let other = if mode == "read-only" { "read-write" } else { "read-only" };
                let wish = json!({"access_mode": other});
                let Some((status, done)) = operate(world, "PUT", &session("/access-mode"), &wish).await else { return };
                assert_eq!(status, 200, "{done}");
                told.sessions.insert(name, Some((id.clone(), other.into())));
            }
        }
        *told.changes.entry(id).or_default() += 1;
        told.operations += 1;
    }
}

/// One grant after the other, until the broker dies.
async fn agents(data_plane: &str, bearer: &str, placeholder: &str) -> HashSet<String> {
    let mut leases = HashSet::new();
    let digest = Digest::of(placeholder.as_bytes()).to_hex();
    let body = json!({
        "nonce": NONCE, "worker": WORKER, "destination": "api.a.test:443", "evidence": {"placeholder": digest},
    })
    .to_string();
    loop {
        let Ok(stream) = TcpStream::connect(data_plane).await else { return leases };
        let headers = [("authorization", bearer)];
        let asked = try_send(stream, "POST", "/v1/grants", &headers, body.as_bytes()).await;
        let Ok(answer) = asked else { return leases };
        let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        leases.extend(answer["granted"]["lease"]["id"].as_str().map(str::to_owned));
    }
}

/// What is there now, against what each operator was told; then that is what they were told.
async fn reconcile(world: &World, tolds: &mut [Told], kill: u32) {
    let (_, listed) = operate(world, "GET", "/v1/sessions", &Value::Null).await.unwrap();
    let text = |session: &Value, field: &str| session[field].as_str().unwrap().to_owned();
    let live = listed.as_array().unwrap().iter().filter(|session| session["state"] == "live");
    let mut found: BTreeMap<String, (String, String)> =
        live.map(|session| (text(session, "name"), (text(session, "id"), text(session, "access_mode")))).collect();
    assert!(found.remove("reviewer").is_some(), "the declared one is there");
    for told in tolds {
        for (name, expected) in &told.sessions {
            if told.under_way.as_ref() != Some(name) {
                assert_eq!(found.get(name), expected.as_ref(), "kill {kill}: {name}");
            }
        }
        let names: BTreeSet<_> = told.sessions.keys().chain(&told.under_way).cloned().collect();
        told.sessions = names.into_iter().map(|name| (name.clone(), found.remove(&name))).collect();
        told.under_way = None;
    }
    assert!(found.is_empty(), "kill {kill}: nobody made {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_in_two_hundred_kills() {
    let world = World::stopped();
    let mut dice = [1, 2, 3, 4].map(|seed| Dice(0x9e37_79b9 * seed));
    let mut tolds = <[Told; 3]>::default();
    let mut leases = HashSet::new();
    let began = Instant::now();
    for kill in 0..KILLS {
        let mut child = serve(&world);
        if dice[3].roll(8) == 0 {
            // In the middle of its start.
            tokio::time::sleep(Duration::from_millis(dice[3].roll(60))).await;
        } else {
            let runtime = serving(&world, &mut child, kill).await;
            reconcile(&world, &mut tolds, kill).await;
            let bearer = format!("Bearer {}", world.token());
            let (_, env) = operate(&world, "GET", "/v1/sessions/reviewer/env", &Value::Null).await.unwrap();
            let found = env.as_array().unwrap().iter().find(|variable| variable["name"] == "GITHUB_TOKEN");
            let placeholder = found.unwrap()["value"].as_str().unwrap().to_owned();
            let [one, two, three] = &mut tolds;
            one.given.insert(placeholder.clone());
            let [first, second, third, fate] = &mut dice;
            let killed = async {
                tokio::time::sleep(Duration::from_millis(2 + fate.roll(80))).await;
                child.kill().unwrap();
            };
            let (_, _, _, granted, ()) = tokio::join!(
                operator(&world, "one", first, one),
                operator(&world, "two", second, two),
                operator(&world, "three", third, three),
                agents(&runtime.data_plane, &bearer, &placeholder),
                killed,
            );
            leases.extend(granted);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let operations: usize = tolds.iter().map(|told| told.operations).sum();
    println!("{KILLS} kills in {:?}: {operations} operations, {} grants", began.elapsed(), leases.len());
    assert!(operations > 100 && leases.len() > 100, "there was traffic");

    let mut last = serve(&world);
    serving(&world, &mut last, KILLS).await;
    reconcile(&world, &mut tolds, KILLS).await;
    last.kill().unwrap();
    last.wait().unwrap();
    look(&world, &tolds, &leases).await;
}

/// What is on disk, against all that was ever answered.
async fn look(world: &World, tolds: &[Told], leases: &HashSet<String>) {
    let report = verify(&world.config.audit.path, &Against::default()).unwrap();
    assert!(report.broken.is_none(), "{report:?}");
    let records = world.records();
    let issued: HashSet<_> = records.iter().filter_map(|record| record["lease_id"].as_str()).collect();
    let unrecorded: Vec<_> = leases.iter().filter(|lease| !issued.contains(lease.as_str())).collect();
    assert!(unrecorded.is_empty(), "granted without a record: {unrecorded:?}");
    let cut = records.iter().filter(|r| r["reason"].as_str().is_some_and(|why| why.contains("was cut or replaced")));
    assert_eq!(cut.count(), 0, "a kill is no cut");

    let store = Store::open(&PrivateDir::open(&world.config.state_dir).unwrap().unwrap()).await.unwrap();
    for placeholder in tolds.iter().flat_map(|told| &told.given) {
        assert!(store.was_given(&Digest::of(placeholder.as_bytes())).await.unwrap(), "given out unseen");
    }
    let mut written: HashMap<String, usize> = HashMap::new();
    for change in store.changes(u32::MAX).await.unwrap() {
        *written.entry(change.scope).or_default() += 1;
    }
    for (id, changes) in tolds.iter().flat_map(|told| &told.changes) {
        assert!(written.get(id).is_some_and(|written| written >= changes), "{id}: {changes} told, {written:?}");
    }
}
