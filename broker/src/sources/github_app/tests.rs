//! What an answer means, and that nothing of it shows. Against a stand-in that keeps GitHub's contract:
//! tests/github_app.rs.

use super::answer::{Issued, failure, installation, is_busy, issued};
use super::client::Client;
use super::error::GitHubError;
use crate::config::handed::SecretAt;
use crate::config::{GitHubApp, TokenScope};
use crate::seal::Sealer;
use crate::sources::Trouble;
use crate::sources::handed::Handed;
use crate::sources::http::Reply;
use crate::sources::stand_in::{StandIn, says};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const SECRET: &str = "s3cret-in-an-answer";
/// 2026-01-31T12:00:00Z.
const NOW_MS: u64 = 1_769_860_800_000;

fn reply(status: u16, body: &str) -> Reply {
    Reply { status, body: Zeroizing::new(body.as_bytes().to_vec()), ..Reply::default() }
}

fn scope(json: &str) -> TokenScope {
    serde_json::from_str(json).unwrap()
}

fn given(reply: &Reply) -> Issued {
    issued(reply).ok().unwrap()
}

fn token(token: &str, more: &str) -> Reply {
    reply(201, &format!(r#"{{"token":"{token}","expires_at":"2026-01-31T13:00:00Z"{more}}}"#))
}

#[test]
fn a_token_of_any_length_is_taken_whole_and_lives_as_long_as_it_says() {
    for length in [1, 40, 300, 1_000, 64 * 1024] {
        let given = given(&token(&"t".repeat(length), ""));
        let valid = given.usable(&scope("{}"), NOW_MS).ok().unwrap();
        assert_eq!((given.token.expose().len(), valid.as_secs()), (length, 3600));
    }
    for (body, passes, words) in [
        (token(&"t".repeat(64 * 1024 + 1), ""), false, "does not answer as GitHub's API does"),
        (token("", ""), false, "does not answer as GitHub's API does"),
        (reply(201, "<html>"), false, "does not answer as GitHub's API does"),
        (reply(201, r#"{"token":"t"}"#), false, "does not answer as GitHub's API does"),
        (reply(201, r#"{"expires_at":"2026-01-31T13:00:00Z"}"#), false, "does not answer as GitHub's API does"),
        (reply(201, r#"{"token":"t","token":"u","expires_at":"2026-01-31T13:00:00Z"}"#), false, "does not answer"),
        (reply(201, r#"{"token":"t","expires_at":"soon"}"#), false, "does not answer as GitHub's API does"),
        (reply(201, r#"{"token":"t","expires_at":"2026-01-31T12:00:00Z"}"#), true, "its clock and this machine's"),
        (reply(200, r#"{"token":"t","expires_at":"2026-01-31T13:00:00Z"}"#), false, "does not answer"),
    ] {
        let error = issued(&body)
            .and_then(|issued| issued.usable(&scope("{}"), NOW_MS))
            .err()
            .unwrap_or_else(|| panic!("{words}"));
        assert!(error.to_string().contains(words) && error.passes() == passes, "{words}: {error}");
    }
}

#[test]
fn a_token_that_reaches_more_than_was_asked_for_is_refused() {
    let asked = r#"{"repositories":["one","Two"],"permissions":{"contents":"read","issues":"write"}}"#;
    let repository = |id: u64, name: &str| format!(r#"{{"id":{id},"name":"{name}","private":true}}"#);
    let within = |asked: &str, more: &str| given(&token("t", more)).usable(&scope(asked), NOW_MS);
    let chosen = r#","repository_selection":"selected""#;
    let two = format!(r#"{chosen},"repositories":[{},{}]"#, repository(1, "one"), repository(2, "two"));
    let permissions = r#","permissions":{"contents":"read","issues":"read","metadata":"read"}"#;
    assert!(within(asked, &format!("{two}{permissions}")).is_ok(), "less than was asked for is no more");
    assert!(within("{}", r#","repository_selection":"all","permissions":{"administration":"admin"}"#).is_ok());
    for more in [
        r#","permissions":{"contents":"write"}"#.to_owned(),
        r#","permissions":{"pages":"read"}"#.to_owned(),
        r#","permissions":{"metadata":"write"}"#.to_owned(),
        r#","permissions":{"contents":"everything"}"#.to_owned(),
        r#","repository_selection":"all""#.to_owned(),
        format!(r#","repositories":[{}]"#, repository(3, "three")),
    ] {
        assert!(matches!(within(asked, &more), Err(GitHubError::Wider(_))), "{more}");
    }
    for unsaid in [
        two.clone(),
        permissions.to_owned(),
        format!("{chosen}{permissions}"),
        format!(r#"{chosen}{permissions},"repositories":null"#),
        format!(r#","repositories":[{}]{permissions}"#, repository(1, "one")),
        format!(r#","repository_selection":"some","repositories":[{}]{permissions}"#, repository(1, "one")),
        String::new(),
    ] {
        assert!(matches!(within(asked, &unsaid), Err(GitHubError::Unsaid(_))), "{unsaid}");
    }
    assert!(within("{}", "").is_ok(), "who asked for all has what there is");
    let third = format!(r#"{chosen},"repositories":[{}]"#, repository(3, "one"));
    assert!(within(r#"{"repository_ids":[3]}"#, &third).is_ok());
    assert!(within(r#"{"repository_ids":[1]}"#, &third).is_err());
}

#[test]
fn an_installation_that_is_suspended_or_may_less_is_told() {
    let look = |body: &str, asked: &str| installation(&reply(200, body), &scope(asked)).map_err(|why| why.to_string());
    let body = r#"{"id":1,"permissions":{"contents":"write","metadata":"read"},"suspended_at":null}"#;
    assert_eq!(look(body, r#"{"permissions":{"contents":"read"}}"#), Ok(()));
    assert_eq!(look(body, "{}"), Ok(()));
    for (permissions, words) in [("\"contents\":\"admin\"", "contents: admin"), ("\"issues\":\"read\"", "issues: read")]
    {
        let said = look(body, &format!(r#"{{"permissions":{{{permissions}}}}}"#)).unwrap_err();
        assert!(said.ends_with(words), "{said}");
    }
    let suspended = r#"{"id":1,"permissions":{},"suspended_at":"2026-01-31T13:00:00Z"}"#;
    assert_eq!(look(suspended, "{}").unwrap_err(), "the App's installation is suspended");
}

#[test]
fn each_failure_is_told_in_words_of_ours_with_what_mends_it() {
    let says = |message: &str| format!(r#"{{"message":"{message} {SECRET}","documentation_url":"{SECRET}"}}"#);
    for (status, body, passes, words, fix) in [
        (401, says("'Issued at' claim ('iat') must be an Integer"), true, "its clock and this machine's", "NTP"),
        (401, says("'Expiration time' claim ('exp') is too far in the future"), true, "its clock", "NTP"),
        (
            401,
            says("A JSON web token could not be decoded"),
            false,
            "it knows no App by this name and key",
            "client_id",
        ),
        (401, says("Bad credentials"), false, "it knows no App by this name and key", "client_id"),
        (404, says("Integration not found"), false, "it knows no App by this name and key", "client_id"),
        (404, says("Not Found"), false, "no such installation", "installation_id"),
        (404, format!("<html>{SECRET}"), false, "does not answer as GitHub's API does", "github_app.api"),
        (404, format!(r#"{{"error":"{SECRET}"}}"#), false, "does not answer as GitHub's API does", "github_app.api"),
        (403, says("This installation has been suspended"), false, "is suspended", "unsuspend"),
        (403, says("Resource not accessible"), false, "denies the question", "IP allow list"),
        (422, says("The permissions requested are not granted"), false, "not all the permissions", "accept them"),
        (
            422,
            says("There is at least one repository that does not exist"),
            false,
            "does not reach all the repositories",
            "without their owner",
        ),
        (500, says("x"), true, "it fails (HTTP 500)", "status"),
        (503, SECRET.to_owned(), true, "it fails (HTTP 503)", "status"),
        (302, SECRET.to_owned(), false, "sends on to another address", "github_app.api"),
        (418, SECRET.to_owned(), false, "does not answer as GitHub's API does", "github_app.api"),
        (200, SECRET.to_owned(), false, "does not answer as GitHub's API does", "github_app.api"),
    ] {
        let error = failure(&reply(status, &body));
        let shown = format!("{error} {error:?}");
        let trouble = Trouble::from(error);
        assert!(shown.contains(words) && !shown.contains(SECRET), "{status} {words}: {shown}");
        assert!(trouble.passes() == passes && trouble.fix().contains(fix), "{status} {words}: {}", trouble.fix());
    }
}

#[test]
fn a_quota_that_is_used_up_is_told_by_its_status_or_its_words() {
    let busy = |status, message: &str| is_busy(&reply(status, &format!(r#"{{"message":"{message}"}}"#)));
    assert!(busy(403, "API rate limit exceeded for installation ID 815."));
    assert!(busy(403, "You have exceeded a secondary rate limit. Please wait a few minutes"));
    assert!(busy(429, "slow down") && is_busy(&reply(429, "<html>")));
    assert!(!busy(403, "Resource not accessible by integration") && !busy(500, "rate limit"));
}

#[tokio::test]
async fn a_token_that_works_and_cannot_be_used_is_given_back_and_the_error_says_what_came_of_it() {
    let late = reply(201, r#"{"token":"t","expires_at":"2026-01-31T11:00:00Z","permissions":{"contents":"read"}}"#);
    let wide = token("t", r#","permissions":{"contents":"admin"}"#);
    let endless = reply(201, r#"{"token":"t","permissions":{"contents":"read"}}"#);
    let long = token(&"t".repeat(64 * 1024 + 1), r#","permissions":{"contents":"read"}"#);
    let (over, fails, denied) = (says("204 No Content", "", ""), says("502 x", "", ""), says("403 x", "", "{}"));
    let back = "the token that came was given back";
    let lives = "the token that came could not be given back";
    for (reply, answers, asked, words, outcome, passes) in [
        (&late, vec![&over], 1, "clock and this machine's are apart", back, true),
        (&late, vec![&fails, &fails, &over], 3, "clock and this machine's are apart", back, true),
        (&late, vec![&fails], 4, "clock and this machine's are apart", lives, true),
        (&wide, vec![&fails, &over], 2, "more permissions than were asked for", back, false),
        (&wide, vec![&denied], 1, "more permissions than were asked for", lives, false),
        (&endless, vec![&over], 1, "does not answer as GitHub's API does", back, false),
        (&long, vec![&over], 1, "does not answer as GitHub's API does", back, false),
    ] {
        let there = StandIn::start(answers.into_iter().cloned().collect()).await;
        let app = GitHubApp {
            issuer: "1".into(),
            installation: 2,
            key: SecretAt::Env("K".into()),
            api: format!("http://{}", there.addr),
            ca_file: None,
            refresh: Duration::from_secs(600),
        };
        let client = Client::new(Arc::new(app), Handed::new(None, Sealer::plain()));
        let asked_for = scope(r#"{"permissions":{"contents":"read"}}"#);
        let error = client.taken(reply, &asked_for, NOW_MS).await.err().unwrap();
        let said = error.to_string();
        assert!(said.contains(words) && said.contains(outcome) && error.passes() == passes, "{said}");
        assert!(error.fix().len() > 10);
        assert_eq!(there.asked(), vec!["DELETE /installation/token"; asked], "{said}");
    }
}
