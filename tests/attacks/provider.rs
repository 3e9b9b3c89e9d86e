//! A stand-in for an OpenID provider: one P-256 key at its JWKS endpoint (RFC 7517), and JWTs (RFC 7519) that are signed
//! with it, with another, as told wrongly, or not at all. Real ones are in `tests/binds/oidc.rs`.

use attache_tests::{Reply, Upstream};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use crate::case::Case;
use crate::values::Known;

/// It runs until it is dropped.
pub struct Provider {
    server: Upstream,
    ours: EcdsaKeyPair,
    another: EcdsaKeyPair,
}

impl Provider {
    /// Starts it.
    pub async fn start() -> Self {
        let (ours, another) = (key(), key());
        // 4, x, y (SEC 1, 2.3.3).
        let point = ours.public_key().as_ref()[1..].to_vec();
        let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = point.split_at(32);
        let key = json!({"kty": "EC", "crv": "P-256", "kid": "ours", "alg": "ES256", "use": "sig",
            "x": coordinate(x), "y": coordinate(y)});
        let keys = json!({"keys": [key]}).to_string();
        let answer = move |_: &_| Reply::new(200).field("content-type", "application/json").body(keys.clone());
        Self { server: Upstream::plain().handler(answer).start().await, ours, another }
    }

    /// Its name in tokens.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    /// What the config says of it: subjects that begin with `agent-` are the session `worker`.
    pub fn config(&self) -> String {
        format!(
            "oidc:\n  - name: test\n    issuer: '{issuer}'\n    audience: attache\n    jwks: '{issuer}/jwks'\n    \
             plaintext: true\n    algorithms: [ES256]\n    header: x-my-identity\n    rules:\n      \
             - {{claims: {{sub: 'agent-*'}}, session: worker}}\n",
            issuer = self.issuer()
        )
    }

    /// The JWT that a case describes; none gives nothing.
    pub fn jwt(&self, case: &Case, known: &Known) -> String {
        if case.jwt.is_empty() {
            return String::new();
        }
        let field = |name: &str| case.jwt.iter().find(|(own, _)| own == name).map(|(_, text)| text.text(known));
        let header = field("header").unwrap_or_else(|| r#"{"alg":"ES256","kid":"ours","typ":"JWT"}"#.into());
        let claims = field("claims").expect("a JWT claims something");
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", part(header.as_bytes()), part(claims.as_bytes()));
        let signature = match field("key").as_deref() {
            None | Some("ours") => sign(&self.ours, &signed),
            Some("another") => sign(&self.another, &signed),
            Some("public") => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.ours.public_key().as_ref());
                hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
            }
            Some("none") => Vec::new(),
            Some(other) => panic!("{}: there is no key {other:?}: write ours, another, public or none", case.path()),
        };
        format!("{signed}.{}", part(&signature))
    }
}

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).expect("a key")
}

fn sign(key: &EcdsaKeyPair, text: &str) -> Vec<u8> {
    key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature").as_ref().to_vec()
}
