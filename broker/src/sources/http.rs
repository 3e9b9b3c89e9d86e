//! Questions over HTTP to a server that the config names: bounded in time and length, to nobody else, by no proxy.

use super::quiet::Quiet;
use super::trouble::Trouble;
use attache_core::Secret;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
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
/// What a question may hold, in bytes: a secret, every byte of it escaped by six (`\u0000`), and what is around it.
const BODY: usize = 6 * super::MOST + 4096;

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
    /// For how long he is left alone who says "too many requests" and not for how long; `None`: that is an answer like
    /// any other.
    pub window: Option<Duration>,
}

/// A way to ask it.
pub struct Http {
    server: Server,
    made: Mutex<Option<(Stamps, Client)>>,
    quiet: Quiet,
    /// What "too many requests" looks like.
    is_busy: fn(&Reply) -> bool,
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
    gives_back: bool,
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
            gives_back: false,
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

    /// One that gives something back: asked of who wants to be left alone, too, for it leaves less to steal; and what
    /// he says to it puts nobody else off.
    pub fn giving_back(self) -> Self {
        Self { gives_back: true, ..self }
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
    /// Too many questions; for how long he is asked none.
    #[error("it answers no more for now: too many requests")]
    Busy(Duration),
}

impl HttpError {
    /// Whether it may go by itself, and says nothing about the secret.
    pub fn passes(&self) -> bool {
        matches!(self, HttpError::Unreachable | HttpError::TimedOut | HttpError::Busy(_))
    }

    /// For how long nobody is asked again, at least.
    pub fn wait(&self) -> Duration {
        if let HttpError::Busy(wait) = self { *wait } else { Duration::ZERO }
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
            HttpError::Busy(_) => format!("wait; a longer {at}.refresh asks less often"),
        }
    }

    /// The same, for whoever lists it.
    pub fn trouble(&self, at: &str) -> Trouble {
        let (what, fix) = (self.to_string(), self.fix(at));
        let trouble = if self.passes() { Trouble::passing(what, fix) } else { Trouble::lasting(what, fix) };
        trouble.not_before(self.wait())
    }
}

impl Http {
    /// Nobody is asked yet.
    pub fn new(server: Server) -> Self {
        Self { server, made: Mutex::default(), quiet: Quiet::default(), is_busy: |reply| reply.status == 429 }
    }

    /// Of one who says "too many requests" in another way than by 429, too.
    pub fn busy_if(self, is_busy: fn(&Reply) -> bool) -> Self {
        Self { is_busy, ..self }
    }

    /// Asks, unless he wants to be left alone.
    pub async fn ask(&self, question: Question) -> Result<Reply, HttpError> {
        let gives_back = question.gives_back;
        if let Some(left) = self.quiet.left().filter(|_| !gives_back) {
            return Err(HttpError::Busy(left));
        }
        let reply = self.answer(question).await?;
        let Some(window) = self.server.window.filter(|_| (self.is_busy)(&reply)) else { return Ok(reply) };
        let wait = reply.retry_after.unwrap_or(window);
        Err(HttpError::Busy(if gives_back { wait } else { self.quiet.keep(wait) }))
    }

    async fn answer(&self, question: Question) -> Result<Reply, HttpError> {
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
        let retry_after = retry_after(answer.headers());
        let mut body = Body::new(answer.content_length(), question.most);
        while let Some(chunk) = answer.chunk().await.map_err(|error| classed(&error))? {
            body.take(&chunk).ok_or(HttpError::TooLong)?;
        }
        Ok(Reply { status, body: body.bytes, retry_after })
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

/// An answer's body as it comes, in all the room that it can take: a buffer that grows leaves copies behind.
pub struct Body {
    /// What has come.
    pub bytes: Zeroizing<Vec<u8>>,
    room: usize,
}

impl Body {
    /// One of this length, where that was said, and of `most` bytes at most.
    pub fn new(length: Option<u64>, most: usize) -> Self {
        let room = length.and_then(|length| usize::try_from(length).ok()).map_or(most, |length| length.min(most));
        Self { bytes: Zeroizing::new(Vec::with_capacity(room)), room }
    }

    /// Takes what comes next; `None`: it is longer than it can be.
    pub fn take(&mut self, chunk: &[u8]) -> Option<()> {
        if self.room - self.bytes.len() < chunk.len() {
            return None;
        }
        self.bytes.extend_from_slice(chunk);
        Some(())
    }
}

/// How long to wait before the next question, where it is said.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(http::header::RETRY_AFTER).and_then(|value| seconds(value.to_str().ok()?))
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
    use crate::sources::stand_in::{StandIn, in_chunks, says};

    fn to(stand_in: &StandIn, window: Option<Duration>) -> Http {
        Http::new(Server { address: format!("http://{}", stand_in.addr), window, ..Server::default() })
    }

    #[tokio::test]
    async fn who_says_too_many_requests_is_asked_nothing_by_anybody_until_then() {
        let busy = |head: &str| says("429 Too Many Requests", head, "");
        let there = StandIn::start(vec![busy("retry-after: 40\r\n"), says("200 OK", "", "{}")]).await;
        let http = to(&there, Some(Duration::from_secs(5)));
        for _ in 0..3 {
            let error = http.ask(Question::get("/a")).await.err().unwrap();
            let HttpError::Busy(wait) = error else { panic!("{error:?}") };
            assert!((30..=40).contains(&wait.as_secs()), "{wait:?}");
            let trouble = error.trouble("sources.it");
            assert!(trouble.passes() && trouble.wait() == wait && trouble.fix().contains("sources.it.refresh"));
        }
        assert_eq!(there.asked(), ["GET /a"]);
        assert!(http.ask(Question::delete("/a").giving_back()).await.is_ok(), "what is given back goes through");
        // Where it is not said for how long.
        let there = StandIn::start(vec![busy("")]).await;
        let http = to(&there, Some(Duration::from_secs(5)));
        assert_eq!(http.ask(Question::get("/a")).await.err(), Some(HttpError::Busy(Duration::from_secs(5))));
        // To whom nobody is put off, it is an answer.
        let http = to(&there, None);
        for _ in 0..2 {
            assert_eq!(http.ask(Question::get("/a")).await.unwrap_or_default().status, 429);
        }
    }

    #[tokio::test]
    async fn what_is_said_to_something_given_back_puts_nobody_off() {
        let busy = says("429 Too Many Requests", "retry-after: 40\r\n", "");
        let there = StandIn::start(vec![busy, says("200 OK", "", "{}")]).await;
        let http = to(&there, Some(Duration::from_secs(5)));
        let error = http.ask(Question::delete("/a").giving_back()).await.err();
        assert_eq!(error, Some(HttpError::Busy(Duration::from_secs(40))));
        assert!(http.ask(Question::get("/b")).await.is_ok());
    }

    #[tokio::test]
    async fn neither_an_answer_nor_a_question_is_ever_in_a_buffer_that_grows() {
        let chunk = "s".repeat(60_000);
        let there = StandIn::start(vec![in_chunks("200 OK", &[&chunk, &chunk])]).await;
        let reply = to(&there, None).ask(Question::get("/")).await.unwrap_or_default();
        assert_eq!((reply.body.len(), reply.body.capacity()), (120_000, MOST));
        let mut body = Body::new(None, 10);
        let place = body.bytes.as_ptr();
        assert_eq!((body.take(b"12345"), body.take(b"67890")), (Some(()), Some(())));
        assert_eq!((body.take(b"1"), body.bytes.as_ptr()), (None, place));
        assert_eq!(Body::new(Some(3), 10).take(b"1234"), None, "no longer than was said");
        assert_eq!(Body::new(Some(u64::MAX), 10).bytes.capacity(), 10);
        // Each byte escaped by six.
        let longest = Question::post("/", &[("secret", "\0".repeat(super::super::MOST))]);
        assert_eq!(longest.body.unwrap().capacity(), BODY);
    }

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
