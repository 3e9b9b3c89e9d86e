//! A provider of identities, and an API server of Kubernetes as far as OpenBao asks it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attache_tests::util;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// An Ed25519 key that signs JWTs.
pub struct Key(KeyPair);

impl Key {
    pub fn new() -> Self {
        Self(KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"))
    }

    pub fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as("EdDSA", claims)
    }

    /// Under the name of another algorithm: for whoever verifies by asking.
    pub fn sign_as(&self, algorithm: &str, claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", part(&json!({"alg": algorithm, "typ": "JWT"})), part(claims));
        let signature = self.0.sign(text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Answers `POST /apis/authentication.k8s.io/v1/tokenreviews`: one token is good, and no other.
pub struct Review {
    pub addr: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Review {
    pub async fn start(good: &str) -> Self {
        let listener = TcpListener::bind(util::any_port()).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (asked, good) = (Arc::new(AtomicUsize::new(0)), good.to_owned());
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                let mut chunk = [0; 16 * 1024];
                // One question a connection, whole when as much of a body is there as its head says.
                let body = loop {
                    let text = String::from_utf8_lossy(&head).into_owned();
                    if let Some((before, body)) = text.split_once("\r\n\r\n") {
                        let length = before.lines().find_map(|line| {
                            let (name, value) = line.split_once(':')?;
                            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
                        });
                        if body.len() >= length.unwrap_or(0) {
                            break body.to_owned();
                        }
                    }
                    match stream.read(&mut chunk).await {
                        Ok(n) if n > 0 => head.extend_from_slice(&chunk[..n]),
                        _ => break String::new(),
                    }
                };
                let asks: Value = serde_json::from_str(&body).unwrap_or_default();
                let known = asks["spec"]["token"] == good.as_str();
                counted.fetch_add(1, Ordering::Relaxed);
                let user = json!({"username": "system:serviceaccount:agents:attache", "uid": "u-1",
                                  "groups": ["system:serviceaccounts", "system:serviceaccounts:agents"]});
                let status = json!({"authenticated": known, "user": if known { user } else { json!({}) },
                                    "audiences": asks["spec"]["audiences"]});
                let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
                let answer = answer.to_string();
                let head = format!(
                    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: \
                     close\r\n\r\n",
                    answer.len()
                );
                stream.write_all(format!("{head}{answer}").as_bytes()).await.ok();
            }
        });
        Self { addr, asked }
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}
