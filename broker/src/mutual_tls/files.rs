//! Certificate, key and authorities: read together, as they are at one moment, from volumes that somebody swaps.

use super::connected::not_after_ms;
use crate::clock::{Now, rfc3339};
use crate::config::{Mounted, MutualTls};
use crate::private_file::Stamp;
use crate::sources::{MountedError, VolumeFile};
use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use std::path::Path;
use std::sync::Arc;
use zeroize::{Zeroize as _, Zeroizing};

/// Somebody swaps the files while we read: then once more, but not forever.
const ATTEMPTS: usize = 5;

/// What tells whether some file is another.
pub(super) type Stamps = [Option<Stamp>; 3];

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The broker's certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities that sign for peers.
    ClientCa,
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            File::Certificate => "listen.data_plane.tls.certificate",
            File::Key => "listen.data_plane.tls.key",
            File::ClientCa => "listen.data_plane.tls.client_ca",
        })
    }
}

/// Why the files are no good. Names places, never content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Nothing there.
    #[error("{0}: there is no file {1}: mount it, or write it, and the broker takes it by itself once it runs")]
    Missing(File, std::path::PathBuf),
    /// A file that others could swap, or none.
    #[error("{file}: {why}; {}", fix(.why))]
    Unsafe {
        /// Which.
        file: File,
        /// What is wrong with it.
        why: MountedError,
    },
    /// A key that everybody reads.
    #[error(
        "{0}: {1} may be read by everybody (mode {2:04o}): chmod 0640 it; for a Secret's volume, write defaultMode: 0440 \
         and the pod's fsGroup"
    )]
    Exposed(File, std::path::PathBuf, u32),
    /// Not what it should be.
    #[error("{0}: {1} holds no {2} in PEM: write one there")]
    NotPem(File, std::path::PathBuf, &'static str),
    /// A certificate that no peer believes any more.
    #[error("{0}: {1} has ended at {2}: look at what renews it")]
    Ended(File, std::path::PathBuf, String),
    /// Authorities that nobody is believed by any more.
    #[error("{0}: every authority in {1} has ended, the last at {2}: write those there that sign for peers now")]
    AuthoritiesEnded(File, std::path::PathBuf, String),
    /// An authority that signs for nobody.
    #[error("listen.data_plane.tls.client_ca: one of its certificates is none of an authority: remove it")]
    NoAuthority,
    /// Certificate and key of two.
    #[error("listen.data_plane.tls: certificate and key do not belong together: write both of one and the same")]
    NoPair,
}

/// What to do about a file; the words of volumes are for sources.
fn fix(why: &MountedError) -> &'static str {
    match why {
        MountedError::NotAVolume(_) => "name a file in a directory",
        MountedError::LeadsOut(_) => {
            "links are followed within the file's own directory alone: name the file where it lies"
        }
        MountedError::NotAFile(_) | MountedError::TooLong(_) => "name a PEM file of 64 KiB at most",
        other => other.fix(),
    }
}

/// The three files.
pub(super) struct Files([(File, VolumeFile); 3]);

/// Somebody who signs for peers. What follows from its certificate holds until that ends, too: a verifier that is given
/// a trust anchor looks at its key alone.
#[derive(Debug)]
pub(super) struct Authority {
    pub certificate: CertificateDer<'static>,
    /// When it ends, in Unix milliseconds.
    pub not_after_ms: u64,
}

/// What they said.
pub(super) struct Read {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Arc<dyn SigningKey>,
    /// Never empty.
    pub authorities: Vec<Authority>,
    /// When the broker's certificate ends, in Unix milliseconds.
    pub not_after_ms: u64,
    pub stamps: Stamps,
}

impl Files {
    pub fn of(config: &MutualTls) -> Self {
        let at = |path: &Path| {
            let volume = path.parent().unwrap_or(Path::new("/")).to_owned();
            VolumeFile::new(&Mounted { volume, file: path.file_name().unwrap_or_default().into() })
        };
        Self([
            (File::Certificate, at(&config.certificate)),
            (File::Key, at(&config.key)),
            (File::ClientCa, at(&config.client_ca)),
        ])
    }

    /// Cheap to compare.
    pub fn stamps(&self) -> Stamps {
        self.0.each_ref().map(|(_, file)| file.stamp())
    }

    /// All three of one moment.
    pub fn read(&self) -> Result<Read, TlsError> {
        let mut stamps = self.stamps();
        for _ in 0..ATTEMPTS {
            let read = self.read_once(stamps);
            let now = self.stamps();
            if now == stamps {
                return read;
            }
            stamps = now;
        }
        self.read_once(stamps)
    }

    fn read_once(&self, stamps: Stamps) -> Result<Read, TlsError> {
        let [certificate, key, client_ca] = &self.0;
        if let Some(mode) = key.1.exposed().map_err(|why| TlsError::Unsafe { file: key.0, why })? {
            return Err(TlsError::Exposed(key.0, key.1.path(), mode));
        }
        let chain = certificates(certificate)?;
        let authorities = authorities(client_ca)?;
        let no_key = || TlsError::NotPem(key.0, key.1.path(), "private key");
        let mut read = PrivateKeyDer::from_pem_slice(&bytes(key)?).map_err(|_| no_key())?;
        let signs = any_supported_type(&read);
        read.zeroize();
        let not_after_ms = chain.iter().map(not_after_ms).min().unwrap_or_default();
        if not_after_ms <= Now::read().wall_ms {
            return Err(TlsError::Ended(certificate.0, certificate.1.path(), rfc3339(not_after_ms)));
        }
        Ok(Read { chain, key: signs.map_err(|_| no_key())?, authorities, not_after_ms, stamps })
    }
}

/// Those that have not ended. Others are left out, and told of: a bundle has the last one a while longer.
fn authorities(file: &(File, VolumeFile)) -> Result<Vec<Authority>, TlsError> {
    let now = Now::read().wall_ms;
    let (mut believed, mut last_ms) = (Vec::new(), 0);
    for certificate in certificates(file)? {
        RootCertStore::empty().add(certificate.clone()).map_err(|_| TlsError::NoAuthority)?;
        let not_after_ms = not_after_ms(&certificate);
        last_ms = last_ms.max(not_after_ms);
        if not_after_ms > now {
            believed.push(Authority { certificate, not_after_ms });
        } else {
            let ended = rfc3339(not_after_ms);
            tracing::warn!(
                ended,
                "an authority of listen.data_plane.tls.client_ca has ended: nobody is believed by it"
            );
        }
    }
    let all_ended = || TlsError::AuthoritiesEnded(file.0, file.1.path(), rfc3339(last_ms));
    (!believed.is_empty()).then_some(believed).ok_or_else(all_ended)
}

fn bytes((file, at): &(File, VolumeFile)) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let read = at.read().map_err(|why| TlsError::Unsafe { file: *file, why })?;
    read.ok_or_else(|| TlsError::Missing(*file, at.path()))
}

fn certificates(file: &(File, VolumeFile)) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = bytes(file)?;
    let none = || TlsError::NotPem(file.0, file.1.path(), "certificate");
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(none)
}
