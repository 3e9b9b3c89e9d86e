//! What each preset promises, form by form.

use attache_broker::config::presets;
use attache_tests::stack::GITHUB;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub const JSON: &str = "application/json";

/// Headers, and what of a credential stands in each.
pub type Headers = &'static [(&'static str, fn(&str) -> String)];

/// A preset, and what it promises.
pub struct Row {
    pub preset: &'static str,
    /// Where the broker looks for the secret.
    pub source: &'static str,
    /// Where the agent has its placeholder.
    pub variable: &'static str,
    pub secret: &'static str,
    /// A variable with a base URL, what an SDK appends to it, and the path that this must be upstream.
    pub sdk: Option<(&'static str, &'static str, &'static str)>,
    pub destinations: &'static [Destination],
}

/// One host.
pub struct Destination {
    pub host: &'static str,
    /// What the config adds to the destination, if anything.
    pub more: &'static str,
    /// A path that reads.
    pub path: &'static str,
    /// Each form in which the service's clients show the credential.
    pub shown: &'static [Headers],
    /// Exactly what the service receives, whatever the form.
    pub received: Headers,
    /// What an agent may write in its query that must not arrive, beside what never does.
    pub foreign: &'static str,
    /// Headers of its own kind that an agent may write, and that must not arrive.
    pub foreign_headers: &'static [&'static str],
    /// POSTs that read: target, media type, body. One for each read rule.
    pub reads: &'static [(&'static str, &'static str, &'static str)],
    /// What a reader may not do, though it is much like what it may; a GET for each rule that names a write.
    pub writes: &'static [(&'static str, &'static str)],
}

/// A host without anything particular, where everybody shows the credential as the service wants it.
const fn plain_at(host: &'static str, headers: &'static [Headers; 1]) -> Destination {
    Destination {
        host,
        more: "",
        path: "/x",
        shown: headers,
        received: headers[0],
        foreign: "",
        foreign_headers: &[],
        reads: &[],
        writes: &[],
    }
}

const BEARER: &[Headers; 1] = &[&[("authorization", bearer)]];
const POST: &[(&str, &str)] = &[("POST", "/x"), ("DELETE", "/x")];

pub static ROWS: [Row; presets::NAMES.len()] = [
    Row {
        preset: "anthropic",
        source: "ANTHROPIC_API_KEY",
        variable: "ANTHROPIC_API_KEY",
        secret: "sk-ant-api03-ARealKeyThatNoAgentEverSees-0000000000000000000000000000000000000000000000000000000000000001",
        sdk: Some(("ANTHROPIC_BASE_URL", "/v1/messages", "/v1/messages")),
        destinations: &[Destination {
            reads: &[
                ("/v1/messages", JSON, "{}"),
                ("/v1/messages/count_tokens", JSON, "{}"),
                ("/v1/complete", JSON, "{}"),
            ],
            writes: &[("POST", "/v1/messages/batches"), ("POST", "/v1/files"), ("DELETE", "/v1/messages")],
            // SDKs with `auth_token` in place of `api_key`.
            shown: &[&[("x-api-key", plain)], &[("authorization", bearer)]],
            ..plain_at("api.anthropic.com", &[&[("x-api-key", plain)]])
        }],
    },
    Row {
        preset: "anthropic-oauth",
        source: "CLAUDE_CODE_OAUTH_TOKEN",
        variable: "CLAUDE_CODE_OAUTH_TOKEN",
        secret: "sk-ant-oat01-TheRealTokenThatNoAgentEverSees-000000000000000000000000000000000000000000000000000000000002",
        sdk: Some(("ANTHROPIC_BASE_URL", "/v1/messages", "/v1/messages")),
        destinations: &[
            Destination {
                shown: &[
                    &[("authorization", bearer)],
                    // What Claude Code sends by itself stays as it is.
                    &[("authorization", bearer), ("anthropic-beta", |_| "oauth-2025-04-20".into())],
                ],
                received: &[("authorization", bearer), ("anthropic-beta", |_| "oauth-2025-04-20".into())],
                reads: &[
                    ("/v1/messages", JSON, "{}"),
                    ("/v1/messages/count_tokens", JSON, "{}"),
                    ("/v1/complete", JSON, "{}"),
                ],
                writes: &[("POST", "/v1/messages/batches"), ("POST", "/v1/files")],
                ..plain_at("api.anthropic.com", BEARER)
            },
            Destination {
                shown: &[&[("authorization", bearer), ("anthropic-beta", |_| "context-1m-2025-08-07".into())]],
                received: &[
                    ("authorization", bearer),
                    ("anthropic-beta", |_| "context-1m-2025-08-07,oauth-2025-04-20".into()),
                ],
                writes: &[("POST", "/v1/oauth/token")],
                ..plain_at("platform.claude.com", BEARER)
            },
        ],
    },
    Row {
        preset: "codex",
        source: "CODEX_ACCESS_TOKEN",
        variable: "CODEX_ACCESS_TOKEN",
        secret: "TheRealAccessTokenOfTheSubscription.000000003",
        sdk: None,
        destinations: &[Destination {
            more: ", with: [{header: ChatGPT-Account-ID, value: account-of-the-config}]",
            path: "/backend-api/codex/models",
            shown: &[
                &[("authorization", bearer)],
                &[("authorization", bearer), ("chatgpt-account-id", |_| "account-of-the-agent".into())],
            ],
            received: &[("authorization", bearer), ("chatgpt-account-id", |_| "account-of-the-config".into())],
            reads: &[
                ("/backend-api/codex/responses", JSON, "{}"),
                ("/backend-api/codex/responses/compact", JSON, "{}"),
            ],
            writes: &[("POST", "/backend-api/conversation"), ("POST", "/backend-api/codex/tasks")],
            ..plain_at("chatgpt.com", BEARER)
        }],
    },
    Row {
        preset: "docker",
        source: "DOCKER_TOKEN",
        variable: "DOCKER_TOKEN",
        secret: "dckr_pat_TheRealPersonalToken-0004",
        sdk: None,
        destinations: &[Destination {
            more: ", inject: {basic: the-user}",
            path: "/token",
            shown: &[
                &[("authorization", |token| basic("the-user", token))],
                &[("authorization", |token| basic("x", token))],
            ],
            received: &[("authorization", |token| basic("the-user", token))],
            writes: &[("GET", "/token?scope=repository:a/b:push"), ("HEAD", "/token"), ("POST", "/token")],
            ..plain_at("docker.extra.test", BEARER)
        }],
    },
    Row {
        preset: "gemini",
        source: "GEMINI_API_KEY",
        variable: "GEMINI_API_KEY",
        secret: "AIzaTheRealKeyThatNoAgentEverSees-00005",
        sdk: Some(("GOOGLE_GEMINI_BASE_URL", "/v1beta/models", "/v1beta/models")),
        destinations: &[Destination {
            reads: &[
                ("/v1beta/models/gemini-2.5-pro:generateContent", JSON, "{}"),
                ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", JSON, "{}"),
                ("/v1/models/gemini-2.5-pro:countTokens", JSON, "{}"),
                ("/v1beta/models/text-embedding-004:embedContent", JSON, "{}"),
                ("/v1beta/models/text-embedding-004:batchEmbedContents", JSON, "{}"),
            ],
            writes: &[
                ("POST", "/v1beta/models/gemini-2.5-pro:batchGenerateContent"),
                ("POST", "/v1beta/models/veo:predictLongRunning"),
                ("POST", "/v1beta/cachedContents"),
                ("DELETE", "/v1beta/files/x"),
            ],
            // The agent's own key would stand beside ours.
            foreign: "&key=agents-own-credential&Key=agents-own-credential",
            ..plain_at("generativelanguage.googleapis.com", &[&[("x-goog-api-key", plain)]])
        }],
    },
    Row {
        preset: "github",
        source: "GITHUB_TOKEN",
        variable: "GITHUB_TOKEN",
        secret: GITHUB,
        sdk: None,
        destinations: &[
            Destination {
                // gh says `token`, SDKs say either.
                shown: &[&[("authorization", bearer)], &[("authorization", |token| format!("token {token}"))]],
                reads: &[
                    ("/graphql", JSON, QUERY),
                    ("/markdown", JSON, "{}"),
                    ("/markdown/raw", "text/x-markdown", "x"),
                ],
                writes: &[("GET", "/graphql?query=mutation%7Ba%7D"), ("POST", "/user/repos"), ("PATCH", "/repos/o/r")],
                ..plain_at("api.github.com", BEARER)
            },
            Destination {
                writes: &[("POST", "/repos/o/r/releases/1/assets?name=x")],
                ..plain_at("uploads.github.com", BEARER)
            },
            Destination {
                shown: &[
                    &[("authorization", |token| basic("me", token))],
                    &[("authorization", |token| basic("x-access-token", token))],
                    // The token as the user, as some write it into a URL.
                    &[("authorization", |token| basic(token, "x-oauth-basic"))],
                ],
                received: &[("authorization", |token| basic("x-access-token", token))],
                reads: &[
                    ("/o/r/git-upload-pack", "application/x-git-upload-pack-request", "0000"),
                    ("/o/r/git-upload-archive", ARCHIVE, "0000"),
                    ("/o/r/info/lfs/objects/batch", "application/vnd.git-lfs+json", r#"{"operation":"download"}"#),
                ],
                writes: &[("POST", "/o/r/git-receive-pack"), ("GET", "/o/r/info/refs?service=git-receive-pack")],
                ..plain_at("github.com", BEARER)
            },
        ],
    },
    Row {
        preset: "gitlab",
        source: "GITLAB_TOKEN",
        variable: "GITLAB_TOKEN",
        secret: "glpat-ApiTokenOfTheUser-0006",
        sdk: None,
        destinations: &[Destination {
            shown: &[&[("private-token", plain)], &[("authorization", bearer)]],
            reads: &[
                ("/api/graphql", JSON, QUERY),
                ("/api/v4/markdown", JSON, "{}"),
                ("/api/v4/projects/7/ci/lint", JSON, "{}"),
            ],
            writes: &[
                ("POST", "/api/v4/projects"),
                ("GET", "/api/graphql?query=mutation%7Ba%7D"),
                ("PUT", "/api/v4/projects/7"),
            ],
            ..plain_at("gitlab.extra.test", &[&[("private-token", plain)]])
        }],
    },
    Row {
        preset: "gitlab-git",
        source: "GITLAB_TOKEN",
        variable: "GITLAB_GIT_TOKEN",
        secret: "glpat-GitTokenOfAnother-0007",
        sdk: None,
        destinations: &[Destination {
            path: "/g/p.git/info/refs",
            shown: &[
                &[("authorization", |token| basic("oauth2", token))],
                &[("authorization", |token| basic("me", token))],
            ],
            received: &[("authorization", |token| basic("oauth2", token))],
            reads: &[
                ("/g/p.git/git-upload-pack", PACK, "0000"),
                ("/g/a/p.git/git-upload-pack", PACK, "0000"),
                ("/g/a/b/p.git/git-upload-pack", PACK, "0000"),
                ("/g/a/b/c/p.git/git-upload-pack", PACK, "0000"),
                ("/g/p.git/git-upload-archive", ARCHIVE, "0000"),
                ("/g/a/p.git/git-upload-archive", ARCHIVE, "0000"),
                ("/g/a/b/p.git/git-upload-archive", ARCHIVE, "0000"),
                ("/g/a/b/c/p.git/git-upload-archive", ARCHIVE, "0000"),
                ("/g/p.git/info/lfs/objects/batch", LFS, r#"{"operation":"download"}"#),
                ("/g/a/p.git/info/lfs/objects/batch", LFS, r#"{"operation":"download"}"#),
                ("/g/a/b/p.git/info/lfs/objects/batch", LFS, r#"{"operation":"download"}"#),
                ("/g/a/b/c/p.git/info/lfs/objects/batch", LFS, r#"{"operation":"download"}"#),
            ],
            writes: &[
                ("GET", "/g/p.git/info/refs?service=git-receive-pack"),
                ("GET", "/g/a/b/c/d/e/f/p.git/info/refs?service=git-receive-pack"),
                ("GET", "/jwt/auth?service=container_registry&scope=repository:g/p:pull,push"),
                ("GET", "/api/v4/packages/conan/v1/users/authenticate"),
                ("GET", "/api/v4/projects/7/packages/conan/v1/users/authenticate"),
                ("POST", "/g/p.git/git-receive-pack"),
            ],
            ..plain_at("gitlab.extra.test", BEARER)
        }],
    },
    Row {
        preset: "grafana",
        source: "GRAFANA_API_KEY",
        variable: "GRAFANA_API_KEY",
        secret: "glsa_TheRealTokenThatNoAgentEverSees_00000008",
        sdk: Some(("GRAFANA_URL", "/api/search", "/api/search")),
        destinations: &[Destination {
            writes: &[
                ("GET", "/api/snapshots-delete/abc"),
                ("GET", "/api/datasources/proxy/uid/x/write"),
                ("GET", "/api/plugin-proxy/x/y"),
                ("GET", "/api/plugins/x/resources/y"),
                ("GET", "/api/datasources/7/resources/y"),
                ("GET", "/api/datasources/uid/x/resources/y"),
                ("POST", "/api/ds/query"),
                ("POST", "/api/dashboards/db"),
            ],
            foreign_headers: &["x-webauth-user"],
            ..plain_at("grafana.extra.test", BEARER)
        }],
    },
    Row {
        preset: "infisical",
        source: "INFISICAL_TOKEN",
        variable: "INFISICAL_TOKEN",
        secret: "TheRealTokenOfTheMachineIdentity.00000009",
        sdk: Some(("INFISICAL_API_URL", "/v3/workspaces", "/api/v3/workspaces")),
        destinations: &[Destination {
            writes: &[("POST", "/api/v1/auth/universal-auth/login"), ("POST", "/api/v3/secrets/raw/X")],
            ..plain_at("app.infisical.com", BEARER)
        }],
    },
    Row {
        preset: "kubernetes",
        source: "K8S_TOKEN",
        variable: "K8S_TOKEN",
        secret: "TheRealServiceAccountToken.0000000010",
        sdk: None,
        destinations: &[Destination {
            path: "/api/v1/namespaces/default/pods",
            reads: &[
                ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", JSON, "{}"),
                ("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", JSON, "{}"),
                ("/apis/authorization.k8s.io/v1/subjectaccessreviews", JSON, "{}"),
                ("/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews", JSON, "{}"),
                ("/apis/authentication.k8s.io/v1/selfsubjectreviews", JSON, "{}"),
            ],
            writes: &[
                ("GET", "/api/v1/namespaces/default/pods/p/exec?command=id"),
                ("GET", "/api/v1/namespaces/default/pods/p/attach"),
                ("GET", "/api/v1/namespaces/default/pods/p/portforward"),
                ("GET", "/api/v1/namespaces/default/pods/p:80/proxy/x"),
                ("GET", "/api/v1/namespaces/default/services/s:80/proxy/x"),
                ("GET", "/api/v1/nodes/n/proxy/run/x"),
                ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token"),
                ("POST", "/api/v1/namespaces/default/pods"),
            ],
            ..plain_at("kubernetes.extra.test", BEARER)
        }],
    },
    Row {
        preset: "litellm",
        source: "LITELLM_API_KEY",
        variable: "LITELLM_API_KEY",
        secret: "sk-TheRealVirtualKey-0011",
        sdk: Some(("LITELLM_PROXY_API_BASE", "/v1/models", "/v1/models")),
        destinations: &[Destination {
            shown: &[&[("authorization", bearer)], &[("x-api-key", plain)], &[("api-key", plain)]],
            foreign_headers: &["x-litellm-api-key", "ocp-apim-subscription-key", "x-mcp-auth"],
            reads: &[
                ("/v1/completions", JSON, "{}"),
                ("/completions", JSON, "{}"),
                ("/v1/embeddings", JSON, "{}"),
                ("/embeddings", JSON, "{}"),
                ("/v1/moderations", JSON, "{}"),
                ("/moderations", JSON, "{}"),
                ("/v1/rerank", JSON, "{}"),
                ("/rerank", JSON, "{}"),
                ("/v1/audio/speech", JSON, "{}"),
                ("/audio/speech", JSON, "{}"),
                ("/v1/images/generations", JSON, "{}"),
                ("/images/generations", JSON, "{}"),
            ],
            writes: &[
                ("POST", "/key/generate"),
                ("POST", "/model/new"),
                ("POST", "/v1/responses"),
                ("POST", "/v1/chat/completions"),
                ("POST", "/chat/completions"),
                ("POST", "/v1/messages"),
            ],
            ..plain_at("litellm.extra.test", BEARER)
        }],
    },
    Row {
        preset: "npm",
        source: "NPM_TOKEN",
        variable: "NPM_TOKEN",
        secret: "npm_TheRealTokenThatNoAgentEverSees000012",
        sdk: None,
        destinations: &[Destination {
            reads: &[
                ("/-/npm/v1/security/advisories/bulk", JSON, "{}"),
                ("/-/npm/v1/security/audits", JSON, "{}"),
                ("/-/npm/v1/security/audits/quick", JSON, "{}"),
            ],
            writes: &[("GET", "/-/v1/done?authId=x"), ("PUT", "/name"), ("POST", "/-/npm/v1/tokens")],
            ..plain_at("npm.extra.test", BEARER)
        }],
    },
    Row {
        preset: "openai",
        source: "OPENAI_API_KEY",
        variable: "OPENAI_API_KEY",
        secret: "sk-TheRealKeyThatNoAgentEverSees000000000000000000013",
        sdk: Some(("OPENAI_BASE_URL", "/chat/completions", "/v1/chat/completions")),
        destinations: &[Destination {
            reads: &[
                ("/v1/chat/completions", JSON, "{}"),
                ("/v1/responses", JSON, "{}"),
                ("/v1/completions", JSON, "{}"),
                ("/v1/embeddings", JSON, "{}"),
                ("/v1/moderations", JSON, "{}"),
                ("/v1/audio/speech", JSON, "{}"),
                ("/v1/images/generations", JSON, "{}"),
            ],
            writes: &[("POST", "/v1/files"), ("POST", "/v1/fine_tuning/jobs"), ("POST", "/v1/audio/transcriptions")],
            ..plain_at("api.openai.com", BEARER)
        }],
    },
    Row {
        preset: "pagerduty",
        source: "PAGERDUTY_TOKEN",
        variable: "PAGERDUTY_TOKEN",
        secret: "y_TheRealKey+000014",
        sdk: None,
        destinations: &[Destination {
            shown: &[&[("authorization", |token| format!("Token token={token}"))], &[("authorization", bearer)]],
            received: &[("authorization", |token| format!("Token token={token}"))],
            reads: &[("/analytics/metrics/incidents/all", JSON, "{}"), ("/analytics/raw/incidents", JSON, "{}")],
            writes: &[("POST", "/incidents"), ("PUT", "/incidents"), ("POST", "/v2/enqueue")],
            ..plain_at("api.pagerduty.com", BEARER)
        }],
    },
    Row {
        preset: "sentry",
        source: "SENTRY_AUTH_TOKEN",
        variable: "SENTRY_AUTH_TOKEN",
        secret: "sntrys_TheRealToken_0000000000000015",
        sdk: Some(("SENTRY_URL", "/api/0/projects/", "/api/0/projects/")),
        destinations: &[
            Destination { writes: POST, foreign_headers: &["x-sentry-auth"], ..plain_at("sentry.io", BEARER) },
            Destination { writes: POST, foreign_headers: &["x-sentry-auth"], ..plain_at("us.sentry.io", BEARER) },
            Destination { writes: POST, foreign_headers: &["x-sentry-auth"], ..plain_at("de.sentry.io", BEARER) },
        ],
    },
];

const PACK: &str = "application/x-git-upload-pack-request";
/// The media type of `git archive --remote`.
const ARCHIVE: &str = "application/x-git-upload-archive-request";
/// A document that reads.
const QUERY: &str = r#"{"query":"{viewer{login}}"}"#;
const LFS: &str = "application/vnd.git-lfs+json";

fn plain(token: &str) -> String {
    token.to_owned()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(user: &str, token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{token}")))
}
