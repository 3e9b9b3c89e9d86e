//! What a refusal looks like from outside: one status, one word, one shape of body.

use attache_core::refusal::Reason;

use crate::Response;

/// Asserts that an answer is the filter's own refusal for this reason, whole and in its promised
/// shape; returns the request id it names.
///
/// # Panics
/// When it is anything else; shows the answer.
#[track_caller]
pub fn expect(answer: &Response, reason: Reason) -> String {
    let shown = format!("{} {:?} {}", answer.status, answer.fields, answer.text());
    assert_eq!(answer.status, reason.status(), "{shown}");
    assert_eq!(answer.header("x-attache-reason").as_deref(), Some(reason.as_str()), "{shown}");
    assert_eq!(answer.header("content-type").as_deref(), Some("application/json"), "{shown}");
    assert!(answer.complete, "{shown}");
    let body = answer.json();
    let members = body.as_object().unwrap_or_else(|| panic!("no object: {shown}"));
    let names: Vec<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(names, ["error", "hint", "reason", "request_id"], "{shown}");
    assert_eq!(body["error"], "request refused by attache");
    assert_eq!(body["reason"], reason.as_str());
    assert_eq!(body["hint"], reason.hint());
    body["request_id"].as_str().unwrap_or_else(|| panic!("no request id: {shown}")).to_owned()
}

/// The reason that an answer names, whether it is a refusal in every other respect or not.
#[must_use]
pub fn reason(answer: &Response) -> Option<String> {
    answer.header("x-attache-reason")
}
