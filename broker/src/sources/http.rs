//! Questions over HTTP to a server that the config names: bounded in time and length, to nobody else, by no proxy.

use super::trouble::Trouble;
use attache_core::Secret;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Identity, Method, Url};
use rustls::CertificateError;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one question may take, with the connection.
pub const LONGEST: Duration = Duration::from_secs(5);
/// No answer is longer, in bytes.
const MOST: usize = 1 << 20;
/// Who sends on and on leads nowhere.
const MOST_REDIRECTS: usize = 2;
/// What a question may hold, in bytes: a secret, and every byte of it escaped.
const BODY: usize = 2 * super::MOST;

/// Whom the config names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Its address, without a slash at its end.
    pub address: String,
    /// Other addresses to which it may send on.
    pub others: Vec<String>,
    /// The authorities to trust instead of the system's, absolute.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key to show, absolute.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A way to ask it.
pub struct Http {
    server: Server,
    made: Mutex<Option<(Stamps, Client)>>,
}

/// Of the files that a client is made of: another certificate makes another client.
type Stamps = Vec<(PathBuf, Option<SystemTime>)>;

/// An answer, whatever it says.
#[derive(Default)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: Zeroizing<Vec<u8>>,
    /// How long to wait before the next question, where it says so.
    pub retry_after: Option<Duration>,
}

/// A question.
pub struct Question {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Zeroizing<Vec<u8>>>,
    longest: Duration,
    most: usize,
}

impl Question {
    /// One that reads. `path` follows the server's address, and begins with a slash.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            longest: LONGEST,
            most: MOST,
        }
    }

    /// One with a body, which holds plain texts: nothing of it cannot be written as JSON.
    pub fn post(path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        // All its room at once: a buffer that grows leaves copies behind.
        let mut json = Zeroizing::new(Vec::with_capacity(BODY));
        let _ = serde_json::to_writer(&mut *json, body);
        Self { method: Method::POST, body: Some(json), ..Self::get(path) }
    }

    /// With another time for its answer than [`LONGEST`].
    pub fn within(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// One that ends something.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// One whose answer may be this long, in bytes, instead of 1 MiB.
    pub fn up_to(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// With a parameter in its query.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// With a header that holds no secret.
    pub fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// With a secret in a header, behind `prefix` (`"Bearer "`).
    pub fn secret(self, name: &'static str, prefix: &str, secret: &Secret) -> Result<Self, HttpError> {
        // Exposed to be sent to whom it is for.
        let text = Zeroizing::new([prefix, secret.expose()].concat());
        let mut value = HeaderValue::from_str(&text).map_err(|_| HttpError::NoHeader)?;
        value.set_sensitive(true);
        Ok(self.header(name, value))
    }
}

/// Why there is no answer. Holds no byte of what was said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Nobody there.
    #[error("it cannot be reached")]
    Unreachable,
    /// Too slow.
    #[error("it has not answered within 5 s")]
    TimedOut,
    /// Its certificate is of nobody whom we know.
    #[error("its certificate is not signed by an authority that is trusted here")]
    UnknownAuthority,
    /// Its certificate is of somebody else.
    #[error("its certificate is of another name than the address has")]
    OtherName,
    /// Its certificate is over, or not yet good.
    #[error("its certificate is not good at this time")]
    CertificateTime,
    /// It wants to see one of ours.
    #[error("it does not accept our certificate, or there is none to show")]
    ClientCertificate,
    /// Another failure of TLS.
    #[error("no TLS connection comes about")]
    Tls,
    /// A file that the config names.
    #[error("{0} cannot be used: {1}")]
    File(PathBuf, &'static str),
    /// It is longer than an answer can be.
    #[error("its answer is longer than one can be")]
    TooLong,
    /// No header can hold what proves who we are.
    #[error("what proves who we are holds bytes that no header can")]
    NoHeader,
}

impl HttpError {
    /// Whether it may go by itself, and says nothing about the secret.
    pub fn passes(&self) -> bool {
        matches!(self, HttpError::Unreachable | HttpError::TimedOut)
    }

    /// What an operator does about it; `at` is where the config names the server: `sources.openbao`.
    pub fn fix(&self, at: &str) -> String {
        match self {
            HttpError::Unreachable | HttpError::TimedOut => format!(
                "see whether it runs, and whether the broker's machine reaches {at}.address; the broker tries again \
                 by itself"
            ),
            HttpError::UnknownAuthority => format!("name the authority that signed it in {at}.ca_file"),
            HttpError::OtherName => format!("write the address in {at}.address as the certificate names it"),
            HttpError::CertificateTime => "renew the server's certificate, or mend this machine's clock".to_owned(),
            HttpError::ClientCertificate => {
                format!("name a certificate that it accepts in {at}.client_certificate_file and client_key_file")
            }
            HttpError::Tls => format!("see whether {at}.address speaks TLS 1.2 or 1.3"),
            HttpError::File(..) => "put a PEM file there, readable for the broker's user".to_owned(),
            HttpError::TooLong => format!("see whether {at}.address is the server that is meant"),
            HttpError::NoHeader => "write it anew, as one line of text".to_owned(),
        }
    }

    /// The same, for whoever lists it.
    pub fn trouble(&self, at: &str) -> Trouble {
        let (what, fix) = (self.to_string(), self.fix(at));
        if self.passes() { Trouble::passing(what, fix) } else { Trouble::lasting(what, fix) }
    }
}

impl Http {
    /// Nobody is asked yet.
    pub fn new(server: Server) -> Self {
        Self { server, made: Mutex::default() }
    }

    /// Asks.
    pub async fn ask(&self, question: Question) -> Result<Reply, HttpError> {
        let url = format!("{}{}", self.server.address, question.path);
        let mut url = Url::parse(&url).map_err(|_| HttpError::Unreachable)?;
        if !question.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&question.query);
        }
        let mut asked = self.client()?.request(question.method, url).timeout(question.longest);
        for (name, value) in question.headers {
            asked = asked.header(name, value);
        }
        if let Some(body) = question.body {
            asked = asked.header("content-type", "application/json").body(Bytes::from_owner(body));
        }
        let mut answer = asked.send().await.map_err(|error| classed(&error))?;
        let status = answer.status().as_u16();
        let retry_after =
            answer.headers().get(http::header::RETRY_AFTER).and_then(|value| seconds(value.to_str().ok()?));
        // All its room at once: a buffer that grows leaves copies behind.
        let most = question.most;
        let room = answer.content_length().map_or(most / 64, |length| usize::try_from(length).unwrap_or(most));
        let mut body = Zeroizing::new(Vec::with_capacity(room.min(most)));
        while let Some(chunk) = answer.chunk().await.map_err(|error| classed(&error))? {
            if body.len() + chunk.len() > most {
                return Err(HttpError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body, retry_after })
    }

    fn client(&self) -> Result<Client, HttpError> {
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
        let identity = self.server.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|found| found.modified()).ok();
        self.server.ca_file.iter().chain(identity).map(|path| (path.clone(), changed(path))).collect()
    }

    fn build(&self) -> Result<Client, HttpError> {
        let known = [&self.server.address].into_iter().chain(&self.server.others);
        let known: Vec<_> = known.filter_map(|url| Some(Url::parse(url).ok()?.origin())).collect();
        // What proves who we are travels along: to nobody whom the config does not name.
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
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .user_agent(concat!("attache/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &self.server.ca_file {
            let authorities = Certificate::from_pem_bundle(&read(file)?).unwrap_or_default();
            if authorities.is_empty() {
                return Err(HttpError::File(file.clone(), "it holds no certificate"));
            }
            builder = builder.tls_certs_only(authorities);
        }
        if let Some((certificate, key)) = &self.server.identity {
            let mut both = read(certificate)?;
            both.extend_from_slice(b"\n");
            both.extend_from_slice(&read(key)?);
            let identity = Identity::from_pem(&both);
            let identity = identity.map_err(|_| HttpError::File(key.clone(), "it and its certificate are no pair"))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|_| HttpError::Tls)
    }
}

/// `Retry-After` (RFC 9110, 10.2.3): a number of seconds, or a date.
fn seconds(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = SystemTime::from(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
    Some(then.duration_since(SystemTime::now()).unwrap_or_default())
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, HttpError> {
    use std::io::ErrorKind;
    std::fs::read(file).map(Zeroizing::new).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::NotFound => "there is no such file",
            ErrorKind::PermissionDenied => "the broker's user may not read it",
            _ => "it cannot be read",
        };
        HttpError::File(file.to_owned(), why)
    })
}

/// What a failure of a connection means. Its words may hold anything, and are never repeated.
fn classed(error: &reqwest::Error) -> HttpError {
    if let Some(tls) = tls_within(error) {
        return tls;
    }
    if error.is_timeout() && !error.is_connect() { HttpError::TimedOut } else { HttpError::Unreachable }
}

/// What TLS has to do with a failure, whosever it is.
pub fn tls_within(error: &(dyn Error + 'static)) -> Option<HttpError> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Some(of_tls(tls));
        }
        // An io::Error does not name what it holds as its source.
        let held = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = held.map(|held| held as &(dyn Error + 'static)).or_else(|| cause.source());
    }
    None
}

fn of_tls(error: &rustls::Error) -> HttpError {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            HttpError::UnknownAuthority
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => HttpError::OtherName,
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => HttpError::CertificateTime,
        rustls::Error::InvalidCertificate(_) => HttpError::UnknownAuthority,
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::AccessDenied
            | Alert::HandshakeFailure,
        ) => HttpError::ClientCertificate,
        _ => HttpError::Tls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_to_wait_is_a_number_or_a_date() {
        assert_eq!(seconds("120"), Some(Duration::from_secs(120)));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO), "it is over");
        let then = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let date = then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        assert!(seconds(&date).is_some_and(|left| (90..=100).contains(&left.as_secs())), "{date}");
        for none in ["", "soon", "-1", "1.5"] {
            assert_eq!(seconds(none), None, "{none}");
        }
    }
}
