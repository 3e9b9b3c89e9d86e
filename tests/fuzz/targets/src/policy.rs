//! One policy, as a broker would publish it.

use attache_broker::config::{Config, Overrides};
use attache_core::policy::Policy;
use std::sync::LazyLock;

/// A config with a credential of each kind of injection.
const CONFIG: &str = "
state_dir: state
credentials:
  github: {preset: github}
  maps:
    source: {env: MAPS}
    inject: {query: key}
    destinations: [{host: maps.example.com}]
  asks:
    source: {env: ASKS}
    inject: {header: x-key}
    access:
      graphql: {paths: [/graphql]}
      reads: [{method: POST, path: /rpc, body: {json_rpc: {methods: [read, tools/call], tools: [look]}}}]
    destinations: [{host: asks.example.com, paths: [/graphql, /rpc, /files/]}]
sessions:
  - {name: reader, credentials: [github, maps, asks], access_mode: read-only}
";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("attache.yaml");
    std::fs::write(&file, CONFIG).expect("a file");
    let config = Config::load(Some(&file), &Overrides::default(), &|_| None).unwrap_or_else(|error| panic!("{error}"));
    Policy::compile(config.policy()).expect("it compiles")
});

/// It.
pub fn policy() -> &'static Policy {
    &POLICY
}
