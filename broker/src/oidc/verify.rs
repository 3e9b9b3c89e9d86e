//! One token: what its header may say, and what its claims must.

use super::Wrong;
use crate::clock::Now;
use crate::config::oidc::Algorithm as Pinned;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;

/// How far the provider's clock may be ahead of ours, in seconds. It may not be behind: no token is
/// believed past its `exp`.
const SKEW: u64 = 30;

/// Claims whose signature and times hold.
pub(super) struct Verified {
    pub claims: Map<String, Value>,
    pub expires: Now,
}

#[derive(Deserialize)]
struct OnlyIssuer {
    iss: String,
}

/// The issuer that a token claims, before anything of it is believed: only to choose the provider. A
/// list of issuers, which the library would take for any of them, is none.
pub(super) fn claimed_issuer(token: &str) -> Result<String, Wrong> {
    let claims: OnlyIssuer = dangerous::insecure_decode_claims(token).map_err(|_| Wrong::Malformed)?;
    Ok(claims.iss)
}

/// The key id and the algorithm, if that is one of those pinned.
pub(super) fn header(token: &str, pinned: &[Pinned]) -> Result<(Option<String>, Algorithm), Wrong> {
    // `none` and everything else that is no signature does not even parse.
    let header = jsonwebtoken::decode_header(token).map_err(|_| Wrong::Algorithm)?;
    if header.crit.is_some() {
        return Err(Wrong::Critical);
    }
    if !pinned.iter().any(|pinned| algorithm(*pinned) == header.alg) {
        return Err(Wrong::Algorithm);
    }
    Ok((header.kid, header.alg))
}

/// The claims of a token that this key has signed for this issuer and audience, and that is valid now.
pub(super) fn claims(
    token: &str,
    key: &DecodingKey,
    algorithm: Algorithm,
    (issuer, audience): (&str, &str),
    now: Now,
) -> Result<Verified, Wrong> {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.validate_nbf = true;
    validation.leeway = SKEW;
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation);
    let claims = decoded.map_err(|error| match error.kind() {
        ErrorKind::ExpiredSignature => Wrong::Expired,
        ErrorKind::ImmatureSignature => Wrong::Early,
        _ => Wrong::Signature,
    })?;
    let claims = claims.claims;
    let second = |claim: &str| claims.get(claim).and_then(Value::as_f64).filter(|second| *second >= 0.0);
    let exp_ms = second("exp").ok_or(Wrong::Expired)? * 1000.0;
    if second("iat").is_some_and(|iat| iat * 1000.0 > now.wall_ms as f64 + SKEW as f64 * 1000.0) {
        return Err(Wrong::Early);
    }
    let left = exp_ms - now.wall_ms as f64;
    // Never for longer than anything here lives; this also keeps the sum within its type.
    let left = Duration::try_from_secs_f64(left.min(365.0 * 86_400_000.0) / 1000.0).map_err(|_| Wrong::Expired)?;
    if left.is_zero() {
        return Err(Wrong::Expired);
    }
    Ok(Verified { claims, expires: now.plus(left) })
}

pub(super) fn algorithm(pinned: Pinned) -> Algorithm {
    match pinned {
        Pinned::ES256 => Algorithm::ES256,
        Pinned::ES384 => Algorithm::ES384,
        Pinned::RS256 => Algorithm::RS256,
        Pinned::RS384 => Algorithm::RS384,
        Pinned::RS512 => Algorithm::RS512,
        Pinned::PS256 => Algorithm::PS256,
        Pinned::PS384 => Algorithm::PS384,
        Pinned::PS512 => Algorithm::PS512,
        Pinned::EdDSA => Algorithm::EdDSA,
    }
}
