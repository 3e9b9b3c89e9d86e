//! Who we are to Infisical: one login for all secrets, made when the first is asked for, renewed ahead of its end, and
//! made anew when its maximum is near. It lives in memory only.
//! <https://infisical.com/docs/documentation/platform/identities/universal-auth>

use super::answer::{self, Login, Read, failure};
use super::error::InfisicalError;
use crate::config::{Infisical, InfisicalSecret};
use crate::sources::handed::Handed;
use crate::sources::http::{Http, HttpError, LONGEST, Question, Reply, Server};
use attache_core::Secret;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Short, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// A renewal that fails is tried again no sooner.
const RETRY: Duration = Duration::from_secs(1);
/// What was refused is tried again no sooner: a client secret, for three refusals within half a minute lock the
/// identity unless it is told otherwise; a token that was made just now, for each takes a use of the client secret.
const REFUSED: Duration = Duration::from_secs(60);
/// Its limits are by the minute (<https://infisical.com/docs/api-reference/overview/rate-limits>).
const WINDOW: Duration = Duration::from_secs(60);
/// A server that has no `/api/v4/secrets` is asked for it again no sooner.
const OLD: Duration = Duration::from_secs(3600);

/// One Infisical, as all lookups of a broker share it.
pub struct Client {
    config: Arc<Infisical>,
    handed: Handed,
    http: Http,
    state: Mutex<State>,
    /// Until when it is taken for one that has version 3 of its API alone.
    old_until: Short<Option<Instant>>,
    /// When a token that it had just made was refused.
    spurned: Short<Option<Instant>>,
    /// How many secrets may still be asked for.
    users: AtomicUsize,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Counts the tokens.
    generation: u64,
    /// The digest of a client secret that was refused, when, and why.
    refused: Option<([u8; 32], Instant, InfisicalError)>,
    /// The last login that failed: whoever waited for it has its answer, and asks for no other.
    failed: Option<(Instant, InfisicalError)>,
    /// Whether the last secret was asked for: nobody logs in any longer.
    closed: bool,
}

/// A token of ours.
#[derive(Clone)]
pub struct Token {
    secret: Secret,
    generation: u64,
    /// When it ends; `None`: never.
    ends: Option<Instant>,
    /// Until when it can be renewed; `None`: for ever.
    renewable_until: Option<Instant>,
    /// How long it lives, each time.
    whole: Duration,
}

impl Token {
    /// Counted from when it was asked for.
    fn new(login: Login, began: Instant) -> Self {
        let Login { access_token: secret, expires_in, max_ttl } = login;
        let whole = Duration::from_secs(expires_in);
        let after = |seconds: u64| (seconds > 0).then(|| began.checked_add(Duration::from_secs(seconds))).flatten();
        Self { secret, generation: 0, ends: after(expires_in), renewable_until: after(max_ttl), whole }
    }

    fn left(&self) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_duration_since(Instant::now()))
    }

    fn is_good(&self) -> bool {
        self.left() != Some(Duration::ZERO)
    }

    /// Whether a renewal now would end before its maximum: past that Infisical refuses, and deletes the token.
    fn can_be_renewed(&self) -> bool {
        let end = Instant::now().checked_add(self.whole + LONGEST);
        self.renewable_until.is_none_or(|until| end.is_some_and(|end| end < until))
    }
}

impl Client {
    /// Nobody is asked yet.
    pub fn new(config: Arc<Infisical>, handed: Handed) -> Self {
        let (address, ca_file) = (config.address.clone(), config.ca_file.clone());
        let server = Server { address, ca_file, window: Some(WINDOW), ..Server::default() };
        let (state, old_until, spurned, users) = Default::default();
        Self { config, handed, http: Http::new(server), state, old_until, spurned, users }
    }

    /// One more secret is asked for, until [`Self::leave`].
    pub fn enter(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    async fn ask(&self, question: Question) -> Result<Reply, InfisicalError> {
        Ok(self.http.ask(question).await?)
    }

    /// Reads a secret, with another token if this one is over.
    pub async fn read(self: &Arc<Self>, wanted: &InfisicalSecret) -> Result<Option<Secret>, InfisicalError> {
        let token = self.token(None).await?;
        let over = match self.read_with(&token, wanted).await? {
            Read::TokenOver(why) => why,
            read => return said(read),
        };
        if self.spurned().is_some_and(|when| when.elapsed() < REFUSED) {
            return Err(over);
        }
        let token = self.token(Some(token.generation)).await?;
        let read = self.read_with(&token, wanted).await?;
        // Another would be refused, too, and each takes a use of the client secret.
        *self.spurned() = matches!(read, Read::TokenOver(InfisicalError::TokenRefused)).then(Instant::now);
        said(read)
    }

    fn spurned(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.spurned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By the version of its API that it has: which one that is, is remembered for a while.
    async fn read_with(&self, token: &Token, wanted: &InfisicalSecret) -> Result<Read, InfisicalError> {
        let old = self.old_until().is_some_and(|until| Instant::now() < until);
        for old in [old, !old] {
            let question = if old { of_v3(wanted) } else { of_v4(wanted) };
            let question = question.secret("authorization", "Bearer ", &token.secret)?;
            match answer::read(&self.ask(question).await?, wanted)? {
                Read::NoRoute => {}
                read => {
                    let mut until = self.old_until();
                    *until = old.then(|| until.filter(|until| Instant::now() < *until).unwrap_or(Instant::now() + OLD));
                    return Ok(read);
                }
            }
        }
        Ok(Read::NoRoute)
    }

    fn old_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.old_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token, another than the one that was refused. Detached: who waits may go away, and what a login costs (a use
    /// of the client secret) is not lost by that.
    async fn token(self: &Arc<Self>, refused: Option<u64>) -> Result<Token, InfisicalError> {
        let client = Arc::clone(self);
        let hold = tokio::spawn(async move { client.hold(refused).await });
        hold.await.unwrap_or(Err(HttpError::TimedOut.into()))
    }

    async fn hold(self: &Arc<Self>, refused: Option<u64>) -> Result<Token, InfisicalError> {
        let came = Instant::now();
        let mut state = self.state.lock().await;
        // What was refused once is worth nothing to the others either.
        state.token.take_if(|token| !token.is_good() || refused == Some(token.generation));
        if let Some(token) = &state.token {
            return Ok(token.clone());
        }
        if let Some((_, why)) = state.failed.as_ref().filter(|(when, _)| *when >= came) {
            return Err(why.clone());
        }
        if state.closed {
            return Err(HttpError::Unreachable.into());
        }
        self.log_in(&mut state).await
    }

    /// Logs in. What was there before stays, if that fails.
    async fn log_in(self: &Arc<Self>, state: &mut MutexGuard<'_, State>) -> Result<Token, InfisicalError> {
        match self.made(state).await {
            Ok(mut token) => {
                state.generation += 1;
                token.generation = state.generation;
                tracing::debug!(place = %self.place(), left = ?token.left(), "logged in");
                self.keep(&token);
                state.token = Some(token.clone());
                state.failed = None;
                Ok(token)
            }
            Err(why) => {
                state.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn made(&self, state: &mut State) -> Result<Token, InfisicalError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Universal<'a> {
            client_id: &'a str,
            client_secret: &'a str,
        }
        let at = &self.config.client_secret;
        let secret = self.handed.read(at)?.ok_or_else(|| InfisicalError::NothingToLogInWith(at.place()))?;
        // Exposed to be told from the next one that is put there.
        let digest: [u8; 32] = Sha256::digest(secret.expose().as_bytes()).into();
        if let Some((_, when, why)) = state.refused.as_ref().filter(|(refused, ..)| *refused == digest)
            && (why.is_final() || when.elapsed() < REFUSED)
        {
            return Err(why.clone());
        }
        let began = Instant::now();
        // Exposed to be sent to whom it is for.
        let body = Universal { client_id: &self.config.client_id, client_secret: secret.expose() };
        let reply = self.ask(Question::post("/api/v1/auth/universal-auth/login", &body)).await?;
        match answer::login(&reply) {
            Ok(login) => {
                state.refused = None;
                Ok(Token::new(login, began))
            }
            Err(why) => {
                if why.is_refusal() {
                    state.refused = Some((digest, began, why.clone()));
                }
                Err(why)
            }
        }
    }

    /// The place, for people.
    fn place(&self) -> String {
        format!("infisical {}", self.config.address)
    }

    /// Sees to it that a token is renewed, or another takes its place, when two thirds of its life are over.
    fn keep(self: &Arc<Self>, token: &Token) {
        let Some(left) = token.left() else { return };
        tokio::spawn(renew_on_and_on(Arc::downgrade(self), token.generation, left * 2 / 3));
    }

    /// Renews. In how long again; `None`: never, for it is over, or another has taken its place.
    async fn renew(self: &Arc<Self>, generation: u64) -> Option<Duration> {
        let mut state = self.state.lock().await;
        let mut token = state.token.clone().filter(|token| token.generation == generation && token.is_good())?;
        let mut passing = false;
        if token.can_be_renewed() {
            let began = Instant::now();
            match self.renewed(&token).await {
                Ok(Some(login)) => {
                    let Token { secret, ends, whole, .. } = Token::new(login, began);
                    let left = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
                    tracing::debug!(place = %self.place(), ?left, "the token is renewed");
                    token = Token { secret, ends, whole, ..token };
                    state.token = Some(token);
                    return left.map(|left| (left * 2 / 3).max(RETRY));
                }
                // Whatever it has against this one, another may be had.
                Ok(None) => {}
                Err(why) => passing = why.passes(),
            }
        }
        if !passing {
            let Err(why) = self.log_in(&mut state).await else { return None };
            let left = token.left().unwrap_or_default().as_secs();
            let place = self.place();
            tracing::warn!(%place, error = %why, left_s = left, "no other login for when this one is over");
        }
        // The old one is good until its end.
        token.left().map(|left| (left / 3).max(RETRY))
    }

    async fn renewed(&self, token: &Token) -> Result<Option<Login>, InfisicalError> {
        let reply = self.ask(Question::post("/api/v1/auth/token/renew", &Access::of(token))).await?;
        match reply.status {
            200 => answer::login(&reply).map(Some),
            400..=499 => Ok(None),
            _ => Err(failure(&reply)),
        }
    }

    /// One secret is asked for no longer. With the last, the token is given back.
    pub async fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let token = {
            let mut state = self.state.lock().await;
            state.closed = true;
            state.token.take()
        };
        if let Some(token) = token.filter(Token::is_good) {
            let reply = self.ask(Question::post("/api/v1/auth/token/revoke", &Access::of(&token))).await;
            if !reply.is_ok_and(|reply| reply.status < 300) {
                tracing::warn!(place = %self.place(), "the broker's token was not given back; it ends by itself");
            }
        }
    }
}

fn said(read: Read) -> Result<Option<Secret>, InfisicalError> {
    match read {
        Read::Secret(secret) => Ok(Some(secret)),
        Read::Absent => Ok(None),
        Read::NoRoute => Err(InfisicalError::Malformed),
        Read::TokenOver(why) => Err(why),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Access<'a> {
    access_token: &'a str,
}

impl<'a> Access<'a> {
    /// Exposed to be sent to whom it is for.
    fn of(token: &'a Token) -> Self {
        Self { access_token: token.secret.expose() }
    }
}

/// <https://infisical.com/docs/api-reference/endpoints/secrets/read>
fn of_v4(wanted: &InfisicalSecret) -> Question {
    let question = Question::get(format!("/api/v4/secrets/{}", wanted.name)).with("projectId", &wanted.project);
    // It was renamed on the way: who does not know a name passes over it.
    common(question, wanted).with("includeImports", "true")
}

/// <https://infisical.com/docs/api-reference/endpoints/deprecated/secrets/read>
fn of_v3(wanted: &InfisicalSecret) -> Question {
    let question = Question::get(format!("/api/v3/secrets/raw/{}", wanted.name)).with("workspaceId", &wanted.project);
    common(question, wanted)
}

fn common(question: Question, wanted: &InfisicalSecret) -> Question {
    let question = question
        .with("environment", &wanted.environment)
        .with("secretPath", &wanted.path)
        .with("viewSecretValue", "true")
        .with("expandSecretReferences", "true")
        .with("include_imports", "true");
    match wanted.version {
        Some(version) => question.with("version", version.to_string()),
        None => question,
    }
}

async fn renew_on_and_on(client: Weak<Client>, generation: u64, mut wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        let Some(client) = client.upgrade() else { return };
        match client.renew(generation).await {
            Some(next) => wait = next,
            None => return,
        }
    }
}
