//! Which client certificates are let in: signed by one of our authorities, in time, for clients, and naming
//! exactly one of our peers.

use super::files::{Authority, TlsError};
use crate::config::PeerId;
use crate::config::data_plane::Peer;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::collections::HashMap;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;

/// Why a certificate that is good names none of our peers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPeer {
    /// Not one URI.
    #[error("its certificate has no SPIFFE ID: there must be exactly one URI among its names")]
    NoId,
    /// More than one: whose is it?
    #[error("its certificate has more than one URI among its names: a SPIFFE ID stands alone")]
    Several,
    /// Somebody else's. An ID that our authority has signed, in the form of one, and no more of the certificate.
    #[error("{0} is not one of listen.data_plane.peers")]
    Unlisted(PeerId),
}

/// Verifies, and finds the peer.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    signed: Arc<dyn ClientCertVerifier>,
    authorities: Vec<Authority>,
    provider: Arc<CryptoProvider>,
    peers: HashMap<PeerId, Peer>,
}

impl PeerVerifier {
    pub fn new(authorities: Vec<Authority>, provider: Arc<CryptoProvider>, peers: &[Peer]) -> Result<Self, TlsError> {
        let signed = signed_by(&authorities, 0, &provider).ok_or(TlsError::NoAuthority)?;
        let peers = peers.iter().map(|peer| (peer.id.clone(), peer.clone())).collect();
        Ok(Self { signed, authorities, provider, peers })
    }

    /// When the first and the last of the authorities end, in Unix milliseconds.
    pub fn ends_ms(&self) -> (u64, u64) {
        let ends = || self.authorities.iter().map(|authority| authority.not_after_ms);
        (ends().min().unwrap_or_default(), ends().max().unwrap_or_default())
    }

    /// What verifies by the authorities that have not ended by then.
    fn signed_at(&self, now: UnixTime) -> Option<Arc<dyn ClientCertVerifier>> {
        let now_ms = now.as_secs().saturating_mul(1000);
        let all = now_ms < self.ends_ms().0;
        if all { Some(self.signed.clone()) } else { signed_by(&self.authorities, now_ms, &self.provider) }
    }

    /// The peer that a certificate names. Whether it is signed is another question.
    pub fn peer(&self, certificate: &CertificateDer<'_>) -> Result<Peer, NotAPeer> {
        let id = spiffe_id(certificate)?;
        self.peers.get(&id).cloned().ok_or(NotAPeer::Unlisted(id))
    }
}

fn signed_by(
    authorities: &[Authority],
    now_ms: u64,
    provider: &Arc<CryptoProvider>,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for authority in authorities.iter().filter(|authority| now_ms < authority.not_after_ms) {
        roots.add(authority.certificate.clone()).ok()?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()
}

/// X.509-SVID, 2: exactly one URI SAN, and it is the ID.
fn spiffe_id(certificate: &CertificateDer<'_>) -> Result<PeerId, NotAPeer> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| NotAPeer::NoId)?;
    // An error where the extension is there twice.
    let names = parsed.subject_alternative_name().map_err(|_| NotAPeer::Several)?.ok_or(NotAPeer::NoId)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(one), None) => one.parse().map_err(|_| NotAPeer::NoId),
        (Some(_), Some(_)) => Err(NotAPeer::Several),
        (None, _) => Err(NotAPeer::NoId),
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let signed = self.signed_at(now).ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let verified = signed.verify_client_cert(end_entity, intermediates, now)?;
        let named = self.peer(end_entity);
        named.map_err(|why| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why)))))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
