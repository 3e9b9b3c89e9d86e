//! A GitHub App gives each session a token of its own, no wider than the session, and takes it back. Against a stand-in
//! whose every exchange is held against GitHub's own description of its API; `scripts/github-openapi` gets that, and
//! without it these tests say so.

#[path = "github_app/answers.rs"]
mod answers;
#[path = "github_app/github.rs"]
mod github;
#[path = "github_app/injects.rs"]
mod injects;
#[path = "github_app/keys.rs"]
mod keys;
#[path = "github_app/scopes.rs"]
mod scopes;
#[expect(dead_code, reason = "what a broker alone needs, not all of it here")]
#[path = "openbao/world.rs"]
mod world;
