//! Real clients, against real servers where there are any: what reads passes, what writes passes where it may,
//! and a refusal is shown to whoever runs the client. In gateway shape each is set up as `docs/clients.md` says,
//! behind a forward proxy none is.
//!
//! `scripts/peers` gets them. A test whose client is not there says so and passes; `make test` lists what was skipped.

#[path = "peers/agents_behind.rs"]
mod agents_behind;
#[path = "peers/anthropic.rs"]
mod anthropic;
#[path = "peers/behind.rs"]
mod behind;
#[path = "peers/boto3_behind.rs"]
mod boto3_behind;
#[path = "peers/cargo_behind.rs"]
mod cargo_behind;
#[path = "peers/codex.rs"]
mod codex;
#[path = "peers/curl.rs"]
mod curl;
#[path = "peers/curl_behind.rs"]
mod curl_behind;
#[path = "peers/forge.rs"]
mod forge;
#[path = "peers/gh.rs"]
mod gh;
#[path = "peers/gh_behind.rs"]
mod gh_behind;
#[path = "peers/git.rs"]
mod git;
#[path = "peers/git_behind.rs"]
mod git_behind;
#[path = "peers/kubectl.rs"]
mod kubectl;
#[path = "peers/kubectl_behind.rs"]
mod kubectl_behind;
#[path = "peers/lfs.rs"]
mod lfs;
#[path = "peers/node_behind.rs"]
mod node_behind;
#[path = "peers/npm.rs"]
mod npm;
#[path = "peers/npm_behind.rs"]
mod npm_behind;
#[path = "peers/openai.rs"]
mod openai;
#[path = "peers/python_behind.rs"]
mod python_behind;
#[path = "peers/recorded.rs"]
mod recorded;
#[path = "peers/registry.rs"]
mod registry;
#[path = "peers/results.rs"]
mod results;
#[path = "peers/scene.rs"]
mod scene;
#[path = "peers/sdks_behind.rs"]
mod sdks_behind;
#[path = "peers/skopeo_behind.rs"]
mod skopeo_behind;
