//! The shared rule table as a config of ours.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::rules;
use crate::variants::Workbench;

/// A session of the measured credential alone, read-write.
pub const WRITER: &str = "writer";
/// The same, read-only.
pub const READER: &str = "reader";

/// A session and its one credential, whose echoes are not masked.
pub const UNMASKED: &str = "unmasked";
/// The same, read-only.
pub const UNMASKED_READER: &str = "unmasked-reader";
/// Where that has its placeholder.
pub const UNMASKED_VARIABLE: &str = "BENCH_UNMASKED";

const INSTANCE: &str = "bench";

/// Writes `attache.yaml` and its secrets into a new directory.
pub fn write(bench: &Workbench, dir: &Path, data_plane: u16) -> Result<PathBuf> {
    let private = |path: &Path| DirBuilder::new().mode(0o700).recursive(true).create(path);
    let state = dir.join("state");
    private(&state.join(INSTANCE))?;
    let secrets = dir.join("secrets");
    private(&secrets)?;

    let mut credentials = Map::new();
    for (index, destination) in bench.rules.destinations().enumerate() {
        let name = credential(index);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(secrets.join(&name))?;
        file.write_all(destination.secret.as_bytes())?;
        let upstream = json!({"address": format!("127.0.0.1:{}", bench.upstream_port)});
        let bound = json!({
            "host": destination.host, "port": 80, "plaintext": true,
            "paths": [destination.prefix], "upstream": upstream,
        });
        let written = json!({
            "source": {"file": name},
            "agent_env": {variable(index): "placeholder"},
            "inject": "bearer",
            "destinations": [bound],
            "placeholder": {"prefix": "ghp_", "length": 40},
        });
        credentials.insert(name, written);
    }
    let mut unmasked = credentials.get(&credential(0)).cloned().unwrap_or_default();
    unmasked["mask"] = json!(false);
    unmasked["agent_env"] = json!({UNMASKED_VARIABLE: "placeholder"});
    unmasked["destinations"][0]["paths"] = json!([format!("{}/", rules::UNMASKED)]);
    credentials.insert(UNMASKED.to_owned(), unmasked);
    let others: Vec<String> = (1..credentials.len() - 1).map(credential).collect();
    let session = |name: &str, credentials: Value, mode: &str| json!({"name": name, "credentials": credentials, "access_mode": mode});
    let config = json!({
        "instance": INSTANCE,
        "state_dir": state,
        "listen": {"proxy": "127.0.0.1:0", "data_plane": format!("127.0.0.1:{data_plane}")},
        "sources": {"order": ["file"], "file": {"dir": secrets}},
        "credentials": credentials,
        "sessions": [
            session(WRITER, json!([credential(0)]), "read-write"),
            session(READER, json!([credential(0)]), "read-only"),
            session(UNMASKED, json!([UNMASKED]), "read-write"),
            session(UNMASKED_READER, json!([UNMASKED]), "read-only"),
            session("others", json!(others), "read-write"),
        ],
    });
    let path = dir.join("attache.yaml");
    // JSON is YAML.
    fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    Ok(path)
}

/// Where the broker's audit log is.
pub fn audit_log(dir: &Path) -> PathBuf {
    dir.join("state").join(INSTANCE).join("audit.jsonl")
}

/// The environment variable under which `attache session env` exports a credential's placeholder.
pub fn variable(index: usize) -> String {
    format!("BENCH_KEY_{index}")
}

fn credential(index: usize) -> String {
    format!("bench_{index}")
}
