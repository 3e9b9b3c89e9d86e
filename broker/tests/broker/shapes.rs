//! Placeholders look like the real thing, so that tools take them, and stay what they are.

use crate::world::{World, until};
use attache_broker::config::presets;
use attache_core::placeholder::{Checksum, Shape, find};
use regex_lite::Regex;
use std::collections::BTreeSet;

/// What begins a fine-grained GitHub token: 22 characters that name nobody.
const FINE_GRAINED: &str = "github_pat_11AAAAAAA0000000000000_";
/// A Sentry organisation token says in base64 whose it is; this one, nobody's:
/// `{"iat":0,"url":"https://sentry.io","region_url":"https://us.sentry.io","org":"no-body"}`.
const SENTRY: &str = "sntrys_eyJpYXQiOjAsInVybCI6Imh0dHBzOi8vc2VudHJ5LmlvIiwicmVnaW9uX3VybCI6Imh0dHBzOi8vdXMuc2VudHJ5LmlvIiwib3JnIjoibm8tYm9keSJ9_";

/// The shapes that there are, and what clients, scanners and the vendors' own documents take for a token of theirs.
fn known() -> Vec<(Shape, &'static str)> {
    let openai = || Shape { middle: "T3BlbkFJ".into(), ..Shape::new("sk-", 51) };
    let anthropic = |prefix| Shape { suffix: "AA".into(), ..Shape::new(prefix, 108) };
    let summed = |prefix, length, checksum| Shape { checksum: Some(checksum), ..Shape::new(prefix, length) };
    vec![
        (summed("ghp_", 40, Checksum::Github), "^ghp_[A-Za-z0-9]{36}$"),
        (summed("gho_", 40, Checksum::Github), "^gho_[A-Za-z0-9]{36}$"),
        (summed("ghs_", 40, Checksum::Github), "^ghs_[A-Za-z0-9]{36}$"),
        (Shape::new(FINE_GRAINED, 93), "^github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}$"),
        (anthropic("sk-ant-api03-"), "^sk-ant-api03-[A-Za-z0-9_-]{93}AA$"),
        (anthropic("sk-ant-oat01-"), "^sk-ant-oat01-[A-Za-z0-9_-]{93}AA$"),
        (openai(), "^sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}$"),
        (
            Shape { middle: "T3BlbkFJ".into(), ..Shape::new("sk-proj-", 164) },
            "^sk-proj-[A-Za-z0-9_-]{74}T3BlbkFJ[A-Za-z0-9_-]{74}$",
        ),
        (summed("npm_", 40, Checksum::Github), "^npm_[A-Za-z0-9]{36}$"),
        (summed("glsa_", 46, Checksum::Grafana), "^glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}$"),
        (Shape::new(SENTRY, 167), "^sntrys_[A-Za-z0-9+/=]+_[A-Za-z0-9+/]{43}$"),
        (Shape::new("glpat-", 40), "^glpat-[A-Za-z0-9_-]{20,}$"),
        (Shape::new("xoxb-0000000000-0000000000-", 57), "^xoxb-[0-9]{10,13}-[0-9]{10,13}-[A-Za-z0-9]{24,}$"),
        (Shape::new("AIza", 39), "^AIza[A-Za-z0-9_-]{35}$"),
        // Theirs has 27 characters after the prefix, in which 128 random bits beside the marker have no room.
        (Shape::new("dckr_pat_", 40), "^dckr_pat_[A-Za-z0-9_-]{27,}$"),
        (Shape::new("sk-", 51), "^sk-[A-Za-z0-9]{48}$"),
        // Opaque: no client looks.
        (Shape::new("", 40), "^[A-Za-z0-9]{40}$"),
        (Shape::new("", 32), "^[A-Za-z0-9]{32}$"),
    ]
}

#[test]
fn a_placeholder_of_each_known_shape_is_taken_for_a_token() {
    for (shape, pattern) in known() {
        assert_eq!(shape.check(), Ok(()), "{shape:?}");
        let pattern = Regex::new(pattern).unwrap();
        let mut seen = BTreeSet::new();
        for session in 0..50 {
            let placeholder = shape.mint(&[7; 32], &format!("s-{session}"), "c");
            assert!(pattern.is_match(&placeholder), "{placeholder} is no {pattern}");
            assert!(find(placeholder.as_bytes()).eq([placeholder.as_bytes()]), "{placeholder} is not recognised whole");
            assert!(sums_up(&placeholder, shape.checksum), "{placeholder}");
            seen.insert(placeholder);
        }
        assert_eq!(seen.len(), 50);
    }
}

/// As GitHub's scanners and Grafana's `satokengen.Decode` check it.
fn sums_up(token: &str, checksum: Option<Checksum>) -> bool {
    const DIGITS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    match checksum {
        None => true,
        Some(Checksum::Github) => {
            let (random, end) = token[4..].split_at(30);
            let value = |digit| DIGITS.find(digit).unwrap() as u64;
            end.chars().fold(0, |sum, digit| sum * 62 + value(digit)) == u64::from(crc32(random))
        }
        Some(Checksum::Grafana) => {
            let (key, end) = token.rsplit_once('_').unwrap();
            end == format!("{:08x}", crc32(key).swap_bytes())
        }
    }
}

/// CRC-32 by its definition (ISO-HDLC), bit by bit: not with what is tested here.
fn crc32(text: &str) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !text.bytes().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Agents hold placeholders from before shapes had ends: they are worth what they were.
#[tokio::test]
async fn placeholders_from_before_a_shape_had_an_end_stay_good() {
    let mut world = World::new().await;
    let former = world.env("reviewer", "GITHUB_TOKEN").await;
    world.stop().await;
    world.config.credentials[0].placeholder.checksum = Some(Checksum::Github);
    world.start().await;
    let current = world.env("reviewer", "GITHUB_TOKEN").await;
    // The end alone is another: both are cut from the same random digits.
    assert_eq!(former[..34], current[..34]);
    assert_ne!(former, current);
    for placeholder in [&former, &current] {
        let granted = world.grant("api.a.test:443", Some(placeholder), None).await;
        assert_eq!(granted["granted"]["session"], "reviewer", "{placeholder}: {granted}");
    }
}

#[test]
fn every_preset_has_a_known_shape() {
    for name in presets::NAMES {
        let shape = presets::find(name).unwrap().placeholder.clone().unwrap();
        assert!(known().iter().any(|(known, _)| *known == shape), "{name}: {shape:?} has no row");
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
