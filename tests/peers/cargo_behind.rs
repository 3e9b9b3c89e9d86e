//! cargo behind the forward proxy, with a sparse registry that lets in nobody without its token.

use std::process::Command;

use attache_tests::stack::Plan;
use attache_tests::{Reply, util};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::behind::Client;
use crate::recorded::{answer, whole};
use crate::scene::{Scene, has};

const TOKEN: &str = "the-real-token-of-the-registry";
const CREDENTIAL: &str = "{source: {file: crates}, inject: {header: Authorization}, agent_env: {CARGO_REGISTRIES_MINE_TOKEN: placeholder}, destinations: [{host: crates.extra.test, upstream: DIAL}]}";
const MANIFEST: &str = "[package]\nname = \"reader\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
     [lib]\npath = \"lib.rs\"\n[dependencies]\nletter = { version = \"1\", registry = \"mine\" }\n";

/// A crate of one file, packed.
fn letter() -> Vec<u8> {
    let dir = util::temp_dir();
    let at = dir.path().join("letter-1.0.0");
    std::fs::create_dir(&at).expect("a directory");
    let manifest = "[package]\nname = \"letter\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[lib]\npath = \"lib.rs\"\n";
    std::fs::write(at.join("Cargo.toml"), manifest).expect("a file");
    std::fs::write(at.join("lib.rs"), "").expect("a file");
    let packed = Command::new("tar").current_dir(dir.path()).args(["czf", "-", "letter-1.0.0"]).output();
    packed.expect("tar runs").stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fetches_from_a_registry_that_asks_for_a_token() {
    if !has(&["cargo", "tar"]) {
        return;
    }
    let plan = Plan::default().credential("crates", TOKEN, CREDENTIAL);
    let plan = plan.session("{name: builder, credentials: [crates], access_mode: read-only}");
    let scene = Scene::of(plan.forward_proxy()).await;
    let letter = letter();
    let sum: String = Sha256::digest(&letter).iter().map(|byte| format!("{byte:02x}")).collect();
    answer(&scene.stack, move |asked| {
        if asked.fields.text("authorization").as_deref() != Some(TOKEN) {
            let challenge = "Cargo login_url=\"https://crates.extra.test/me\"";
            return Some(Reply::new(401).field("www-authenticate", challenge));
        }
        match asked.path.as_str() {
            "/index/config.json" => {
                Some(whole(&json!({"dl": "https://crates.extra.test/files", "auth-required": true})))
            }
            "/index/le/tt/letter" => Some(whole(&json!({
                "name": "letter", "vers": "1.0.0", "deps": [], "cksum": sum, "features": {}, "yanked": false,
            }))),
            "/files/letter/1.0.0/download" => Some(Reply::new(200).body(letter.clone())),
            _ => None,
        }
    });
    std::fs::write(scene.path("Cargo.toml"), MANIFEST).expect("a file");
    std::fs::write(scene.path("lib.rs"), "").expect("a file");
    let home = std::env::var("RUSTUP_HOME")
        .unwrap_or_else(|_| format!("{}/.rustup", std::env::var("HOME").unwrap_or_default()));
    let fetch = format!(
        "export RUSTUP_HOME={home} CARGO_HOME=$PWD/cargo RUSTUP_TOOLCHAIN={}\n\
         export CARGO_REGISTRIES_MINE_INDEX=sparse+https://crates.extra.test/index/\n\
         export CARGO_REGISTRIES_MINE_CREDENTIAL_PROVIDER=cargo:token\n",
        std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_default()
    );
    let script = format!("{fetch}cargo fetch\nls cargo/registry/src/*");
    let said = scene.run_by("builder", "CARGO_HTTP_CAINFO", &script).await.ok();
    assert_eq!(said.out, "letter-1.0.0\n", "{}", said.err);
    let hits = scene.stack.upstream().hits();
    assert!(hits.iter().any(|hit| hit.path_text() == "/files/letter/1.0.0/download"), "{hits:?}");
    let version = format!("{fetch}cargo --version | cut -d' ' -f2");
    let tested = "fetch from a sparse registry that asks for a token";
    scene
        .row(
            "builder",
            &Client { name: "cargo", host: "crates.extra.test", version: &version, ca: "CARGO_HTTP_CAINFO", tested },
        )
        .await;
    scene.reconcile().await;
}
