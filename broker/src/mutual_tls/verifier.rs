//! Which client certificates are let in: signed by one of our authorities, in time, for clients, and naming
//! exactly one of our peers.

use super::files::TlsError;
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
    peers: HashMap<PeerId, Peer>,
}

impl PeerVerifier {
    pub fn new(authorities: RootCertStore, provider: Arc<CryptoProvider>, peers: &[Peer]) -> Result<Self, TlsError> {
        let signed = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider).build();
        let signed = signed.map_err(|_| TlsError::NoAuthority)?;
        Ok(Self { signed, peers: peers.iter().map(|peer| (peer.id.clone(), peer.clone())).collect() })
    }

    /// The peer that a certificate names. Whether it is signed is another question.
    pub fn peer(&self, certificate: &CertificateDer<'_>) -> Result<Peer, NotAPeer> {
        let id = spiffe_id(certificate)?;
        self.peers.get(&id).cloned().ok_or(NotAPeer::Unlisted(id))
    }
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
        let verified = self.signed.verify_client_cert(end_entity, intermediates, now)?;
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
