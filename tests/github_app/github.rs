//! A stand-in for GitHub's API, as far as an App asks it: <https://docs.github.com/en/rest/apps/apps>. It verifies who
//! asks as GitHub says it does, and keeps every exchange, to be held against GitHub's own description of its API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attache_tests::util;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::keys::Key;

pub const APP_ID: u64 = 4711;
pub const CLIENT_ID: &str = "Iv23liStandInForGitHub";
pub const INSTALLATION: u64 = 815;
/// What the installation reaches: names, and their numbers.
pub const REPOSITORIES: [(&str, u64); 3] = [("one", 101), ("two", 102), ("three", 103)];

/// A stand-in that answers until it is dropped.
pub struct GitHub {
    pub addr: SocketAddr,
    pub state: State,
    serving: tokio::task::JoinHandle<()>,
}

/// What it knows, and how it is to behave.
#[derive(Clone)]
pub struct State(Arc<Mutex<Inner>>);

pub struct Inner {
    /// The public half of the App's key, DER (RFC 8017, A.1.1).
    pub key: Vec<u8>,
    pub suspended: bool,
    /// What the installation may.
    pub permissions: BTreeMap<String, String>,
    /// How far its clock is ahead, in seconds.
    pub ahead: i64,
    /// How long its tokens live, in seconds.
    pub life: i64,
    /// How long its tokens are.
    pub length: usize,
    /// How long it takes to make one.
    pub slow: Duration,
    /// What it answers to everything, whatever the contract: a status, and a body.
    pub instead: Option<(u16, String)>,
    /// The tokens, oldest first.
    pub tokens: Vec<Token>,
    /// How often it has answered so.
    pub off: usize,
    /// How often somebody asked where the App is installed.
    pub looked: usize,
    exchanges: Vec<Value>,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub token: String,
    /// What was asked for.
    pub asked: Value,
    /// How often it was given back.
    pub revoked: usize,
}

impl State {
    pub fn get(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tokens(&self) -> Vec<Token> {
        self.get().tokens.clone()
    }
}

impl Drop for GitHub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The nth token there is, as GitHub's begin.
pub fn token(n: usize, length: usize) -> String {
    let mut token = format!("ghs_{n}");
    let mut state = n as u64 + 1;
    while token.len() < length {
        // Any letters will do: no two tokens have a long run in common.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        token.push(char::from(
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[(state >> 33) as usize % 62],
        ));
    }
    token
}

impl GitHub {
    pub async fn start(key: &Key) -> Self {
        let permissions = [("contents", "write"), ("issues", "write"), ("metadata", "read"), ("pull_requests", "read")];
        let inner = Inner {
            key: key.public(),
            suspended: false,
            permissions: permissions.map(|(name, level)| (name.to_owned(), level.to_owned())).into(),
            ahead: 0,
            life: 3600,
            length: 40,
            slow: Duration::ZERO,
            instead: None,
            off: 0,
            tokens: Vec::new(),
            looked: 0,
            exchanges: Vec::new(),
        };
        let state = State(Arc::new(Mutex::new(inner)));
        let listener = TcpListener::bind(util::any_port()).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let serves = state.clone();
        let serving = tokio::spawn(async move {
            // Over with the stand-in, all of them.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = serves.clone();
                connections.spawn(async move { serve(stream, &state).await });
            }
        });
        Self { addr, state, serving }
    }

    /// What stands at `sources.github_app`, with more fields.
    pub fn source(&self, key: &str, more: &str) -> String {
        format!(
            "sources:\n  github_app: {{client_id: {CLIENT_ID}, installation_id: {INSTALLATION}, private_key: {key}, api: \
             'http://{}'{more}}}\n",
            self.addr
        )
    }

    /// Holds every exchange against GitHub's own description; where that is not here, says so.
    pub fn check(&self) {
        let tools = util::workspace_root().join(".tools/github-openapi");
        let descriptions = ["api.github.com.json", "ghes-3.19.json"].map(|name| tools.join(name));
        if !tools.join("bin/python").exists() || !descriptions.iter().all(|file| file.exists()) {
            return util::skipped("GitHub's OpenAPI description is not in .tools; scripts/github-openapi gets it");
        }
        let exchanges = self.state.get().exchanges.clone();
        assert!(!exchanges.is_empty(), "nobody has asked anything");
        let dir = util::temp_dir();
        let file = dir.path().join("exchanges.json");
        std::fs::write(&file, Value::from(exchanges).to_string()).expect("a file");
        for description in descriptions {
            let checked = Command::new(tools.join("bin/python"))
                .args([&util::workspace_root().join("tests/github_app/check.py"), &description, &file])
                .output()
                .expect("Python");
            let said = String::from_utf8_lossy(&checked.stdout).into_owned();
            let failed = String::from_utf8_lossy(&checked.stderr).into_owned();
            assert!(checked.status.success(), "{}:\n{said}{failed}", description.display());
        }
    }
}

/// A question.
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// An answer: `None` has no body.
type Said = (u16, Option<Value>);

async fn serve(stream: TcpStream, state: &State) {
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read(&mut stream).await {
        let instead = state.get().instead.clone();
        let (status, body) = match instead {
            // Off the contract, on purpose: it is held against nothing.
            Some((status, body)) => {
                state.get().off += 1;
                (status, body)
            }
            None => {
                let slow = state.get().slow;
                tokio::time::sleep(slow).await;
                let (route, (status, body)) = answer(&asked, state);
                let request: Option<Value> = (!asked.body.is_empty())
                    .then(|| serde_json::from_slice(&asked.body).expect("what is asked for is JSON"));
                let exchange = json!({"method": asked.method, "route": route, "request": request, "status": status,
                    "answer": body});
                state.get().exchanges.push(exchange);
                (status, body.map(|body| body.to_string()).unwrap_or_default())
            }
        };
        let head = format!(
            "HTTP/1.1 {status} Said\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {}\r\n{}\r\n",
            body.len(),
            if (300..400).contains(&status) { "location: http://127.0.0.1:9/elsewhere\r\n" } else { "" },
        );
        if stream.get_mut().write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { method, path, headers, body })
}

/// The route, as GitHub's description names it, and the answer.
fn answer(asked: &Asked, state: &State) -> (String, Said) {
    let mut inner = state.get();
    let header = |name: &str| asked.headers.get(name).map(String::as_str).unwrap_or_default();
    let bearer = header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned();
    if header("user-agent").is_empty() {
        return (asked.path.clone(), failure(403, "Request forbidden by administrative rules."));
    }
    assert_eq!(header("accept"), "application/vnd.github+json", "what GitHub recommends");
    assert_eq!(header("x-github-api-version"), "2022-11-28");
    let installation = asked.path.strip_prefix("/app/installations/").unwrap_or_default();
    let (number, rest) = installation.split_once('/').unwrap_or((installation, ""));
    let known = number == INSTALLATION.to_string();
    match (asked.method.as_str(), rest) {
        ("DELETE", _) if asked.path == "/installation/token" => {
            ("/installation/token".to_owned(), revoke(&mut inner, &bearer))
        }
        ("GET", "") if !number.is_empty() => {
            let route = "/app/installations/{installation_id}".to_owned();
            inner.looked += 1;
            let refused = inner.who(&bearer).err().or_else(|| (!known).then(|| failure(404, "Not Found")));
            (route, refused.unwrap_or_else(|| (200, Some(inner.installation()))))
        }
        ("POST", "access_tokens") => {
            let route = "/app/installations/{installation_id}/access_tokens".to_owned();
            assert_eq!(header("content-type"), "application/json");
            let refused = inner.who(&bearer).err().or_else(|| (!known).then(|| failure(404, "Not Found")));
            (route, refused.unwrap_or_else(|| inner.issue(&serde_json::from_slice(&asked.body).expect("JSON"))))
        }
        _ => (asked.path.clone(), failure(404, "Not Found")),
    }
}

fn failure(status: u16, message: &str) -> Said {
    let page = "https://docs.github.com/rest";
    (status, Some(json!({"message": message, "documentation_url": page, "status": status.to_string()})))
}

fn revoke(inner: &mut Inner, bearer: &str) -> Said {
    let now = inner.now();
    match inner.tokens.iter_mut().find(|token| token.token == bearer) {
        Some(token) if token.revoked == 0 => {
            token.revoked = 1;
            (204, None)
        }
        Some(token) => {
            token.revoked += 1;
            failure(401, "Bad credentials")
        }
        None => panic!("at {now}, what was never issued is given back"),
    }
}

impl Inner {
    fn now(&self) -> i64 {
        i64::try_from(util::wall_ms() / 1000).expect("a time") + self.ahead
    }

    /// Whether a JWT is the App's, and good now; what GitHub says where it is not.
    fn who(&self, jwt: &str) -> Result<(), Said> {
        let undecoded = || failure(401, "A JSON web token could not be decoded");
        let parts: Vec<_> = jwt.split('.').collect();
        let [head, claims, signature] = parts[..] else { return Err(undecoded()) };
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| undecoded());
        let parsed = |part: &str| serde_json::from_slice::<Value>(&decoded(part)?).map_err(|_| undecoded());
        let (header, claims_of) = (parsed(head)?, parsed(claims)?);
        let signed = format!("{head}.{claims}");
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.key);
        if header["alg"] != "RS256" || key.verify(signed.as_bytes(), &decoded(signature)?).is_err() {
            return Err(undecoded());
        }
        if ![CLIENT_ID, &APP_ID.to_string()].contains(&claims_of["iss"].as_str().unwrap_or_default()) {
            return Err(failure(404, "Integration not found"));
        }
        let (iat, exp) = (claims_of["iat"].as_i64(), claims_of["exp"].as_i64());
        let issued = "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued";
        let iat = iat.filter(|iat| *iat <= self.now()).ok_or_else(|| failure(401, issued))?;
        let expires = "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the \
                       assertion expires";
        let exp = exp.filter(|exp| *exp > self.now()).ok_or_else(|| failure(401, expires))?;
        if exp > self.now() + 600 {
            return Err(failure(401, "'Expiration time' claim ('exp') is too far in the future"));
        }
        assert!(exp - iat <= 600, "it lives for {} s: ten minutes are allowed", exp - iat);
        assert!((55..=65).contains(&(self.now() - self.ahead - iat)), "made a minute ago, for clocks that differ");
        Ok(())
    }

    fn installation(&self) -> Value {
        let at = format!("https://api.github.com/app/installations/{INSTALLATION}");
        let suspended = self.suspended.then_some("2026-01-31T12:00:00Z");
        json!({
            "id": INSTALLATION, "app_id": APP_ID, "client_id": CLIENT_ID, "app_slug": "stand-in", "target_id": 1,
            "target_type": "Organization", "single_file_name": null, "repository_selection": "selected",
            "access_tokens_url": format!("{at}/access_tokens"), "html_url": at,
            "repositories_url": "https://api.github.com/installation/repositories", "events": ["push"],
            "account": account(), "permissions": self.permissions, "created_at": "2026-01-31T12:00:00Z",
            "updated_at": "2026-01-31T12:00:00Z", "suspended_at": suspended,
            "suspended_by": suspended.map(|_| account()),
        })
    }

    fn issue(&mut self, asked: &Value) -> Said {
        if self.suspended {
            return failure(403, "This installation has been suspended");
        }
        let of = |name: &str, id: u64, wanted: &Value, by: fn(&str, u64) -> Value| {
            wanted.as_array().is_none_or(|wanted| wanted.contains(&by(name, id)))
        };
        let (names, ids) = (&asked["repositories"], &asked["repository_ids"]);
        let reached: Vec<_> = REPOSITORIES
            .into_iter()
            .filter(|(name, id)| of(name, *id, names, |name, _| name.into()) && of(name, *id, ids, |_, id| id.into()))
            .collect();
        let wanted = names.as_array().or(ids.as_array());
        if wanted.is_some_and(|wanted| wanted.len() != reached.len()) {
            let none =
                "There is at least one repository that does not exist or is not accessible to the parent installation.";
            return failure(422, none);
        }
        let height = |level: &str| ["read", "write", "admin"].iter().position(|one| *one == level);
        let may = |name: &str, level: &str| {
            self.permissions.get(name).is_some_and(|most| height(most) >= height(level) && height(level).is_some())
        };
        let mut permissions = match asked["permissions"].as_object() {
            Some(asked) => asked.clone(),
            None => self.permissions.iter().map(|(name, level)| (name.clone(), json!(level))).collect(),
        };
        if !permissions.iter().all(|(name, level)| may(name, level.as_str().unwrap_or_default())) {
            return failure(422, "The permissions requested are not granted to this installation.");
        }
        permissions.insert("metadata".into(), json!("read"));
        let token = token(self.tokens.len(), self.length);
        self.tokens.push(Token { token: token.clone(), asked: asked.clone(), revoked: 0 });
        let expires = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(self.now() + self.life).expect("a time")),
        );
        let repositories: Vec<_> = reached.into_iter().map(|(name, id)| repository(name, id)).collect();
        let given = json!({"token": token, "expires_at": expires.to_string(), "permissions": permissions,
            "repository_selection": "selected", "repositories": repositories});
        (201, Some(given))
    }
}

/// With every member that GitHub's description requires.
fn account() -> Value {
    let at = "https://api.github.com/users/octo-org";
    let mut account = json!({"id": 1, "node_id": "MDQ6VXNlcjE=", "login": "octo-org", "gravatar_id": "", "site_admin": false,
        "type": "Organization", "url": at});
    for url in [
        "avatar",
        "events",
        "followers",
        "following",
        "gists",
        "html",
        "organizations",
        "received_events",
        "repos",
        "starred",
        "subscriptions",
    ] {
        account[format!("{url}_url")] = format!("{at}/{url}").into();
    }
    account
}

fn repository(name: &str, id: u64) -> Value {
    let at = format!("https://api.github.com/repos/octo-org/{name}");
    let mut repository = json!({
        "id": id, "node_id": "R_kgDO", "name": name, "full_name": format!("octo-org/{name}"), "owner": account(),
        "private": true, "description": null, "fork": false, "url": at, "default_branch": "main", "homepage": null,
        "language": null, "mirror_url": null, "license": null, "pushed_at": null, "created_at": null, "updated_at": null,
        "ssh_url": format!("git@github.com:octo-org/{name}.git"), "git_url": format!("git:github.com/octo-org/{name}.git"),
        "archived": false, "disabled": false, "has_downloads": true, "has_issues": true, "has_projects": true,
        "has_wiki": true, "has_pages": false, "forks": 0, "forks_count": 0, "open_issues": 0, "open_issues_count": 0,
        "size": 1, "stargazers_count": 0, "watchers": 0, "watchers_count": 0,
    });
    for url in [
        "archive",
        "assignees",
        "blobs",
        "branches",
        "clone",
        "collaborators",
        "comments",
        "commits",
        "compare",
        "contents",
        "contributors",
        "deployments",
        "downloads",
        "events",
        "forks",
        "git_commits",
        "git_refs",
        "git_tags",
        "hooks",
        "html",
        "issue_comment",
        "issue_events",
        "issues",
        "keys",
        "labels",
        "languages",
        "merges",
        "milestones",
        "notifications",
        "pulls",
        "releases",
        "stargazers",
        "statuses",
        "subscribers",
        "subscription",
        "svn",
        "tags",
        "teams",
        "trees",
    ] {
        repository[format!("{url}_url")] = format!("{at}/{url}").into();
    }
    repository
}
