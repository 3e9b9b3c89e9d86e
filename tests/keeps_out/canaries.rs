//! Every output of a running broker, at the loudest, searched for every secret that it has in any spelling: what its
//! commands print, what its doors answer, its logs, its records, and what Envoy tells of it. One answer may hold one.

use std::collections::BTreeSet;
use std::path::Path;

use attache_tests::attache;
use attache_tests::stack::{Plan, SOON, Stack};
use attache_tests::{Attache, Secrets, util};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::of_process;

const MORE: &str = "gr\u{e4}nzwertig-but-a-secret-of-its-own-0123456789";

/// With which arguments each command is run: those that are tried by other tests, for they begin processes, are `None`.
const COMMANDS: &[(&str, Option<&[&str]>)] = &[
    ("up", None),
    ("serve", None),
    ("run", Some(&["--isolate", "never", "--session", "writer", "--", "env"])),
    ("check", Some(&[])),
    ("ready", Some(&[])),
    ("session create", Some(&["another", "--credential", "github", "--ttl", "1h"])),
    ("session list", Some(&[])),
    ("session show", Some(&["writer"])),
    ("session env", Some(&["writer"])),
    ("session set-access-mode", Some(&["reader", "read-write", "--for", "1m"])),
    ("session revoke", Some(&["another"])),
    ("credential list", Some(&[])),
    ("credential test", Some(&["custom"])),
    ("credential set", Some(&["custom"])),
    ("credential reload", Some(&["custom"])),
    ("credential rotate", Some(&["custom"])),
    ("state show", Some(&[])),
    ("state rekey", Some(&["--data-key"])),
    ("state new-key", Some(&[])),
    ("feed workers", Some(&[])),
    ("feed changes", Some(&[])),
    ("audit tail", Some(&["-n", "1000"])),
    ("audit query", Some(&[])),
    ("audit verify", Some(&[])),
    ("audit head", Some(&[])),
    ("ca show", Some(&[])),
    ("ca export", Some(&[])),
    ("ca rotate", Some(&[])),
    ("envoy-config", Some(&["--shape", "forward-proxy"])),
    ("istio", Some(&["egress-gateway", "envoy-filter"])),
    ("schema", Some(&[])),
    ("openapi", Some(&["--door", "control"])),
    ("doctor", Some(&[])),
];

/// Pages of Envoy's admin.
const ADMIN: &[&str] = &[
    "/config_dump?include_eds",
    "/stats?format=json",
    "/stats/prometheus",
    "/clusters?format=json",
    "/listeners?format=json",
    "/certs",
    "/server_info",
    "/runtime",
    "/init_dump",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_output_holds_a_secret_but_the_answer_that_is_for_the_filter() {
    let more =
        format!("{{source: {{file: more}}, inject: {{header: X-More}}, destinations: [{}]}}", "{host: more.test}");
    let stack = Plan::default()
        .credential("more", MORE, &more)
        .session("{name: third, credentials: [more, github]}")
        .env("ATTACHE_LOG", "trace")
        .start()
        .await;
    stack.envoy.admin_post("/logging?wasm=trace").await;
    work(&stack).await;

    let mut outputs = commands(&stack);
    outputs.extend(doors(&stack).await);
    // The authority is made when it is first asked for.
    let secrets = all_of(&stack);
    for page in ADMIN {
        outputs.push((format!("Envoy's {page}"), stack.envoy.admin_get(page).await));
    }
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    outputs.push(("the broker's log".into(), read(stack.broker.log_path())));
    outputs.push(("Envoy's log".into(), read(&stack.envoy.log_path())));
    outputs.push(("the audit log".into(), read(&stack.dir().join("state/default/audit.jsonl"))));
    for (name, pid) in [("the broker", stack.broker.pid()), ("Envoy", stack.envoy.pid())] {
        outputs.push((format!("the arguments of {name}"), of_process(pid, "cmdline")));
    }
    outputs.push(("Envoy's environment".into(), of_process(stack.envoy.pid(), "environ")));

    let log = &outputs.iter().find(|(name, _)| name == "the broker's log").expect("it is there").1;
    assert!(log.contains("DEBUG"), "it says more than usual");
    let findings = outputs.iter().flat_map(|(name, text)| {
        assert!(!text.is_empty(), "{name} is empty: nothing was searched");
        secrets.find(text.as_bytes()).into_iter().map(move |found| format!("{name}: {} as {}", found.name, found.form))
    });
    let found: BTreeSet<_> = findings.collect();
    let expected = BTreeSet::from(["data-plane POST /v1/grants: github as plain".to_owned()]);
    assert_eq!(found, expected);
    stack.reconcile().await;
}

/// Everything that must not be said, the keys of the instance with it.
fn all_of(stack: &Stack<Attache>) -> Secrets {
    let secrets = stack.site.secrets.clone();
    let state = stack.dir().join("state/default");
    for file in ["instance.key", "audit.key", "data-plane.token", "ca.key"] {
        let content = std::fs::read(state.join(file)).unwrap_or_else(|why| panic!("{file}: {why}"));
        secrets.add(file, secret_part(&content));
    }
    secrets
}

/// Of PEM a line from its middle, where no header of a format stands.
fn secret_part(content: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(content);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("-----")).collect();
    match text.starts_with("-----") {
        true => lines.last().expect("a line").trim_end_matches('=').as_bytes().to_vec(),
        false => content.to_vec(),
    }
}

/// What goes well, what is refused, and what goes wrong with secrets.
async fn work(stack: &Stack<Attache>) {
    for (credential, target) in [("github", "/api.github.com/user"), ("custom", "/api.custom.test/v1/x")] {
        let placeholder = stack.placeholder("writer", credential);
        assert_eq!(stack.get("127.0.0.1", target, &placeholder).await.status, 200);
    }
    let (reader, writer) = (stack.placeholder("reader", "github"), stack.placeholder("writer", "custom"));
    assert_eq!(stack.send("POST", "127.0.0.1", "/api.github.com/user/repos", &reader, b"{}").await.status, 403);
    assert_eq!(stack.get("127.0.0.1", "/api.github.com/user", &writer).await.status, 403);
    // A secret that cannot stand in a header is told of by its place.
    stack.site.keep("custom_key", "not\u{1}printable-and-never-shown");
    stack.site.secrets.add("custom", "printable-and-never-shown");
    util::eventually(SOON, || std::fs::read_to_string(stack.broker.log_path()).is_ok_and(|log| log.contains("WARN")))
        .await;
}

/// Each command, as a table and as JSON; one that is new has to be added here.
fn commands(stack: &Stack<Attache>) -> Vec<(String, String)> {
    let leaves: BTreeSet<_> = leaves("").into_iter().collect();
    let known: BTreeSet<_> = COMMANDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(leaves, known, "each command is swept, or says why not");
    let mut outputs = Vec::new();
    for (name, arguments) in COMMANDS {
        let Some(arguments) = arguments else { continue };
        for json in [false, true] {
            let words: Vec<_> =
                name.split(' ').chain(json.then_some("--json")).chain(arguments.iter().copied()).collect();
            let output = stack.broker.cli(&words);
            let text = [&output.stdout[..], &output.stderr[..]].concat();
            outputs.push((format!("attache {}", words.join(" ")), String::from_utf8_lossy(&text).into_owned()));
        }
    }
    outputs
}

/// The commands that have none beneath, as the help has them.
fn leaves(above: &str) -> Vec<String> {
    let words: Vec<_> = above.split(' ').filter(|word| !word.is_empty()).chain(["--help"]).collect();
    let help = attache::run(Path::new("none"), &words);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let Some((_, list)) = help.split_once("Commands:\n") else { return vec![above.to_owned()] };
    let list = list.lines().take_while(|line| line.starts_with("  "));
    let names = list.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.flat_map(|name| leaves(format!("{above} {name}").trim())).collect()
}

/// Every operation of both doors, as their OpenAPI documents list them.
async fn doors(stack: &Stack<Attache>) -> Vec<(String, String)> {
    let state = stack.dir().join("state/default");
    let token = std::fs::read_to_string(state.join("data-plane.token")).expect("a token");
    let placeholder = attache_core::digest::Digest::of(stack.placeholder("writer", "github").as_bytes()).to_hex();
    let grant = serde_json::json!({
        "nonce": "0123456789abcdef0123456789abcdef", "worker": "0000000a", "destination": "api.github.com:443",
        "evidence": {"placeholder": placeholder},
    });
    let mut outputs = Vec::new();
    for (door, socket) in [("control", "control.sock"), ("data-plane", "data-plane.sock")] {
        let document = util::workspace_root().join(format!("docs/openapi-{door}.json"));
        let document = std::fs::read(document).expect("a document");
        let document: Value = serde_json::from_slice(&document).expect("a document");
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for method in operations.as_object().expect("operations").keys().map(|method| method.to_uppercase()) {
                let name = if path.contains("credentials") { "custom" } else { "third" };
                let query = if path == "/v1/changes" && door == "data-plane" { "?worker=0000000a" } else { "" };
                let target = path.replace("{name}", name) + query;
                let body = if path == "/v1/grants" { grant.to_string() } else { "{}".to_owned() };
                let head = format!(
                    "{method} {target} HTTP/1.1\r\nhost: attache\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
                     content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                outputs.push((format!("{door} {method} {path}"), exchange(&state.join(socket), &head).await));
            }
        }
    }
    outputs
}

async fn exchange(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.expect("the broker's door");
    stream.write_all(request.as_bytes()).await.expect("a question");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}
