//! Files that somebody swaps, and what becomes of who is connected.

use super::*;
use crate::config::PeerId;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PEER: &str = "spiffe://test/peer";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key, PEM; the certificate, DER.
    fn leaf(&self, uris: &[&str]) -> (String, String, CertificateDer<'static>) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        (signed.pem(), key.serialize_pem(), signed.der().clone())
    }
}

fn write(dir: &Path, leaf: &(String, String, CertificateDer<'_>), ca: &str, mode: u32) {
    for (name, text) in [("tls.crt", &leaf.0), ("tls.key", &leaf.1), ("ca.crt", &ca.to_owned())] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    std::fs::set_permissions(dir.join("tls.key"), PermissionsExt::from_mode(mode)).unwrap();
}

fn config(dir: &Path) -> MutualTls {
    let peer = Peer { id: PEER.parse::<PeerId>().unwrap(), sessions: None };
    MutualTls {
        address: ([127, 0, 0, 1], 0).into(),
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
        client_ca: dir.join("ca.crt"),
        peers: vec![peer],
        envoy: None,
    }
}

#[test]
fn a_key_for_a_group_is_usable_and_one_for_everybody_is_not() {
    let (temp, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let leaf = authority.leaf(&["spiffe://test/broker"]);
    for (mode, is_usable) in
        [(0o400, true), (0o440, true), (0o640, true), (0o600, true), (0o644, false), (0o660, false)]
    {
        write(temp.path(), &leaf, &authority.pem, mode);
        let opened = Acceptor::open(&config(temp.path())).err().map(|error| error.to_string());
        assert_eq!(opened.is_none(), is_usable, "{mode:04o}: {opened:?}");
    }
    std::fs::remove_file(temp.path().join("ca.crt")).unwrap();
    std::fs::set_permissions(temp.path().join("tls.key"), PermissionsExt::from_mode(0o600)).unwrap();
    let told = Acceptor::open(&config(temp.path())).err().unwrap().to_string();
    assert!(told.contains("listen.data_plane.tls.client_ca: there is no file"), "{told}");
}

#[test]
fn a_certificate_names_one_peer_or_nobody() {
    let (temp, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    write(temp.path(), &authority.leaf(&["spiffe://test/broker"]), &authority.pem, 0o600);
    let acceptor = Acceptor::open(&config(temp.path())).unwrap();
    let named = |uris: &[&str]| acceptor.current().verifier.peer(&authority.leaf(uris).2);
    assert_eq!(named(&[PEER]).unwrap().id.as_str(), PEER);
    assert_eq!(named(&[]), Err(NotAPeer::NoId));
    assert_eq!(named(&["spiffe://test/peer/"]), Err(NotAPeer::NoId));
    assert_eq!(named(&[PEER, PEER]), Err(NotAPeer::Several));
    assert_eq!(named(&[PEER, "spiffe://test/other"]), Err(NotAPeer::Several));
    let other = "spiffe://test/other";
    assert_eq!(named(&[other]), Err(NotAPeer::Unlisted(other.parse().unwrap())));
}

#[tokio::test]
async fn who_is_connected_is_held_against_the_authorities_of_now() {
    let (temp, authority, next) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let own = authority.leaf(&["spiffe://test/broker"]);
    write(temp.path(), &own, &authority.pem, 0o600);
    let acceptor = Arc::new(Acceptor::open(&config(temp.path())).unwrap());
    let (_, _, shown) = authority.leaf(&[PEER]);
    let peer = acceptor.current().verifier.peer(&shown).unwrap();
    let place = connected::Place::take(acceptor.clone(), &peer).unwrap();
    let connected = Connected::new(peer, vec![shown], 0, place);
    assert!(connected.peer().is_some());
    write(temp.path(), &own, &format!("{}{}", authority.pem, next.pem), 0o600);
    assert!(!acceptor.look(), "another authority beside it");
    assert!(connected.peer().is_some());
    write(temp.path(), &own, "nothing", 0o600);
    assert!(acceptor.look() && connected.peer().is_some(), "what is no good changes nothing");
    write(temp.path(), &own, &next.pem, 0o600);
    assert!(!acceptor.look());
    assert!(connected.peer().is_none());
    write(temp.path(), &own, &authority.pem, 0o600);
    assert!(!acceptor.look() && connected.peer().is_none(), "once over, it is over");
    tokio::time::timeout(Duration::from_secs(5), connected.over()).await.unwrap();
}
