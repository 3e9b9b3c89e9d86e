//! Bundles: which headers they may set, and which fields are public.

use super::{Around, Problems};
use crate::config::bundle::{BundleHeader, BundleSpec};
use crate::config::error::Problem;
use crate::config::reader::join;
use crate::config::spec::{CredentialSpec, Spec};
use crate::config::{Bundle, Credential};
use attache_core::policy::{Carrier, StripSpec};
use attache_core::strip::Strip;

/// What a credential's `bundle` says.
pub(super) fn resolve(written: &CredentialSpec, path: &str, spec: &Spec, problems: &mut Problems) -> Option<Bundle> {
    let BundleSpec { secret, headers, expires, fields, destinations } = written.bundle.as_ref()?;
    let at = join(path, "bundle");
    for (name, _) in fields.iter().filter(|(_, field)| *field == secret) {
        problems.add(join(&join(&at, "fields"), &name.0), Problem::BundleSecretPublic);
    }
    let of_destinations = written.destinations.iter().flat_map(|destination| &destination.with);
    let beside: Vec<_> = written.with.iter().chain(of_destinations).collect();
    let mut resolved: Vec<BundleHeader> = Vec::new();
    for (written, field) in headers {
        let (name, at) = (written.0.to_ascii_lowercase(), join(&join(&at, "headers"), &written.0));
        if resolved.iter().any(|known| known.name == name) {
            problems.add(&at, Problem::Twice);
        } else if !is_plain(&name) || Strip::compile(&strip([&name])).is_err() {
            problems.add(&at, Problem::BundleHeader);
        } else if spec.oidc.iter().any(|provider| provider.header.0 == name) {
            problems.add(&at, Problem::BundleHeaderIdentity);
        } else if beside.iter().any(|companion| companion.header.eq_ignore_ascii_case(&name)) {
            problems.add(&at, Problem::BundleHeaderTaken("with"));
        } else {
            let is_public = fields.values().any(|public| public == field);
            resolved.push(BundleHeader { name, field: field.clone(), is_public });
        }
    }
    Some(Bundle {
        secret: secret.clone(),
        headers: resolved,
        expires: expires.clone(),
        fields: fields.iter().map(|(name, field)| (name.0.clone(), field.clone())).collect(),
        destinations: destinations.clone(),
    })
}

/// The same credential, whose destinations take out what agents write under the bundle's headers.
pub(super) fn stripped(written: &CredentialSpec, bundle: Option<&Bundle>) -> CredentialSpec {
    let mut written = written.clone();
    if let Some(bundle) = bundle {
        written.strip.add(&strip(bundle.headers.iter().map(|header| &header.name)));
    }
    written
}

/// What the filter takes for a header of a grant.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

fn strip<'a>(headers: impl IntoIterator<Item = &'a String>) -> StripSpec {
    StripSpec { headers: headers.into_iter().cloned().collect(), query: Vec::new() }
}

/// What is set beside the credential is set by nothing else: neither by its own injection, nor by what another
/// credential has set there.
pub(super) fn check_together(credentials: &[Credential], around: &Around<'_>, problems: &mut Problems) {
    for credential in credentials {
        let Some(bundle) = &credential.bundle else { continue };
        let at = join(&join(&join("credentials", credential.name.as_str()), "bundle"), "headers");
        if around.is_incomplete(&at) {
            continue;
        }
        for header in &bundle.headers {
            let carries = |carrier: Carrier| carrier == Carrier::Header(header.name.clone());
            if credential.destinations.iter().any(|to| carries(to.injection.carrier())) {
                problems.add(&at, Problem::BundleHeaderTaken("inject"));
            }
        }
    }
}
