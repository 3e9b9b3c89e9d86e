//! A stand-in for Infisical, for the real one takes a database and a cache. It follows the vendor's documents and source:
//! - <https://infisical.com/docs/api-reference/endpoints/universal-auth/login>, `…/renew-access-token`,
//!   `…/revoke-access-token`
//! - <https://infisical.com/docs/api-reference/endpoints/secrets/read>, and of version 3 `…/deprecated/secrets/read`
//! - errors: `backend/src/server/plugins/error-handler.ts`, `backend/src/services/identity-ua/identity-ua-service.ts`,
//!   `backend/src/services/identity-access-token/identity-access-token-service.ts`,
//!   `backend/src/services/secret-v2-bridge/secret-v2-bridge-service.ts` of <https://github.com/Infisical/infisical>
//! - limits: <https://infisical.com/docs/api-reference/overview/rate-limits>
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub const PROJECT: &str = "5f0c1c1e-0000-0000-0000-000000000000";
pub const CLIENT_ID: &str = "7f3c1c1e-0000-0000-0000-000000000000";
pub const CLIENT_SECRET: &str = "st.the-client-secret-0123456789";

/// What it knows, and how it behaves.
pub struct World {
    pub client_secret: String,
    /// What is wrong with the client secret, in Infisical's words: status, `error`, `message`.
    pub login_refused: Option<(u16, &'static str, &'static str)>,
    /// How often the client secret may be used yet.
    pub logins_left: Option<u32>,
    /// In seconds; 0: for ever.
    pub ttl: u64,
    pub max_ttl: u64,
    /// How many questions a token is good for; 0: any number.
    pub uses: u32,
    /// All versions of a secret, by environment, folder and name.
    secrets: BTreeMap<(String, String, String), Vec<String>>,
    /// Names whose value is hidden, and those that may not be read.
    pub hidden: BTreeSet<&'static str>,
    pub denied: BTreeSet<&'static str>,
    /// No token is good, not even one that was made just now.
    pub refuses_tokens: bool,
    pub has_v3: bool,
    pub has_v4: bool,
    /// What every question gets, in place of an answer.
    pub fault: Option<Fault>,
    tokens: BTreeMap<String, Token>,
    /// Every question, as it came: method, path and query.
    pub asked: Vec<String>,
    pub revoked: Vec<String>,
    made: u32,
}

/// What is wrong with every answer.
#[derive(Clone)]
pub enum Fault {
    Says(u16, String),
    /// 429, with `Retry-After`.
    Busy(&'static str),
    Silent,
}

#[derive(Clone, Copy)]
struct Token {
    born: Instant,
    renewed: Instant,
    uses: u32,
}

/// The server.
#[derive(Clone)]
pub struct Infisical {
    pub addr: SocketAddr,
    world: Arc<Mutex<World>>,
}

impl Infisical {
    pub async fn start() -> Self {
        let world = World {
            client_secret: CLIENT_SECRET.into(),
            login_refused: None,
            logins_left: None,
            ttl: 7200,
            max_ttl: 2_592_000,
            uses: 0,
            secrets: BTreeMap::new(),
            hidden: BTreeSet::new(),
            denied: BTreeSet::new(),
            refuses_tokens: false,
            has_v3: true,
            has_v4: true,
            fault: None,
            tokens: BTreeMap::new(),
            asked: Vec::new(),
            revoked: Vec::new(),
            made: 0,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let infisical = Self { addr: listener.local_addr().expect("an address"), world: Arc::new(Mutex::new(world)) };
        let app = Router::new().fallback(answer).with_state(infisical.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        infisical
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nobody has panicked")
    }

    /// Another version of a secret.
    pub fn put(&self, environment: &str, path: &str, name: &str, value: &str) {
        let key = (environment.into(), path.into(), name.into());
        self.world().secrets.entry(key).or_default().push(value.into());
    }

    /// How often a question that begins like this was asked.
    pub fn asked(&self, what: &str) -> usize {
        self.world().asked.iter().filter(|asked| asked.starts_with(what)).count()
    }

    /// No token is good any longer.
    pub fn forget_tokens(&self) {
        self.world().tokens.clear();
    }
}

const LOGIN: &str = "/api/v1/auth/universal-auth/login";

async fn answer(
    State(infisical): State<Infisical>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = {
        let mut world = infisical.world();
        world.asked.push(format!("{method} {uri}"));
        world.fault.clone()
    };
    match fault {
        Some(Fault::Says(status, body)) => {
            return (StatusCode::from_u16(status).expect("a status"), body).into_response();
        }
        Some(Fault::Busy(after)) => {
            let words = error(429, "RateLimitExceeded", "Rate limit exceeded. Please try again in 1 minute");
            return ([("retry-after", after)], words).into_response();
        }
        Some(Fault::Silent) => tokio::time::sleep(Duration::from_secs(3600)).await,
        None => {}
    }
    let mut world = infisical.world();
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bearer = bearer.strip_prefix("Bearer ").unwrap_or_default();
    let (path, query) = (uri.path(), parameters(uri.query().unwrap_or_default()));
    let (v3, v4) = ("/api/v3/secrets/raw/", "/api/v4/secrets/");
    match (method.as_str(), path) {
        ("POST", LOGIN) => world.log_in(&said),
        ("POST", "/api/v1/auth/token/renew") => world.renew(said["accessToken"].as_str().unwrap_or_default()),
        ("POST", "/api/v1/auth/token/revoke") => world.revoke(said["accessToken"].as_str().unwrap_or_default()),
        ("GET", _) if world.has_v4 && path.starts_with(v4) => {
            world.read(bearer, &path[v4.len()..], &query, "projectId")
        }
        ("GET", _) if world.has_v3 && path.starts_with(v3) => {
            world.read(bearer, &path[v3.len()..], &query, "workspaceId")
        }
        // Fastify's own.
        _ => {
            let message = format!("Route {method}:{uri} not found");
            let words = json!({"message": message, "error": "Not Found", "statusCode": 404});
            (StatusCode::NOT_FOUND, words.to_string()).into_response()
        }
    }
}

impl World {
    fn log_in(&mut self, said: &Value) -> Response {
        let known = said["clientId"] == CLIENT_ID && said["clientSecret"] == self.client_secret.as_str();
        if let Some((status, name, message)) = self.login_refused {
            return error(status, name, message);
        }
        if !known {
            return error(401, "UnauthorizedError", "Invalid credentials");
        }
        if self.logins_left == Some(0) {
            return error(401, "UnauthorizedError", "Access denied due to client secret usage limit reached");
        }
        self.logins_left = self.logins_left.map(|left| left - 1);
        self.give(Instant::now())
    }

    fn give(&mut self, born: Instant) -> Response {
        self.made += 1;
        let token = format!("eyJ.a-token-that-nobody-may-see.{}", self.made);
        self.tokens.insert(token.clone(), Token { born, renewed: Instant::now(), uses: 0 });
        let (ttl, max_ttl) = (self.ttl, self.max_ttl);
        done(json!({"accessToken": token, "expiresIn": ttl, "accessTokenMaxTTL": max_ttl, "tokenType": "Bearer"}))
    }

    fn is_over(&self, token: Token) -> bool {
        self.ttl > 0 && token.renewed.elapsed() > Duration::from_secs(self.ttl)
    }

    fn renew(&mut self, token: &str) -> Response {
        let Some(found) = self.tokens.remove(token) else {
            return error(401, "UnauthorizedError", "No identity access token found");
        };
        if self.is_over(found) {
            return error(401, "UnauthorizedError", "Failed to renew MI access token due to TTL expiration");
        }
        let end = found.born.elapsed() + Duration::from_secs(self.ttl);
        if self.max_ttl > 0 && end > Duration::from_secs(self.max_ttl) {
            return error(401, "UnauthorizedError", "Failed to renew MI access token past its Max TTL expiration");
        }
        self.give(found.born)
    }

    fn revoke(&mut self, token: &str) -> Response {
        if self.tokens.remove(token).is_none() {
            return error(401, "UnauthorizedError", "No identity access token found");
        }
        self.revoked.push(token.into());
        done(json!({"message": "Successfully revoked access token"}))
    }

    fn read(&mut self, token: &str, name: &str, query: &BTreeMap<String, String>, project: &str) -> Response {
        let Some(found) = self.tokens.get(token).copied().filter(|_| !self.refuses_tokens) else {
            return error(401, "UnauthorizedError", "No identity access token found");
        };
        if self.is_over(found) {
            return error(403, "TokenError", "Your token has expired. Please re-authenticate.");
        }
        if self.uses > 0 && found.uses >= self.uses {
            self.tokens.remove(token);
            let message = "Unable to renew because access token number of uses limit reached";
            return error(401, "UnauthorizedError", message);
        }
        self.tokens.insert(token.into(), Token { uses: found.uses + 1, ..found });
        let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let (environment, path) = (of("environment"), of("secretPath"));
        if of(project) != PROJECT {
            return error(404, "NotFound", &format!("Project with ID '{}' not found", of(project)));
        }
        if !self.secrets.keys().any(|(e, p, _)| e == environment && p == path) {
            let message = format!("Folder with path '{path}' in environment with slug '{environment}' not found");
            return error(404, "GetSecretByName", &message);
        }
        if self.denied.contains(name) {
            return error(403, "PermissionDenied", "You are not allowed to describeSecret on secrets");
        }
        let all = self.secrets.get(&(environment.into(), path.into(), name.into()));
        let version = of("version").parse::<usize>().unwrap_or_else(|_| all.map_or(0, Vec::len));
        let Some(value) = all.and_then(|all| all.get(version.checked_sub(1)?)) else {
            return error(404, "NotFound", &format!("Secret with name '{name}' not found"));
        };
        let hidden = self.hidden.contains(name) || of("viewSecretValue") != "true";
        let value = if hidden { "<hidden-by-infisical>" } else { value.as_str() };
        done(json!({"secret": {
            "id": "3c90c3cc-0000-0000-0000-000000000000", "_id": "3c90c3cc-0000-0000-0000-000000000000",
            "workspace": PROJECT, "environment": environment, "secretPath": path, "type": "shared",
            "secretKey": name, "secretValue": value, "secretValueHidden": hidden, "version": version,
            "secretComment": "", "tags": [], "secretMetadata": [], "skipMultilineEncoding": null,
            "createdAt": "2026-01-31T12:00:00.000Z", "updatedAt": "2026-01-31T12:00:00.000Z",
        }}))
    }
}

fn done(json: Value) -> Response {
    ([("content-type", "application/json")], json.to_string()).into_response()
}

/// As `error-handler.ts` writes it. Its words hold something that nobody may repeat.
fn error(status: u16, name: &str, message: &str) -> Response {
    let words = json!({"reqId": "req-s3cret-in-an-answer", "statusCode": status, "message": message, "error": name});
    (StatusCode::from_u16(status).expect("a status"), words.to_string()).into_response()
}

/// `a=b&c=d`, decoded.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [bytes.next().expect("two digits"), bytes.next().expect("two digits")];
                u8::from_str_radix(std::str::from_utf8(&hex).expect("digits"), 16).expect("digits")
            }
            byte => byte,
        });
    }
    String::from_utf8(out).expect("text")
}
