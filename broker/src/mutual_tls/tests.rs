//! Files that somebody swaps, and what becomes of who is connected.

use super::*;
use crate::config::PeerId;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PEER: &str = "spiffe://test/peer";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        Self::until(4095)
    }

    /// One that ends when this year begins.
    fn until(year: i32) -> Self {
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate.
    fn certificate(&self) -> CertificateDer<'static> {
        rustls::pki_types::pem::PemObject::from_pem_slice(self.pem.as_bytes()).unwrap()
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

#[test]
fn by_an_authority_that_has_ended_nobody_is_believed() {
    let (temp, authority, ended) = (tempfile::tempdir().unwrap(), Authority::until(2100), Authority::until(2001));
    let own = authority.leaf(&["spiffe://test/broker"]);
    write(temp.path(), &own, &ended.pem, 0o600);
    let told = Acceptor::open(&config(temp.path())).err().unwrap().to_string();
    assert!(told.contains("every authority in") && told.contains("has ended, the last at 2001-01-01"), "{told}");

    // Beside one that has not, it is left out.
    write(temp.path(), &own, &format!("{}{}", ended.pem, authority.pem), 0o600);
    let acceptor = Acceptor::open(&config(temp.path())).unwrap();
    let at = |year: u64| UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600));
    let believes = |authority: &Authority, year| {
        let shown = authority.leaf(&[PEER]).2;
        acceptor.current().verifier.verify_client_cert(&shown, &[], at(year)).is_ok()
    };
    assert!(believes(&authority, 2050) && !believes(&ended, 2050) && !believes(&ended, 2000));
    // And one that ends while the broker runs is not believed from then on, though its clients' certificates last.
    assert!(!believes(&authority, 2101));
}

#[test]
fn what_a_client_is_turned_away_for_is_told_once_a_minute() {
    let (temp, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    write(temp.path(), &authority.leaf(&["spiffe://test/broker"]), &authority.pem, 0o600);
    let acceptor = Acceptor::open(&config(temp.path())).unwrap();
    let now = Instant::now();
    assert_eq!(acceptor.is_news(&Refused::NotBelieved, now), Some(0));
    assert!((0..100).all(|_| acceptor.is_news(&Refused::NotBelieved, now).is_none()));
    assert_eq!(acceptor.is_news(&Refused::NoTls, now), Some(0), "another reason is told at once");
    assert_eq!(acceptor.is_news(&Refused::NotBelieved, now + TELL_AGAIN), Some(100));
    let stranger = |n: u32| Refused::NotAPeer(NotAPeer::Unlisted(format!("spiffe://test/{n}").parse().unwrap()));
    let told = (0..1000).filter(|n| acceptor.is_news(&stranger(*n), now + TELL_AGAIN).is_some()).count();
    assert!(told < MOST_TOLD, "{told}");
}

#[tokio::test]
async fn who_demands_another_broker_is_told_from_who_speaks_no_tls() {
    let (temp, authority, other) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    write(temp.path(), &authority.leaf(&["spiffe://test/broker"]), &authority.pem, 0o600);
    let acceptor = Arc::new(Acceptor::open(&config(temp.path())).unwrap());
    let shake = async |trusted: &Authority| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.certificate()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let name = rustls::pki_types::ServerName::try_from("broker.test").unwrap();
        let connect = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, theirs);
        let (accepted, _) = tokio::join!(acceptor.accept(ours), connect);
        accepted.err().unwrap()
    };
    assert_eq!(shake(&other).await, Refused::NotBelieved, "signed by somebody else");
    // Our certificate has no such name.
    assert_eq!(shake(&authority).await, Refused::NotBelieved);
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    tokio::io::AsyncWriteExt::write_all(&mut theirs, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(acceptor.accept(ours).await.err().unwrap(), Refused::NoTls);
}

#[test]
fn there_is_room_for_the_connections_of_every_peer() {
    let (temp, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    write(temp.path(), &authority.leaf(&["spiffe://test/broker"]), &authority.pem, 0o600);
    let mut config = config(temp.path());
    for n in 0..4 {
        config.peers.push(Peer { id: format!("spiffe://test/wide-{n}").parse().unwrap(), sessions: None });
    }
    config.peers.push(Peer { id: "spiffe://test/narrow".parse().unwrap(), sessions: Some(Arc::default()) });
    let acceptor = Arc::new(Acceptor::open(&config).unwrap());
    assert_eq!(acceptor.most(), 5 * MOST_OF_PEER + MOST_OF_SIDECAR);
    let of = |peer: usize| connected::Place::take(acceptor.clone(), &config.peers[peer]);
    let all: Vec<_> = (0..=MOST_OF_PEER).map_while(|_| of(0)).collect();
    assert_eq!((all.len(), of(0).is_some(), of(1).is_some()), (MOST_OF_PEER, false, true));
}
