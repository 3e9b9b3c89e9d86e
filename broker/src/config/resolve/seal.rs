//! By what the state directory is sealed: a key somewhere, or the OpenBao that the sources name.

use super::{Around, Problems};
use crate::config::error::Problem;
use crate::config::seal::SealSpec;
use crate::config::spec::Spec;
use crate::config::{SealedBy, SourcesConfig};

pub(super) fn resolve(
    spec: &Spec,
    sources: &SourcesConfig,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<SealedBy> {
    let at = "state.seal.transit";
    match spec.state.seal.as_ref()? {
        SealSpec::File(file) => Some(SealedBy::File(around.path(file, "state.seal.file", problems))),
        SealSpec::Env(variable) => Some(SealedBy::Env(variable.0.clone())),
        SealSpec::Transit(transit) => {
            if transit.key.0.contains('/') {
                problems.add(format!("{at}.key"), Problem::TransitKey);
            }
            let Some(server) = sources.openbao.clone() else {
                let half = spec.sources.openbao.address.is_some() || spec.sources.openbao.auth.is_some();
                if !half && !around.is_incomplete("sources.openbao") {
                    problems.add(at, Problem::NoOpenBao);
                }
                return None;
            };
            let mount = transit.mount.as_ref().map_or("transit", |mount| mount.0.as_str()).to_owned();
            Some(SealedBy::Transit { server, mount, key: transit.key.0.clone() })
        }
    }
}
