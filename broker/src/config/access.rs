//! What is written under `access:`: operations that their method alone would judge wrongly.
//!
//! There are words for protocols and names for services; all of them come down to the few kinds of
//! rules that the filter knows.

use super::reader;
use super::tree;
use attache_core::access::{AccessError, git, mcp};
use attache_core::policy::{self, GraphqlSpec, OperationSpec};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::LazyLock;

/// What reads and what writes at a destination, in spite of the method. By itself GET, HEAD and
/// OPTIONS read, and all else writes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSpec {
    /// The rules of these services.
    pub like: Vec<RuleSet>,
    /// Where git repositories lie (`/*/*`): they are cloned, fetched, archived, and their large files
    /// downloaded.
    pub git: Vec<String>,
    /// Where GraphQL is spoken: what a request reads or writes, its document says.
    pub graphql: Option<GraphqlSpec>,
    /// gRPC methods that read: `package.Service/Method`, or `package.Service/*` for all of a service.
    pub grpc: Vec<String>,
    /// Where the Model Context Protocol is spoken.
    pub mcp: Option<McpSpec>,
    /// Reads in spite of their method.
    pub reads: Vec<OperationSpec>,
    /// Writes in spite of their method. They go before all that reads.
    pub writes: Vec<OperationSpec>,
    /// No method reads by itself, GET included: only what is named here (default: `false`).
    pub only_listed: bool,
}

/// Servers of the Model Context Protocol (streamable HTTP).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpSpec {
    /// Their paths.
    pub paths: Vec<String>,
    /// Tools that read. No other may be called.
    #[serde(default)]
    pub tools: Vec<String>,
}

/// A service whose rules are known: `broker/rules/NAME.yaml`, written as a config writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleSet {
    /// Anthropic's API, and what speaks it: inference reads.
    Anthropic,
    /// Elasticsearch and OpenSearch: searches are POSTs, and some GETs write.
    Elasticsearch,
    /// npm's registry: an audit is a POST.
    Npm,
    /// OpenAI's API, and what speaks it: inference reads.
    Openai,
    /// S3: to select from an object is a POST.
    S3,
    /// Slack: every method of its API can be called by GET.
    Slack,
    /// WebDAV, CalDAV and CardDAV: methods that search.
    Webdav,
}

impl RuleSet {
    /// All, with their names and files, in order.
    const TABLE: [(RuleSet, &str, &str); 7] = [
        (RuleSet::Anthropic, "anthropic", include_str!("../../rules/anthropic.yaml")),
        (RuleSet::Elasticsearch, "elasticsearch", include_str!("../../rules/elasticsearch.yaml")),
        (RuleSet::Npm, "npm", include_str!("../../rules/npm.yaml")),
        (RuleSet::Openai, "openai", include_str!("../../rules/openai.yaml")),
        (RuleSet::S3, "s3", include_str!("../../rules/s3.yaml")),
        (RuleSet::Slack, "slack", include_str!("../../rules/slack.yaml")),
        (RuleSet::Webdav, "webdav", include_str!("../../rules/webdav.yaml")),
    ];

    /// The names of all, in order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::TABLE.iter().map(|(_, name, _)| *name)
    }

    fn rules(self) -> Option<&'static AccessSpec> {
        RULES.iter().find(|(known, _)| *known == self).map(|(_, rules)| rules)
    }
}

static RULES: LazyLock<Vec<(RuleSet, AccessSpec)>> = LazyLock::new(|| {
    // The files are part of the program: the tests below prove that each is read whole.
    let parse = |text| tree::parse(text).ok().and_then(|root| reader::read(&root).value);
    RuleSet::TABLE.iter().filter_map(|(set, _, text)| parse(text).map(|rules| (*set, rules))).collect()
});

impl AccessSpec {
    /// What all of it comes down to.
    pub fn resolve(&self) -> Result<policy::AccessSpec, AccessError> {
        let mut rules = policy::AccessSpec {
            only_listed: self.only_listed,
            reads: self.reads.clone(),
            writes: self.writes.clone(),
            graphql: self.graphql.clone(),
            grpc: self.grpc.clone(),
        };
        rules.add(git::rules(&self.git)?);
        if let Some(McpSpec { paths, tools }) = &self.mcp {
            rules.add(mcp::rules(paths, tools));
        }
        for known in self.like.iter().filter_map(|set| set.rules()) {
            rules.add(known.resolve()?);
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attache_core::access::{Access, Body, Operation};
    use attache_core::policy::AccessMode;
    use attache_core::refusal::Reason;

    fn read(text: &str) -> AccessSpec {
        let reading = reader::read::<AccessSpec>(&tree::parse(text).unwrap());
        assert!(reading.faults.is_empty(), "{text}: {:?}", reading.faults);
        reading.value.unwrap()
    }

    /// Whether a reader may do this where these rules hold: nothing that takes a body to tell.
    fn reads(rules: &str, method: &str, target: &str) -> bool {
        let access = Access::compile(&read(rules).resolve().unwrap()).unwrap();
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.as_bytes())));
        let media = attache_core::request::Media::Json;
        let operation =
            Operation { method: method.as_bytes(), path: path.as_bytes(), query, media, ..Operation::default() };
        let verdict = access.check(AccessMode::ReadOnly, operation, || Body::Unread);
        assert!(matches!(verdict, Ok(()) | Err(Reason::ReadOnly)), "{verdict:?}: {method} {target}");
        verdict.is_ok()
    }

    #[test]
    fn every_set_is_read_whole() {
        for (set, name, text) in RuleSet::TABLE {
            let rules = read(text);
            assert!(rules.like.is_empty() && rules != AccessSpec::default(), "{name}: rules, and of no other set");
            assert_eq!(set.rules(), Some(&rules), "{name}");
            assert_eq!(read(&format!("like: [{name}]")).like, [set]);
            Access::compile(&rules.resolve().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_set_knows_what_reads_at_its_service() {
        for (set, method, target, expected) in [
            ("anthropic", "POST", "/v1/messages", true),
            ("anthropic", "POST", "/v1/messages/count_tokens", true),
            ("anthropic", "POST", "/v1/messages/batches", false),
            ("anthropic", "POST", "/v1/files", false),
            ("openai", "POST", "/v1/chat/completions", true),
            ("openai", "POST", "/v1/responses", true),
            ("openai", "POST", "/v1/responses/r/cancel", false),
            ("openai", "POST", "/v1/batches", false),
            ("openai", "DELETE", "/v1/responses/r", false),
            ("npm", "POST", "/-/npm/v1/security/advisories/bulk", true),
            ("npm", "POST", "/-/npm/v1/security/audits/quick", true),
            ("npm", "PUT", "/package", false),
            ("npm", "POST", "/-/npm/v1/tokens", false),
            ("npm", "PUT", "/-/package/p/dist-tags/latest", false),
            ("elasticsearch", "POST", "/_search", true),
            ("elasticsearch", "POST", "/logs-*/_search?size=1", true),
            ("elasticsearch", "POST", "/logs/_count", true),
            ("elasticsearch", "POST", "/_msearch", true),
            ("elasticsearch", "POST", "/logs/_mget", true),
            ("elasticsearch", "GET", "/logs/_doc/1", true),
            ("elasticsearch", "POST", "/_bulk", false),
            ("elasticsearch", "POST", "/logs/_doc", false),
            ("elasticsearch", "POST", "/logs/_update_by_query", false),
            ("elasticsearch", "POST", "/logs/_delete_by_query", false),
            ("elasticsearch", "POST", "/_reindex", false),
            ("elasticsearch", "GET", "/logs/_refresh", false),
            ("elasticsearch", "GET", "/_flush", false),
            ("elasticsearch", "DELETE", "/_search/scroll", false),
            ("s3", "GET", "/bucket/key", true),
            ("s3", "POST", "/bucket/key?select&select-type=2", true),
            ("s3", "POST", "/bucket/key?select=&select-type=2&x-id=SelectObjectContent", true),
            ("s3", "POST", "/bucket?delete", false),
            ("s3", "POST", "/bucket/key?select&select-type=2&delete", false),
            ("s3", "POST", "/bucket/key?select&select-type=2&uploadId=1", false),
            ("s3", "POST", "/bucket/key?select&select-type=2;delete", false),
            ("s3", "POST", "/bucket/key?select", false),
            ("s3", "POST", "/bucket/key?uploads", false),
            ("s3", "POST", "/bucket/key?restore", false),
            ("s3", "PUT", "/bucket/key", false),
            ("slack", "GET", "/api/conversations.history?channel=C", true),
            ("slack", "GET", "/api/chat.postMessage?channel=C&text=x", false),
            ("slack", "GET", "/api/Conversations.history", false),
            ("slack", "HEAD", "/api/chat.postMessage?channel=C&text=x", false),
            ("slack", "GET", "/api/chat.delete", false),
            ("slack", "GET", "/anything", false),
            ("slack", "OPTIONS", "/api/chat.delete", false),
            ("webdav", "PROPFIND", "/dav/calendar/", true),
            ("webdav", "REPORT", "/dav/calendar", true),
            ("webdav", "SEARCH", "/", true),
            ("webdav", "PROPPATCH", "/dav", false),
            ("webdav", "MKCOL", "/dav", false),
            ("webdav", "LOCK", "/dav", false),
            ("webdav", "MKCALENDAR", "/dav", false),
            ("webdav", "ACL", "/dav", false),
            ("webdav", "PUT", "/dav/x", false),
        ] {
            assert_eq!(reads(&format!("like: [{set}]"), method, target), expected, "{set}: {method} {target}");
        }
    }

    /// What no rule names is a write, whatever it might turn out to be.
    #[test]
    fn without_a_rule_no_other_method_and_no_batch_reads() {
        for (method, target) in [
            ("PROPFIND", "/dav"),
            ("REPORT", "/dav"),
            ("SEARCH", "/"),
            ("QUERY", "/search"),
            ("BATCH", "/"),
            ("get", "/"),
            ("POST", "/batch"),
            ("POST", "/batch/drive/v3"),
            ("POST", "/odata/$batch"),
            ("POST", "/graphql"),
            ("POST", "/_search"),
        ] {
            assert!(!reads("{}", method, target), "{method} {target}");
        }
        assert!(reads("{}", "GET", "/"));
        assert!(!reads("only_listed: true", "GET", "/"));
        assert!(reads("{only_listed: true, reads: [{method: GET, path: /a}]}", "HEAD", "/a"));
    }

    #[test]
    fn words_come_down_to_rules_and_add_up() {
        let rules = read(
            "{like: [npm], git: [/*/*], graphql: {paths: [/graphql]}, grpc: [a.B/C], mcp: {paths: [/mcp], tools: [find]}, \
             reads: [{method: POST, path: /x}], writes: [{method: GET, path: /y}]}",
        );
        let rules = rules.resolve().unwrap();
        let paths: Vec<_> = rules.reads.iter().map(|rule| rule.path.as_str()).collect();
        assert_eq!(
            paths[..5],
            ["/x", "/*/*/git-upload-pack", "/*/*/git-upload-archive", "/*/*/info/lfs/objects/batch", "/mcp"]
        );
        assert!(paths.contains(&"/-/npm/v1/security/audits") && rules.writes.len() == 2 && rules.grpc == ["a.B/C"]);
        assert_eq!(rules.judged_paths().collect::<Vec<_>>(), ["/*/*/info/lfs/objects/batch", "/mcp", "/graphql"]);
        for bad in ["git: [o/r]", "grpc: [B]", "graphql: {paths: [x]}", "mcp: {paths: [x]}"] {
            let resolved = read(bad).resolve().and_then(|rules| Access::compile(&rules));
            assert!(resolved.is_err(), "{bad}");
        }
    }
}
