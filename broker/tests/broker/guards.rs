//! A host leads to one public address, or nowhere. All of this is decided; nothing is ever dialled.

use crate::dns::{Answer, Dns};
use crate::world::{World, until};
use attache_broker::config::{Config, Endpoint, PassThrough};
use attache_core::digest::Digest;
use attache_core::matching::host::Host;
use attache_core::policy::Unmatched;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Public, and nothing of ours: decided on, never dialled.
const PUBLIC: &str = "93.184.215.14";
const ALSO: &str = "93.184.215.15";
const SIXTH: &str = "2606:2800:21f:cb07:6820:80da:af6b:8b2c";

/// A broker that asks this DNS server alone: `api.a.test` is intercepted, `pinned.test` passed through,
/// any other name passed unmatched.
async fn world(dns: &Dns) -> (World, String) {
    world_with(dns, |_| {}).await
}

async fn world_with(dns: &Dns, change: impl FnOnce(&mut Config)) -> (World, String) {
    let server = dns.address();
    let world = World::with(|config| {
        config.dns_servers = vec![server];
        config.unmatched = Unmatched::Pass;
        config.hosts.push(pass("pinned.test", 443, false));
        change(config);
    })
    .await;
    let token = world.env("reviewer", "ATTACHE_SESSION_TOKEN").await;
    (world, token)
}

fn pass(host: &str, port: u16, private: bool) -> PassThrough {
    PassThrough { host: Host::parse(host.as_bytes()).unwrap(), port, private }
}

fn evidence(token: &str) -> Value {
    json!({"session_token": Digest::of(token.as_bytes()).to_hex()})
}

fn reason(answer: &Value) -> &str {
    assert!(answer["granted"].is_null(), "granted: {answer}");
    answer["denied"]["reason"].as_str().unwrap()
}

fn address(answer: &Value) -> SocketAddr {
    answer["granted"]["address"].as_str().unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
}

#[tokio::test]
async fn a_public_name_leads_to_one_of_its_addresses() {
    let dns = Dns::start().await;
    let (world, token) = world(&dns).await;
    for host in ["api.a.test", "pinned.test", "other.test"] {
        dns.set(host, &[PUBLIC]);
        let answer = world.way(host, 443, &token).await;
        assert_eq!(address(&answer), format!("{PUBLIC}:443").parse().unwrap(), "{host}");
        assert_eq!(answer["granted"]["session"], "reviewer");
        let ttl = answer["granted"]["ttl_ms"].as_u64().unwrap();
        assert!((1..=1_000).contains(&ttl), "a TTL of nothing is believed for a second: {ttl}");
    }
    // Whole names, and none below a search domain.
    assert_eq!(dns.asked(), ["api.a.test", "pinned.test", "other.test"]);
    let question = json!({"host": "other.test", "port": 80, "plaintext": true, "evidence": evidence(&token)});
    assert_eq!(address(&world.way_by(question).await).port(), 80);
    // One that has IPv6 alone.
    dns.set("sixth.test", &[SIXTH]);
    assert_eq!(address(&world.way("sixth.test", 443, &token).await), format!("[{SIXTH}]:443").parse().unwrap());
}

#[tokio::test]
async fn one_address_that_is_not_public_is_enough_to_refuse() {
    let dns = Dns::start().await;
    let (world, token) = world(&dns).await;
    for addresses in [
        &["10.0.0.1"][..],
        &["127.0.0.1"],
        &["169.254.169.254"],
        &["fd00:ec2::254"],
        &["100.64.0.1"],
        &["0.0.0.0"],
        &["::"],
        &["::1"],
        &["224.0.0.1"],
        &["fe80::1"],
        &["::ffff:127.0.0.1"],
        &["::ffff:93.184.215.14"],
        &["64:ff9b::10.0.0.1"],
        &["2002:7f00:1::"],
        &["2001::1"],
        &[PUBLIC, "10.0.0.1"],
        &["10.0.0.1", PUBLIC],
        &[PUBLIC, ALSO, "::1"],
        &[SIXTH, "127.0.0.1"],
    ] {
        for host in ["api.a.test", "pinned.test", "other.test"] {
            dns.set(host, addresses);
            assert_eq!(reason(&world.way(host, 443, &token).await), "address_not_allowed", "{host} {addresses:?}");
        }
        let plain = json!({"host": "other.test", "port": 80, "plaintext": true, "evidence": evidence(&token)});
        assert_eq!(reason(&world.way_by(plain).await), "address_not_allowed", "http:// {addresses:?}");
    }
    assert_eq!(reason(&world.way("localhost", 443, &token).await), "address_not_allowed", "by the hosts file");
    assert_eq!(reason(&world.way("sub.localhost", 443, &token).await), "address_not_allowed");
}

#[tokio::test]
async fn a_name_that_moves_between_two_calls_is_vetted_at_each() {
    let dns = Dns::start().await;
    let (world, token) = world(&dns).await;
    dns.set_in_turn("api.a.test", &[&[PUBLIC], &["127.0.0.1"], &["169.254.169.254", PUBLIC], &[ALSO]]);
    assert_eq!(address(&world.way("api.a.test", 443, &token).await).ip().to_string(), PUBLIC);
    assert_eq!(reason(&world.way("api.a.test", 443, &token).await), "address_not_allowed");
    assert_eq!(reason(&world.way("api.a.test", 443, &token).await), "address_not_allowed");
    assert_eq!(address(&world.way("api.a.test", 443, &token).await).ip().to_string(), ALSO);
    assert_eq!(dns.times("api.a.test"), 4, "what is handed out was resolved for it, and not again");
}

#[tokio::test]
async fn an_answer_is_kept_for_its_time_and_its_addresses_take_turns() {
    let dns = Dns::start().await;
    let (world, token) = world(&dns).await;
    dns.ttl(30);
    dns.set("api.a.test", &[PUBLIC, ALSO]);
    let first = world.way("api.a.test", 443, &token).await;
    let second = world.way("api.a.test", 443, &token).await;
    assert_ne!(address(&first), address(&second), "who could not connect gets the other");
    assert_eq!(address(&world.way("api.a.test", 443, &token).await), address(&first));
    assert_eq!(dns.times("api.a.test"), 1);
    let ttl = second["granted"]["ttl_ms"].as_u64().unwrap();
    assert!((1..=30_000).contains(&ttl), "{ttl}");
    dns.ttl(86_400);
    dns.set("other.test", &[PUBLIC]);
    let ttl = world.way("other.test", 443, &token).await["granted"]["ttl_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn what_the_config_says_is_private_may_be() {
    let dns = Dns::start().await;
    let upstream = |address: &str| {
        Some(attache_broker::config::Upstream { address: Some(address.to_owned()), ca_file: None, cluster: None })
    };
    let (world, token) = world_with(&dns, |config| {
        config.hosts.push(pass("lan.test", 443, true));
        for credential in &mut config.credentials {
            for destination in &mut credential.destinations {
                match destination.host.to_string().as_str() {
                    "api.a.test" => destination.private = true,
                    "b.test" => destination.upstream = upstream("127.0.0.1:9443"),
                    _ => destination.upstream = upstream("inner.test:8080"),
                }
            }
        }
        let mut literal = config.credentials[0].destinations[0].clone();
        (literal.host, literal.private) = (Host::parse(b"[::1]").unwrap(), false);
        config.credentials[0].destinations.push(literal);
    })
    .await;
    for (host, found) in [("lan.test", "192.168.1.1"), ("api.a.test", "fd12::1"), ("inner.test", "10.1.1.1")] {
        dns.set(host, &[found, PUBLIC]);
    }
    for host in ["lan.test", "api.a.test"] {
        assert_eq!(address(&world.way(host, 443, &token).await).port(), 443, "{host}");
    }
    assert_eq!(address(&world.way("b.test", 8443, &token).await), "127.0.0.1:9443".parse().unwrap());
    assert_eq!(address(&world.way("both.test", 443, &token).await).port(), 8080, "where Envoy dials");
    assert_eq!(address(&world.way("[::1]", 443, &token).await), "[::1]:443".parse().unwrap());
    assert!(!dns.asked().iter().any(|name| name == "b.test" || name == "both.test"));
    // The same names at another port are others.
    dns.set("lan.test", &["192.168.1.1"]);
    assert_eq!(reason(&world.way("lan.test", 8443, &token).await), "host_not_allowed");
    dns.set("api.a.test", &["0.0.0.0"]);
    assert_eq!(reason(&world.way("api.a.test", 443, &token).await), "address_not_allowed", "nobody's");
}

#[tokio::test]
async fn nobody_comes_to_this_instances_own_listeners() {
    let dns = Dns::start().await;
    let (mut world, _) = world(&dns).await;
    let data_plane = world.data_plane();
    world.stop().await;
    world.config.listen.data_plane = Endpoint::Tcp(data_plane);
    world.config.listen.proxy = "0.0.0.0:3939".parse().unwrap();
    world.config.listen.admin = Some("[::1]:9901".parse().unwrap());
    let ports = [data_plane.port(), 3939, 9901, 3940];
    world.config.hosts.extend(ports.map(|port| pass("self.test", port, true)));
    world.start().await;
    let token = world.env("reviewer", "ATTACHE_SESSION_TOKEN").await;
    for (address, port, expected) in [
        ("127.0.0.1", data_plane.port(), false),
        ("::ffff:127.0.0.1", data_plane.port(), false),
        ("127.0.0.2", data_plane.port(), true),
        // Bound to all addresses of this machine, and so to any of loopback.
        ("127.0.0.1", 3939, false),
        ("127.8.8.8", 3939, false),
        ("::1", 3939, false),
        ("10.9.8.7", 3939, true),
        ("::1", 9901, false),
        ("127.0.0.1", 3940, true),
    ] {
        dns.set("self.test", &[address]);
        let answer = world.way("self.test", port, &token).await;
        match expected {
            true => assert_eq!(answer["granted"]["session"], "reviewer", "{address} {port}"),
            false => assert_eq!(reason(&answer), "address_not_allowed", "{address} {port}"),
        }
    }
    dns.set("self.test", &["127.0.0.2", "127.0.0.1"]);
    assert_eq!(reason(&world.way("self.test", data_plane.port(), &token).await), "address_not_allowed");
}

#[tokio::test]
async fn no_spelling_of_an_address_is_resolved() {
    let dns = Dns::start().await;
    let (world, token) = world(&dns).await;
    for host in [
        "0177.0.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "127.1",
        "127.0.1",
        "017700000001",
        "127.0.0.1.",
        "::1",
        "[::1%25lo]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:7f00:1]x",
        "1\u{ff12}7.0.0.1",
        "\u{2460}27.0.0.1",
        "api.a.test.",
        "API.a.test",
        "a.0x",
        "api%2ea.test",
        "user@api.a.test",
        "api.a.test:443",
        "",
        ".",
        "api..test",
        "*.a.test",
        "169.254.169.254.",
        "0",
    ] {
        assert_eq!(reason(&world.way(host, 443, &token).await), "authority_malformed", "{host:?}");
    }
    // Written well, and yet no name: only the config lets one through.
    for host in ["127.0.0.1", "93.184.215.14", "[::1]", "[2606:4700::1111]", "169.254.169.254"] {
        assert_eq!(reason(&world.way(host, 443, &token).await), "host_not_allowed", "{host}");
    }
    assert_eq!(dns.asked(), <[String; 0]>::default());
}

#[tokio::test]
async fn who_may_not_ask_resolves_nothing() {
    let dns = Dns::start().await;
    let (world, token) = world(&dns).await;
    for (name, bind) in [("door", json!({"listener": "south"})), ("strict", json!({"peer": "spiffe://a.test/x"}))] {
        let body = json!({"name": name, "credentials": ["github"], "access_mode": "read-only", "bind": bind});
        assert_eq!(world.operate("POST", "/v1/sessions", body).await.status, 201);
    }
    let strict = world.env("strict", "ATTACHE_SESSION_TOKEN").await;
    let digest = |text: &str| Digest::of(text.as_bytes()).to_hex();
    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    let jwt = json!({"header": "x-attache-identity", "token": "a.b.c"});
    for (evidence, expected) in [
        (json!({}), "identity_required"),
        (json!({"source": "127.0.0.1"}), "identity_required"),
        (json!({"listener": "north"}), "identity_required"),
        (json!({"session_token": digest("forged")}), "placeholder_unknown"),
        (json!({"session_token": digest(&placeholder)}), "placeholder_misplaced"),
        (json!({"session_token": digest(&token), "placeholder": digest(&placeholder)}), "placeholder_misplaced"),
        (json!({"session_token": digest(&token), "jwt": jwt}), "placeholder_misplaced"),
        (json!({"session_token": digest(&strict)}), "identity_required"),
        (json!({"session_token": digest(&strict), "peer": "spiffe://a.test/y"}), "evidence_conflict"),
    ] {
        let answer = world.way_by(json!({"host": "api.a.test", "port": 443, "evidence": evidence})).await;
        assert_eq!(reason(&answer), expected, "{evidence}");
    }
    // Nor does anybody for a host that the policy refuses.
    for (host, port, plaintext, expected) in [
        ("api.a.test", 443, true, "tls_required"),
        ("api.a.test", 80, true, "tls_required"),
        ("api.a.test", 8443, false, "host_not_allowed"),
        ("pinned.test", 22, false, "host_not_allowed"),
        ("other.test", 22, false, "host_not_allowed"),
        ("other.test", 443, true, "host_not_allowed"),
        ("other.test", 80, false, "host_not_allowed"),
    ] {
        let question = json!({"host": host, "port": port, "plaintext": plaintext, "evidence": evidence(&token)});
        assert_eq!(reason(&world.way_by(question).await), expected, "{host}:{port} {plaintext}");
    }
    assert_eq!(world.operate("POST", "/v1/sessions/reviewer/revoke", Value::Null).await.status, 200);
    assert_eq!(reason(&world.way("api.a.test", 443, &token).await), "session_expired");
    assert_eq!(dns.asked(), <[String; 0]>::default());

    dns.set("api.a.test", &[PUBLIC]);
    for (evidence, session) in [
        (json!({"listener": "south"}), "door"),
        (json!({"session_token": digest(&strict), "peer": "spiffe://a.test/x"}), "strict"),
    ] {
        let answer = world.way_by(json!({"host": "api.a.test", "port": 443, "evidence": evidence})).await;
        assert_eq!(answer["granted"]["session"], session);
    }
}

#[tokio::test]
async fn a_denying_policy_lets_through_what_it_names_alone() {
    let dns = Dns::start().await;
    let (world, token) = world_with(&dns, |config| config.unmatched = Unmatched::Deny).await;
    for host in ["api.a.test", "pinned.test", "other.test"] {
        dns.set(host, &[PUBLIC]);
    }
    assert_eq!(world.way("api.a.test", 443, &token).await["granted"]["session"], "reviewer");
    assert_eq!(world.way("pinned.test", 443, &token).await["granted"]["session"], "reviewer");
    assert_eq!(reason(&world.way("other.test", 443, &token).await), "host_not_allowed");
    let plain = json!({"host": "other.test", "port": 80, "plaintext": true, "evidence": evidence(&token)});
    assert_eq!(reason(&world.way_by(plain).await), "host_not_allowed");
}

#[tokio::test]
async fn a_name_without_an_address_is_told_in_time() {
    let dns = Dns::start().await;
    let (world, token) = world(&dns).await;
    dns.set("empty.test", &[]);
    dns.answer("failing.test", Answer::Failure);
    dns.answer("silent.test", Answer::Silence);
    for host in ["unknown.test", "empty.test", "failing.test", "silent.test"] {
        let began = Instant::now();
        assert_eq!(reason(&world.way(host, 443, &token).await), "host_unresolved", "{host}");
        // The filter gives up after two seconds. This machine may be busy.
        assert!(began.elapsed() < Duration::from_secs(8), "{host}: {:?}", began.elapsed());
    }
    dns.set("unknown.test", &[PUBLIC]);
    until("a name that is there at last is found", async || {
        world.way("unknown.test", 443, &token).await["granted"]["session"] == "reviewer"
    })
    .await;
}

#[tokio::test]
async fn a_host_of_the_config_does_not_wait_for_names_that_an_agent_thinks_of() {
    let dns = Dns::start().await;
    let (world, token) = world_with(&dns, |config| config.limits.callout_timeout = Duration::from_secs(10)).await;
    let (world, token) = (Arc::new(world), Arc::new(token));
    let slow: Vec<_> = (0..300).map(|n| format!("slow{n}.test")).collect();
    slow.iter().for_each(|name| dns.answer(name, Answer::Silence));
    let asking = slow.iter().map(|name| {
        let (name, world, token) = (name.clone(), world.clone(), token.clone());
        tokio::spawn(async move { reason(&world.way(&name, 443, &token).await).to_owned() })
    });
    let asking: Vec<_> = asking.collect();
    // As many as are asked for at once.
    until("all that may be asked for at once are", async || dns.asked().len() >= 128).await;
    dns.set("pinned.test", &[PUBLIC]);
    let answer = world.way("pinned.test", 443, &token).await;
    assert_eq!(address(&answer).port(), 443);
    assert!(asking.iter().all(|one| !one.is_finished()), "it has waited for one of them");
    asking.iter().for_each(|one| one.abort());
}

#[tokio::test]
async fn a_name_with_more_addresses_than_any_service_has_none() {
    let dns = Dns::start().await;
    let (world, token) = world(&dns).await;
    let many: Vec<_> = (0..65).map(|n| format!("93.184.215.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    dns.set("many.test", &many);
    dns.set("less.test", &many[1..]);
    assert_eq!(reason(&world.way("many.test", 443, &token).await), "host_unresolved");
    assert_eq!(address(&world.way("less.test", 443, &token).await).port(), 443);
}

#[tokio::test]
async fn who_loses_the_session_while_a_name_is_resolved_gets_no_way() {
    let dns = Dns::start().await;
    let (world, token) = world_with(&dns, |config| config.limits.callout_timeout = Duration::from_secs(10)).await;
    dns.hold("api.a.test", &[PUBLIC]);
    let asked = world.way("api.a.test", 443, &token);
    let revoked = async {
        until("both kinds are asked for", async || dns.held() >= 2).await;
        assert_eq!(world.operate("POST", "/v1/sessions/reviewer/revoke", Value::Null).await.status, 200);
        dns.release().await;
    };
    let (answer, ()) = tokio::join!(asked, revoked);
    assert_eq!(reason(&answer), "session_expired");
}

#[tokio::test]
async fn a_way_ends_with_its_session() {
    let dns = Dns::start().await;
    let (world, _) = world(&dns).await;
    dns.ttl(3_600);
    dns.set("api.a.test", &[PUBLIC]);
    let body = json!({"name": "short", "credentials": ["github"], "access_mode": "read-only", "ttl_ms": 20_000});
    assert_eq!(world.operate("POST", "/v1/sessions", body).await.status, 201);
    let token = world.env("short", "ATTACHE_SESSION_TOKEN").await;
    let ttl = world.way("api.a.test", 443, &token).await["granted"]["ttl_ms"].as_u64().unwrap();
    assert!((1..=20_000).contains(&ttl), "{ttl}");
}
