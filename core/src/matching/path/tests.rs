use super::*;
use crate::fixture::test;

fn parts(target: &str) -> Result<(String, Option<String>), Ambiguous> {
    let text = |span: Span| String::from_utf8_lossy(span.of(target.as_bytes())).into_owned();
    Target::parse(target.as_bytes(), Span::new(0, target.len())).map(|t| (text(t.path), t.query.map(text)))
}

#[test]
fn plain_targets_split_at_the_first_question_mark() {
    for (target, path, query) in [
        ("/", "/", None),
        ("/a/b?c=/d?e", "/a/b", Some("c=/d?e")),
        ("/a/?", "/a/", Some("")),
        ("/a%20b/.well-known/..x/a;b=1", "/a%20b/.well-known/..x/a;b=1", None),
        ("/100%25", "/100%25", None),
        // UTF-8 of two, three and four bytes, and Latin-1.
        ("/caf%C3%A9/%E2%82%AC/%F0%9F%94%91/%E0%A4%95", "/caf%C3%A9/%E2%82%AC/%F0%9F%94%91/%E0%A4%95", None),
        ("/caf%E9/%C0%20la%C0/%E0b/%C1", "/caf%E9/%C0%20la%C0/%E0b/%C1", None),
        ("/100%25%20off/%25a%20", "/100%25%20off/%25a%20", None),
    ] {
        assert_eq!(parts(target), Ok((path.into(), query.map(str::to_owned))), "{target}");
    }
}

#[test]
fn ambiguous_targets_are_refused() {
    for target in [
        "",
        "a",
        "*",
        // Nothing in these stands out but for what stands beside it.
        "//",
        "/.",
        "//a",
        "/a//b",
        "/./a",
        "/a/..",
        "/a/%2e%2E/b",
        "/a/.%2e",
        "/a/..;/b",
        "/a/..%3bx/b",
        "/a/%2e.%3B/b",
        "/a/%3bx/b",
        "/a/;x/b",
        "/a\\b",
        "/a%2fb",
        "/a%5Cb",
        "/a%00",
        "/a%0d%0a",
        "/a%252e%252e/b",
        "/a/%25%32%65%25%32e/b",
        "/a/%252%65/b",
        "/a/%c0%ae%c0%ae/b",
        "/a/%C0%AE./b",
        "/a%c0%afb",
        "/a%c1%9cb",
        "/a/%c0./b",
        "/a/%c0%2e/b",
        "/a%e0%80%af",
        "/a%e0%9f%bf",
        "/a%f0%80%80%af",
        "/a%f8%80%80%80%af",
        "/a%fc%80%80%80%80%af",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%+1",
        "/a#b",
        "/a b",
        "http://x/",
        "/a\u{7f}",
        "/é",
    ] {
        assert_eq!(parts(target), Err(Ambiguous), "{target:?}");
    }
}

#[test]
fn prefixes_end_at_a_segment() {
    for (path, prefix, under) in [
        ("/a", "/a", true),
        ("/a/b", "/a", true),
        ("/ab", "/a", false),
        ("/a/b", "/a/", true),
        ("/a", "/a/", false),
        ("/anything", "/", true),
        ("/", "/", true),
    ] {
        assert_eq!(is_under(path.as_bytes(), prefix), under, "{path} under {prefix}");
    }
}

#[test]
fn patterns_match_whole_segments() {
    for (pattern, path, fits) in [
        ("/*/*/git-upload-pack", "/o/r.git/git-upload-pack", true),
        ("/*/*/git-upload-pack", "/o/git-upload-pack", false),
        ("/*/*/git-upload-pack", "/o/r/git-upload-pack/x", false),
        ("/v1/**", "/v1/a/b", true),
        ("/v1/**", "/v1", true),
        ("/v1/**", "/v10", false),
        ("/a/*", "/a/", false),
        ("/info/refs", "/%69nfo/ref%73", true),
        ("/%69nfo", "/info", true),
        ("/a+b", "/a%2Bb", true),
        ("/a+b", "/a%20b", false),
        ("/models/*:read", "/models/m-1:read", true),
        ("/models/*:read", "/models/m-1%3Aread", true),
        ("/models/*:read", "/models/:read", false),
        ("/models/*:read", "/models/m-1:write:read", false),
        ("/models/*:read", "/models/m-1:read;x", false),
        ("/models/*:read", "/models/m-1:Read", false),
    ] {
        assert_eq!(Pattern::parse(pattern).unwrap().matches(path.as_bytes()), fits, "{pattern} on {path}");
    }
    for bad in ["a", "/a*", "/**/a", "/../a", "/*a*", "/***"] {
        assert_eq!(Pattern::parse(bad), Err(PatternError), "{bad}");
    }
    let write = Pattern::parse("/models/*:write").unwrap();
    for path in ["/models/m:write", "/models/m:WRITE/", "/models/m:write;x", "/models/a:b%3awrite"] {
        assert!(write.resembles(path.as_bytes()), "{path}");
    }
    assert!(!write.resembles(b"/models/m:read"));
}
