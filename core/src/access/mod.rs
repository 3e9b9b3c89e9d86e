//! May this session do this? Read-only is an allowlist of proven reads.
//!
//! One file per protocol: `http` judges by method, path and query; `json` reads a body's one
//! telling member. A protocol that needs more of a body gets a file here and a [`BodyRule`].

mod http;
mod json;

pub use http::{Access, AccessError, Operation};

use crate::policy::BodyRule;
use crate::refusal::Reason;
use crate::request::Media;

/// What is known of a request's body when the gate decides.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Nobody read it.
    Unread,
    /// All of it.
    Whole(&'a [u8]),
    /// More than the judge reads.
    TooLarge,
}

/// Whether the body says what the rule asks for; an error if that cannot be known.
fn says(rule: &BodyRule, body: Body<'_>, media: Media) -> Result<bool, Reason> {
    let bytes = match body {
        Body::Whole(bytes) => bytes,
        Body::Unread => return Err(Reason::BodyUnreadable),
        Body::TooLarge => return Err(Reason::BodyTooLarge),
    };
    match rule {
        // A server reads by the announced type; JSON that is announced as something else says nothing.
        BodyRule::Json { .. } if media != Media::Json => Err(Reason::BodyUnreadable),
        BodyRule::Json { member, any_of } => json::member_is_one_of(bytes, member, any_of),
    }
}
