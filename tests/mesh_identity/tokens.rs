//! An API server that signs service accounts' tokens: a stand-in, with keys of both kinds.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use crate::keys::Key;

pub struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
}

impl Issuer {
    /// `None`, with the reason told, where nothing makes RSA keys.
    pub fn new() -> Option<Self> {
        let pem = Key::new()?.pem;
        let der = rustls::pki_types::PrivatePkcs1KeyDer::from(der(&pem));
        let rsa = RsaKeyPair::from_der(der.secret_pkcs1_der()).expect("an RSA key");
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key");
        Some(Self { rsa, ec })
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        let point = self.ec.public_key().as_ref();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"keys": [
            {"use": "sig", "kty": "RSA", "kid": "rsa-1", "alg": "RS256", "n": text(&n), "e": text(&e)},
            {"use": "sig", "kty": "EC", "kid": "ec-1", "alg": "ES256", "crv": "P-256", "x": text(&point[1..33]),
             "y": text(&point[33..])},
        ]})
    }

    pub fn rs256(&self, claims: &Value) -> String {
        let signed = head("RS256", "rsa-1", claims);
        let mut signature = vec![0; self.rsa.public().modulus_len()];
        let signing = self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
        signing.expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub fn es256(&self, claims: &Value) -> String {
        let signed = head("ES256", "ec-1", claims);
        let signature = self.ec.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn head(algorithm: &str, kid: &str, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(&json!({"alg": algorithm, "kid": kid})), part(claims))
}

fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD.decode(lines).expect("base64")
}
