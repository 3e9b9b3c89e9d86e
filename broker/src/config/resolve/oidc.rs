//! Providers of identities: their keys must be fetched safely, and their rules name sessions that exist.

use super::{Around, Problems};
use crate::config::error::Problem;
use crate::config::oidc::{KeySource, Provider, ProviderSpec, Rule, RuleSpec};
use crate::config::reader::join;
use crate::config::spec::Spec;
use reqwest::Url;

/// Resolves all providers.
pub(super) fn resolve_all(spec: &Spec, around: &Around<'_>, problems: &mut Problems) -> Vec<Provider> {
    let mut providers: Vec<Provider> = Vec::new();
    let kept = (0..).map(|index| format!("oidc[{index}]")).filter(|at| !around.left_out.contains(at));
    for (at, written) in kept.zip(&spec.oidc) {
        let provider = resolve(written, spec, &at, around, problems);
        if providers.iter().any(|other| other.name == provider.name) {
            problems.add(join(&at, "name"), Problem::Twice);
        }
        if providers.iter().any(|other| other.issuer == provider.issuer && other.header == provider.header) {
            problems.add(join(&at, "issuer"), Problem::ProviderTwice);
        }
        providers.push(provider);
    }
    providers
}

fn resolve(written: &ProviderSpec, spec: &Spec, at: &str, around: &Around<'_>, problems: &mut Problems) -> Provider {
    if written.algorithms.is_empty() && !around.is_incomplete(&join(at, "algorithms")) {
        problems.add(join(at, "algorithms"), Problem::NoAlgorithms);
    }
    if written.rules.is_empty() && !around.is_incomplete(&join(at, "rules")) {
        problems.add(join(at, "rules"), Problem::NoRules);
    }
    Provider {
        name: written.name.clone(),
        issuer: written.issuer.0.clone(),
        audience: written.audience.0.clone(),
        keys: keys(written, at, around, problems),
        algorithms: written.algorithms.clone(),
        header: written.header.0.clone(),
        rules: rules(&written.rules, spec, at, around, problems),
    }
}

fn keys(written: &ProviderSpec, at: &str, around: &Around<'_>, problems: &mut Problems) -> KeySource {
    let jwks = join(at, "jwks");
    if !written.jwks.contains("://") {
        return KeySource::File(around.path(&written.jwks, &jwks, problems));
    }
    let is_safe = Url::parse(&written.jwks).is_ok_and(|url| {
        let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let loopback = url.host_str().is_some_and(|host| {
            let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        });
        bare && (url.scheme() == "https" || (url.scheme() == "http" && written.plaintext && loopback))
    });
    if !is_safe {
        problems.add(jwks, Problem::UnsafeKeys);
    }
    let ca_file = written.ca_file.as_ref().map(|file| around.path(file, &join(at, "ca_file"), problems));
    KeySource::Url { url: written.jwks.clone(), ca_file }
}

fn rules(written: &[RuleSpec], spec: &Spec, at: &str, around: &Around<'_>, problems: &mut Problems) -> Vec<Rule> {
    let list = join(at, "rules");
    let kept = (0..).map(|index| format!("{list}[{index}]")).filter(|at| !around.left_out.contains(at));
    let mut rules = Vec::new();
    for (at, rule) in kept.zip(written) {
        if rule.claims.is_empty() && !around.is_incomplete(&join(&at, "claims")) {
            problems.add(join(&at, "claims"), Problem::NoClaims);
        }
        let is_declared = spec.sessions.iter().any(|session| session.name == rule.session);
        if !is_declared && !around.is_incomplete("sessions") {
            problems.add(join(&at, "session"), Problem::UnknownSession);
        }
        rules.push(Rule { claims: rule.claims.clone(), session: rule.session.clone() });
    }
    rules
}
