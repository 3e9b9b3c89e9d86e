//! Which session a token's claims name: the first rule that fits.

use crate::config::oidc::Rule;
use attache_core::names::Name;
use serde_json::{Map, Value};

/// The session of the first rule whose claims all fit.
pub(super) fn session<'a>(rules: &'a [Rule], claims: &Map<String, Value>) -> Option<&'a Name> {
    let fits = |rule: &&Rule| {
        let mut wanted = rule.claims.iter().peekable();
        // A rule that asks for nothing fits nothing.
        wanted.peek().is_some() && wanted.all(|(name, pattern)| says(claims, name, &pattern.0))
    };
    rules.iter().find(fits).map(|rule| &rule.session)
}

/// Whether a claim says what the pattern wants; of a list, any of its texts.
fn says(claims: &Map<String, Value>, name: &str, pattern: &str) -> bool {
    let claim = match name.strip_prefix('/') {
        None => claims.get(name),
        Some(pointer) => {
            let mut steps = pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
            let first = steps.next().and_then(|step| claims.get(&step));
            steps.try_fold(first, |value, step| Some(value?.get(&step))).flatten()
        }
    };
    let fits = |value: &Value| match value {
        Value::String(text) => matches(pattern, text),
        Value::Bool(_) | Value::Number(_) => matches(pattern, &value.to_string()),
        _ => false,
    };
    match claim {
        Some(Value::Array(values)) => values.iter().any(fits),
        Some(value) => fits(value),
        None => false,
    }
}

/// Whether a text fits a pattern, in which `*` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut left) = text.strip_prefix(head).and_then(|text| text.strip_suffix(tail)) else { return false };
    // Each part at its first place leaves the most for those that follow.
    middle.split('*').filter(|part| !part.is_empty()).all(|part| match left.split_once(part) {
        Some((_, rest)) => {
            left = rest;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::ClaimPattern;
    use serde_json::json;

    fn rule(claims: &[(&str, &str)], session: &str) -> Rule {
        let pattern = |text: &str| ClaimPattern::try_from(text.to_owned()).unwrap();
        let claims = claims.iter().map(|(name, text)| ((*name).to_owned(), pattern(text))).collect();
        Rule { claims, session: Name::parse(session).unwrap() }
    }

    #[test]
    fn a_star_stands_for_any_run_and_nothing_else_is_special() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("repo:org/*:ref:main", "repo:org/x:ref:main", true),
            ("repo:org/*:ref:main", "repo:org/x:ref:main2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            // Neither end is counted twice.
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("a**b", "ab", true),
            ("a.c", "abc", false),
            ("[a]?", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_whose_claims_all_fit_names_the_session() {
        let rules = [
            rule(&[("sub", "agent-*"), ("groups", "writers")], "writer"),
            rule(&[("sub", "agent-*")], "reader"),
            rule(&[("/kubernetes.io/namespace", "ci")], "ci"),
            rule(&[("/a~1b/0", "x")], "odd"),
            rule(&[("admin", "true"), ("level", "3")], "typed"),
            rule(&[], "nobody"),
        ];
        let named = |claims: Value| {
            let Value::Object(claims) = claims else { panic!() };
            session(&rules, &claims).map(|name| name.as_str())
        };
        assert_eq!(named(json!({"sub": "agent-1", "groups": ["readers", "writers"]})), Some("writer"));
        assert_eq!(named(json!({"sub": "agent-1", "groups": "writers"})), Some("writer"));
        assert_eq!(named(json!({"sub": "agent-1", "groups": {"writers": true}})), Some("reader"));
        assert_eq!(named(json!({"kubernetes.io": {"namespace": "ci"}})), Some("ci"));
        assert_eq!(named(json!({"/kubernetes.io/namespace": "ci"})), None, "a pointer is no name");
        assert_eq!(named(json!({"a/b": {"0": "x"}})), Some("odd"));
        assert_eq!(named(json!({"admin": true, "level": 3})), Some("typed"));
        assert_eq!(named(json!({"sub": ["xagent-1"]})), None);
        assert_eq!(named(json!({})), None, "a rule without claims fits nothing");
    }
}
