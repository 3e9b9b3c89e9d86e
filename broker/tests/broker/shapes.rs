//! Placeholders look like the real thing, so that tools take them, and stay what they are.

use crate::world::{World, until};
use attache_broker::config::presets;
use attache_core::placeholder::{MARKER, Shape};
use regex_lite::Regex;
use std::collections::BTreeSet;

/// What begins a fine-grained GitHub token: 22 characters that name nobody.
const FINE_GRAINED: &str = "github_pat_11AAAAAAA0000000000000_";
/// A Sentry organisation token says in base64 whose it is; this one, nobody's:
/// `{"iat":0,"url":"https://sentry.io","region_url":"https://us.sentry.io","org":"no-body"}`.
const SENTRY: &str = "sntrys_eyJpYXQiOjAsInVybCI6Imh0dHBzOi8vc2VudHJ5LmlvIiwicmVnaW9uX3VybCI6Imh0dHBzOi8vdXMuc2VudHJ5LmlvIiwib3JnIjoibm8tYm9keSJ9_";

/// By prefix and length, what clients and the vendors' own documents take for a token of theirs.
const KNOWN: [(&str, usize, &str); 14] = [
    ("ghp_", 40, "^ghp_[A-Za-z0-9]{36}$"),
    ("gho_", 40, "^gho_[A-Za-z0-9]{36}$"),
    ("ghs_", 40, "^ghs_[A-Za-z0-9]{36}$"),
    (FINE_GRAINED, 93, "^github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}$"),
    ("sk-ant-api03-", 108, "^sk-ant-api03-[A-Za-z0-9_-]{95}$"),
    ("sk-ant-oat01-", 108, "^sk-ant-oat01-[A-Za-z0-9_-]{95}$"),
    ("sk-", 51, "^sk-[A-Za-z0-9]{48}$"),
    ("sk-proj-", 164, "^sk-proj-[A-Za-z0-9_-]{156}$"),
    ("npm_", 40, "^npm_[A-Za-z0-9]{36}$"),
    ("glsa_", 46, "^glsa_[A-Za-z0-9_]{41}$"),
    (SENTRY, 167, "^sntrys_[A-Za-z0-9+/=]+_[A-Za-z0-9+/]{43}$"),
    ("glpat-", 40, "^glpat-[A-Za-z0-9_-]{20,}$"),
    ("xoxb-0000000000-0000000000-", 57, "^xoxb-[0-9]{10,13}-[0-9]{10,13}-[A-Za-z0-9]{24,}$"),
    ("AIza", 39, "^AIza[A-Za-z0-9_-]{35}$"),
];

fn shape(prefix: &str, length: usize) -> Shape {
    Shape { prefix: prefix.into(), length }
}

#[test]
fn a_placeholder_of_each_known_shape_is_taken_for_a_token() {
    for (prefix, length, pattern) in KNOWN {
        let shape = shape(prefix, length);
        assert_eq!(shape.check(), Ok(()), "{prefix}");
        let pattern = Regex::new(pattern).unwrap();
        for session in 0..50 {
            let placeholder = shape.mint(&[7; 32], &format!("s-{session}"), "c");
            assert!(pattern.is_match(&placeholder), "{placeholder} is no {pattern}");
            assert!(placeholder.contains(MARKER), "{placeholder}");
        }
    }
}

#[test]
fn every_preset_has_a_known_shape() {
    for name in presets::NAMES {
        let shape = presets::find(name).unwrap().placeholder.clone().unwrap();
        let known = KNOWN.iter().any(|(prefix, length, _)| *prefix == shape.prefix && *length == shape.length);
        assert!(known, "{name}: {shape:?} has no row");
    }
}

#[tokio::test]
async fn placeholders_outlive_rotations_and_restarts() {
    let mut world = World::new().await;
    let mut seen = BTreeSet::from([world.env("reviewer", "GITHUB_TOKEN").await]);
    for (n, secret) in ["second-real-secret", "third-real-secret"].into_iter().enumerate() {
        world.write_secret("github", secret);
        until("the new secret is in use", async || {
            let granted = world.plain_grant().await["granted"].clone();
            granted["injections"][0]["value"] == format!("Bearer {secret}")
        })
        .await;
        seen.insert(world.env("reviewer", "GITHUB_TOKEN").await);
        world.restart().await;
        seen.insert(world.env("reviewer", "GITHUB_TOKEN").await);
        assert_eq!(seen.len(), 1, "rotation {n}: {seen:?}");
    }
}
