//! A stand-in for a 1Password Connect server, for the real one takes an account. Its answers are those of the vendor's
//! OpenAPI document: <https://github.com/1Password/connect/blob/main/docs/openapi/spec.yaml>
#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub const TOKEN: &str = "eyJ.the-token-of-connect-0123456789";
/// The vault `Private`, and its item `GitHub`.
pub const VAULT: &str = "ftz4pm2xxwmwrsd7rjqn7grzfz";
pub const ITEM: &str = "2fcbqwe9ndg175zg2dzwftvkpa";

/// What it knows, and how it behaves.
pub struct World {
    pub token: String,
    /// Vaults, as `GET /v1/vaults` lists them.
    pub vaults: Vec<Value>,
    /// Items, as `GET /v1/vaults/ID/items/ID` shows them.
    pub items: Vec<Value>,
    /// A vault that the token may not read.
    pub out_of_scope: Option<&'static str>,
    /// What every question gets, in place of an answer.
    pub fault: Option<Fault>,
    /// Every question, as it came: path and query, decoded.
    pub asked: Vec<String>,
}

/// What is wrong with every answer.
#[derive(Clone)]
pub enum Fault {
    Says(u16, String),
    /// 429, with `Retry-After`.
    Busy(&'static str),
    Silent,
}

/// The server.
#[derive(Clone)]
pub struct Connect {
    pub addr: SocketAddr,
    world: Arc<Mutex<World>>,
}

/// A field of an item; without a section where that is empty.
pub fn field(id: &str, section: &str, label: &str, value: &str) -> Value {
    let mut field = json!({"id": id, "type": "CONCEALED", "label": label, "value": value, "entropy": 1.5});
    if !section.is_empty() {
        field["section"] = json!({"id": section});
    }
    field
}

/// An item of a vault.
pub fn item(id: &str, vault: &str, title: &str, fields: Vec<Value>) -> Value {
    json!({"id": id, "title": title, "vault": {"id": vault}, "category": "API_CREDENTIAL", "version": 1, "tags": null,
        "sections": [{"id": "add more"}, {"id": "s1", "label": "Tokens"}, {"id": "s2", "label": "Old"}],
        "fields": fields, "createdAt": "2026-01-31T12:00:00Z", "lastEditedBy": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})
}

impl Connect {
    pub async fn start() -> Self {
        let fields = vec![
            field("credential", "", "token", "ghp_the-real-one"),
            field("password", "s1", "deploy", "ghp_of-the-section"),
        ];
        let world = World {
            token: TOKEN.into(),
            vaults: vec![json!({"id": VAULT, "name": "Private", "items": 1, "type": "USER_CREATED"})],
            items: vec![item(ITEM, VAULT, "GitHub", fields)],
            out_of_scope: None,
            fault: None,
            asked: Vec::new(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let connect = Self { addr: listener.local_addr().expect("an address"), world: Arc::new(Mutex::new(world)) };
        let app = Router::new().fallback(answer).with_state(connect.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        connect
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nobody has panicked")
    }

    /// Another value of the first item's field.
    pub fn put(&self, field: usize, value: &str) {
        self.world().items[0]["fields"][field]["value"] = value.into();
    }

    /// How often a question that begins like this was asked.
    pub fn asked(&self, what: &str) -> usize {
        self.world().asked.iter().filter(|asked| asked.starts_with(what)).count()
    }
}

async fn answer(State(connect): State<Connect>, uri: Uri, headers: HeaderMap) -> Response {
    let query = uri.query().map(decoded).unwrap_or_default();
    let fault = {
        let mut world = connect.world();
        world.asked.push(format!("{}?{query}", uri.path()));
        world.fault.clone()
    };
    match fault {
        Some(Fault::Says(status, body)) => {
            return (StatusCode::from_u16(status).expect("a status"), body).into_response();
        }
        Some(Fault::Busy(after)) => return ([("retry-after", after)], error(429, "too many")).into_response(),
        Some(Fault::Silent) => tokio::time::sleep(Duration::from_secs(3600)).await,
        None => {}
    }
    let world = connect.world();
    let shown = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if shown != format!("Bearer {}", world.token) {
        return error(401, "Invalid token signature");
    }
    let parts: Vec<_> = uri.path().split('/').skip(1).collect();
    match parts[..] {
        ["v1", "vaults"] => list(&world.vaults, "name", &query),
        ["v1", "vaults", vault, ..] if !world.vaults.iter().any(|one| one["id"] == vault) => {
            error(404, &format!("vault {vault} not found"))
        }
        ["v1", "vaults", vault, ..] if world.out_of_scope == Some(vault) => {
            error(403, &format!("vault {vault} is not in scope"))
        }
        ["v1", "vaults", vault, "items"] => {
            let of_vault = world.items.iter().filter(|item| item["vault"]["id"] == vault);
            let short = of_vault.map(|item| {
                let mut item = item.clone();
                item.as_object_mut().expect("an item").retain(|name, _| name != "fields" && name != "sections");
                item
            });
            list(&short.collect::<Vec<_>>(), "title", &query)
        }
        ["v1", "vaults", vault, "items", id] => {
            let found = world.items.iter().find(|item| item["vault"]["id"] == vault && item["id"] == id);
            found.map_or_else(|| error(404, &format!("item {id} not found")), done)
        }
        _ => error(404, "not found"),
    }
}

/// Those that a SCIM filter lets through: `ATTRIBUTE eq "VALUE"`.
fn list(all: &[Value], attribute: &str, query: &str) -> Response {
    let Some(filter) = query.strip_prefix("filter=") else { return done(&json!(all)) };
    let value = filter.strip_prefix(&format!("{attribute} eq "));
    let Some(Ok(value)) = value.map(serde_json::from_str::<String>) else { return error(400, "Invalid filter") };
    let found: Vec<_> = all.iter().filter(|one| one[attribute] == value.as_str()).collect();
    done(&json!(found))
}

fn done(json: &Value) -> Response {
    ([("content-type", "application/json")], json.to_string()).into_response()
}

/// Its words hold something that nobody may repeat.
fn error(status: u16, message: &str) -> Response {
    let words = json!({"status": status, "message": format!("{message} s3cret-in-an-answer")});
    (StatusCode::from_u16(status).expect("a status"), words.to_string()).into_response()
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
