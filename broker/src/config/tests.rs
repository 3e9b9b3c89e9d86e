//! Promises of config loading, on whole files.

mod bundles;
mod github_app;
mod istio;
mod kinds;
mod mesh;
mod openbao;
mod rotation;
mod seal;
mod vaults;

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn home(name: &str) -> Option<String> {
    (name == "HOME").then(|| "/home/op".to_owned())
}

fn load(text: &str) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attache.yaml");
    fs::write(&file, text).unwrap();
    Config::load(Some(&file), &Overrides::default(), &home)
}

/// `LINE:COLUMN PATH` of each error, without file and words.
fn places(text: &str) -> Vec<String> {
    let place = |error: &ConfigError| {
        let place = error.place.unwrap();
        format!("{}:{} {}", place.line, place.column, error.path)
    };
    load(text).unwrap_err().0.iter().map(place).collect()
}

const UNIFI: &str = "
credentials:
  unifi:
    source: {file: unifi_key}
    inject: {header: X-API-Key}
    destinations: [{host: unifi.lan, port: 8443, paths: [/proxy/network/], spki_sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=}]
    placeholder: {prefix: '', length: 40}
    missing_placeholder: deny
";

#[test]
fn the_documented_config_is_read() {
    let text = format!(
        "{UNIFI}  github: {{preset: github}}\nunmatched: deny\nsessions:\n  - {{name: reviewer, credentials: [github], access_mode: read-only, ttl: 8h}}\n"
    );
    let config = load(&text).unwrap();
    assert_eq!(config.state_dir, Path::new("/home/op/.attache/default"));
    assert_eq!(config.listen.proxy.to_string(), "127.0.0.1:3030");
    assert_eq!(config.listen.control, Path::new("/home/op/.attache/default/control.sock"));
    assert_eq!(config.listen.data_plane, Endpoint::Unix("/home/op/.attache/default/data-plane.sock".into()));
    let [github, unifi] = &config.credentials[..] else { panic!("{:?}", config.credentials) };
    assert_eq!(github.lookup[0], Lookup::Env("GITHUB_TOKEN".into()));
    assert_eq!(github.lookup[1], Lookup::File("/home/op/.attache/default/secrets/github_token".into()));
    assert_eq!(github.destinations.len(), 3);
    assert_eq!(unifi.destinations[0].port, 8443);
    assert_eq!(unifi.agent_env, [AgentEnv { name: "UNIFI".into(), value: AgentValue::Placeholder }]);
    assert_eq!(config.sessions[0].ttl, Some(Duration::from_secs(8 * 3600)));
    assert_eq!(config.sessions[0].access_mode, AccessMode::ReadOnly);
}

#[test]
fn a_config_has_room_for_ten_thousand_credentials_and_no_more() {
    let lines = |bytes: usize| format!("{}\n", "#".repeat(1023)).repeat(bytes / 1024);
    load(&(UNIFI.to_owned() + &lines(4 << 20))).unwrap();
    let problem = load(&(UNIFI.to_owned() + &lines(16 << 20))).unwrap_err().to_string();
    assert!(problem.contains("16 MiB"), "{problem}");
    // Each of them has some thirty nodes.
    assert!(tree::parse(&format!("[{}1]", "1, ".repeat(300_000))).is_ok());
}

#[test]
fn the_door_of_probes_has_a_port_of_its_own() {
    assert_eq!(load("").unwrap().listen.health, None);
    let open = load("listen: {health: '0.0.0.0:3033'}\n").unwrap();
    assert_eq!(open.listen.health, Some("0.0.0.0:3033".parse().unwrap()));
    assert_eq!(places("listen:\n  health: 3033\n"), ["2:11 listen.health"]);
    for taken in ["proxy: '127.0.0.1:3033'", "data_plane: '127.0.0.1:3033'"] {
        let problem = load(&format!("listen: {{health: '0.0.0.0:3033', {taken}}}\n")).unwrap_err().to_string();
        assert!(problem.contains("listen.health") && problem.contains("has this port"), "{problem}");
    }
    let tls = "{certificate: a.crt, key: a.key, client_ca: ca.crt}, peers: [{id: 'spiffe://a/b'}]";
    let taken = format!("listen: {{health: '0.0.0.0:3033', data_plane: {{address: '127.0.0.1:3033', tls: {tls}}}}}\n");
    assert!(load(&taken).unwrap_err().to_string().contains("has this port"));
    assert!(load("listen: {health: '127.0.0.1:0', data_plane: '127.0.0.1:0'}\n").is_ok());
}

#[test]
fn agents_never_get_a_socket_of_the_brokers() {
    let socket = |path: &str| load(&format!("listen: {{proxy_socket: 'unix:{path}'}}\n"));
    assert_eq!(socket("/run/a.sock").unwrap().listen.proxy_socket.as_deref(), Some(Path::new("/run/a.sock")));
    assert_eq!(load("").unwrap().listen.proxy_socket, None);
    for path in ["control.sock", "./control.sock", "data-plane.sock", "/home/op/.attache/default/data-plane.sock"] {
        let errors = socket(path).unwrap_err();
        assert!(errors.to_string().contains("the broker listens there itself"), "{path}: {errors}");
    }
}

#[test]
fn a_proxy_that_other_machines_reach_is_warned_of_unless_every_session_is_bound() {
    let cautions = |proxy: &str, sessions: &str| {
        let text = format!("{UNIFI}listen: {{proxy: '{proxy}'}}\nsessions: [{sessions}]\n");
        load(&text).unwrap().cautions()
    };
    let open = "{name: a, credentials: [unifi]}";
    let bound = "{name: b, credentials: [unifi], bind: {source: 10.0.0.0/8}}";
    let token = "{name: c, credentials: [unifi], bind: {session_token: required}}";
    for proxy in ["0.0.0.0:3030", "10.1.2.3:3030", "[::]:3030"] {
        let told = cautions(proxy, &format!("{open}, {bound}, {token}")).join("\n");
        assert!(told.contains(proxy) && told.contains("a placeholder of a, c is all"), "{told}");
        assert_eq!(cautions(proxy, bound), <[String; 0]>::default(), "{proxy}");
        assert!(cautions(proxy, "").join("").contains("of any session"), "operators may make some");
    }
    for proxy in ["127.0.0.1:3030", "[::1]:3030", "[::ffff:127.0.0.1]:3030"] {
        assert_eq!(cautions(proxy, open), <[String; 0]>::default(), "{proxy}");
    }
}

#[test]
fn a_session_that_keeps_permissions_of_the_organisation_is_warned_of() {
    let cautions = |permissions: &str, scope: &str| {
        let text = format!(
            "sources: {{github_app: {{app_id: 1, installation_id: 2, private_key: {{file: k.pem}}}}}}\ncredentials: {{g: \
             {{preset: github, source: {{github_app: {{permissions: {{{permissions}}}}}}}}}}}\nsessions: [{{name: s, \
             credentials: [g], scopes: {{g: {{{scope}}}}}}}]\n"
        );
        load(&text).unwrap().cautions().join("\n")
    };
    let wide = "contents: read, members: read, organization_hooks: write";
    for scope in ["repositories: [a]", "repository_ids: [1]"] {
        let told = cautions(wide, scope);
        assert!(told.contains("sessions.s") && told.contains("members, organization_hooks of"), "{told}");
        assert_eq!(cautions("contents: read", scope), "");
    }
    assert_eq!(cautions(wide, "repositories: [a], permissions: {contents: read}"), "");
    assert_eq!(cautions(wide, ""), "", "it says nothing of repositories");
}

#[test]
fn a_socket_whose_path_is_too_long_is_an_error() {
    // Two bytes too long for `data-plane.sock`, short enough for `control.sock`.
    let dir = format!("/{}", "s".repeat(109 - "//default/data-plane.sock".len()));
    let errors = load(&format!("state_dir: {dir}\n")).unwrap_err();
    assert_eq!(errors.0.iter().map(|error| error.path.as_str()).collect::<Vec<_>>(), ["listen.data_plane"]);
    assert!(errors.to_string().contains("choose a shorter state_dir"), "{errors}");
    assert!(load(&format!("state_dir: {}\n", &dir[..dir.len() - 2])).is_ok());
}

#[test]
fn all_errors_are_reported_at_once_with_their_places() {
    let text = "
instance: No
listen: {proxy: 127.0.0.1, data_plane: 0.0.0.0:3031}
credentials:
  a:
    preset: githib
  b:
    source: {file: ../x}
    inject: {header: Host}
    destinations: [{host: API.github.com, prot: 1}]
    placeholder: {prefix: x, length: 20}
    missing_placeholder: inject
  c:
    source: {env: C}
    inject: bearer
    destinations: [{host: h, plaintext: true, spki_sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=}, {host: h, port: 80, plaintext: true}]
sessions:
  - {name: s, credentials: [nobody, c, c]}
  - {name: s, ttl: 0s}
  - {nme: t}
limits: {stale_after: 1h}
";
    assert_eq!(
        places(text),
        [
            "2:11 instance",
            "3:17 listen.proxy",
            "3:40 listen.data_plane",
            "6:13 credentials.a.preset",
            "8:20 credentials.b.source.file",
            "9:13 credentials.b.inject",
            "10:27 credentials.b.destinations[0].host",
            "10:43 credentials.b.destinations[0].prot",
            "11:5 credentials.b.placeholder",
            "16:41 credentials.c.destinations[0].plaintext",
            "16:107 credentials.c.destinations[1]",
            "18:29 sessions[0].credentials[0]",
            "18:40 sessions[0].credentials[2]",
            "19:12 sessions[1].name",
            "19:20 sessions[1].ttl",
            "20:5 sessions[2]",
            "20:6 sessions[2].nme",
            "21:23 limits.stale_after",
        ]
    );
}

#[test]
fn injection_without_a_placeholder_needs_a_session_that_other_evidence_names() {
    let text = |session: &str, more: &str| {
        format!(
            "credentials:\n  a:\n    source: {{env: A}}\n    inject: bearer\n    missing_placeholder: inject\n    \
             destinations: [{{host: h}}]\nsessions:\n  - {{name: other}}\n{session}{more}"
        )
    };
    let session = |bind: &str| format!("  - {{name: s, credentials: [a], bind: {bind}}}\n");
    for bind in ["{}", "{source: 10.0.0.0/8}"] {
        assert_eq!(places(&text(&session(bind), "")), ["5:26 credentials.a.missing_placeholder"], "{bind}");
    }
    assert_eq!(places(&text("", "")), ["5:26 credentials.a.missing_placeholder"], "nobody may use it");
    let other = text("  - {name: x, bind: {listener: inner}}\n", "");
    assert_eq!(places(&other), ["5:26 credentials.a.missing_placeholder"], "whoever requires it may not use it");
    for bind in ["{peer: 'spiffe://a/b'}", "{listener: inner}", "{session_token: required}"] {
        assert!(load(&text(&session(bind), "")).is_ok(), "{bind}");
    }
    let rule = "oidc: [{name: p, issuer: i, audience: a, jwks: f, algorithms: [ES256], \
                rules: [{claims: {sub: x}, session: s}]}]\n";
    let config = load(&text(&session("{}"), rule)).unwrap();
    assert_eq!(config.policy().evidence.identity_headers, ["x-attache-identity"]);
    let why = load(&text(&session("{}"), "")).unwrap_err().to_string();
    assert!(why.contains("`inject` needs other evidence that a session requires"), "{why}");
    // A session that could not be read may have been the one.
    assert_eq!(places(&text(&session("{pear: x}"), "")), ["9:40 sessions[1].bind.pear"]);
}

#[test]
fn a_provider_is_believed_only_as_far_as_its_keys_are_safe_and_its_rules_say_something() {
    let provider = |changes: &str| {
        format!(
            "sessions: [{{name: s}}]\noidc:\n  - {{name: p, issuer: 'https://i', audience: a, algorithms: [ES256], \
             rules: [{{claims: {{sub: x}}, session: s}}], jwks: 'https://i/keys'}}\n  - {{name: q, {changes}}}\n"
        )
    };
    let rules = "rules: [{claims: {sub: x}, session: s}]";
    let whole = format!("issuer: 'https://j', audience: a, algorithms: [ES256, RS256], {rules}");
    for good in [
        "jwks: 'https://j/keys'",
        "jwks: keys.json",
        "jwks: 'http://127.0.0.1:1/k', plaintext: true",
        "jwks: 'http://[::1]:1/k', plaintext: true",
        "jwks: k, header: x-my-identity",
    ] {
        let config = load(&provider(&format!("{whole}, {good}"))).unwrap_or_else(|errors| panic!("{good}: {errors}"));
        assert_eq!(config.oidc.len(), 2);
    }
    for bad in [
        "http://127.0.0.1:1/k",
        "http://j/k",
        "ftp://j/k",
        "https://u:p@j/k",
        "https://j/k#x",
        "http://127.0.0.1.evil.test/k",
    ] {
        assert_eq!(
            places(&provider(&format!("{whole}, jwks: '{bad}'"))).concat().split(' ').next_back(),
            Some("oidc[1].jwks"),
            "{bad}"
        );
    }
    let at = |changes: &str| {
        places(&provider(&format!("jwks: k, {changes}")))
            .iter()
            .map(|place| place.split(' ').next_back().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let with = |text: &str, other: &str| whole.replace(text, other);
    assert_eq!(at(&with("https://j", "https://i")), ["oidc[1].issuer"], "whose tokens are they?");
    assert_eq!(at(&with("RS256", "HS256")), ["oidc[1].algorithms[1]"]);
    assert_eq!(at(&with("RS256", "none")), ["oidc[1].algorithms[1]"]);
    assert_eq!(at(&with("[ES256, RS256]", "[]")), ["oidc[1].algorithms"]);
    assert_eq!(at(&with(rules, "rules: []")), ["oidc[1].rules"]);
    assert_eq!(at(&with("{sub: x}", "{}")), ["oidc[1].rules[0].claims"]);
    assert_eq!(at(&with("{sub: x}", "{sub: '*'}")), ["oidc[1].rules[0].claims.sub"]);
    assert_eq!(at(&with("session: s", "session: t")), ["oidc[1].rules[0].session"]);
    for header in ["authorization", "cookie", "X-Identity", "x-api-key", "x-attache-session", "host", "x-forwarded-for"]
    {
        assert_eq!(at(&format!("{whole}, header: {header}")), ["oidc[1].header"], "{header}");
    }
}

#[test]
fn an_error_reads_like_a_compilers_and_quotes_no_secret() {
    let errors = load("credentials:\n  a: {preset: github, source: ghp_realsecret, key: sk-realsecret}\n").unwrap_err();
    let text = errors.to_string();
    assert!(text.contains("attache.yaml:2:31: credentials.a.source: expected"), "{text}");
    assert!(text.contains("attache.yaml:2:47: credentials.a.key: unknown field"), "{text}");
    assert!(!text.contains("realsecret"), "{text}");
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json[0]["line"], 2);
    assert_eq!(json[0]["path"], "credentials.a.source");
}

#[test]
fn a_destination_beside_a_preset_changes_or_adds() {
    let text = "
credentials:
  openai:
    preset: openai
    destinations:
      - {host: api.openai.com, upstream: {address: 127.0.0.1:9443, ca_file: ca.pem}}
      - {host: llm.corp}
";
    let config = load(text).unwrap();
    let [preset, added] = &config.credentials[0].destinations[..] else { panic!() };
    let upstream = preset.upstream.as_ref().unwrap();
    assert_eq!(upstream.address.as_deref(), Some("127.0.0.1:9443"));
    assert!(upstream.ca_file.as_ref().unwrap().is_absolute());
    assert!(!preset.access.reads.is_empty(), "what the change does not name stays");
    assert_eq!(added.injection, Injection::Bearer);
    assert!(added.access.reads.is_empty());
}

#[test]
fn onepassword_is_asked_between_the_environment_and_files() {
    let text = |enabled: bool, order: &str| {
        format!(
            "sources:\n{order}  onepassword: {{enabled: {enabled}, references: {{github: 'op://Private/GitHub/token', \
             own: 'op://v/i/s/f'}}}}\ncredentials:\n  github: {{preset: github}}\n  own: {{inject: bearer, \
             destinations: [{{host: h}}]}}\n"
        )
    };
    let item = |reference: &str| {
        Lookup::OnePassword(OnePassword {
            reference: reference.into(),
            op: "op".into(),
            connect: None,
            refresh: Duration::from_secs(600),
        })
    };
    let config = load(&text(true, "")).unwrap();
    let [github, own] = &config.credentials[..] else { panic!("{config:?}") };
    let file = Lookup::File("/home/op/.attache/default/secrets/github_token".into());
    assert_eq!(github.lookup, [Lookup::Env("GITHUB_TOKEN".into()), item("op://Private/GitHub/token"), file.clone()]);
    assert_eq!(own.lookup, [item("op://v/i/s/f")]);
    let config = load(&text(true, "  order: [onepassword, env]\n")).unwrap();
    assert_eq!(config.credentials[0].lookup, [item("op://Private/GitHub/token"), Lookup::Env("GITHUB_TOKEN".into())]);
    assert_eq!(places(&text(false, "")), ["5:3 credentials.own"], "without it there is no source");
    for (reference, why) in [
        ("github: 'op://Private/GitHub'", "expected a secret reference, e.g. op://Private/GitHub/token"),
        ("github: '--help'", "expected a secret reference"),
        ("github: 'op://a//c'", "expected a secret reference"),
        ("other: 'op://a/b/c'", "no credential has this name"),
    ] {
        let text = format!(
            "sources: {{onepassword: {{enabled: true, references: {{{reference}}}}}}}\ncredentials: {{github: {{preset: github}}}}\n"
        );
        let said = load(&text).unwrap_err().to_string();
        assert!(said.contains(why) && said.contains("sources.onepassword.references."), "{said}");
    }
}

#[test]
fn a_preset_says_what_it_needs_of_the_config() {
    let one =
        |credential: &str| load(&format!("credentials:\n  a: {credential}\n")).map_err(|errors| errors.to_string());
    for (credential, why) in [
        ("{preset: grafana}", "at which host? This preset names none: add `destinations: [{host: HOST}]`"),
        ("{preset: docker, destinations: [{host: h}]}", "as which user? Add `inject: {basic: USER}`"),
        ("{preset: talos}", "by a client certificate alone"),
        ("{preset: codex, with: [{header: Cookie, value: a}]}", "this header carries credentials; use `inject`"),
        (
            "{preset: openai, agent_env: {A: {gateway: {host: other}}}}",
            "none of the credential's destinations has this host",
        ),
    ] {
        let said = one(credential).unwrap_err();
        assert!(said.contains(why) && said.lines().count() == 1, "{credential}: {said}");
    }
    let grafana = one("{preset: grafana, destinations: [{host: one.test}, {host: two.test, port: 3000}]}").unwrap();
    let [first, second] = &grafana.credentials[0].destinations[..] else { panic!("{grafana:?}") };
    assert_eq!((&first.injection, &first.access), (&Injection::Bearer, &second.access));
    assert_eq!(first.access.writes.len(), 6);
    let url = AgentValue::GatewayUrl { host: None, route_prefix: "/one.test".into(), suffix: String::new() };
    assert!(grafana.credentials[0].agent_env.contains(&AgentEnv { name: "GRAFANA_URL".into(), value: url }));
    let git = one("{preset: gitlab-git, destinations: [{host: git.test, basic_challenge: false}]}").unwrap();
    assert!(!git.credentials[0].destinations[0].basic_challenge);
}

#[test]
fn what_stands_nearer_goes_first() {
    let text = "
credentials:
  a:
    source: {env: A}
    inject: bearer
    access: {reads: [{method: POST, path: /common}]}
    with: [{header: X-One, value: common}, {header: X-Two, value: common}]
    destinations:
      - {host: one.test}
      - {host: two.test, inject: token, access: {}, with: [{header: x-one, value: own}]}
";
    let config = load(text).unwrap();
    let [one, two] = &config.credentials[0].destinations[..] else { panic!("{config:?}") };
    let with = |destination: &Destination| -> Vec<String> {
        destination.with.iter().map(|companion| format!("{}={}", companion.header, companion.value)).collect()
    };
    assert_eq!((&one.injection, one.access.reads.len()), (&Injection::Bearer, 1));
    assert_eq!((&two.injection, two.access.reads.len()), (&Injection::Token, 0));
    assert_eq!(with(one), ["X-One=common", "X-Two=common"]);
    assert_eq!(with(two), ["x-one=own", "X-Two=common"]);
}

#[test]
fn places_of_credentials_add_up() {
    let text = |strip: &str, rest: &str| {
        format!(
            "credentials:\n  a:\n    preset: gemini\n    strip: {{headers: [X-Common]}}\n    destinations:\n      \
             - host: generativelanguage.googleapis.com\n        strip: {strip}\n{rest}\n"
        )
    };
    let good = "{headers: [x-own, X-COMMON], query: [token]}";
    let config = load(&text(good, "      - host: two.test")).unwrap();
    let spec = |headers: &[&str], query: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        StripSpec { headers: owned(headers), query: owned(query) }
    };
    let [one, two] = &config.credentials[0].destinations[..] else { panic!("{config:?}") };
    assert_eq!(one.strip, spec(&["x-common", "x-own"], &["key", "token"]));
    assert_eq!(two.strip, spec(&["x-common"], &[]));

    let other = "  b: {source: {env: B}, inject: bearer, destinations: [{host: two.test, strip: {query: [sig]}}]}";
    let policy = load(&text(good, &format!("      - host: two.test\n{other}"))).unwrap().policy();
    let two = policy.destinations.iter().find(|destination| destination.id == "two.test:443").unwrap();
    assert_eq!(two.strip, spec(&["x-common"], &["sig"]));

    let at = "credentials.a.destinations[0]";
    assert_eq!(places(&text("{headers: [host]}", "")), [format!("7:9 {at}.strip")]);
    assert_eq!(places(&text("{query: ['a=b']}", "")), [format!("7:9 {at}.strip")]);
    let with = "        with: [{header: X-Own, value: a, merge: true}]";
    assert_eq!(places(&text(good, with)), [format!("8:9 {at}.with")]);
}

#[test]
fn a_rule_on_a_writes_body_is_refused_where_it_stands() {
    let rule = "{method: POST, path: /graphql, body: {json: {member: operation, any_of: [read]}}}";
    let access = |list| {
        format!(
            "credentials:\n  a:\n    source: {{env: A}}\n    inject: bearer\n    destinations:\n      - host: h\n        \
             access:\n          {list}:\n            - {{method: PUT, path: /x}}\n            - {rule}\n"
        )
    };
    assert!(load(&access("reads")).is_ok());
    assert_eq!(places(&access("writes")), ["10:46 credentials.a.destinations[0].access.writes[1].body"]);
    let said = load(&access("writes")).unwrap_err().to_string();
    assert!(said.ends_with("only `reads` have body rules"), "{said}");
}

#[test]
fn one_destination_is_reached_in_one_way() {
    let credential = |name: &str, rest: &str| {
        format!("  {name}: {{source: {{env: A}}, inject: bearer, destinations: [{{host: h, port: 1{rest}}}]}}\n")
    };
    let both = |rest| format!("credentials:\n{}{}", credential("a", ""), credential("b", rest));
    assert!(load(&both("")).is_ok());
    assert_eq!(places(&both(", plaintext: true")), ["3:3 credentials.b"]);
    assert_eq!(places(&both(", upstream: {address: 127.0.0.1:1}")), ["3:3 credentials.b"]);
    assert_eq!(places(&both(", private: true")), ["3:3 credentials.b"]);
}

#[test]
fn hosts_that_are_passed_through_are_names_that_no_credential_is_bound_to() {
    let text = |hosts: &str| format!("{UNIFI}hosts:\n{hosts}\n");
    let good = "
  - {host: pinned.test, tls: passthrough, private: true}
  - {host: pinned.test, port: 8443, tls: passthrough}
  - {host: a.test, tls: passthrough}
  - {host: unifi.lan, tls: passthrough}";
    let config = load(&text(good)).unwrap();
    assert_eq!(config.policy().passthrough, ["a.test:443", "pinned.test:443", "pinned.test:8443", "unifi.lan:443"]);
    assert_eq!(config.hosts.iter().filter(|host| host.private).count(), 1);
    assert_eq!(load(UNIFI).unwrap().policy().passthrough, <[String; 0]>::default());
    for (host, place, says) in [
        ("{host: unifi.lan, port: 8443, tls: passthrough}", "", "credential `unifi` is bound to this host and port"),
        ("{host: 10.0.0.1, tls: passthrough}", ".host", "a TLS handshake names no address"),
        ("{host: '[::1]', tls: passthrough}", ".host", "a TLS handshake names no address"),
        ("{host: '*.test', tls: passthrough}", ".host", "`*` is refused here; name each host"),
        ("{host: '*', tls: passthrough}", ".host", "`*` is refused here"),
        ("{host: A.test, tls: passthrough}", ".host", "write the host in lower case"),
        ("{host: 0x7f.1, tls: passthrough}", ".host", "an address is written in its canonical form"),
        ("{host: b.test}", "", "`tls` is missing"),
        ("{host: b.test, tls: intercept}", ".tls", "expected `passthrough`"),
        ("{host: b.test, tls: passthrough, port: 0}", ".port", "expected"),
        ("{host: a.test, tls: passthrough}", "", "stands here twice"),
    ] {
        let text = text(&format!("  - {{host: a.test, tls: passthrough}}\n  - {host}"));
        let errors = load(&text).unwrap_err().0;
        let [error] = &errors[..] else { panic!("{host}: {errors:?}") };
        assert_eq!(error.path, format!("hosts[1]{place}"), "{host}");
        assert_eq!(error.place.unwrap().line, 11, "{host}");
        assert!(error.to_string().contains(says), "{host}: {error}");
    }
    // What cannot be read moves no other entry to its place.
    let both = "  - {host: a.test, tls: no}\n  - {host: 127.0.0.1, tls: passthrough}";
    assert_eq!(places(&text(both)), ["10:25 hosts[0].tls", "11:12 hosts[1].host"]);
}

#[test]
fn names_are_asked_of_the_servers_that_the_config_names() {
    let servers = |text: &str| load(text).map(|config| config.dns_servers);
    let two: [SocketAddr; 2] = ["127.0.0.1:5354".parse().unwrap(), "[::1]:53".parse().unwrap()];
    assert_eq!(servers("dns: {servers: ['127.0.0.1:5354', '[::1]:53']}\n").unwrap(), two);
    assert_eq!(servers("").unwrap(), <[SocketAddr; 0]>::default());
    assert!(servers("dns: {servers: [127.0.0.1]}\n").unwrap_err().to_string().contains("IP:PORT of a DNS server"));
}

#[test]
fn a_session_does_not_export_one_variable_twice() {
    let text = "credentials: {a: {preset: github}, b: {preset: github}}\nsessions: [{name: s, credentials: [a, b]}]\n";
    let errors = load(text).unwrap_err().to_string();
    assert!(errors.contains("both export GITHUB_TOKEN"), "{errors}");
    let own = text.replace("{preset: github}}", "{preset: github, agent_env: {B_TOKEN: placeholder}}}");
    assert!(load(&own).is_ok());
}

#[test]
fn a_config_that_anybody_can_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attache.yaml");
    fs::write(&file, UNIFI).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let errors = Config::load(Some(&file), &Overrides::default(), &home).unwrap_err();
    assert!(matches!(errors.0[0].problem, Problem::WritableByAll));
    let missing = Config::load(Some(&dir.path().join("none")), &Overrides::default(), &home).unwrap_err();
    assert!(matches!(missing.0[0].problem, Problem::Unreadable(_)));
}

#[test]
fn without_a_file_the_presets_at_hand_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("state/default/secrets");
    fs::create_dir_all(&secrets).unwrap();
    fs::write(secrets.join("anthropic_api_key"), "x").unwrap();
    let overrides = Overrides { state_dir: Some(dir.path().join("state")), ..Overrides::default() };
    let env = |name: &str| match name {
        // Of npm nobody has said where it is.
        "GITHUB_TOKEN" | "CLAUDE_CODE_OAUTH_TOKEN" | "NPM_TOKEN" => Some("x".to_owned()),
        "OPENAI_API_KEY" => Some(String::new()),
        _ => None,
    };
    let config = Config::load(None, &overrides, &env).unwrap();
    let names: Vec<_> = config.credentials.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["anthropic", "anthropic-oauth", "github"]);
    // Two of them have one base URL, which is no contradiction.
    assert_eq!(config.sessions[0].credentials.len(), 3);
}

#[test]
fn the_command_line_goes_before_the_file() {
    let overrides =
        Overrides { instance: Some(Name::parse("other").unwrap()), state_dir: Some("/var/lib/attache".into()) };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attache.yaml");
    fs::write(&file, "instance: one\nstate_dir: here\n").unwrap();
    let load = |overrides| Config::load(Some(&file), overrides, &|_| None).unwrap().state_dir;
    assert_eq!(load(&overrides), Path::new("/var/lib/attache/other"));
    assert_eq!(load(&Overrides::default()), dir.path().join("here/one"));
}
