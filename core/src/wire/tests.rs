//! What stands on the wire, and whom a change concerns.

use super::*;
use crate::fixture::{name, test};

#[test]
fn how_requests_come_is_written_where_it_is_not_by_a_base_url() {
    let plugin = |transport| Plugin {
        role: Role::Gate,
        instance: name("default"),
        broker_cluster: "broker".into(),
        stale_after_ms: 10_000,
        callout_timeout_ms: 2_000,
        body_limit: 1 << 20,
        guarded: true,
        listener: None,
        transport,
        lacks: Vec::new(),
    };
    for (transport, word) in
        [(Transport::Gateway, None), (Transport::Plain, Some("plain")), (Transport::Intercepted, Some("intercepted"))]
    {
        let written = serde_json::to_value(plugin(transport)).unwrap();
        assert_eq!(written.get("transport").and_then(|word| word.as_str()), word);
        assert_eq!((written.get("listener"), written.get("lacks")), (None, None));
        assert_eq!(serde_json::from_value::<Plugin>(written).unwrap(), plugin(transport));
    }
}

fn jwt() -> ShownJwt {
    ShownJwt { header: "x-attache-identity".into(), token: "eyJ.eyJ.c2ln".into() }
}

#[test]
fn a_jwt_is_printed_without_its_token() {
    let printed = format!("{:?}", jwt());
    assert!(printed.contains("x-attache-identity") && !printed.contains("eyJ"), "{printed}");
}

#[test]
fn each_evidence_has_its_word_and_a_token_names_a_session_by_itself() {
    let digest = Some(Digest::of(b"a token"));
    let none = EvidenceDigests::default();
    for (evidence, word, is_named) in [
        (none.clone(), "none", false),
        (EvidenceDigests { placeholder: digest, ..none.clone() }, "placeholder", true),
        (EvidenceDigests { session_token: digest, ..none.clone() }, "session_token", true),
        (EvidenceDigests { jwt: Some(jwt()), ..none.clone() }, "jwt", true),
        (EvidenceDigests { peer: Some("spiffe://test/a".into()), ..none.clone() }, "peer", false),
        (EvidenceDigests { source: "127.0.0.1".parse().ok(), ..none.clone() }, "source", false),
        (EvidenceDigests { listener: Some(name("inner")), ..none.clone() }, "listener", false),
        (EvidenceDigests { placeholder: digest, peer: Some("a".into()), ..none }, "placeholder+peer", true),
    ] {
        assert_eq!((evidence.word().as_str(), evidence.is_named()), (word, is_named));
    }
}

#[test]
fn a_change_concerns_the_grants_of_its_session_and_of_its_credential_where_it_says() {
    let change = |session_id: Option<&str>, credential: Option<&str>, destination: Option<&str>| Change {
        session_id: session_id.map(Into::into),
        credential: credential.map(name),
        destination: destination.map(Into::into),
        ..Change::default()
    };
    let (here, elsewhere) = (Some("a.example:443"), Some("b.example:443"));
    for (change, concerned) in [
        (change(None, None, None), true),
        (change(Some("s-1"), None, None), true),
        (change(Some("s-2"), None, None), false),
        (change(None, Some("github"), None), true),
        (change(None, Some("other"), None), false),
        // Either is enough.
        (change(Some("s-1"), Some("other"), None), true),
        (change(Some("s-2"), Some("github"), None), true),
        (change(Some("s-2"), Some("other"), None), false),
        (change(None, None, here), true),
        (change(None, None, elsewhere), false),
        (change(Some("s-1"), None, here), true),
        (change(Some("s-1"), None, elsewhere), false),
        (change(Some("s-2"), None, here), false),
    ] {
        assert_eq!(change.concerns("s-1", &name("github"), "a.example:443"), concerned, "{change:?}");
    }
}

#[test]
fn a_change_concerns_ways_of_its_session_whatever_credential_it_names() {
    let change = |session_id: Option<&str>, credential: Option<&str>| Change {
        session_id: session_id.map(Into::into),
        credential: credential.map(name),
        ..Change::default()
    };
    for (change, concerned) in [
        (change(None, None), true),
        (change(Some("s-1"), None), true),
        (change(Some("s-1"), Some("github")), true),
        (change(Some("s-2"), None), false),
        // A way carries no credential.
        (change(None, Some("github")), false),
    ] {
        assert_eq!(change.concerns_session("s-1"), concerned, "{change:?}");
    }
}
