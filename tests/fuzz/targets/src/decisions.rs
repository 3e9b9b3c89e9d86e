//! What may pass: narrowing never widens, and what reads says so by every reader's account.

use crate::parts;
use crate::policy::policy;
use attache_core::access::{Access, Body, Operation, git as repositories};
use attache_core::headers::{self, serialize};
use attache_core::masking::Masker;
use attache_core::names::Name;
use attache_core::policy::{AccessMode, AccessSpec, BodyRule, GraphqlSpec, OperationSpec};
use attache_core::request::{Media, Snapshot, authorise, identify};
use attache_core::wire::{EvidenceDigests, Granted, Lease, WireInjection};
use attache_core::worker::{Facts, Grant};
use attache_core::{Millis, Secret};
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::LazyLock;

const SECRET: &str = "s3cr3t-0123456789-abcdef";

/// A request, one line each: `name: value`, or a whole map as the proxy writes it. What an agent writes where a
/// credential belongs never stands beside one, and what a reader may do a writer may do.
pub fn headers(data: &[u8]) {
    let map = match data.split_first() {
        Some((0, map)) => map.to_vec(),
        _ => {
            let lines: Vec<(String, &[u8])> = data
                .split(|byte| *byte == b'\n')
                .filter_map(|line| {
                    let colon = line.iter().skip(1).position(|byte| *byte == b':')? + 1;
                    let (name, value) = line.split_at_checked(colon)?;
                    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
                    Some((name, value.get(1..)?.trim_ascii_start()))
                })
                .collect();
            serialize(lines.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())
        }
    };
    let policy = policy();
    let snapshot = Snapshot::read(map, policy);
    let Ok(asked) = identify(&snapshot, policy) else { return };
    assert!(headers::is_whole(snapshot.bytes()), "a map that contradicts itself is understood");
    let Some(id) = asked.destination.as_deref() else { return };
    for credential in ["github", "maps", "asks"] {
        let allowed = [AccessMode::ReadOnly, AccessMode::ReadWrite].map(|mode| {
            let grant = grant(id, credential, mode)?;
            let forward = authorise(policy, &snapshot, &asked, &grant, || Body::Unread).ok()?;
            let bytes = snapshot.bytes();
            for line in headers::lines(bytes) {
                let name = line.name.of(bytes);
                let bears = [&b"authorization"[..], b"proxy-authorization", b"cookie", b"x-attache-session"];
                let set = grant.headers().any(|(set, _)| set.as_bytes() == name);
                let removed = forward.remove().any(|removed| removed == name);
                assert!(!bears.contains(&name) || set || removed, "{:?} stays", name.escape_ascii());
            }
            Some(())
        });
        assert!(allowed[0].is_none() || allowed[1].is_some(), "a reader may do what a writer may not");
    }
}

fn grant(destination: &str, credential: &str, access_mode: AccessMode) -> Option<Grant> {
    let name = |text| Name::parse(text).ok();
    let (header, query) = match credential {
        "maps" => (None, Some("key".to_owned())),
        "asks" => (Some("x-key".to_owned()), None),
        _ => (Some("authorization".to_owned()), None),
    };
    let secret = Secret::new(SECRET);
    let granted = Granted {
        as_of: 0,
        session_id: "s".into(),
        session: name("reader")?,
        credential: name(credential)?,
        access_mode,
        lease: Lease { id: "l".into(), fingerprint: "f".into(), ttl_ms: 1000, refresh_after_ms: 500 },
        max_unacked_uses: 1,
        strict: false,
        injections: vec![WireInjection { header, query, value: secret.clone() }],
        mask: vec![secret.clone()],
    };
    let masker = Masker::new([&secret]).ok().map(Rc::new);
    let evidence = EvidenceDigests::default();
    let facts = Facts { destination, cluster: "c", service: credential, evidence: &evidence, masker, life: 1 };
    Grant::accept(granted, Millis(0), facts)
}

static GRAPHQL: LazyLock<Access> = LazyLock::new(|| {
    let graphql = Some(GraphqlSpec { paths: vec!["/graphql".into()], subscriptions: false });
    Access::compile(&AccessSpec { graphql, ..AccessSpec::default() }).expect("it compiles")
});

/// A body in JSON. What may be asked is a query by its own first word, and stays one whatever stands around it.
pub fn graphql(data: &[u8]) {
    let read = |body: &[u8]| {
        let operation = Operation { method: b"POST", path: b"/graphql", media: Media::Json, ..Operation::default() };
        GRAPHQL.check(AccessMode::ReadOnly, operation, || Body::Whole(body))
    };
    if read(data).is_err() {
        return;
    }
    let spaced = [b" \n", data, b"\n "].concat();
    assert_eq!(read(&spaced), Ok(()), "white space around a body changes what it says");
    let said: Value = serde_json::from_slice(data).expect("what is allowed is JSON");
    let all = if let Value::Array(all) = said { all } else { vec![said] };
    for one in all {
        let Some(query) = one["query"].as_str() else { continue };
        let bare: String = query.split_whitespace().collect::<Vec<_>>().join(" ");
        let writes = ["mutation", "subscription"].iter().any(|word| bare.trim_start().starts_with(word));
        assert!(!writes, "a document that begins with a write is a read");
    }
}

static RPC: LazyLock<Access> = LazyLock::new(|| {
    let body = BodyRule::JsonRpc { methods: vec!["read".into(), "tools/call".into()], tools: vec!["look".into()] };
    let read = OperationSpec {
        method: "POST".into(),
        path: "/rpc".into(),
        query: BTreeMap::new(),
        no_other_query: false,
        body: Some(body),
    };
    Access::compile(&AccessSpec { reads: vec![read], ..AccessSpec::default() }).expect("it compiles")
});

/// A body in JSON. Every method and tool that is called is on the list, whoever reads it.
pub fn json_rpc(data: &[u8]) {
    let operation = Operation { method: b"POST", path: b"/rpc", media: Media::Json, ..Operation::default() };
    if RPC.check(AccessMode::ReadOnly, operation, || Body::Whole(data)).is_err() {
        return;
    }
    let said: Value = serde_json::from_slice(data).expect("what is allowed is JSON");
    let all = if let Value::Array(all) = said { all } else { vec![said] };
    for message in all {
        match message["method"].as_str() {
            Some("tools/call") => assert_eq!(message["params"]["name"], "look"),
            Some(method) => assert_eq!(method, "read"),
            None => assert!(message.get("method").is_none(), "a method that is no text"),
        }
    }
}

static GIT: LazyLock<Access> = LazyLock::new(|| {
    let spec = repositories::rules(&["/*/*".to_owned()]).expect("a pattern");
    Access::compile(&spec).expect("it compiles")
});

/// A method, a path, a query, a line each. A reader never pushes.
pub fn git(data: &[u8]) {
    let [method, path, query] = parts(data);
    let query = (!query.is_empty()).then_some(query);
    for media in [Media::Unsaid, Media::Other] {
        let operation = Operation { method, path, query, media, ..Operation::default() };
        if GIT.check(AccessMode::ReadOnly, operation, || Body::Unread).is_err() {
            continue;
        }
        let text = String::from_utf8_lossy(path).to_ascii_lowercase();
        assert!(!(method == b"POST" && text.trim_end_matches('/').ends_with("git-receive-pack")), "a push");
        let plain = String::from_utf8_lossy(query.unwrap_or_default()).to_ascii_lowercase();
        let announces = plain.split(['&', ';']).any(|pair| pair == "service=git-receive-pack");
        let asks = matches!(method, b"GET" | b"HEAD") && text.split('/').count() == 5 && text.ends_with("/info/refs");
        assert!(!(asks && announces), "the beginning of a push");
    }
}
