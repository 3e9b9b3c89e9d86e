//! Access by method, path and query.

use super::graphql::Graphql;
use super::{Body, says};
use crate::matching::path::{Pattern, PatternError};
use crate::matching::{method, query};
use crate::policy::{AccessMode, AccessSpec, BodyRule, OperationSpec};
use crate::refusal::Reason;
use crate::request::{METHOD_HEADERS, Media};

/// Compiled exceptions to the rules of read-only.
#[derive(Clone, Debug, Default)]
pub struct Access {
    reads: Vec<Rule>,
    writes: Vec<Rule>,
    graphql: Option<Graphql>,
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
    /// A body rule where it changes nothing.
    #[error("a write is refused whatever its body says: only `reads` have body rules")]
    BodyOfAWrite,
}

/// Query parameters by which frameworks take another method, beside the names of
/// [`METHOD_HEADERS`].
const METHOD_PARAMETERS: [&[u8]; 3] = [b"_method", b"_http_method", b"x_http_method_override"];

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
}

impl Access {
    /// Compiles what the config wrote.
    pub fn compile(spec: &AccessSpec) -> Result<Self, AccessError> {
        if spec.writes.iter().any(|write| write.body.is_some()) {
            return Err(AccessError::BodyOfAWrite);
        }
        let rules = |specs: &[OperationSpec]| specs.iter().map(Rule::compile).collect::<Result<_, _>>();
        let graphql = spec.graphql.as_ref().map(Graphql::compile).transpose()?;
        Ok(Self { reads: rules(&spec.reads)?, writes: rules(&spec.writes)?, graphql })
    }

    /// Whether some decision needs a request's body.
    pub fn needs_body(&self) -> bool {
        self.graphql.is_some() || self.reads.iter().chain(&self.writes).any(|rule| rule.body.is_some())
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
        if method::is_safe(operation.method) {
            return Ok(());
        }
        // A form may say in its body what `_method` says in a query, and what has no type is a form to some.
        if matches!(operation.media, Media::Form | Media::Unsaid) {
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
    let one_of = |text: &[u8], known: &[&[u8]]| known.iter().any(|known| query::could_mean(text, known));
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
            body: spec.body.clone(),
        })
    }

    /// Whether this is the operation to any server at all: one that folds case, cuts parameters off
    /// path segments, overlooks a final slash or splits a query at `;`. For what is refused.
    fn resembles(&self, operation: Operation<'_>) -> bool {
        let has = |(name, value): &(String, String)| {
            query::loose_parameters(operation.query.unwrap_or_default())
                .any(|p| query::could_mean(p.name, name.as_bytes()) && query::could_mean(p.value, value.as_bytes()))
        };
        self.is_method(operation) && self.path.resembles(operation.path) && self.query.iter().all(has)
    }

    /// What GET does, HEAD does too.
    fn is_method(&self, operation: Operation<'_>) -> bool {
        self.method == operation.method || (self.method == b"GET" && operation.method == b"HEAD")
    }

    /// Whether this is the operation, exactly. For what is allowed: servers differ in which of several
    /// values they take, so each must be the one.
    fn fits(&self, operation: Operation<'_>) -> bool {
        let exact = |p: &query::Parameter<'_>, (name, value): (&str, &str)| {
            query::decodes_to(p.name, name.as_bytes()) && query::decodes_to(p.value, value.as_bytes())
        };
        let has = |(name, value): &(String, String)| {
            let parameters = query::loose_parameters(operation.query.unwrap_or_default());
            let mut named = parameters.filter(|p| query::could_belong_to(p.name, name.as_bytes())).peekable();
            named.peek().is_some() && named.all(|p| exact(&p, (name, value)))
        };
        self.is_method(operation) && self.path.matches(operation.path) && self.query.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn github() -> Access {
        let operation = |method: &str, path: &str, query: &[(&str, &str)], body| OperationSpec {
            method: method.into(),
            path: path.into(),
            query: query.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            body,
        };
        let lfs = BodyRule::Json { member: "operation".into(), any_of: vec!["download".into()] };
        Access::compile(&AccessSpec {
            reads: vec![
                operation("POST", "/*/*/git-upload-pack", &[], None),
                operation("POST", "/*/*/info/lfs/objects/batch", &[], Some(lfs)),
            ],
            writes: vec![operation("GET", "/*/*/info/refs", &[("service", "git-receive-pack")], None)],
            graphql: None,
        })
        .unwrap()
    }

    fn read_only(method: &str, target: &str, body: Body<'_>) -> Result<(), Reason> {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.as_bytes())));
        let operation = Operation {
            method: method.as_bytes(),
            path: path.as_bytes(),
            query,
            disguised: false,
            media: Media::Json,
            carrier: None,
        };
        github().check(AccessMode::ReadOnly, operation, || body)
    }

    #[test]
    fn read_only_is_an_allowlist() {
        for (method, target, allowed) in [
            ("GET", "/user", true),
            ("HEAD", "/user", true),
            ("OPTIONS", "/user", true),
            ("POST", "/user", false),
            ("QUERY", "/user", false),
            ("PROPFIND", "/user", false),
            ("get", "/user", false),
            ("POST", "/o/r/git-upload-pack", true),
            ("POST", "/o/r/git-receive-pack", false),
            ("GET", "/o/r/info/refs?service=git-upload-pack", true),
            ("GET", "/o/r/info/refs?service=git-receive-pack", false),
            ("GET", "/o/r/info/refs?x=1&%73ervice=git%2Dreceive-pack", false),
            ("HEAD", "/o/r/info/refs?service=git-receive-pack", false),
            ("GET", "/user?_method=DELETE", false),
            ("GET", "/user?_METHOD=DELETE", false),
            ("GET", "/user?a=1;_method=DELETE", false),
            ("GET", "/user?_method", false),
            ("GET", "/user?X-HTTP-Method-Override=PUT", false),
            ("GET", "/user?x-method-override=PUT", false),
            ("GET", "/user?x-http-method=PUT", false),
            ("GET", "/user?a=1;X-Tunneled-Method=PUT", false),
            ("GET", "/user?x-original-http-method=PUT", false),
            ("GET", "/user?method=DELETE", false),
            ("GET", "/user?Method=%64elete+", false),
            ("GET", "/user?_httpmethod=PUT", false),
            ("GET", "/user?httpMethod=patch", false),
            ("GET", "/user?a=1;http_method=MKCOL", false),
            ("GET", "/user?method=user.get", true),
            ("GET", "/user?httpmethod=GET", true),
            ("GET", "/user?upgrade=1", true),
            ("GET", "/o/r/info/refs/?service=git-receive-pack", false),
            ("GET", "/o/r/info/refs;x=1?service=git-receive-pack", false),
            ("GET", "/o/r/INFO/refs?service=GIT-receive-pack", false),
            ("GET", "/o/r/info/refs?service=git-receive-pack%20", false),
            ("GET", "/o/r/info/refs?x=1;service=git-receive-pack", false),
            ("POST", "/o/r/GIT-upload-pack", false),
        ] {
            assert_eq!(read_only(method, target, Body::Unread).is_ok(), allowed, "{method} {target}");
        }
    }

    #[test]
    fn a_read_known_by_its_query_has_that_value_and_no_other() {
        let action = ("action".to_owned(), "query".to_owned());
        let read = OperationSpec { method: "POST".into(), path: "/api".into(), query: [action].into(), body: None };
        let access = Access::compile(&AccessSpec { reads: vec![read], ..AccessSpec::default() }).unwrap();
        for (query, allowed) in [
            ("action=query", true),
            ("action=query&titles=x", true),
            ("x=1&%61ction=quer%79", true),
            ("action=query&action=query", true),
            ("", false),
            ("action=delete", false),
            ("action=Query", false),
            ("action=query&action=delete", false),
            ("action=delete&action=query", false),
            ("action=query&Action=delete", false),
            ("action=query&%61ction=delete", false),
            ("action=query&action%20=delete", false),
            ("action=query&x=1;action=delete", false),
            ("action=query;action=delete", false),
            ("action=query&action[]=delete", false),
            ("action=query&action%5B0%5D=delete", false),
            ("action=query&action", false),
        ] {
            let (path, written) = (b"/api", Some(query.as_bytes()));
            let operation = Operation {
                method: b"POST",
                path,
                query: written,
                disguised: false,
                media: Media::Json,
                carrier: None,
            };
            let verdict = access.check(AccessMode::ReadOnly, operation, || Body::Unread);
            assert_eq!(verdict.is_ok(), allowed, "{query}");
        }
    }

    #[test]
    fn a_disguised_method_is_no_read() {
        let operation =
            Operation { method: b"GET", path: b"/", query: None, disguised: true, media: Media::Unsaid, carrier: None };
        assert_eq!(github().check(AccessMode::ReadOnly, operation, || Body::Unread), Err(Reason::ReadOnly));
        assert_eq!(github().check(AccessMode::ReadWrite, operation, || Body::Unread), Ok(()));
    }

    #[test]
    fn a_body_counts_as_what_it_is_announced_to_be() {
        let judge = |path: &[u8], media| {
            let operation = Operation { method: b"POST", path, query: None, disguised: false, media, carrier: None };
            github().check(AccessMode::ReadOnly, operation, || Body::Whole(br#"{"operation":"download"}"#))
        };
        let batch = b"/o/r/info/lfs/objects/batch";
        assert_eq!(judge(batch, Media::Json), Ok(()));
        for media in [Media::Nothing, Media::Other] {
            assert_eq!(judge(batch, media), Err(Reason::BodyUnreadable), "{media:?}");
        }
        for path in [&batch[..], b"/o/r/git-upload-pack"] {
            for media in [Media::Form, Media::Unsaid] {
                assert_eq!(judge(path, media), Err(Reason::ReadOnly), "{media:?}");
            }
        }
        for media in [Media::Nothing, Media::Other] {
            assert_eq!(judge(b"/o/r/git-upload-pack", media), Ok(()), "{media:?}");
        }
    }

    #[test]
    fn a_body_decides_where_a_rule_asks_for_it() {
        let batch = "/o/r/info/lfs/objects/batch";
        for (body, verdict) in [
            (Body::Whole(br#"{"operation":"download"}"#), Ok(())),
            (Body::Whole(br#"{"operation":"upload"}"#), Err(Reason::ReadOnly)),
            (Body::Whole(b"?"), Err(Reason::BodyUnreadable)),
            (Body::TooLarge, Err(Reason::BodyTooLarge)),
            (Body::Unread, Err(Reason::BodyUnreadable)),
        ] {
            assert_eq!(read_only("POST", batch, body), verdict, "{body:?}");
        }
    }
}
