//! Questions over HTTP: bounded in time and length, to nobody but the nodes that the config names, by no proxy.

use super::error::OpenBaoError;
use crate::config::OpenBao;
use attache_core::Secret;
use bytes::Bytes;
use http::HeaderValue;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Identity, Method, Url};
use rustls::CertificateError;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one question may take, with the connection.
pub const LONGEST: Duration = Duration::from_secs(5);
/// No answer is longer, in bytes.
const MOST: usize = 1 << 20;
/// A standby sends on to the active node; who sends on and on leads nowhere.
const MOST_REDIRECTS: usize = 2;

/// A way to ask.
pub struct Http {
    config: Arc<OpenBao>,
    made: Mutex<Option<(Stamps, Client)>>,
}

/// Of the files that a client is made of: another certificate makes another client.
type Stamps = Vec<(PathBuf, Option<SystemTime>)>;

/// An answer, whatever it says.
pub struct Reply {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
}

/// A question.
pub struct Question<'a> {
    method: Method,
    path: &'a str,
    version: Option<u32>,
    token: Option<&'a Secret>,
    body: Option<Zeroizing<Vec<u8>>>,
}

impl<'a> Question<'a> {
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, version: None, token: None, body: None }
    }

    /// A body holds plain texts: nothing of it cannot be written as JSON.
    pub fn post(path: &'a str, body: &impl serde::Serialize) -> Self {
        // All its room at once: a buffer that grows leaves copies behind.
        let mut json = Zeroizing::new(Vec::with_capacity(2 * super::MOST));
        let _ = serde_json::to_writer(&mut *json, body);
        Self { method: Method::POST, body: Some(json), ..Self::get(path) }
    }

    pub fn by(self, token: &'a Secret) -> Self {
        Self { token: Some(token), ..self }
    }

    pub fn version(self, version: Option<u32>) -> Self {
        Self { version, ..self }
    }
}

impl Http {
    pub fn new(config: Arc<OpenBao>) -> Self {
        Self { config, made: Mutex::default() }
    }

    /// Asks.
    pub async fn ask(&self, question: Question<'_>) -> Result<Reply, OpenBaoError> {
        let url = format!("{}/v1/{}", self.config.address, question.path);
        let mut url = Url::parse(&url).map_err(|_| OpenBaoError::Malformed)?;
        if let Some(version) = question.version {
            url.query_pairs_mut().append_pair("version", &version.to_string());
        }
        // What a browser cannot be made to send: an OpenBao may demand it.
        let mut asked = self.client()?.request(question.method, url).header("x-vault-request", "true");
        if let Some(namespace) = &self.config.namespace {
            asked = asked.header("x-vault-namespace", namespace);
        }
        if let Some(token) = question.token {
            // Exposed to be sent to whom it is for; what no header can hold is no token.
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| OpenBaoError::TokenRefused)?;
            value.set_sensitive(true);
            asked = asked.header("x-vault-token", value);
        }
        if let Some(body) = question.body {
            asked = asked.header("content-type", "application/json").body(Bytes::from_owner(body));
        }
        let mut answer = asked.send().await.map_err(|error| classed(&error))?;
        let status = answer.status().as_u16();
        // All its room at once: a buffer that grows leaves copies behind.
        let room = answer.content_length().map_or(16 * 1024, |length| usize::try_from(length).unwrap_or(MOST));
        let mut body = Zeroizing::new(Vec::with_capacity(room.min(MOST)));
        while let Some(chunk) = answer.chunk().await.map_err(|error| classed(&error))? {
            if body.len() + chunk.len() > MOST {
                return Err(OpenBaoError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body })
    }

    fn client(&self) -> Result<Client, OpenBaoError> {
        let stamps = self.stamps();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = made.as_ref().filter(|(of, _)| *of == stamps) {
            return Ok(client.clone());
        }
        let client = self.build()?;
        *made = Some((stamps, client.clone()));
        Ok(client)
    }

    fn stamps(&self) -> Stamps {
        let identity = self.config.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|found| found.modified()).ok();
        self.config.ca_file.iter().chain(identity).map(|path| (path.clone(), changed(path))).collect()
    }

    fn build(&self) -> Result<Client, OpenBaoError> {
        let known: Vec<_> = [&self.config.address].into_iter().chain(&self.config.nodes).collect();
        let known: Vec<_> = known.into_iter().filter_map(|url| Some(Url::parse(url).ok()?.origin())).collect();
        // The token travels along: to nobody whom the config does not name.
        let onward = move |attempt: Attempt<'_>| {
            let goes = attempt.previous().len() <= MOST_REDIRECTS && known.contains(&attempt.url().origin());
            if goes { attempt.follow() } else { attempt.stop() }
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .redirect(Policy::custom(onward))
            .no_proxy()
            .referer(false)
            // Over HTTP/2 what TLS says of a refused certificate would be lost.
            .http1_only()
            .connect_timeout(CONNECT)
            .timeout(LONGEST)
            .tls_version_min(reqwest::tls::Version::TLS_1_2);
        if let Some(file) = &self.config.ca_file {
            let authorities = Certificate::from_pem_bundle(&read(file)?).unwrap_or_default();
            if authorities.is_empty() {
                return Err(OpenBaoError::File(file.clone(), "it holds no certificate"));
            }
            builder = builder.tls_certs_only(authorities);
        }
        if let Some((certificate, key)) = &self.config.identity {
            let mut both = read(certificate)?;
            both.extend_from_slice(b"\n");
            both.extend_from_slice(&read(key)?);
            let identity = Identity::from_pem(&both);
            let identity =
                identity.map_err(|_| OpenBaoError::File(key.clone(), "it and its certificate are no pair"))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|_| OpenBaoError::Tls)
    }
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, OpenBaoError> {
    use std::io::ErrorKind;
    std::fs::read(file).map(Zeroizing::new).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::NotFound => "there is no such file",
            ErrorKind::PermissionDenied => "the broker's user may not read it",
            _ => "it cannot be read",
        };
        OpenBaoError::File(file.to_owned(), why)
    })
}

/// What a failure of a connection means. Its words may hold anything, and are never repeated.
fn classed(error: &reqwest::Error) -> OpenBaoError {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return of_tls(tls);
        }
        // An io::Error does not name what it holds as its source.
        let held = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = held.map(|held| held as &(dyn Error + 'static)).or_else(|| cause.source());
    }
    if error.is_timeout() && !error.is_connect() { OpenBaoError::TimedOut } else { OpenBaoError::Unreachable }
}

fn of_tls(error: &rustls::Error) -> OpenBaoError {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            OpenBaoError::UnknownAuthority
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => OpenBaoError::OtherName,
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => OpenBaoError::CertificateTime,
        rustls::Error::InvalidCertificate(_) => OpenBaoError::UnknownAuthority,
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::AccessDenied
            | Alert::HandshakeFailure,
        ) => OpenBaoError::ClientCertificate,
        _ => OpenBaoError::Tls,
    }
}
