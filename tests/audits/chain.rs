//! Whatever is done to the log shows, in the line where it was done.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Stack, util};

use crate::{log, with_requests};

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_the_line_that_was_changed_dropped_or_swapped() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    for n in 0..6 {
        assert_eq!(stack.get("api.github.com", &format!("/users/{n}"), &placeholder).await.status, 200);
    }
    with_requests(&stack, 6).await;
    let whole = std::fs::read_to_string(log(&stack)).expect("a log");
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(verify(&stack, &whole).0, Some(0));

    let middle = lines.len() / 2;
    let change = |at: usize, from: &str, to: &str| {
        let mut lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert!(lines[at].contains(from), "{}", lines[at]);
        lines[at] = lines[at].replacen(from, to, 1);
        lines
    };
    let without = |at: usize| -> Vec<String> {
        lines.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, line)| line.to_string()).collect()
    };
    let mut swapped = change(0, "", "");
    swapped.swap(middle, middle + 1);
    let mut twice = change(0, "", "");
    twice.insert(middle, lines[middle].to_owned());
    let last = lines.len() - 1;
    for (what, forged, line, why) in [
        ("one byte of the first record", change(0, "start", "stark"), 1, "changed"),
        ("one byte in the middle", change(middle, "\"seq\":", "\"sEq\":"), middle + 1, "changed"),
        (
            "one byte of the last record",
            change(last, "auth_injected\":true", "auth_injected\":tRue"),
            last + 1,
            "changed",
        ),
        ("the first record dropped", without(0), 1, "dropped, inserted or swapped"),
        ("a record dropped", without(middle), middle + 1, "dropped, inserted or swapped"),
        ("two records swapped", swapped, middle + 1, "dropped, inserted or swapped"),
        ("a record twice", twice, middle + 2, "dropped, inserted or swapped"),
        ("a record that is none", change(middle, lines[middle], "{}"), middle + 1, "torn or is not an audit record"),
        ("an empty line", change(middle, lines[middle], ""), middle + 1, "torn"),
    ] {
        let (code, said) = verify(&stack, &(forged.join("\n") + "\n"));
        assert_eq!(code, Some(1), "{what}: {said}");
        assert!(said.contains(&format!("copy.jsonl:{line}: ")) && said.contains(why), "{what}, line {line}: {said}");
    }
    let (code, said) = verify(&stack, &whole[..whole.len() - 20]);
    assert!(code == Some(1) && said.contains(&format!("copy.jsonl:{}: ", last + 1)), "the end torn off: {said}");
    // Whole lines cut off the end need an anchor kept elsewhere: what is left is a good chain.
    assert_eq!(verify(&stack, &(without(last).join("\n") + "\n")).0, Some(0));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_kept_elsewhere_shows_what_was_cut_off_the_end() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    for n in 0..3 {
        assert_eq!(stack.get("api.github.com", &format!("/users/{n}"), &placeholder).await.status, 200);
    }
    with_requests(&stack, 3).await;
    let text = |args: &[&str]| {
        let out = stack.broker.cli(args);
        (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).trim().to_owned())
    };
    let (code, anchor) = text(&["audit", "head"]);
    assert_eq!(code, Some(0), "{anchor}");
    let json = stack.broker.json(&["audit", "head"]);
    let whole = std::fs::read_to_string(log(&stack)).expect("a log");
    let lines: Vec<&str> = whole.lines().collect();
    let hash = lines[lines.len() - 1].rsplit('"').nth(1).expect("a hash");
    assert!(anchor.starts_with(&format!("default,{},{hash},", lines.len())), "{anchor}");
    assert_eq!((json["instance"].as_str(), json["hash"].as_str()), (Some("default"), Some(hash)));

    // The log goes on, and still holds what the anchor names.
    assert_eq!(stack.get("api.github.com", "/more", &placeholder).await.status, 200);
    with_requests(&stack, 4).await;
    for head in [&anchor, &json.to_string(), &hash.to_owned()] {
        let (code, said) = text(&["audit", "verify", "--head", head]);
        assert!(code == Some(0) && said.contains("nothing is missing up to the given head"), "{said}");
    }
    let copy = stack.dir().join("cut.jsonl");
    std::fs::write(&copy, lines[..lines.len() - 1].join("\n") + "\n").expect("a copy");
    let path = copy.to_str().expect("a path");
    assert_eq!(text(&["audit", "verify", "--path", path]).0, Some(0), "without it, nothing shows");
    let (code, said) = text(&["audit", "verify", "--path", path, "--head", &anchor]);
    let place = format!("cut.jsonl:{}: ", lines.len());
    assert!(code == Some(1) && said.contains(&place) && said.contains("its end was cut off"), "{said}");

    let forged = anchor.replacen(&format!(",{},", lines.len()), ",1,", 1);
    let (code, said) = text(&["audit", "verify", "--head", &forged]);
    assert!(code == Some(1) && said.contains("was not signed by the key of this log"), "{said}");
    assert_eq!(text(&["audit", "verify", "--head", "nonsense"]).0, Some(1));
    stack.reconcile().await;
}

/// `audit verify` of a copy with this content: its exit code and what it said.
fn verify(stack: &Stack<Attache>, content: &str) -> (Option<i32>, String) {
    let copy = stack.dir().join("copy.jsonl");
    std::fs::write(&copy, content).expect("a copy");
    let path = copy.to_str().expect("a path");
    let told = stack.broker.cli(&["audit", "verify", "--path", path]);
    let json = stack.broker.cli(&["audit", "verify", "--json", "--path", path]);
    assert_eq!(json.status.code(), told.status.code());
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let text = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
    if let Some(line) = report["broken"]["line"].as_u64() {
        assert!(text.contains(&format!(":{line}: ")), "both forms say the same: {text} {report}");
    }
    (told.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_runs_through_rotated_files() {
    let stack = Plan::default().extra("audit: {rotate: 64KiB}\n").start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let mut agent = stack.agent().h1(stack.proxy).await;
    let (current, first, second) = (log(&stack), numbered(&log(&stack), 1), numbered(&log(&stack), 2));
    let end = tokio::time::Instant::now() + SOON;
    while !second.exists() {
        assert!(tokio::time::Instant::now() < end, "the log is rotated twice");
        let answer = agent.request("GET", "api.github.com", "/user", &[("authorization", &bearer)], b"").await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let report = stack.broker.json(&["audit", "verify"]);
    assert_eq!(report["files"].as_array().map(Vec::len), Some(3), "{report:#}");
    assert!(report["broken"].is_null() && report["lines"].as_u64() > Some(100), "{report:#}");
    // The oracle reads them all, as verify does: each request is on record in one of them.
    stack.reconcile().await;
    assert!(current.exists() && std::fs::metadata(&first).is_ok_and(|file| file.len() >= 64 << 10));

    // Older files may be moved away, if their end is remembered.
    let head = std::fs::read_to_string(&first).expect("a file");
    let head = head.lines().last().and_then(|line| line.rsplit('"').nth(1)).expect("a hash").to_owned();
    std::fs::rename(&first, stack.dir().join("archived")).expect("a move");
    let missing = stack.broker.cli(&["audit", "verify"]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(1) && said.contains("audit.jsonl.2:1: "), "{said}");
    assert!(stack.broker.json(&["audit", "verify", "--after", &head])["broken"].is_null());
}

fn numbered(log: &Path, number: usize) -> std::path::PathBuf {
    log.with_file_name(format!("audit.jsonl.{number}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_shows_the_last_records_and_follows() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/first", &placeholder).await.status, 200);
    with_requests(&stack, 1).await;
    let tail = |args: &[&str]| {
        let args = [&["audit", "tail"], args].concat();
        String::from_utf8(stack.broker.cli(&args).stdout).expect("text")
    };
    let all = std::fs::read_to_string(log(&stack)).expect("a log");
    assert_eq!(tail(&["-n", "1000", "--json"]), all);
    assert_eq!(tail(&["-n", "1", "--json"]), all.lines().last().expect("a line").to_owned() + "\n");
    assert_eq!(tail(&["-n", "0"]), "");
    assert!(tail(&["-n", "1"]).contains("use    writer read-write GET api.github.com:443/first 200 forward github l-"));

    let following = Following::start(&stack);
    util::eventually(SOON, || following.said("/first")).await;
    assert_eq!(stack.get("api.github.com", "/second", &placeholder).await.status, 200);
    util::eventually(SOON, || following.said("/second")).await;
    stack.reconcile().await;
}

/// `attache audit tail --follow`, ended when dropped.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(stack: &Stack<Attache>) -> Self {
        let mut command = Command::new(util::broker_bin());
        command.args(["audit", "tail", "--follow", "--config"]).arg(stack.site.config_path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("attache runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Whether one of the lines that came since the last time holds this.
    fn said(&self, text: &str) -> bool {
        self.lines.try_iter().any(|line| line.contains(text))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
