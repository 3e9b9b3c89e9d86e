//! GraphQL over HTTP: what a request would run, and whether all of it reads.
//!
//! By the GraphQL specification queries read and mutations write, and the two are told apart by the
//! document alone; neither method nor path says anything. So at an endpoint every request is read as
//! its server would, and each freedom that servers differ in is refused: a query string beside a
//! body, members nobody knows, documents known by an id.

mod document;

use super::envelope;
use super::{AccessError, Body, Operation};
use crate::matching::path::Pattern;
use crate::matching::query::{self, Parameter};
use crate::object::Object;
use crate::policy::GraphqlSpec;
use crate::refusal::Reason;
use crate::request::Media;
use document::Document;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Longest path, in bytes, that may go on behind an endpoint's and be told apart from a question there.
const MOST_PATH: usize = 4096;
/// At most so many of its beginnings are looked at.
const MOST_BEGINNINGS: usize = 64;

/// Compiled endpoints.
#[derive(Clone, Debug)]
pub(super) struct Graphql {
    paths: Vec<Pattern>,
    subscriptions: bool,
}

/// One request as JSON. (GraphQL over HTTP, "Request Parameters".) What names a document by an id,
/// in `extensions` or in a member of its own, is unknown here and thereby refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Call {
    query: String,
    operation_name: Option<String>,
    #[serde(rename = "variables")]
    _variables: Option<IgnoredAny>,
    #[serde(rename = "extensions")]
    _extensions: Option<Object<Extensions>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extensions {
    /// Apollo's clients say in it what they are.
    #[serde(rename = "clientLibrary")]
    _client_library: Option<IgnoredAny>,
}

impl Graphql {
    pub(super) fn compile(spec: &GraphqlSpec) -> Result<Self, AccessError> {
        let paths = spec.paths.iter().map(|path| Pattern::parse(path)).collect::<Result<_, _>>()?;
        Ok(Self { paths, subscriptions: spec.subscriptions })
    }

    /// Whether some server would take this path for an endpoint.
    pub(super) fn is_at(&self, path: &[u8]) -> bool {
        self.paths.iter().any(|pattern| pattern.resembles(path) || pattern.matches(path))
    }

    /// Whether some server takes this for a question at an endpoint, though its path goes on: one that
    /// overlooks `.json` at its end, or all that stands below it. Then no body was read.
    pub(super) fn may_be_asked(&self, operation: Operation<'_>) -> bool {
        let begins = |at: usize| operation.path.get(..at).is_some_and(|begin| self.is_at(begin));
        let named =
            |p: Parameter<'_>| [&b"query"[..], b"extensions"].iter().any(|known| query::resembles(p.name, known));
        query::loose_parameters(operation.query.unwrap_or_default()).any(named)
            // Each beginning is read whole: so many of so long a path that nobody waits for it.
            && (operation.path.len() > MOST_PATH
                || memchr::memchr2_iter(b'/', b'.', operation.path).nth(MOST_BEGINNINGS).is_some()
                || memchr::memchr2_iter(b'/', b'.', operation.path).any(begins))
    }

    /// Allows what is sure to read.
    pub(super) fn check<'b>(&self, operation: Operation<'_>, body: impl FnOnce() -> Body<'b>) -> Result<(), Reason> {
        match operation.method {
            b"OPTIONS" => Ok(()),
            b"GET" | b"HEAD" => self.check_get(operation, body),
            b"POST" if self.paths.iter().any(|path| path.matches(operation.path)) => self.check_post(operation, body),
            _ => Err(Reason::ReadOnly),
        }
    }

    fn check_get<'b>(&self, operation: Operation<'_>, body: impl FnOnce() -> Body<'b>) -> Result<(), Reason> {
        let (mut document, mut name, mut variables) = (None, None, None);
        for parameter in parameters(operation)? {
            let value = decode(parameter.value)?;
            let place = match decode(parameter.name)?.as_str() {
                "query" => &mut document,
                "operationName" => &mut name,
                "variables" => &mut variables,
                _ => return Err(Reason::ReadOnly),
            };
            if place.replace(value).is_some() {
                return Err(Reason::ReadOnly);
            }
        }
        match document {
            Some(text) => self.check_document(&text, name.as_deref())?,
            // A page for people, or an error: there is nothing to run.
            None if name.is_none() && variables.is_none() => {}
            None => return Err(Reason::ReadOnly),
        }
        // Servers differ in which of the two they read.
        if body().whole()?.is_empty() { Ok(()) } else { Err(Reason::ReadOnly) }
    }

    fn check_post<'b>(&self, operation: Operation<'_>, body: impl FnOnce() -> Body<'b>) -> Result<(), Reason> {
        // Some servers let parameters of the query string go before members of the body.
        if parameters(operation)?.next().is_some() {
            return Err(Reason::ReadOnly);
        }
        match operation.media {
            Media::Json => {
                for call in envelope::calls::<Call>(body().whole()?)? {
                    self.check_document(&call.query, call.operation_name.as_deref())?;
                }
                Ok(())
            }
            Media::Graphql => {
                let text = std::str::from_utf8(body().whole()?).map_err(|_| Reason::BodyUnreadable)?;
                self.check_document(text, None)
            }
            // Some servers look for a method, or for the query itself, in what they take for a form.
            Media::Form | Media::Unsaid => Err(Reason::ReadOnly),
            Media::Nothing | Media::OnJson | Media::Grpc | Media::Other => Err(Reason::BodyUnreadable),
        }
    }

    fn check_document(&self, text: &str, name: Option<&str>) -> Result<(), Reason> {
        // Some servers take an empty name for none. Then there is one operation, or there is an error.
        let name = name.filter(|name| !name.is_empty());
        let document = Document::parse(text).ok_or(Reason::BodyUnreadable)?;
        let reads = document.runs(name).ok_or(Reason::BodyUnreadable)?.reads(self.subscriptions);
        if reads { Ok(()) } else { Err(Reason::ReadOnly) }
    }
}

/// The parameters that arrive at the server, if all servers see the same ones.
fn parameters(operation: Operation<'_>) -> Result<impl Iterator<Item = Parameter<'_>>, Reason> {
    let written = operation.query.unwrap_or_default();
    // Some split here, too.
    if written.contains(&b';') {
        return Err(Reason::ReadOnly);
    }
    let arrives = move |p: &Parameter<'_>| !p.text.is_empty() && !operation.never_arrives(p);
    Ok(query::parameters(written).filter(arrives))
}

/// What a part of a query string says to every server: no escape is broken, and all is UTF-8.
fn decode(written: &[u8]) -> Result<String, Reason> {
    let is_plain = |at: usize| {
        let digits = written.get(at + 1..at + 3).unwrap_or_default();
        digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    };
    if !memchr::memchr_iter(b'%', written).all(is_plain) {
        return Err(Reason::ReadOnly);
    }
    String::from_utf8(query::decode(written).collect()).map_err(|_| Reason::ReadOnly)
}

#[cfg(test)]
mod tests;
