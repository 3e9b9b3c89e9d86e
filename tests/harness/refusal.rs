//! What a refusal looks like from outside: one status, one word, one shape of body.

use attache_core::refusal::Reason;
use serde_json::Value;

use crate::Response;

/// Asserts that an answer is the filter's own refusal for this reason, whole and in its promised
/// shape; returns the request id it names.
///
/// # Panics
/// When it is anything else; shows the answer.
#[track_caller]
pub fn expect(answer: &Response, reason: Reason) -> String {
    check(answer, reason).unwrap_or_else(|why| panic!("{why}"))
}

/// The same, without a panic. The answer to a HEAD has no body, and names no request.
///
/// # Errors
/// What is wrong with the answer.
pub fn check(answer: &Response, reason: Reason) -> Result<String, String> {
    let shown = || format!("{} {:?} {:?}", answer.status, answer.fields, answer.text());
    let head = (answer.status, self::reason(answer), answer.header("content-type"), answer.complete);
    let promised = (reason.status(), Some(reason.as_str().to_owned()), Some("application/json".to_owned()), true);
    if head != promised {
        return Err(shown());
    }
    if answer.body.is_empty() && answer.header("content-length").is_some_and(|length| length != "0") {
        return Ok(String::new());
    }
    let mut body: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("{error}: {}", shown()))?;
    let Some(Value::String(request_id)) = body.as_object_mut().and_then(|members| members.remove("request_id")) else {
        return Err(format!("no request id: {}", shown()));
    };
    // Envoy's own answer: beside it says what was wrong with the certificate, and it names no request.
    let by_envoy = reason == Reason::UpstreamTls;
    if by_envoy && let Some(members) = body.as_object_mut() {
        members.remove("detail");
    }
    let said = format!("request refused by attache: {}", reason.hint());
    let rest = serde_json::json!({
        "error": said,
        "reason": reason.as_str(),
        "hint": reason.hint(),
        "message": said,
    });
    if body == rest && request_id.is_empty() == by_envoy { Ok(request_id) } else { Err(shown()) }
}

/// The reason that an answer names, whether it is a refusal in every other respect or not.
#[must_use]
pub fn reason(answer: &Response) -> Option<String> {
    answer.header("x-attache-reason")
}
