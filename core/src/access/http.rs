//! Access by method, path and query.

use super::graphql::Graphql;
use super::grpc::{Grpc, GrpcError};
use super::{Body, says};
use crate::evidence::AUTH_PARAMETERS;
use crate::matching::path::{Pattern, PatternError};
use crate::matching::{method, query};
use crate::policy::{AccessMode, AccessSpec, BodyRule, OperationSpec};
use crate::refusal::Reason;
use crate::request::{METHOD_HEADERS, Media};
use crate::strip::Strip;

/// Compiled exceptions to the rules of read-only.
#[derive(Clone, Debug, Default)]
pub struct Access {
    only_listed: bool,
    reads: Vec<Rule>,
    writes: Vec<Rule>,
    graphql: Option<Graphql>,
    grpc: Grpc,
}

/// Why an exception makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The path pattern.
    #[error(transparent)]
    Path(#[from] PatternError),
    /// The method.
    #[error("a method is written in upper case, and is neither TRACE nor CONNECT")]
    Method,
    /// A gRPC method.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// A body rule where it changes nothing.
    #[error("a write is refused whatever its body says: only `reads` have body rules")]
    BodyOfAWrite,
}

/// Query parameters by which frameworks take another method, beside the names of
/// [`METHOD_HEADERS`].
/// Google's APIs take method, headers and type from the query as well
/// (<https://cloud.google.com/apis/docs/system-parameters>).
const METHOD_PARAMETERS: [&[u8]; 6] =
    [b"_method", b"_http_method", b"x_http_method_override", b"$httpmethod", b"$httpheaders", b"$ct"];

/// Query parameters that mean another method where they name one, and something else elsewhere.
const MAYBE_METHOD_PARAMETERS: [&[u8]; 5] = [b"method", b"httpmethod", b"_httpmethod", b"http_method", b"verb"];

/// Methods that change something at servers that know them (RFC 9110, 4918, 3253, 5789, 2068).
const WRITING_METHODS: [&[u8]; 14] = [
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"PROPPATCH",
    b"LOCK",
    b"UNLOCK",
    b"MERGE",
    b"LINK",
    b"UNLINK",
    b"PURGE",
];

#[derive(Clone, Debug)]
struct Rule {
    method: Vec<u8>,
    path: Pattern,
    query: Vec<(String, String)>,
    no_other_query: bool,
    body: Option<BodyRule>,
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operation<'a> {
    /// The method, exact.
    pub method: &'a [u8],
    /// The path at its destination.
    pub path: &'a [u8],
    /// The query, if any.
    pub query: Option<&'a [u8]>,
    /// Whether a header asks the upstream to treat the method as another, or to leave HTTP.
    pub disguised: bool,
    /// What kind of body the head announces.
    pub media: Media,
    /// The query parameter in which the credential travels: what an agent writes there never arrives.
    pub carrier: Option<&'a [u8]>,
    /// What else of the query the destination takes out.
    pub strip: Option<&'a Strip>,
}

impl Operation<'_> {
    /// Whether a parameter of the query carries a credential: it is taken out, and another is set.
    pub(super) fn never_arrives(&self, parameter: &query::Parameter<'_>) -> bool {
        let mut own = self.carrier.into_iter().chain(AUTH_PARAMETERS.iter().copied());
        own.any(|own| query::resembles(parameter.name, own))
            || self.strip.is_some_and(|strip| strip.takes_parameter(parameter.name))
    }
}

impl Access {
    /// Compiles what the config wrote.
    pub fn compile(spec: &AccessSpec) -> Result<Self, AccessError> {
        if spec.writes.iter().any(|write| write.body.is_some()) {
            return Err(AccessError::BodyOfAWrite);
        }
        let rules = |specs: &[OperationSpec]| specs.iter().map(Rule::compile).collect::<Result<_, _>>();
        let graphql = spec.graphql.as_ref().map(Graphql::compile).transpose()?;
        let grpc = Grpc::compile(&spec.grpc)?;
        let (reads, writes) = (rules(&spec.reads)?, rules(&spec.writes)?);
        Ok(Self { only_listed: spec.only_listed, reads, writes, graphql, grpc })
    }

    /// Whether some decision needs a request's body.
    pub fn needs_body(&self) -> bool {
        self.graphql.is_some() || self.reads.iter().any(|rule| rule.body.is_some())
    }

    /// Allows the operation, or says why not. `body` is asked for only where a rule needs it.
    pub fn check<'b>(
        &self,
        mode: AccessMode,
        operation: Operation<'_>,
        body: impl FnOnce() -> Body<'b>,
    ) -> Result<(), Reason> {
        match mode {
            AccessMode::ReadWrite => Ok(()),
            AccessMode::ReadOnly => self.check_read(operation, body),
        }
    }

    fn check_read<'b>(&self, operation: Operation<'_>, body: impl FnOnce() -> Body<'b>) -> Result<(), Reason> {
        // A rule that names a write goes before any that names a read.
        if operation.disguised
            || names_another_method(operation.query)
            || self.writes.iter().any(|rule| rule.resembles(operation))
        {
            return Err(Reason::ReadOnly);
        }
        // Where GraphQL is spoken neither method nor rule tells: a GET may hold a mutation.
        if let Some(graphql) = self.graphql.as_ref().filter(|graphql| graphql.is_at(operation.path)) {
            return graphql.check(operation, body);
        }
        if self.graphql.as_ref().is_some_and(|graphql| graphql.may_be_asked(operation)) {
            return Err(Reason::ReadOnly);
        }
        if method::is_safe(operation.method) && !self.only_listed {
            return Ok(());
        }
        if self.grpc.reads(operation) {
            return Ok(());
        }
        // A form may say in its body what `_method` says in a query; of a POST, what has no type is a
        // form to some.
        let unsaid = operation.media == Media::Unsaid && operation.method == b"POST";
        if unsaid || operation.media == Media::Form {
            return Err(Reason::ReadOnly);
        }
        let mut fitting = self.reads.iter().filter(|rule| rule.fits(operation)).peekable();
        if fitting.peek().is_none() {
            return Err(Reason::ReadOnly);
        }
        let body = body();
        for rule in fitting {
            if rule.body.as_ref().map_or(Ok(true), |wanted| says(wanted, body, operation.media))? {
                return Ok(());
            }
        }
        Err(Reason::ReadOnly)
    }
}

/// Whether a query asks the upstream to treat the method as another.
fn names_another_method(query: Option<&[u8]>) -> bool {
    let one_of = |text: &[u8], known: &[&[u8]]| known.iter().any(|known| query::could_belong_to(text, known));
    query::loose_parameters(query.unwrap_or_default()).any(|p| {
        one_of(p.name, &METHOD_PARAMETERS)
            || one_of(p.name, METHOD_HEADERS)
            || (one_of(p.name, &MAYBE_METHOD_PARAMETERS) && one_of(p.value, &WRITING_METHODS))
    })
}

impl Rule {
    fn compile(spec: &OperationSpec) -> Result<Self, AccessError> {
        if !method::may_carry(spec.method.as_bytes()) {
            return Err(AccessError::Method);
        }
        Ok(Self {
            method: spec.method.clone().into_bytes(),
            path: Pattern::parse(&spec.path)?,
            query: spec.query.clone().into_iter().collect(),
            no_other_query: spec.no_other_query,
            body: spec.body.clone(),
        })
    }

    /// Whether this is the operation to any server at all: one that folds case, cuts parameters off
    /// path segments, overlooks a final slash or splits a query at `;`. For what is refused.
    fn resembles(&self, operation: Operation<'_>) -> bool {
        let has = |(name, value): &(String, String)| {
            query::loose_parameters(operation.query.unwrap_or_default())
                .any(|p| query::resembles(p.name, name.as_bytes()) && query::resembles(p.value, value.as_bytes()))
        };
        self.is_method(operation) && self.path.resembles(operation.path) && self.query.iter().all(has)
    }

    /// What GET does, HEAD does too.
    fn is_method(&self, operation: Operation<'_>) -> bool {
        self.method == operation.method || (self.method == b"GET" && operation.method == b"HEAD")
    }

    /// Whether this is the operation, exactly. For what is allowed: servers differ in which of several
    /// values they take, so each must be the one. (Parameters that carry credentials never arrive.)
    fn fits(&self, operation: Operation<'_>) -> bool {
        let exact = |p: &query::Parameter<'_>, (name, value): (&str, &str)| {
            query::decodes_to(p.name, name.as_bytes()) && query::decodes_to(p.value, value.as_bytes())
        };
        let has = |(name, value): &(String, String)| {
            let parameters = query::loose_parameters(operation.query.unwrap_or_default());
            let named = parameters.filter(|p| query::could_belong_to(p.name, name.as_bytes()));
            let mut named = named.filter(|p| !operation.never_arrives(p)).peekable();
            named.peek().is_some() && named.all(|p| exact(&p, (name, value)))
        };
        let wanted = |p: &query::Parameter<'_>| {
            p.text.is_empty()
                || operation.never_arrives(p)
                || self.query.iter().any(|(name, _)| query::decodes_to(p.name, name.as_bytes()))
        };
        let alone = || query::loose_parameters(operation.query.unwrap_or_default()).all(|p| wanted(&p));
        self.is_method(operation)
            && self.path.matches(operation.path)
            && self.query.iter().all(has)
            && (!self.no_other_query || alone())
    }
}

#[cfg(test)]
mod tests;
