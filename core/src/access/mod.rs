//! May this session do this? Read-only is an allowlist of proven reads.
//!
//! One file per protocol: `http` judges by method, path and query, and asks the others; `json` reads
//! a body's one telling member; `graphql` reads documents, `json_rpc` calls; `grpc` knows methods;
//! `git` and `mcp` are made of rules for the others. A protocol that needs more of a body gets a file
//! here and a [`BodyRule`].

mod envelope;
pub mod git;
mod graphql;
mod grpc;
mod http;
mod json;
mod json_rpc;
pub mod mcp;

pub use grpc::GrpcError;
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

impl<'a> Body<'a> {
    /// All of it, or why nothing is known.
    fn whole(self) -> Result<&'a [u8], Reason> {
        match self {
            Body::Whole(bytes) => Ok(bytes),
            Body::Unread => Err(Reason::BodyUnreadable),
            Body::TooLarge => Err(Reason::BodyTooLarge),
        }
    }
}

/// Whether the body says what the rule asks for; an error if that cannot be known.
fn says(rule: &BodyRule, body: Body<'_>, media: Media) -> Result<bool, Reason> {
    let bytes = body.whole()?;
    match rule {
        // A server reads by the announced type; JSON that is announced as something else says nothing.
        BodyRule::Json { .. } if !matches!(media, Media::Json | Media::OnJson) => Err(Reason::BodyUnreadable),
        BodyRule::Json { member, any_of } => json::member_is_one_of(bytes, member, any_of),
        BodyRule::JsonRpc { .. } if media != Media::Json => Err(Reason::BodyUnreadable),
        BodyRule::JsonRpc { methods, tools } => json_rpc::all_are_among(bytes, methods, tools),
    }
}
