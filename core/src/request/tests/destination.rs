//! A credential leaves only to its own place: one spelling of each host, one path, one method.

use crate::fixture::{PLACEHOLDER, SECRET};
use crate::fixture::{Request, accepted, compiled, destination, get, granted, header, request, test};
use crate::policy::Unmatched;
use crate::refusal::Reason;
use crate::request::Way;

/// The destination's index and the path there, or why there is none.
fn goes(request: &Request) -> Result<(usize, String), Reason> {
    let policy = compiled(Unmatched::Deny);
    let snapshot = request.clone().bearer(PLACEHOLDER).read(&policy);
    let asked = crate::request::identify(&snapshot, &policy)?;
    let path = String::from_utf8_lossy(asked.path.of(snapshot.bytes())).into_owned();
    match asked.way {
        Way::Managed(index) => Ok((index, path)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_canonical_authority_names_its_destination() {
    for (authority, index) in [
        ("api.github.com", destination::API),
        ("api.github.com:443", destination::API),
        ("API.GitHub.com", destination::API),
        ("API.GITHUB.COM:443", destination::API),
        ("github.com", destination::GIT),
        ("unifi.lan:8443", destination::UNIFI),
        ("192.168.1.1:8443", destination::DEVICE),
        ("[fd00::1]:8443", destination::DEVICE),
        ("[FD00::1]:8443", destination::DEVICE),
    ] {
        assert_eq!(goes(&get(authority, "/x")), Ok((index, "/x".into())), "{authority}");
    }
}

#[test]
fn a_route_prefix_names_its_destination_and_is_cut_off() {
    for (target, found) in [
        ("/github/user?a=/b", Ok((destination::API, "/user"))),
        ("/github/", Ok((destination::API, "/"))),
        ("/git/o/r/info/refs", Ok((destination::GIT, "/o/r/info/refs"))),
        ("/github", Err(Reason::HostNotAllowed)),
        ("/github?x=/", Err(Reason::HostNotAllowed)),
        ("/githubx/user", Err(Reason::HostNotAllowed)),
        ("/GitHub/user", Err(Reason::HostNotAllowed)),
        ("/x/github/user", Err(Reason::HostNotAllowed)),
        ("/%67ithub/user", Err(Reason::HostNotAllowed)),
        ("/", Err(Reason::HostNotAllowed)),
    ] {
        let found = found.map(|(index, path)| (index, path.to_owned()));
        assert_eq!(goes(&get("127.0.0.1:3030", target)), found, "{target}");
    }
}

#[test]
fn an_authority_goes_before_a_route_prefix() {
    // Otherwise a path could redirect the credential of one destination's cluster to another.
    assert_eq!(goes(&get("api.github.com", "/maps/x")), Ok((destination::API, "/maps/x".into())));
    assert_eq!(goes(&get("API.github.com:443", "/maps/x")), Ok((destination::API, "/maps/x".into())));
}

#[test]
fn an_odd_authority_is_refused_even_under_a_route_prefix() {
    for authority in [
        "",
        ":443",
        " ",
        "api.github.com@evil.example",
        "evil.example@api.github.com",
        "user:password@api.github.com",
        "api.github.com,evil.example",
        "api.github.com evil.example",
        "api.github.com:443:80",
        "api.github.com:",
        "api.github.com:0",
        "api.github.com:+443",
        "api.github.com:0443",
        "api.github.com:65536",
        "api.github.com:https",
        "api.github.com.",
        "api.github.com.:443",
        ".api.github.com",
        "api..github.com",
        "-api.github.com",
        "*.github.com",
        "api%2egithub.com",
        "api.github.com%00",
        "api.github.com\0.evil.example",
        "api.github.com/evil",
        "api.github.com?x",
        "api.github.com#x",
        "https://api.github.com",
        "api\u{3002}github\u{3002}com",
        "\u{ff41}pi.github.com",
        "api.g\u{131}thub.com",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "127.1",
        "127.0.1",
        "127.0.0.01",
        "127.0.0.1.",
        "256.0.0.1",
        "1.2.3.4.5",
        "::1",
        "[::1",
        "::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::01]",
        "[::1%25lo]",
        "[::1%lo]",
        "[127.0.0.1]",
        "[api.github.com]",
        "[::1]x:80",
    ] {
        assert_eq!(goes(&get(authority, "/github/user")), Err(Reason::AuthorityMalformed), "{authority:?}");
    }
    assert_eq!(goes(&get(b"\xff\xfe", "/github/user")), Err(Reason::AuthorityMalformed));
    assert_eq!(goes(&get("a".repeat(64), "/github/user")), Err(Reason::AuthorityMalformed));
    assert_eq!(goes(&get(["a"; 128].join("."), "/github/user")), Err(Reason::AuthorityMalformed));
}

#[test]
fn what_looks_like_a_host_is_not_that_host() {
    for authority in [
        "api.github.com.evil.example",
        "evilapi.github.com",
        "x.api.github.com",
        "evilgithub.com",
        "github.com.evil.example",
        "com",
        "api-github.com",
        "xn--pi-7ka.github.com",
        "api.github.com:80",
        "api.github.com:8443",
        "unifi.lan",
        "unifi.lan:443",
        // An address never matches a name rule, whatever the name resolves to.
        "192.168.1.1",
        "140.82.121.6",
        "[::ffff:192.168.1.1]:8443",
        "[::1]",
        "localhost",
        "127.0.0.1:9901",
    ] {
        assert_eq!(goes(&get(authority, "/user")), Err(Reason::HostNotAllowed), "{authority}");
    }
}

#[test]
fn a_header_that_names_another_path_is_refused() {
    for name in ["x-original-url", "x-rewrite-url"] {
        assert_eq!(goes(&get("github.com", "/user").with(name, "/admin")), Err(Reason::PathMalformed), "{name}");
    }
}

#[test]
fn headers_about_the_way_here_are_not_believed() {
    let claims = [
        ("x-forwarded-host", "api.github.com"),
        ("x-forwarded-proto", "https"),
        ("x-envoy-original-dst-host", "10.0.0.1:80"),
        ("x-envoy-original-path", "/github/user"),
        ("forwarded", "host=api.github.com;proto=https"),
        (":scheme", "https"),
        ("host", "api.github.com"),
    ];
    for (name, value) in claims {
        let evil = get("evil.example", "/user").with(name, value);
        assert_eq!(goes(&evil), Err(Reason::HostNotAllowed), "{name}");
        let good = get("github.com", "/user").with(name, value);
        assert_eq!(goes(&good), Ok((destination::GIT, "/user".into())), "{name}");
    }
}

#[test]
fn a_path_that_reads_in_two_ways_is_refused() {
    for target in [
        "",
        "*",
        "user",
        "//evil.example/user",
        "http://evil.example/user",
        "/a/../user",
        "/a/%2e%2E/user",
        "/a/..;x/user",
        "/a/..%3bx/user",
        "/a/%252e%252e/user",
        "/a/%25%32%65%25%32%65/user",
        "/a/%25%32e/user",
        "/a%2fuser",
        "/a\\user",
        "/a%00",
        "/a%0d%0ax:%20y",
        "/a b",
        "/a#b",
        "/a?b#c",
        "/a?b c",
        "/\u{e9}",
    ] {
        assert_eq!(goes(&get("api.github.com", target)), Err(Reason::PathMalformed), "{target:?}");
    }
    for target in ["/100%25", "/100%25%20off", "/a%25z", "/a%20b", "/.well-known/x", "/a;v=1/b"] {
        assert_eq!(goes(&get("api.github.com", target)), Ok((destination::API, target.into())), "{target:?}");
    }
}

#[test]
fn methods_that_echo_tunnel_or_pretend_are_refused() {
    for method in ["TRACE", "CONNECT", "get", "Get", "", "GE T", "FOO1", "GET\0", &"A".repeat(5_000)] {
        let request = request(method, "api.github.com", "/user");
        assert_eq!(goes(&request), Err(Reason::MethodNotAllowed), "{method:.10}");
        let nobody = Request(request.0.clone()).identify(&compiled(Unmatched::Pass));
        assert_eq!(nobody.err(), Some(Reason::MethodNotAllowed), "{method:.10} without identity");
    }
}

#[test]
fn a_credential_goes_to_the_destinations_it_is_bound_to_and_to_no_other() {
    let policy = compiled(Unmatched::Deny);
    let request = get("unifi.lan:8443", "/proxy/network/x").bearer(PLACEHOLDER);
    let foreign = accepted(&policy, destination::UNIFI, granted("github", header("authorization", SECRET)));
    assert_eq!(request.upstream(&policy, &foreign).err(), Some(Reason::CredentialNotGranted));
    let own = accepted(&policy, destination::UNIFI, granted("unifi", header("x-unifi-key", SECRET)));
    assert!(request.upstream(&policy, &own).is_ok());
}

#[test]
fn a_credential_bound_to_a_path_goes_nowhere_else() {
    let policy = compiled(Unmatched::Deny);
    let grant = accepted(&policy, destination::UNIFI, granted("unifi", header("x-unifi-key", SECRET)));
    for (authority, target, allowed) in [
        ("unifi.lan:8443", "/proxy/network/", true),
        ("unifi.lan:8443", "/proxy/network/a?x=/", true),
        ("127.0.0.1:3030", "/unifi/proxy/network/a", true),
        ("unifi.lan:8443", "/status", true),
        ("unifi.lan:8443", "/status/a", true),
        ("unifi.lan:8443", "/statuses", false),
        ("unifi.lan:8443", "/proxy/network", false),
        ("unifi.lan:8443", "/proxy/networks/a", false),
        ("unifi.lan:8443", "/proxy", false),
        ("unifi.lan:8443", "/", false),
        ("unifi.lan:8443", "/x?/proxy/network/", false),
        ("unifi.lan:8443", "/PROXY/network/a", false),
        ("unifi.lan:8443", "/unifi/proxy/network/a", false),
        ("127.0.0.1:3030", "/unifi/a/proxy/network/", false),
    ] {
        let sent = get(authority, target).bearer(PLACEHOLDER).upstream(&policy, &grant);
        let expected = if allowed { None } else { Some(Reason::CredentialNotGranted) };
        assert_eq!(sent.err(), expected, "{authority}{target}");
    }
}

#[test]
fn git_is_challenged_however_it_spells_the_host() {
    let policy = compiled(Unmatched::Deny);
    for (authority, target, challenged) in [
        ("github.com", "/o/r", true),
        ("GitHub.com:443", "/o/r", true),
        ("localhost:3030", "/git/o/r", true),
        ("api.github.com", "/o/r", false),
        ("github.com.", "/o/r", false),
        ("github.com:22", "/o/r", false),
    ] {
        assert_eq!(policy.wants_challenge(authority.as_bytes(), target.as_bytes()), challenged, "{authority}{target}");
    }
}
