//! A SecretID that is delivered wrapped: <https://openbao.org/docs/concepts/response-wrapping/>
//!
//! Its token unwraps once. Whether that is still to come, and whether it was made where it should have been, is asked
//! first: somebody who has unwrapped it on its way can put one of his own in its place, but not with that path.

use super::answer::{Json, data, failure};
use super::error::OpenBaoError;
use super::http::{Http, Question};
use crate::clock::Now;
use attache_core::Secret;
use serde::Serialize;
use std::time::Duration;

/// How far the two clocks may be apart.
const SKEW: Duration = Duration::from_secs(300);
/// What is on its way for longer was not made to be delivered.
const LONGEST: Duration = Duration::from_secs(86_400);

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
}

/// Looks at the token, and unwraps it.
pub async fn unwrap(http: &Http, token: &Secret, path: &str, place: &str) -> Result<Secret, OpenBaoError> {
    // Exposed to be looked up at whoever has made it.
    let looked = http.ask(Question::post("sys/wrapping/lookup", &Token { token: token.expose() })).await?;
    match looked.status {
        200 => {}
        400 | 403 => return Err(OpenBaoError::WrapUsed(place.to_owned())),
        _ => return Err(failure(&looked)),
    }
    let said = data(&looked)?;
    match said.get("creation_path") {
        Some(Json::Text(made)) if made.expose() == path => {}
        Some(Json::Text(_)) => return Err(OpenBaoError::WrapElsewhere(place.to_owned())),
        _ => return Err(OpenBaoError::Malformed),
    }
    let ttl = said.get("creation_ttl").and_then(Json::as_u64);
    let (Some(Json::Text(time)), Some(ttl)) = (said.get("creation_time"), ttl) else {
        return Err(OpenBaoError::Malformed);
    };
    if !can_be(time.expose(), Duration::from_secs(ttl), Now::read().wall_ms) {
        return Err(OpenBaoError::WrapTime(place.to_owned()));
    }

    let none = std::collections::BTreeMap::<&str, &str>::new();
    let unwrapped = http.ask(Question::post("sys/wrapping/unwrap", &none).by(token)).await?;
    match unwrapped.status {
        200 => {}
        // Between the two questions somebody was quicker.
        400 | 403 => return Err(OpenBaoError::WrapUsed(place.to_owned())),
        _ => return Err(failure(&unwrapped)),
    }
    match data(&unwrapped)?.remove("secret_id") {
        Some(Json::Text(secret_id)) => Ok(secret_id),
        _ => Err(OpenBaoError::Malformed),
    }
}

/// Whether a token that was made then, to live so long, can be one that was just delivered.
fn can_be(made: &str, ttl: Duration, now_ms: u64) -> bool {
    let Ok(made) = made.parse::<jiff::Timestamp>() else { return false };
    let Ok(made_ms) = u64::try_from(made.as_millisecond()) else { return false };
    let millis = crate::clock::millis;
    made_ms <= now_ms.saturating_add(millis(SKEW))
        && now_ms <= made_ms.saturating_add(millis(ttl + SKEW))
        && ttl <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_cannot_be_are_told() {
        let at = |time: &str| u64::try_from(time.parse::<jiff::Timestamp>().unwrap().as_millisecond()).unwrap();
        let now = at("2026-01-31T12:00:00Z");
        let minutes = |n: u64| Duration::from_secs(60 * n);
        assert!(can_be("2026-01-31T11:58:00.123456789Z", minutes(5), now));
        assert!(can_be("2026-01-31T12:04:00Z", minutes(5), now), "clocks differ");
        assert!(!can_be("2026-01-31T12:06:00Z", minutes(5), now), "made in the future");
        assert!(!can_be("2026-01-31T11:00:00Z", minutes(5), now), "over long ago");
        assert!(!can_be("2026-01-31T11:58:00Z", minutes(25 * 60), now), "no delivery takes a day");
        assert!(!can_be("yesterday", minutes(5), now));
    }
}
