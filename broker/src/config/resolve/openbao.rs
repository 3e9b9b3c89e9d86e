//! OpenBao: reached safely, by somebody, for secrets that are named once.

use super::{Around, Problems, period};
use crate::config::SourcesConfig;
use crate::config::error::Problem;
use crate::config::handed::SecretAt;
use crate::config::openbao::{AppRoleSpec, Auth, AuthSpec, Delivered, JwtAt, OpenBao, OpenBaoSecret, SecretId};
use crate::config::reader::join;
use crate::config::spec::{SourceSpec, Spec};
use crate::config::values::ApiPath;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const AT: &str = "sources.openbao";
/// Where a kubelet puts it.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The OpenBao that all its secrets share, where the config names one.
pub(super) fn resolve(
    spec: &Spec,
    file_dir: &Path,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Arc<OpenBao>> {
    let written = &spec.sources.openbao;
    let second = Duration::from_secs(1);
    let refresh = period(
        &written.refresh,
        60 * second,
        second..=86_400 * second,
        ("sources.openbao.refresh", "a length of time from 1s to 24h"),
        problems,
    );
    let optional = |file: &Option<String>, name: &str, problems: &mut Problems| {
        file.as_ref().map(|file| around.path(file, &join(AT, name), problems))
    };
    let ca_file = optional(&written.ca_file, "ca_file", problems);
    let certificate = optional(&written.client_certificate_file, "client_certificate_file", problems);
    let key = optional(&written.client_key_file, "client_key_file", problems);
    if certificate.is_some() != key.is_some() {
        problems.add(AT, Problem::HalfAnIdentity);
    }
    let auth = written.auth.as_ref().and_then(|auth| resolve_auth(auth, file_dir, around, problems));
    let is_named = written.address.is_some() || written.auth.is_some();
    for (missing, name) in [
        (written.address.is_none(), "address: https://HOST:8200"),
        (written.auth.is_none(), "auth: {token: {env: BAO_TOKEN}}"),
    ] {
        if is_named && missing && !around.is_incomplete(AT) {
            problems.add(AT, Problem::Lacks(name));
        }
    }
    Some(Arc::new(OpenBao {
        address: written.address.as_ref()?.0.clone(),
        nodes: written.nodes.iter().map(|node| node.0.clone()).collect(),
        namespace: written.namespace.as_ref().map(|namespace| namespace.0.clone()),
        ca_file,
        identity: certificate.zip(key),
        auth: auth?,
        refresh,
    }))
}

fn resolve_auth(written: &AuthSpec, file_dir: &Path, around: &Around<'_>, problems: &mut Problems) -> Option<Auth> {
    let at = join(AT, "auth");
    let mounted = |mount: &Option<ApiPath>, default: &str| {
        mount.as_ref().map_or_else(|| default.to_owned(), |mount| mount.0.clone())
    };
    Some(match written {
        AuthSpec::Token(token) => Auth::Token(token.at(file_dir)),
        AuthSpec::AppRole(role) => Auth::AppRole {
            role_id: role.role_id.0.clone(),
            secret_id: secret_id(role, &join(&at, "approle"), file_dir, problems)?,
            mount: mounted(&role.mount, "approle"),
        },
        AuthSpec::Kubernetes(written) => {
            let file = written.jwt_file.as_deref().unwrap_or(SERVICE_ACCOUNT);
            let jwt = SecretAt::Shared(around.path(file, &join(&at, "kubernetes.jwt_file"), problems));
            Auth::Jwt { role: written.role.0.clone(), jwt, mount: mounted(&written.mount, "kubernetes") }
        }
        AuthSpec::Jwt(written) => {
            let jwt = match &written.jwt {
                JwtAt::Env(variable) => SecretAt::Env(variable.0.clone()),
                JwtAt::File(file) => SecretAt::Shared(around.path(file, &join(&at, "jwt.jwt.file"), problems)),
            };
            Auth::Jwt { role: written.role.0.clone(), jwt, mount: mounted(&written.mount, "jwt") }
        }
    })
}

fn secret_id(role: &AppRoleSpec, at: &str, file_dir: &Path, problems: &mut Problems) -> Option<SecretId> {
    match (&role.secret_id, &role.wrapped_secret_id) {
        (Some(plain), None) => Some(SecretId::Plain(plain.at(file_dir))),
        (None, Some(wrapped)) => {
            let token = match wrapped {
                Delivered::Env(variable) => SecretAt::Env(variable.0.clone()),
                Delivered::File(file) => SecretAt::Private(file_dir.join(&file.0)),
                Delivered::Stdin => SecretAt::Stdin,
            };
            // Without it nobody could tell whether somebody else has made the wrapping.
            let Some(path) = &role.creation_path else {
                problems.add(at, Problem::Lacks("creation_path: auth/approle/role/NAME/secret-id"));
                return None;
            };
            Some(SecretId::Wrapped { token, creation_path: path.0.clone() })
        }
        _ => {
            problems.add(at, Problem::OneSecretId);
            None
        }
    }
}

/// What a credential's `source` names in it.
pub(super) fn secret(
    source: Option<&SourceSpec>,
    at: &str,
    (spec, sources): (&Spec, &SourcesConfig),
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<OpenBaoSecret> {
    let source = source?;
    let (path, field, version, at) = match (&source.openbao, &source.reference) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            problems.add(at, Problem::NamedTwice);
            return None;
        }
        (Some(secret), None) => {
            let version = secret.version.map(std::num::NonZeroU32::get);
            (secret.path.0.clone(), secret.field.0.clone(), version, join(at, "openbao"))
        }
        (None, Some(reference)) => {
            let at = join(at, "ref");
            let found = spec.sources.openbao.references.as_ref().and_then(|references| {
                let template = references.templates.iter().find(|(scope, _)| scope.0 == reference.scope)?.1;
                let base = references.base.as_ref().map(|base| base.0.as_str());
                let environment = references.environment.as_ref().map(|environment| environment.0.as_str());
                let path = template.path(base, &reference.provider, environment)?;
                Some(references.mount.as_ref().map_or(path.clone(), |mount| format!("{}/data/{path}", mount.0)))
            });
            let Some(path) = found else {
                if !around.is_incomplete(AT) {
                    let none = spec.sources.openbao.references.is_none() && spec.sources.openbao.address.is_none();
                    problems.add(at, if none { Problem::NoOpenBao } else { Problem::NoTemplate });
                }
                return None;
            };
            (path, reference.key.clone(), None, at)
        }
    };
    let Some(server) = sources.openbao.clone() else {
        // Half of one is told where it stands.
        let half = spec.sources.openbao.address.is_some() || spec.sources.openbao.auth.is_some();
        if !half && !around.is_incomplete(AT) {
            problems.add(at, Problem::NoOpenBao);
        }
        return None;
    };
    Some(OpenBaoSecret { server, path, field, version, document: false })
}
