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
    #[serde(skip_serializing_if = "Option::is_none")]
    associated_data: Option<&'a str>,
}

#[derive(Serialize)]
struct Ciphertext<'a> {
    ciphertext: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    associated_data: Option<&'a str>,
}

/// What an encryption came to.
pub struct Encrypted {
    /// What opens by the same key.
    pub ciphertext: String,
    /// Whether what was to be authenticated with it is.
    pub bound: bool,
}

impl Transit {
    /// Nobody is asked yet.
    pub fn new(client: Arc<Client>, mount: &str, key: &str) -> Self {
        client.enter();
        Self { client, mount: mount.to_owned(), key: key.to_owned() }
    }

    /// Encrypts under the key's newest version, and binds it to this: as associated data, where the key's type (AES-GCM,
    /// ChaCha20-Poly1305) takes some.
    pub async fn encrypt(&self, plain: &[u8], bound: &[u8]) -> Result<Encrypted, Trouble> {
        let text = Zeroizing::new(STANDARD.encode(plain));
        let associated = STANDARD.encode(bound);
        let body = |associated_data| Plaintext { plaintext: &text, associated_data };
        let reply = self.reply("encrypt", &body(Some(&associated))).await?;
        // So RSA keys answer it; if anything else is wrong, it is without, too.
        let bound = reply.status != 400;
        let reply = if bound { reply } else { self.reply("encrypt", &body(None)).await? };
        let ciphertext = ciphertext(self.answer("encrypt", &reply, "ciphertext")?)?;
        Ok(Encrypted { ciphertext, bound })
    }

    /// Decrypts what was bound to this, or to nothing.
    pub async fn decrypt(&self, ciphertext: &str, bound: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let associated = bound.map(|bound| STANDARD.encode(bound));
        let body = Ciphertext { ciphertext, associated_data: associated.as_deref() };
        let answer = self.answer("decrypt", &self.reply("decrypt", &body).await?, "plaintext")?;
        // Exposed to be decoded: what comes of it is the data key.
        let bytes = STANDARD.decode(answer.expose()).map_err(|_| Trouble::from(OpenBaoError::Malformed))?;
        Ok(Zeroizing::new(bytes))
    }

    /// It is asked no more. Where nobody else asks, the broker's token is given back.
    pub async fn leave(&self) {
        self.client.leave().await;
    }

    async fn reply(&self, what: &str, body: &impl Serialize) -> Result<Reply, Trouble> {
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
            403 => Err(self.denied(what, self.client.why_denied(&by).await)),
            _ => Ok(reply),
        }
    }

    fn answer(&self, what: &str, reply: &Reply, field: &str) -> Result<attache_core::Secret, Trouble> {
        if reply.status != 200 {
            return Err(self.refused(what, reply));
        }
        match data(reply)?.remove(field) {
            Some(Json::Text(text)) => Ok(text),
            _ => Err(OpenBaoError::Malformed.into()),
        }
    }

    fn denied(&self, what: &str, why: OpenBaoError) -> Trouble {
        let OpenBaoError::Denied = why else { return why.into() };
        let Self { mount, key, .. } = self;
        let fix = format!("give one of its policies `update` on {mount}/encrypt/{key} and {mount}/decrypt/{key}");
        Trouble::lasting(format!("our token's policies do not allow {mount}/{what}/{key}"), fix)
    }

    fn refused(&self, what: &str, reply: &Reply) -> Trouble {
        let Self { mount, key, .. } = self;
        match failure(reply) {
            OpenBaoError::Refused(status) => Trouble::lasting(
                format!("it does not take {mount}/{what}/{key} (HTTP {status})"),
                format!(
                    "see whether the key exists (bao read {mount}/keys/{key}), whether it is the one that has encrypted \
                     before, whether its min_decryption_version is past that, and whether seal.json is this instance's own"
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
