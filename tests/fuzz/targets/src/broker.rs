//! What operators and agents hand to the broker.

use attache_broker::clock::Now;
use attache_broker::config::{Config, Overrides};
use attache_broker::oidc::Identities;
use attache_core::policy::Policy;
use attache_core::wire::ShownJwt;
use std::cell::OnceCell;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A directory for this thread.
fn file(name: &str, text: &[u8]) -> PathBuf {
    thread_local! {
        static DIR: TempDir = tempfile::tempdir().expect("a directory");
    }
    let path = DIR.with(|dir| dir.path().join(name));
    std::fs::write(&path, text).expect("a file");
    path
}

/// A config. It is one whose policy filters can compile, or its faults are told, each with its place.
pub fn config(data: &[u8]) {
    let path = file("attache.yaml", data);
    match Config::load(Some(&path), &Overrides::default(), &|_| None) {
        Ok(config) => drop(Policy::compile(config.policy()).expect("a policy that filters would refuse")),
        Err(errors) => {
            let told = errors.to_string();
            assert!(!errors.0.is_empty() && told.contains("attache.yaml"), "an error without its place");
        }
    }
}

const PROVIDER: &str = r#"
state_dir: state
oidc:
  - name: ci
    issuer: https://ci.example.com
    audience: attache
    jwks: keys.json
    algorithms: [ES256, RS256]
    rules: [{claims: {sub: "repo:*"}, session: builder}]
credentials: {github: {preset: github}}
sessions: [{name: builder, credentials: [github]}]
"#;
/// The example of RFC 7517, A.1: nobody here has its private half.
const KEYS: &[u8] = br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// A token. Nobody is named by what no provider has signed.
pub fn jwt(data: &[u8]) {
    thread_local! {
        static WORLD: OnceCell<(Runtime, Identities)> = const { OnceCell::new() };
    }
    let Ok(token) = std::str::from_utf8(data) else { return };
    let shown = ShownJwt { header: "x-attache-identity".into(), token: token.to_owned() };
    WORLD.with(|world| {
        let (runtime, identities) = world.get_or_init(|| {
            file("keys.json", KEYS);
            let path = file("provider.yaml", PROVIDER.as_bytes());
            let config = Config::load(Some(&path), &Overrides::default(), &|_| None);
            let config = config.unwrap_or_else(|errors| panic!("{errors}"));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            (runtime, Identities::new(&config.oidc).expect("providers"))
        });
        let named = runtime.block_on(identities.identify(&shown, Now::read()));
        assert!(named.is_err(), "somebody is named without a signature");
    });
}

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

/// The policy of that config, as `policy.json` has it for the targets that need no broker.
///
/// # Panics
/// Where the config is wrong.
pub fn published() -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("attache.yaml");
    std::fs::write(&file, CONFIG).expect("a file");
    let config = Config::load(Some(&file), &Overrides::default(), &|_| None).unwrap_or_else(|error| panic!("{error}"));
    serde_json::to_string_pretty(&config.policy()).expect("a policy is JSON") + "\n"
}
