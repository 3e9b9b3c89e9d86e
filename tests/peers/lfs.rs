//! git-lfs, against a recorded LFS server: one POST for both directions, told apart by its body.

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan};
use attache_tests::{Fields, Recorded, Reply};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::recorded::answer;
use crate::scene::{Scene, has, shown};

const CONTENT: &str = "a large file, as it were\n";
const BATCH: &str = "/o/r.git/info/lfs/objects/batch";

fn oid() -> String {
    Sha256::digest(CONTENT).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn start() -> Option<Scene> {
    if !has(&["git", "git-lfs"]) {
        return None;
    }
    let scene = Scene::of(Plan::default()).await;
    let here = format!("http://{}/github.com/o/r.git/info/lfs/objects/{}", scene.gateway(), oid());
    let authorised = format!("Basic {}", STANDARD.encode(format!("x-access-token:{GITHUB}")));
    answer(&scene.stack, move |asked| {
        let let_in = |fields: &Fields| fields.all("authorization") == [authorised.as_bytes()];
        if !let_in(&asked.fields) {
            return Some(Reply::new(401));
        }
        let asks: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let way = asks["operation"].as_str().unwrap_or_default();
        let object = json!({"oid": oid(), "size": CONTENT.len(), "actions": {way: {"href": here}}});
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", BATCH) => Some(
                Reply::new(200)
                    .field("content-type", "application/vnd.git-lfs+json")
                    .body(json!({"transfer": "basic", "objects": [object]}).to_string()),
            ),
            ("GET", path) if path.ends_with(&oid()) => Some(Reply::new(200).body(CONTENT)),
            ("PUT", path) if path.ends_with(&oid()) => Some(Reply::new(200)),
            _ => None,
        }
    });
    Some(scene)
}

/// A repository whose one large file is `with` or without its content here.
fn repository(name: &str, with: bool) -> String {
    let content = match with {
        true => format!("printf '%s' '{CONTENT}' > big && git add big"),
        false => format!(
            "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:{}\\nsize {}\\n' > big && git add big",
            oid(),
            CONTENT.len()
        ),
    };
    format!(
        "export GIT_TERMINAL_PROMPT=0 GIT_CONFIG_NOSYSTEM=1\nrm -f ~/.gitconfig\n{}\ngit init -q -b main {name} && cd {name}\n\
         git config user.name a && git config user.email a@a && git lfs install --local >/dev/null\n\
         git remote add origin https://github.com/o/r.git\ngit lfs track big >/dev/null\n{content}\n\
         git add .gitattributes && git commit -q -m big\n",
        shown("sh git")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_downloads_and_is_told_why_it_may_not_upload() {
    let Some(scene) = start().await else { return };
    let pull = repository("down", false) + "git lfs pull\ncat big";
    assert_eq!(scene.shell("reader", &pull).await.ok().out, CONTENT);
    let push = repository("up", true) + "git lfs push --all origin";
    let said = scene.shell("reader", &push).await.refused(Reason::ReadOnly);
    assert!(said.err.contains("batch response: request refused by attache: "), "{}", said.err);
    let uploads = || scene.stack.upstream().requests().iter().filter(|hit| hit.method == "PUT").count();
    assert_eq!(uploads(), 0, "an upload of a reader arrived");
    let asks = |hit: &Recorded| memchr::memmem::find(&hit.body, b"\"upload\"").is_some();
    assert!(!scene.stack.upstream().requests().iter().any(asks), "a reader's question for an upload arrived");
    let push = repository("up2", true) + "git lfs push --all origin";
    scene.shell("writer", &push).await.ok();
    assert_eq!(uploads(), 1);
    scene.reconcile().await;
}
