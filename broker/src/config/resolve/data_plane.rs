//! The filters' door: where it listens, and over a network who may ask there.

use super::{Around, DATA_PLANE, Problems, socket};
use crate::config::Endpoint;
use crate::config::data_plane::{
    DataPlaneSpec, EnvoyIdentity, MutualTls, MutualTlsSpec, Peer, PeerSpec, TowardsBroker, TowardsBrokerSpec,
};
use crate::config::error::Problem;
use crate::config::reader::join;
use crate::config::values::DataPlane;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const AT: &str = "listen.data_plane";

/// Resolves it; by default a socket in the instance's own directory.
pub(super) fn resolve(
    written: Option<&DataPlaneSpec>,
    state_dir: &Path,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Endpoint {
    match written {
        None => Endpoint::Unix(socket(Path::new(DATA_PLANE), state_dir, AT, problems)),
        Some(DataPlaneSpec::Near(DataPlane(Err(path)))) => Endpoint::Unix(socket(path, state_dir, AT, problems)),
        Some(DataPlaneSpec::Near(DataPlane(Ok(address)))) => Endpoint::Tcp(*address),
        Some(DataPlaneSpec::Far(door)) => Endpoint::Tls(Arc::new(far(door, around, problems))),
    }
}

fn far(written: &MutualTlsSpec, around: &Around<'_>, problems: &mut Problems) -> MutualTls {
    let tls = &written.tls;
    let mut file = |text: &str, name: &str| path(text, &format!("{AT}.tls.{name}"), around, problems);
    MutualTls {
        address: written.address.0,
        certificate: file(&tls.certificate, "certificate"),
        key: file(&tls.key, "key"),
        client_ca: file(&tls.client_ca, "client_ca"),
        peers: peers(&written.peers, around, problems),
        envoy: written.envoy.as_ref().and_then(|envoy| towards(envoy, written.address.0, around, problems)),
    }
}

fn path(text: &str, at: &str, around: &Around<'_>, problems: &mut Problems) -> PathBuf {
    let path = around.path(text, at, problems);
    if path.file_name().is_none() {
        problems.add(at, Problem::NoFile);
    }
    path
}

fn peers(written: &[PeerSpec], around: &Around<'_>, problems: &mut Problems) -> Vec<Peer> {
    let list = join(AT, "peers");
    if written.is_empty() && !around.is_incomplete(&list) {
        problems.add(&list, Problem::NoPeers);
    }
    let kept = (0..).map(|index| format!("{list}[{index}]")).filter(|at| !around.left_out.contains(at));
    let mut peers: Vec<Peer> = Vec::new();
    for (at, peer) in kept.zip(written) {
        if peers.iter().any(|other| other.id == peer.id) {
            problems.add(join(&at, "id"), Problem::Twice);
        }
        let at = join(&at, "sessions");
        if peer.sessions.as_ref().is_some_and(Vec::is_empty) && !around.is_incomplete(&at) {
            problems.add(&at, Problem::NoSessions);
        }
        let sessions: Option<BTreeSet<_>> = peer.sessions.as_ref().map(|names| names.iter().cloned().collect());
        if sessions.as_ref().zip(peer.sessions.as_ref()).is_some_and(|(set, list)| set.len() < list.len()) {
            problems.add(at, Problem::Twice);
        }
        peers.push(Peer { id: peer.id.clone(), sessions: sessions.map(Arc::new) });
    }
    peers
}

fn towards(
    written: &TowardsBrokerSpec,
    listens: SocketAddr,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<TowardsBroker> {
    let at = join(AT, "envoy");
    let address = match &written.address {
        Some(address) => address.0.clone(),
        None if listens.ip().is_unspecified() => {
            problems.add(&at, Problem::Lacks("address: HOST:PORT"));
            return None;
        }
        None => listens.to_string(),
    };
    let identity = match (&written.files, &written.sds) {
        (Some(files), None) => {
            let mut file = |text: &str, name: &str| path(text, &format!("{at}.files.{name}"), around, problems);
            EnvoyIdentity::Files {
                certificate: file(&files.certificate, "certificate"),
                key: file(&files.key, "key"),
                ca: file(&files.ca, "ca"),
            }
        }
        (None, Some(sds)) => EnvoyIdentity::Sds {
            certificate: path(&sds.certificate, &format!("{at}.sds.certificate"), around, problems),
            ca: path(&sds.ca, &format!("{at}.sds.ca"), around, problems),
        },
        _ if around.is_incomplete(&at) => return None,
        _ => {
            problems.add(at, Problem::OneIdentity);
            return None;
        }
    };
    Some(TowardsBroker { address, broker_id: written.broker_id.clone(), identity })
}
