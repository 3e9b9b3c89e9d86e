//! Who we are to GitHub: a JWT of a few minutes, signed with the App's key (RS256).
//! <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>

use super::error::GitHubError;
use attache_core::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Serialize;
use zeroize::Zeroizing;

/// It was made so long ago, in seconds: GitHub's clock may be behind ours.
const BEFORE: u64 = 60;
/// It is over in so long, in seconds: with the above less than the ten minutes that GitHub allows.
const AFTER: u64 = 480;

#[derive(Serialize)]
struct Claims<'a> {
    iat: u64,
    exp: u64,
    iss: &'a str,
}

/// Reads a private key; `place` is where it is, for people.
pub fn key(pem: &Secret, place: &str) -> Result<RsaKeyPair, GitHubError> {
    let wrong = |why| GitHubError::Key(place.to_owned(), why);
    // Exposed to be read; what is decoded is erased.
    let text = pem.expose().as_bytes();
    let mut der = Zeroizing::new(vec![0; text.len()]);
    let decoder = pem_rfc7468::Decoder::new_detect_wrap(text).map_err(|_| wrong("is no PEM"));
    let mut decoder = decoder?;
    let label = decoder.type_label().to_owned();
    let length = decoder.remaining_len();
    let der = der.get_mut(..length).ok_or_else(|| wrong("is no PEM"))?;
    let der = decoder.decode(der).map_err(|_| wrong("is no PEM"))?;
    let pair = match label.as_str() {
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(der),
        "PRIVATE KEY" => RsaKeyPair::from_pkcs8(der),
        "ENCRYPTED PRIVATE KEY" => return Err(wrong("is encrypted")),
        _ => return Err(wrong("is PEM of something else")),
    };
    pair.map_err(|_| wrong("is no RSA key of 2048 bits or more"))
}

/// A JWT, good from now.
pub fn sign(issuer: &str, key: &RsaKeyPair, now_ms: u64) -> Result<Secret, GitHubError> {
    let now = now_ms / 1000;
    let claims = Claims { iat: now.saturating_sub(BEFORE), exp: now + AFTER, iss: issuer };
    // Plain texts and numbers: nothing of it cannot be written.
    let claims = serde_json::to_vec(&claims).unwrap_or_default();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", part(br#"{"typ":"JWT","alg":"RS256"}"#), part(&claims));
    let mut signature = vec![0; key.public().modulus_len()];
    let made = key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
    made.map_err(|_| GitHubError::NoRandomness)?;
    Ok(Secret::new(format!("{signed}.{}", part(&signature))))
}
