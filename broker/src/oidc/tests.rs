//! Tokens good and bad, made by the same library, against keys in a file.

use super::*;
use crate::config::oidc::KeySource;
use crate::config::values::ClaimPattern;
use ::ring::rand::SystemRandom;
use ::ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use std::path::PathBuf;

const HEADER: &str = "x-attache-identity";

/// A private key and its public half.
struct Pair {
    private: EncodingKey,
    public: Value,
}

impl Pair {
    fn new(kid: &str) -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        let point = pair.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256",
            "x": part(&point[1..33]), "y": part(&point[33..])});
        Self { private: EncodingKey::from_ec_der(pkcs8.as_ref()), public }
    }

    fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(Into::into), ..Header::new(jsonwebtoken::Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}

struct World {
    dir: tempfile::TempDir,
    identities: Identities,
    one: Pair,
    now: Now,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let one = Pair::new("one");
        let provider = provider(dir.path().join("jwks.json"));
        let world = Self { identities: Identities::new(&[provider]).unwrap(), dir, one, now: Now::read() };
        world.publish(&[&world.one.public]);
        world
    }

    /// Puts these keys where the provider's are read.
    fn publish(&self, keys: &[&Value]) {
        std::fs::write(self.dir.path().join("jwks.json"), json!({"keys": keys}).to_string()).unwrap();
    }

    fn second(&self) -> i64 {
        i64::try_from(self.now.wall_ms / 1000).unwrap()
    }

    /// Claims as they should be, but for these.
    fn claims(&self, changes: Value) -> Value {
        let (iss, aud) = ("https://issuer.test", "attache");
        let mut claims = json!({"iss": iss, "aud": aud, "sub": "agent-1", "exp": self.second() + 60});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn token(&self, changes: Value) -> String {
        self.one.sign(Some("one"), &self.claims(changes))
    }

    async fn ask(&self, token: &str) -> Result<Named, Reason> {
        let shown = ShownJwt { header: HEADER.into(), token: token.into() };
        self.identities.identify(&shown, self.now).await
    }

    /// The session that a token names, or the refusal.
    async fn named(&self, token: &str) -> Result<String, Reason> {
        Ok(self.ask(token).await?.session.as_str().to_owned())
    }
}

fn provider(keys: PathBuf) -> Provider {
    let rule = |pattern: &str, session: &str| Rule {
        claims: [("sub".to_owned(), ClaimPattern::try_from(pattern.to_owned()).unwrap())].into(),
        session: Name::parse(session).unwrap(),
    };
    Provider {
        name: Name::parse("test").unwrap(),
        issuer: "https://issuer.test".into(),
        audience: "attache".into(),
        keys: KeySource::File(keys),
        algorithms: vec![Algorithm::ES256],
        header: HEADER.into(),
        rules: vec![rule("agent-*", "agents"), rule("builder", "builders")],
    }
}

/// A token of these parts, whatever they say, with a signature of this text.
fn forged(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

const NOBODY: Result<String, Reason> = Err(Reason::IdentityRequired);

#[tokio::test]
async fn a_good_token_names_its_session_until_it_expires() {
    let world = World::new();
    assert_eq!(world.named(&world.token(json!({}))).await.as_deref(), Ok("agents"));
    assert_eq!(world.named(&world.token(json!({"sub": "builder"}))).await.as_deref(), Ok("builders"));
    assert_eq!(world.named(&world.token(json!({"aud": ["other", "attache"]}))).await.as_deref(), Ok("agents"));
    let named = world.ask(&world.token(json!({}))).await.unwrap();
    let left = world.now.until(named.expires);
    assert!(left > Duration::from_secs(58) && left <= Duration::from_secs(60), "{left:?}");
    // An hour later on either clock, nothing is left.
    let later = Now { wall_ms: world.now.wall_ms + 3_600_000, ..world.now };
    assert_eq!(later.until(named.expires), Duration::ZERO);
    // No token is believed for longer than a year.
    let for_ever = world.ask(&world.token(json!({"exp": 1e18}))).await.unwrap();
    assert_eq!(world.now.until(for_ever.expires), Duration::from_secs(365 * 86_400));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_the_answer_is_that_to_none() {
    let world = World::new();
    let now = world.second();
    let token = |changes: Value| world.token(changes);
    for (what, bad) in [
        ("another issuer", token(json!({"iss": "https://issuer.test/"}))),
        ("no issuer", token(json!({"iss": null}))),
        ("a list of issuers", token(json!({"iss": ["https://issuer.test"]}))),
        ("another audience", token(json!({"aud": "attache2"}))),
        ("a longer audience", token(json!({"aud": ["attache ", "xattache"]}))),
        ("no audience", token(json!({"aud": null}))),
        ("no expiry", token(json!({"exp": null}))),
        ("expired", token(json!({"exp": now - 1}))),
        ("expires now", token(json!({"exp": now}))),
        ("an expiry in words", token(json!({"exp": (now + 60).to_string()}))),
        ("a negative expiry", token(json!({"exp": -1}))),
        ("not yet valid", token(json!({"nbf": now + 40}))),
        ("issued in the future", token(json!({"iat": now + 40}))),
        ("no rule", token(json!({"sub": "stranger"}))),
        ("no subject", token(json!({"sub": null}))),
    ] {
        assert_eq!(world.named(&bad).await, NOBODY, "{what}");
    }
    for good in [json!({"nbf": now + 20}), json!({"iat": now + 20})] {
        assert_eq!(world.named(&token(good.clone())).await.as_deref(), Ok("agents"), "a clock may be ahead: {good}");
    }
}

#[tokio::test]
async fn a_signature_counts_only_by_the_pinned_algorithm_and_the_providers_own_key() {
    let world = World::new();
    let claims = world.claims(json!({}));
    let good = world.token(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = Pair::new("one");
    let public = world.one.public.to_string();
    let by_secret = |secret: &[u8]| {
        let header = Header { kid: Some("one".into()), ..Header::new(jsonwebtoken::Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[10] ^= 1;
    let changed = URL_SAFE_NO_PAD.encode(world.claims(json!({"sub": "builder"})).to_string());
    let head = signed.split('.').next().unwrap();
    for (what, bad) in [
        ("none", forged(&json!({"alg": "none"}), &claims, "")),
        ("none, with a signature", forged(&json!({"alg": "none", "kid": "one"}), &claims, "x")),
        ("None", forged(&json!({"alg": "None", "kid": "one"}), &claims, "x")),
        ("the public key as a secret", by_secret(public.as_bytes())),
        ("a coordinate as a secret", by_secret(world.one.public["x"].as_str().unwrap().as_bytes())),
        ("an algorithm that is not pinned", forged(&json!({"alg": "RS256", "kid": "one"}), &claims, "x")),
        ("another key of that id", other.sign(Some("one"), &claims)),
        ("no signature", format!("{signed}.")),
        ("a changed signature", format!("{signed}.{}", URL_SAFE_NO_PAD.encode(flipped))),
        ("a zero signature", format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64]))),
        ("changed claims", format!("{head}.{changed}.{signature}")),
        ("not a token", "a.b.c".into()),
        ("nothing", String::new()),
        ("four parts", format!("{good}.x")),
        ("a huge one", format!("{good}{}", "x".repeat(MOST_JWT))),
    ] {
        assert_eq!(world.named(&bad).await, NOBODY, "{what}");
    }
    let elsewhere = ShownJwt { header: "x-other".into(), token: good.clone() };
    let reason = world.identities.identify(&elsewhere, world.now).await.err();
    assert_eq!(reason, Some(Reason::IdentityRequired), "in a header that is not this provider's");
    assert_eq!(world.named(&good).await.as_deref(), Ok("agents"));
}

#[tokio::test]
async fn what_a_tokens_header_says_of_keys_is_never_followed() {
    let world = World::new();
    let (claims, own) = (world.claims(json!({})), Pair::new("own"));
    let sign = |header: Header| jsonwebtoken::encode(&header, &claims, &own.private).unwrap();
    let header = || Header::new(jsonwebtoken::Algorithm::ES256);
    let jwk = serde_json::from_value(own.public.clone()).unwrap();
    let url = Some("http://127.0.0.1:9/jwks".to_owned());
    for header in [
        Header { jwk: Some(jwk), kid: Some("one".into()), ..header() },
        Header { jku: url.clone(), kid: Some("own".into()), ..header() },
        Header { x5u: url, kid: Some("one".into()), ..header() },
        Header { kid: Some("../../own.json".into()), ..header() },
        Header { kid: Some("' or 1=1".into()), ..header() },
    ] {
        assert_eq!(world.named(&sign(header.clone())).await, NOBODY, "{header:?}");
    }
    let critical = Header { crit: Some(vec!["b64".into()]), kid: Some("one".into()), ..header() };
    let critical = jsonwebtoken::encode(&critical, &claims, &world.one.private).unwrap();
    assert_eq!(world.named(&critical).await, NOBODY, "well signed, with an extension that nobody here knows");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_known_is_looked_for_once_in_a_while() {
    let world = World::new();
    let (two, three) = (Pair::new("two"), Pair::new("three"));
    let claims = world.claims(json!({}));
    let by = |pair: &Pair, kid: &str| pair.sign(Some(kid), &claims);
    assert_eq!(world.named(&by(&world.one, "one")).await.as_deref(), Ok("agents"));
    world.publish(&[&two.public]);
    assert_eq!(world.named(&by(&two, "two")).await, NOBODY, "the file was read a moment ago");
    assert_eq!(world.named(&by(&world.one, "one")).await.as_deref(), Ok("agents"), "and is still believed");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(world.named(&by(&two, "two")).await.as_deref(), Ok("agents"), "rotated");
    assert_eq!(world.named(&by(&world.one, "one")).await, NOBODY, "withdrawn");
    // Two keys, and a token that names none: nobody guesses. A key for encryption verifies nothing.
    let mut sealed = three.public.clone();
    sealed["use"] = "enc".into();
    world.publish(&[&two.public, &world.one.public, &sealed]);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(world.named(&by(&world.one, "one")).await.as_deref(), Ok("agents"));
    assert_eq!(world.named(&world.one.sign(None, &claims)).await, NOBODY);
    assert_eq!(world.named(&by(&three, "three")).await, NOBODY);
    world.publish(&[&world.one.public]);
    tokio::time::advance(Duration::from_secs(5)).await;
    world.identities.0[0].refresh().await;
    assert_eq!(world.named(&world.one.sign(None, &claims)).await.as_deref(), Ok("agents"), "the only one is meant");
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_fetched_are_told_apart_and_old_ones_not_believed() {
    let world = World::new();
    let file = world.dir.path().join("jwks.json");
    let token = world.token(json!({}));
    std::fs::write(&file, "{}").unwrap();
    let unavailable = Err(Reason::SourceUnavailable);
    assert_eq!(world.named(&token).await, unavailable, "no set of keys");
    world.publish(&[&world.one.public]);
    assert_eq!(world.named(&token).await, unavailable, "nor again at once");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(world.named(&token).await.as_deref(), Ok("agents"));
    std::fs::remove_file(&file).unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    let unknown = Pair::new("two").sign(Some("two"), &world.claims(json!({})));
    assert_eq!(world.named(&unknown).await, unavailable, "nobody can say that it is none");
    assert_eq!(world.named(&token).await.as_deref(), Ok("agents"), "what is held is believed for a while");
    tokio::time::advance(Duration::from_secs(900)).await;
    assert_eq!(world.named(&token).await, unavailable, "and no longer");
}
