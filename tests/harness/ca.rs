//! A throw-away certificate authority for upstreams, and certificates good and bad.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

use crate::util;

/// A certificate authority whose certificate lies in a file that Envoy can be pointed at.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    dir: TempDir,
}

/// A server certificate and its key.
pub struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pem: String,
    key_pem: String,
}

impl Ca {
    /// A new authority; no two are alike.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key pair");
        let certificate = params.self_signed(&key).expect("a CA certificate");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        let dir = util::temp_dir();
        std::fs::write(dir.path().join("ca.pem"), &pem).expect("the CA file is writable");
        Self { issuer: Issuer::new(params, key), certificate: der, pem, dir }
    }

    /// The certificate file, PEM; it lives as long as this value.
    #[must_use]
    pub fn pem_path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for these names (DNS names, or IP addresses as text).
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_with(names, |_| {})
    }

    /// A certificate for these names that expired long ago.
    #[must_use]
    pub fn issue_expired(&self, names: &[&str]) -> Leaf {
        self.issue_with(names, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    /// A server certificate with its parameters changed before it is signed.
    #[must_use]
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let (mut params, key) = (server_params(names), KeyPair::generate().expect("a key pair"));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        Leaf::new(&certificate, &key)
    }

    /// A client certificate whose one name is this URI, such as a SPIFFE ID.
    #[must_use]
    pub fn issue_client(&self, uri: &str) -> Leaf {
        self.issue_with(&[], |params| as_client(params, uri))
    }

    /// A TLS client that trusts this authority alone and shows this certificate.
    #[must_use]
    pub fn client_as(&self, alpn: &[&str], leaf: &Leaf) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("our own certificate is acceptable");
        let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = versions.expect("ring speaks TLS 1.2 and 1.3").with_root_certificates(roots);
        let shown = builder.with_client_auth_cert(leaf.chain.clone(), leaf.key.clone_key());
        let mut config = shown.expect("certificate and key belong together");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The same in one version of TLS alone.
    #[must_use]
    pub fn client_as_of(&self, version: &'static rustls::SupportedProtocolVersion, leaf: &Leaf) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("our own certificate is acceptable");
        let versions = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
        let builder = versions.expect("ring speaks TLS 1.2 and 1.3").with_root_certificates(roots);
        let shown = builder.with_client_auth_cert(leaf.chain.clone(), leaf.key.clone_key());
        Arc::new(shown.expect("certificate and key belong together"))
    }

    /// A TLS client that trusts this authority alone and offers these protocols.
    #[must_use]
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("our own certificate is acceptable");
        client_of(roots, alpn)
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

impl Leaf {
    /// A certificate that no authority signed.
    #[must_use]
    pub fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key pair");
        let certificate = server_params(names).self_signed(&key).expect("a certificate");
        Self::new(&certificate, &key)
    }

    /// A client certificate for this URI that no authority signed.
    #[must_use]
    pub fn self_signed_client(uri: &str) -> Self {
        let (mut params, key) = (server_params(&[]), KeyPair::generate().expect("a key pair"));
        as_client(&mut params, uri);
        Self::new(&params.self_signed(&key).expect("a certificate"), &key)
    }

    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The certificate and its key, PEM.
    #[must_use]
    pub fn pems(&self) -> (&str, &str) {
        (&self.pem, &self.key_pem)
    }

    pub fn server_config(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut config = versions
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("certificate and key belong together");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A TLS client that trusts the certificates in a PEM file and offers these protocols.
///
/// # Panics
/// When the file holds no certificate.
#[must_use]
pub fn client_trusting(pem: &Path, alpn: &[&str]) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(pem).expect("a readable CA file");
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    assert!(!roots.is_empty(), "{} holds no certificate", pem.display());
    client_of(roots, alpn)
}

/// A TLS client that trusts these roots and offers these protocols.
///
/// # Panics
/// Never: ring speaks TLS 1.2 and 1.3.
#[must_use]
pub fn client_of(roots: RootCertStore, alpn: &[&str]) -> Arc<ClientConfig> {
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let mut config = versions.expect("ring speaks TLS 1.2 and 1.3").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn as_client(params: &mut CertificateParams, uri: &str) {
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("an ASCII URI"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

fn server_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("valid subject names");
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    params.use_authority_key_identifier_extension = true;
    params
}
