//! The one rule table that the variants which decide share, and the request
//! that is measured.
//!
//! `decide` is the reference: the authorisation service calls it, the Lua
//! variant states the same steps in Lua over the table of [`Rules::to_lua`].

use std::collections::HashMap;
use std::fmt::Write;

use http::Method;

/// The authority of every measured request.
pub const HOST: &str = "api.bench.test";
/// The path of every measured request.
pub const LOAD_PATH: &str = "/v1/items/42?page=2&per_page=50";
/// Under it a second credential is bound whose echoes are not masked.
pub const UNMASKED: &str = "/unmasked";
/// In a path, what comes before the number of bytes to answer with.
pub const BODY_OF: &str = "/body-of/";
/// The path on which the upstream remembers what it received.
pub const PROOF_PATH: &str = "/v1/proof";
/// What a client of an API sends besides Host and Authorization.
pub const LOAD_HEADERS: [(&str, &str); 4] = [
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("user-agent", "bench-client/1.0 (linux; x86_64)"),
    ("x-request-source", "agent"),
];

/// Headers that authenticate; all go before the one credential is set. The
/// same as the filter's own.
pub const AUTH_HEADERS: [&str; 15] = [
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-auth-token",
    "x-access-token",
    "x-goog-api-key",
    "private-token",
    "job-token",
    "deploy-token",
    "x-amz-security-token",
    "x-vault-token",
    "x-figma-token",
    "x-shopify-access-token",
    "x-attache-session",
];
/// Query parameters that authenticate. A request with one is refused here, as
/// `ext_authz` over HTTP cannot take it out; the filter takes it out.
const AUTH_PARAMETERS: [&str; 9] = [
    "access_token",
    "api_key",
    "apikey",
    "api-key",
    "auth_token",
    "private_token",
    "job_token",
    "oauth_token",
    "x-amz-security-token",
];
const READS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// Hosts, each with one path prefix and one credential of its own.
const DESTINATIONS: [(&str, &str); 6] = [
    (HOST, "/v1/"),
    ("git.bench.test", "/api/"),
    ("chat.bench.test", "/v1/"),
    ("pages.bench.test", "/"),
    ("alerts.bench.test", "/rest/"),
    ("errors.bench.test", "/api/0/"),
];

/// The placeholders of a read-write and a read-only session for each
/// destination, with their secrets.
#[derive(Clone, Debug)]
pub struct Rules {
    destinations: HashMap<String, (String, usize)>,
    grants: HashMap<String, Grant>,
}

#[derive(Clone, Debug)]
struct Grant {
    destination: usize,
    read_only: bool,
    authorization: String,
}

/// One destination with its secret.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Its host.
    pub host: &'static str,
    /// The one path prefix that is allowed.
    pub prefix: &'static str,
    /// What the upstream wants as a bearer token.
    pub secret: &'a str,
}

/// Why a request is refused, with the status of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// One word for the counter.
    pub reason: &'static str,
}

impl Rules {
    /// The table, with fresh placeholders and secrets.
    pub fn random() -> Self {
        let mut rules = Self { destinations: HashMap::new(), grants: HashMap::new() };
        for (index, (host, prefix)) in DESTINATIONS.iter().enumerate() {
            rules.destinations.insert((*host).to_owned(), ((*prefix).to_owned(), index));
            let authorization = format!("Bearer ghp_{}", random_text(36));
            for read_only in [false, true] {
                let placeholder = format!("ghp_ATTACHE{}", random_text(29));
                let grant = Grant { destination: index, read_only, authorization: authorization.clone() };
                rules.grants.insert(placeholder, grant);
            }
        }
        rules
    }

    /// Every destination, the measured one first.
    pub fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        DESTINATIONS.iter().enumerate().map(|(index, (host, prefix))| {
            let grant = self.grants.values().find(|grant| grant.destination == index);
            let secret = grant.and_then(|grant| grant.authorization.strip_prefix("Bearer ")).unwrap_or_default();
            Destination { host, prefix, secret }
        })
    }

    /// The placeholder of the measured host's session with this access mode.
    pub fn placeholder(&self, read_only: bool) -> String {
        let mut grants = self.grants.iter();
        let wanted = grants.find(|(_, grant)| grant.destination == 0 && grant.read_only == read_only);
        wanted.map(|(placeholder, _)| placeholder.clone()).unwrap_or_default()
    }

    /// The Authorization value that the measured host must receive.
    pub fn authorization(&self) -> String {
        let grant = self.grants.values().find(|grant| grant.destination == 0);
        grant.map(|grant| grant.authorization.clone()).unwrap_or_default()
    }

    /// The value that replaces Authorization, or the refusal.
    pub fn decide(
        &self,
        method: &Method,
        authority: &str,
        path_and_query: &str,
        authorization: Option<&str>,
    ) -> Result<&str, Refusal> {
        let refuse = |status, reason| Err(Refusal { status, reason });
        let Some((prefix, destination)) = self.destinations.get(authority) else {
            return refuse(403, "host_not_allowed");
        };
        if !path_and_query.starts_with(prefix) {
            return refuse(403, "path_not_allowed");
        }
        if let Some((_, query)) = path_and_query.split_once('?') {
            let mut names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
            if names.any(|name| AUTH_PARAMETERS.contains(&name)) {
                return refuse(403, "credential_in_query");
            }
        }
        let placeholder = authorization
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token"));
        let Some(grant) = placeholder.and_then(|(_, token)| self.grants.get(token)) else {
            return refuse(401, "placeholder_unknown");
        };
        if grant.destination != *destination {
            return refuse(403, "placeholder_misplaced");
        }
        if grant.read_only && !READS.contains(&method.as_str()) {
            return refuse(403, "read_only");
        }
        Ok(&grant.authorization)
    }

    /// The same table as Lua locals, to stand before `variants/rules.lua`.
    pub fn to_lua(&self) -> String {
        let mut lua = String::from("local DESTINATIONS = {\n");
        for (host, (prefix, index)) in &self.destinations {
            // Writing to a String cannot fail.
            let _ = writeln!(lua, "  [\"{host}\"] = {{prefix = \"{prefix}\", id = {index}}},");
        }
        lua.push_str("}\nlocal GRANTS = {\n");
        for (placeholder, Grant { destination, read_only, authorization }) in &self.grants {
            let _ = writeln!(
                lua,
                "  [\"{placeholder}\"] = {{destination = {destination}, read_only = {read_only}, \
                 authorization = \"{authorization}\"}},"
            );
        }
        lua.push_str("}\n");
        for (name, words) in [("AUTH_PARAMETERS", &AUTH_PARAMETERS[..]), ("READS", &READS)] {
            let set: Vec<String> = words.iter().map(|word| format!("[\"{word}\"] = true")).collect();
            let _ = writeln!(lua, "local {name} = {{{}}}", set.join(", "));
        }
        let names: Vec<String> = AUTH_HEADERS.iter().map(|name| format!("\"{name}\"")).collect();
        let _ = writeln!(lua, "local AUTH_HEADERS = {{{}}}", names.join(", "));
        lua
    }
}

fn random_text(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_refuses_its_own_breach() {
        let rules = Rules::random();
        let full = format!("Bearer {}", rules.placeholder(false));
        let read_only = format!("token {}", rules.placeholder(true));
        let reason = |method: Method, host: &str, path: &str, authorization: Option<&str>| {
            rules.decide(&method, host, path, authorization).map_err(|refusal| refusal.reason)
        };
        let secret = rules.authorization();
        assert_eq!(reason(Method::GET, HOST, LOAD_PATH, Some(&full)), Ok(secret.as_str()));
        assert_eq!(reason(Method::POST, HOST, LOAD_PATH, Some(&full)), Ok(secret.as_str()));
        assert_eq!(reason(Method::GET, HOST, LOAD_PATH, Some(&read_only)), Ok(secret.as_str()));
        assert_eq!(reason(Method::POST, HOST, LOAD_PATH, Some(&read_only)), Err("read_only"));
        assert_eq!(reason(Method::GET, "evil.test", LOAD_PATH, Some(&full)), Err("host_not_allowed"));
        assert_eq!(reason(Method::GET, HOST, "/v2/items", Some(&full)), Err("path_not_allowed"));
        assert_eq!(reason(Method::GET, HOST, "/v1/a?api_key=1", Some(&full)), Err("credential_in_query"));
        assert_eq!(reason(Method::GET, HOST, LOAD_PATH, Some("Bearer other")), Err("placeholder_unknown"));
        assert_eq!(reason(Method::GET, HOST, LOAD_PATH, None), Err("placeholder_unknown"));
        let misplaced = reason(Method::GET, "pages.bench.test", "/", Some(&full));
        assert_eq!(misplaced, Err("placeholder_misplaced"));
    }
}
