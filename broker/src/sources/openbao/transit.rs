//! Transit, OpenBao's encryption as a service: <https://openbao.org/api-docs/secret/transit/>
//!
//! The key never leaves it. What it answers to an encryption (`vault:v1:…`) is no secret.

use super::answer::{Json, data, failure};
use super::client::Client;
use super::error::OpenBaoError;
use super::http::{Question, Reply};
use crate::sources::Trouble;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::sync::Arc;
use zeroize::Zeroizing;

/// One key of one engine.
pub struct Transit {
    client: Arc<Client>,
    /// Where the engine is mounted.
    pub mount: String,
    /// The key's name.
    pub key: String,
}

#[derive(Serialize)]
struct Plaintext<'a> {
    plaintext: &'a str,
}

#[derive(Serialize)]
struct Ciphertext<'a> {
    ciphertext: &'a str,
}

impl Transit {
    /// Nobody is asked yet.
    pub fn new(client: Arc<Client>, mount: &str, key: &str) -> Self {
        client.enter();
        Self { client, mount: mount.to_owned(), key: key.to_owned() }
    }

    /// Encrypts under the key's newest version.
    pub async fn encrypt(&self, plain: &[u8]) -> Result<String, Trouble> {
        let text = Zeroizing::new(STANDARD.encode(plain));
        let answer = self.asked("encrypt", &Plaintext { plaintext: &text }, "ciphertext").await?;
        ciphertext(answer)
    }

    /// Decrypts.
    pub async fn decrypt(&self, ciphertext: &str) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let answer = self.asked("decrypt", &Ciphertext { ciphertext }, "plaintext").await?;
        // Exposed to be decoded: what comes of it is the data key.
        let bytes = STANDARD.decode(answer.expose()).map_err(|_| Trouble::from(OpenBaoError::Malformed))?;
        Ok(Zeroizing::new(bytes))
    }

    /// Encrypts anew, under the key's newest version, what an older one has encrypted.
    pub async fn rewrap(&self, text: &str) -> Result<String, Trouble> {
        ciphertext(self.asked("rewrap", &Ciphertext { ciphertext: text }, "ciphertext").await?)
    }

    /// It is asked no more. Where nobody else asks, the broker's token is given back.
    pub async fn leave(&self) {
        self.client.leave().await;
    }

    async fn asked(&self, what: &str, body: &impl Serialize, field: &str) -> Result<attache_core::Secret, Trouble> {
        let path = format!("{}/{what}/{}", self.mount, self.key);
        let (token, fresh) = self.client.token().await?;
        let mut by = token;
        let mut reply = self.client.ask(Question::post(&path, body).by(&by.secret)).await?;
        if reply.status == 403
            && !fresh
            && let Some(another) = self.client.another(&by).await?
        {
            by = another;
            reply = self.client.ask(Question::post(&path, body).by(&by.secret)).await?;
        }
        match reply.status {
            200 => {}
            403 => return Err(self.denied(what, self.client.why_denied(&by).await)),
            _ => return Err(self.refused(what, &reply)),
        }
        match data(&reply)?.remove(field) {
            Some(Json::Text(text)) => Ok(text),
            _ => Err(OpenBaoError::Malformed.into()),
        }
    }

    fn denied(&self, what: &str, why: OpenBaoError) -> Trouble {
        let OpenBaoError::Denied = why else { return why.into() };
        let Self { mount, key, .. } = self;
        let fix = format!(
            "give one of its policies `update` on {mount}/encrypt/{key}, {mount}/decrypt/{key} and {mount}/rewrap/{key}"
        );
        Trouble::lasting(format!("our token's policies do not allow {mount}/{what}/{key}"), fix)
    }

    fn refused(&self, what: &str, reply: &Reply) -> Trouble {
        let Self { mount, key, .. } = self;
        match failure(reply) {
            OpenBaoError::Refused(status) => Trouble::lasting(
                format!("it does not take {mount}/{what}/{key} (HTTP {status})"),
                format!(
                    "see whether the key exists (bao read {mount}/keys/{key}), whether it is the one that has encrypted \
                     before, and whether its min_decryption_version is past that"
                ),
            ),
            OpenBaoError::NoEngine => Trouble::lasting(
                format!("no transit engine is at {mount}, in this namespace"),
                format!("correct state.seal.transit.mount, or mount it: bao secrets enable -path={mount} transit"),
            ),
            other => other.into(),
        }
    }
}

/// A ciphertext is kept in a file of ours: only what looks like one.
fn ciphertext(answer: attache_core::Secret) -> Result<String, Trouble> {
    // Exposed to be kept: it is encrypted.
    let text = answer.expose();
    let is_one = text.len() <= 4096 && text.contains(":v") && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_one.then(|| text.to_owned()).ok_or_else(|| OpenBaoError::Malformed.into())
}
