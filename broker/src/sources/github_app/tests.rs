//! What an answer means, and that nothing of it shows. Against a stand-in that keeps GitHub's contract:
//! tests/github_app.rs.

use super::answer::{failure, installation, issued};
use super::error::GitHubError;
use crate::config::TokenScope;
use crate::sources::Trouble;
use crate::sources::http::Reply;
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

fn token(token: &str, more: &str) -> Reply {
    reply(201, &format!(r#"{{"token":"{token}","expires_at":"2026-01-31T13:00:00Z"{more}}}"#))
}

#[test]
fn a_token_of_any_length_is_taken_whole_and_lives_as_long_as_it_says() {
    for length in [1, 40, 300, 1_000, 64 * 1024] {
        let given = issued(&token(&"t".repeat(length), ""), NOW_MS).ok().unwrap();
        assert_eq!((given.token.expose().len(), given.valid.as_secs()), (length, 3600));
    }
    for (body, passes, words) in [
        (token(&"t".repeat(64 * 1024 + 1), ""), false, "does not answer as GitHub's API does"),
        (token("", ""), false, "does not answer as GitHub's API does"),
        (reply(201, "<html>"), false, "does not answer as GitHub's API does"),
        (reply(201, r#"{"token":"t"}"#), false, "does not answer as GitHub's API does"),
        (reply(201, r#"{"token":"t","token":"u","expires_at":"2026-01-31T13:00:00Z"}"#), false, "does not answer"),
        (reply(201, r#"{"token":"t","expires_at":"soon"}"#), false, "does not answer as GitHub's API does"),
        (reply(201, r#"{"token":"t","expires_at":"2026-01-31T12:00:00Z"}"#), true, "its clock and this machine's"),
        (reply(200, r#"{"token":"t","expires_at":"2026-01-31T13:00:00Z"}"#), false, "does not answer"),
    ] {
        let error = issued(&body, NOW_MS).err().expect(words);
        assert!(error.to_string().contains(words) && error.passes() == passes, "{words}: {error}");
    }
}

#[test]
fn a_token_that_reaches_more_than_was_asked_for_is_refused() {
    let asked = r#"{"repositories":["one","Two"],"permissions":{"contents":"read","issues":"write"}}"#;
    let repository = |id: u64, name: &str| format!(r#"{{"id":{id},"name":"{name}","private":true}}"#);
    let within = |asked: &str, more: &str| issued(&token("t", more), NOW_MS).ok().unwrap().within(&scope(asked));
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
        (403, says("API rate limit exceeded for installation"), true, "too many requests", "refresh"),
        (403, says("You have exceeded a secondary rate limit"), true, "too many requests", "refresh"),
        (429, says("slow down"), true, "too many requests", "refresh"),
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
