//! One authority: its certificate, its key while it has one, and what it signs.

use crate::random::{self, NoRandomness};
use attache_core::digest::{Digest, hex};
use attache_core::names::Name;
use pem_rfc7468::LineEnding;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, SigningKey,
};
use std::collections::BTreeSet;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use zeroize::{Zeroize as _, Zeroizing};

/// How long an authority may sign.
const LIFETIME: Duration = Duration::from_secs(5 * 365 * 86_400);
/// How long a leaf is valid, from the moment that it is dated to.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(86_400);
/// How far certificates are dated back: clients' clocks may be behind.
pub const BACKDATED: Duration = Duration::from_secs(300);
/// Longest common name of a subject (RFC 5280, `ub-common-name`), in characters.
const LONGEST_NAME: usize = 64;

/// Why there is no certificate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SignError {
    /// The signing itself.
    #[error("a certificate could not be made: {0}")]
    Failed(#[from] rcgen::Error),
    /// What was made cannot be read again, or written as PEM.
    #[error("a certificate was made that nobody can read")]
    Unreadable,
    /// The authority has forgotten its key.
    #[error("the authority signs no more: `attache ca show` says which one does")]
    NoKey,
    /// No certificate can say this time.
    #[error("the clock says {0} ms, which no certificate can say: set it")]
    Clock(u64),
    /// The authority's time is over.
    #[error("the authority has expired: `attache ca rotate` makes the next")]
    Expired,
    /// No serial number, no key.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// An authority's certificate, and its key until it has signed its last.
pub struct Authority {
    /// DER.
    der: Vec<u8>,
    issuer: Option<Issuer<'static, Key>>,
    /// What stands in it.
    pub facts: Facts,
}

/// What an authority's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `CN=…`.
    pub subject: String,
    /// Unix milliseconds.
    pub not_before_ms: u64,
    /// Unix milliseconds.
    pub not_after_ms: u64,
    /// The only names, and names below them, that it may sign for; `None` for any.
    pub permitted: Option<BTreeSet<String>>,
}

/// A server certificate for one name, with the only copy of its key that there is here.
pub struct Leaf {
    /// PEM.
    pub certificate: String,
    /// PKCS#8, PEM.
    pub key: Zeroizing<String>,
    /// Its serial number, in hex: no two are alike.
    pub serial: String,
    /// When it is over, in Unix milliseconds.
    pub not_after_ms: u64,
}

impl Authority {
    /// A new authority of an instance, which may sign for these names alone, or for any.
    pub fn make(instance: &Name, permitted: Option<&[String]>, now_ms: u64) -> Result<Self, SignError> {
        let (serial, digits) = serial()?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial);
        (params.not_before, params.not_after) = validity(now_ms, LIFETIME, u64::MAX)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Authorities of one instance differ in name: some clients look for issuers by that alone.
        let mark = digits.get(..8).unwrap_or_default();
        params.distinguished_name.push(DnType::OrganizationName, "Attache");
        params.distinguished_name.push(DnType::CommonName, short(&format!("Attache CA {instance} {mark}")));
        params.name_constraints = permitted.map(|names| NameConstraints {
            permitted_subtrees: names.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            // A constraint binds names of its own kind alone (RFC 5280, 4.2.1.10): addresses need one, too.
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        let key = Key::generate()?;
        let certificate = params.self_signed(&key)?;
        Self::from_parts(certificate.der(), Some(key)).ok_or(SignError::Unreadable)
    }

    /// An authority as it was kept; `None` if certificate and key do not belong together.
    pub fn parse(certificate: &str, key: Option<&str>) -> Option<Self> {
        let (_, der) = pem_rfc7468::decode_vec(certificate.as_bytes()).ok()?;
        let key = match key {
            Some(key) => Some(Key::parse(key)?),
            None => None,
        };
        Self::from_parts(&der, key)
    }

    fn from_parts(der: &[u8], key: Option<Key>) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let public = certificate.public_key().raw;
        let facts = Facts {
            subject: certificate.subject().to_string(),
            not_before_ms: millis(certificate.validity().not_before.timestamp())?,
            not_after_ms: millis(certificate.validity().not_after.timestamp())?,
            permitted: permitted(&certificate)?,
        };
        let issuer = match key {
            Some(key) if key.subject_public_key_info() == public => {
                Some(Issuer::from_ca_cert_der(&der.to_vec().into(), key).ok()?)
            }
            Some(_) => return None,
            None => None,
        };
        Some(Self { der: der.to_vec(), issuer, facts })
    }

    /// Signs a leaf for one canonical DNS name.
    pub fn sign(&self, name: &str, now_ms: u64) -> Result<Leaf, SignError> {
        let issuer = self.issuer.as_ref().ok_or(SignError::NoKey)?;
        if self.facts.not_after_ms <= now_ms {
            return Err(SignError::Expired);
        }
        let (serial_number, serial) = serial()?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial_number);
        (params.not_before, params.not_after) = validity(now_ms, LEAF_LIFETIME, self.facts.not_after_ms)?;
        let not_after_ms = millis(params.not_after.unix_timestamp()).ok_or(SignError::Clock(now_ms))?;
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        // Leaves of one name differ in subject: Envoy before 1.38 takes a TLS session up again, whatever it is told,
        // and knows by that, the alternative names and the issuer whether its leaf is still the same.
        let mark = serial.get(..8).unwrap_or_default();
        params.distinguished_name.push(DnType::CommonName, short(&format!("{mark} {name}")));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = Key::generate()?;
        let certificate = params.signed_by(&key, issuer)?;
        let (certificate, key) = (pem(CERTIFICATE, certificate.der()), key.pem());
        Ok(Leaf {
            certificate: certificate.ok_or(SignError::Unreadable)?,
            key: key.ok_or(SignError::Unreadable)?,
            serial,
            not_after_ms,
        })
    }

    /// Whether it may sign for a name.
    pub fn permits(&self, name: &str) -> bool {
        let Some(all) = &self.facts.permitted else { return true };
        // The name itself, or one that it lies below.
        let mut above = std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, rest)| rest));
        above.any(|root| all.contains(root))
    }

    /// Whether it has a key.
    pub fn can_sign(&self) -> bool {
        self.issuer.is_some()
    }

    /// Forgets its key.
    pub fn retire(&mut self) {
        self.issuer = None;
    }

    /// The certificate, PEM.
    pub fn pem(&self) -> String {
        pem(CERTIFICATE, &self.der).unwrap_or_default()
    }

    /// The key, PKCS#8 in PEM, for the one file that holds it.
    pub fn key_pem(&self) -> Option<Zeroizing<String>> {
        self.issuer.as_ref().and_then(|issuer| issuer.key().pem())
    }

    /// The SHA-256 of the certificate, in hex.
    pub fn fingerprint(&self) -> String {
        Digest::of(&self.der).to_hex()
    }
}

/// An ECDSA key (P-256), cleared from memory when dropped.
struct Key(KeyPair);

impl Key {
    fn generate() -> Result<Self, SignError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    fn parse(text: &str) -> Option<Self> {
        let (_, der) = pem_rfc7468::decode_vec(text.as_bytes()).ok()?;
        let der = Zeroizing::new(der);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &PKCS_ECDSA_P256_SHA256);
        key.ok().map(Self)
    }

    /// Without a copy in between.
    fn pem(&self) -> Option<Zeroizing<String>> {
        pem("PRIVATE KEY", self.0.serialized_der()).map(Zeroizing::new)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

const CERTIFICATE: &str = "CERTIFICATE";

fn pem(label: &str, der: &[u8]) -> Option<String> {
    pem_rfc7468::encode_string(label, LineEnding::LF, der).ok()
}

/// 126 random bits. Positive, and always of one length.
fn serial() -> Result<(SerialNumber, String), NoRandomness> {
    let mut bytes = random::bytes::<16>()?;
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    Ok((SerialNumber::from_slice(&bytes), hex(&bytes)))
}

/// From a little before now, for `lifetime`, and not beyond `end_ms`.
fn validity(now_ms: u64, lifetime: Duration, end_ms: u64) -> Result<(OffsetDateTime, OffsetDateTime), SignError> {
    let now = now_ms / 1000;
    let begin = now.saturating_sub(BACKDATED.as_secs());
    let end = begin.saturating_add(lifetime.as_secs()).min(end_ms / 1000);
    let at = |seconds: u64| i64::try_from(seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    at(begin).zip(at(end)).ok_or(SignError::Clock(now_ms))
}

/// A name that a subject has room for. It is for people: what is verified is the alternative name.
fn short(name: &str) -> &str {
    name.get(..LONGEST_NAME).unwrap_or(name)
}

fn millis(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok()?.checked_mul(1000)
}

/// What its name constraints permit; the outer `None` if there are others than we make.
fn permitted(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Option<Option<BTreeSet<String>>> {
    let Some(found) = certificate.name_constraints().ok()? else { return Some(None) };
    let names = found.value.permitted_subtrees.as_ref()?.iter().map(|subtree| match subtree.base {
        GeneralName::DNSName(name) => Some(name.to_owned()),
        _ => None,
    });
    names.collect::<Option<_>>().map(Some)
}
