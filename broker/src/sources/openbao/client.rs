//! Who we are to OpenBao: one login for all secrets, made when the first is asked for, renewed ahead of its end, and
//! made anew when it cannot be renewed. It lives in memory only.

use super::answer::{AuthBlock, Envelope, Json, data, error_says, failure, parse};
use super::error::OpenBaoError;
use super::http::{Http, Question, Reply};
use super::wrapped;
use crate::config::OpenBao;
use crate::config::handed::SecretAt;
use crate::config::openbao::{Auth, SecretId};
use crate::sources::Alarms;
use crate::sources::handed::Handed;
use crate::sources::http::HttpError;
use attache_core::Secret;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// A renewal that fails is tried again no sooner.
const RETRY: Duration = Duration::from_secs(1);

/// One OpenBao, as all lookups of a broker share it.
pub struct Client {
    config: Arc<OpenBao>,
    handed: Handed,
    http: Http,
    state: Mutex<State>,
    alarms: Arc<Alarms>,
    /// How many secrets may still be asked for.
    users: AtomicUsize,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Counts the tokens: what was leased under one ends with it.
    generation: u64,
    /// A SecretID that was unwrapped.
    secret_id: Option<Secret>,
    /// The digest of a wrapping token that raised an alarm, and why: it raises no other.
    refused: Option<([u8; 32], OpenBaoError)>,
    /// The last login that failed: whoever waited for it has its answer, and asks for no other.
    failed: Option<(Instant, OpenBaoError)>,
    /// Whether the last secret was asked for: nobody logs in any longer.
    closed: bool,
}

/// A token of ours.
#[derive(Clone)]
pub struct Token {
    pub secret: Secret,
    pub generation: u64,
    /// When it ends; `None`: never.
    pub ends: Option<Instant>,
    /// How long it lived at first.
    whole: Duration,
    renewable: bool,
    /// How many questions it is good for; `None`: any number.
    uses: Option<u32>,
    /// Whether it was made for us alone, and ends when we do.
    ours: bool,
}

impl Token {
    /// How long it lives yet.
    pub fn left(&self) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_duration_since(Instant::now()))
    }

    fn is_good(&self) -> bool {
        self.left() != Some(Duration::ZERO) && self.uses != Some(0)
    }

    /// Takes one use of it, and lends it for that.
    fn lend(&mut self) -> Token {
        let lent = self.clone();
        self.uses = self.uses.map(|uses| uses.saturating_sub(1));
        lent
    }
}

impl Client {
    /// Nobody is asked yet.
    pub fn new(config: Arc<OpenBao>, handed: Handed, alarms: Arc<Alarms>) -> Self {
        let http = Http::new(&config);
        Self { config, handed, http, state: Mutex::default(), alarms, users: AtomicUsize::default() }
    }

    /// One more secret is asked for, until [`Self::leave`].
    pub fn enter(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks as nobody, or with a token that was lent.
    pub async fn ask(&self, question: Question<'_>) -> Result<Reply, OpenBaoError> {
        self.http.ask(question).await
    }

    /// A token for one question, and whether it was made just now.
    pub async fn token(self: &Arc<Self>) -> Result<(Token, bool), OpenBaoError> {
        self.detached(None).await
    }

    /// Another token than this one, which was not accepted; `None`: there is none but the same.
    pub async fn another(self: &Arc<Self>, refused: &Token) -> Result<Option<Token>, OpenBaoError> {
        let (token, _) = self.detached(Some(refused.generation)).await?;
        let same = token.secret.expose() == refused.secret.expose();
        Ok((!same).then_some(token))
    }

    /// The token that is there, if there is one.
    pub async fn at_hand(&self) -> Option<Token> {
        let mut state = self.state.lock().await;
        state.token.as_mut().filter(|token| token.is_good()).map(Token::lend)
    }

    /// Detached: who waits may go away, and what a login costs (a SecretID that unwraps once) is not lost by that.
    async fn detached(self: &Arc<Self>, refused: Option<u64>) -> Result<(Token, bool), OpenBaoError> {
        let client = Arc::clone(self);
        let hold = tokio::spawn(async move { client.hold(refused).await });
        hold.await.unwrap_or(Err(HttpError::TimedOut.into()))
    }

    async fn hold(self: &Arc<Self>, refused: Option<u64>) -> Result<(Token, bool), OpenBaoError> {
        let came = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(token) = state.token.as_mut()
            && token.is_good()
            && refused != Some(token.generation)
        {
            return Ok((token.lend(), false));
        }
        if let Some((_, why)) = state.failed.as_ref().filter(|(when, _)| *when >= came) {
            return Err(why.clone());
        }
        if state.closed {
            return Err(HttpError::Unreachable.into());
        }
        self.log_in(&mut state).await.map(|token| (token, true))
    }

    /// Logs in. What was there before stays, if that fails.
    async fn log_in(self: &Arc<Self>, state: &mut MutexGuard<'_, State>) -> Result<Token, OpenBaoError> {
        let made = self.made(state).await;
        match made {
            Ok(mut token) => {
                // The same that was handed before is no other: what was leased under it lives on.
                let same = |old: &Token| old.secret.expose() == token.secret.expose();
                let is_new = !state.token.as_ref().is_some_and(same);
                state.generation += u64::from(is_new);
                token.generation = state.generation;
                if is_new {
                    tracing::debug!(place = %self.place(), left = ?token.left(), "logged in");
                    self.keep(&token);
                }
                let lent = token.lend();
                state.token = Some(token);
                state.failed = None;
                Ok(lent)
            }
            Err(why) => {
                state.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn made(&self, state: &mut State) -> Result<Token, OpenBaoError> {
        #[derive(Serialize)]
        struct Role<'a> {
            role: &'a str,
            jwt: &'a str,
        }
        #[derive(Serialize)]
        struct AppRole<'a> {
            role_id: &'a str,
            secret_id: &'a str,
        }
        let handed = |at: &SecretAt| self.handed.read(at)?.ok_or_else(|| OpenBaoError::NothingToLogInWith(at.place()));
        match &self.config.auth {
            Auth::Token(at) => self.given(handed(at)?, state.token.as_ref()).await,
            Auth::Jwt { role, jwt, mount } => {
                let jwt = handed(jwt)?;
                self.login(mount, &Role { role, jwt: jwt.expose() }).await
            }
            Auth::AppRole { role_id, secret_id: SecretId::Plain(at), mount } => {
                let secret_id = handed(at)?;
                self.login(mount, &AppRole { role_id, secret_id: secret_id.expose() }).await
            }
            Auth::AppRole { role_id, secret_id: SecretId::Wrapped { token, creation_path }, mount } => {
                let secret_id = self.unwrapped(state, token, creation_path).await?;
                let made = self.login(mount, &AppRole { role_id, secret_id: secret_id.expose() }).await;
                if let Err(OpenBaoError::LoginRefused(_)) = &made {
                    // Used up, or over: the next one has to be delivered.
                    state.secret_id = None;
                }
                made
            }
        }
    }

    /// A token that somebody has made for us: what it is good for, it says itself, if its policies let it.
    async fn given(&self, secret: Secret, before: Option<&Token>) -> Result<Token, OpenBaoError> {
        let used_up = before.is_some_and(|token| token.uses == Some(0) && token.secret.expose() == secret.expose());
        if used_up {
            return Err(OpenBaoError::TokenUsedUp);
        }
        let began = Instant::now();
        let reply = self.ask(Question::get("auth/token/lookup-self").by(&secret)).await?;
        let token = Token {
            secret,
            generation: 0,
            ends: None,
            whole: Duration::ZERO,
            renewable: false,
            uses: None,
            ours: false,
        };
        match reply.status {
            200 => {}
            // Worth nothing, or not allowed to look: what it is asked for will tell.
            403 => return Ok(token),
            _ => return Err(failure(&reply)),
        }
        let said = data(&reply)?;
        let number = |name: &str| said.get(name).and_then(Json::as_u64).unwrap_or(0);
        let ends = matches!(said.get("expire_time"), Some(Json::Text(_)));
        let (left, uses) = (Duration::from_secs(number("ttl")), u32::try_from(number("num_uses")).unwrap_or(u32::MAX));
        Ok(Token {
            ends: ends.then_some(began + left),
            whole: left.max(Duration::from_secs(number("creation_ttl"))),
            renewable: matches!(said.get("renewable"), Some(Json::Bool(true))),
            uses: (uses > 0).then_some(uses),
            ..token
        })
    }

    async fn login(&self, mount: &str, body: &impl Serialize) -> Result<Token, OpenBaoError> {
        let began = Instant::now();
        let reply = self.ask(Question::post(&format!("auth/{mount}/login"), body)).await?;
        match reply.status {
            200 => {}
            400..=499 if error_says(&reply, "cidr") || error_says(&reply, "source address") => {
                return Err(OpenBaoError::LoginFromElsewhere);
            }
            404 => {
                return Err(match failure(&reply) {
                    OpenBaoError::NoNamespace => OpenBaoError::NoNamespace,
                    _ => OpenBaoError::NoLogin(mount.to_owned()),
                });
            }
            400 | 401 | 403 => return Err(OpenBaoError::LoginRefused(mount.to_owned())),
            _ => return Err(failure(&reply)),
        }
        let Envelope { auth: Some(auth), .. } = parse(&reply.body)? else { return Err(OpenBaoError::Malformed) };
        Ok(of_login(auth, began))
    }

    /// The SecretID, unwrapped once and kept in memory.
    async fn unwrapped(&self, state: &mut State, at: &SecretAt, path: &str) -> Result<Secret, OpenBaoError> {
        if let Some(secret_id) = &state.secret_id {
            return Ok(secret_id.clone());
        }
        let token = self.handed.read(at)?.ok_or_else(|| OpenBaoError::NoDelivery(at.place()))?;
        // Exposed to be told from the next one that is delivered.
        let digest: [u8; 32] = Sha256::digest(token.expose().as_bytes()).into();
        if let Some((_, why)) = state.refused.as_ref().filter(|(refused, _)| *refused == digest) {
            return Err(why.clone());
        }
        match wrapped::unwrap(&self.http, &token, path, &at.place()).await {
            Ok(secret_id) => {
                self.handed.forget(at);
                state.secret_id = Some(secret_id.clone());
                Ok(secret_id)
            }
            Err(why) => {
                if why.is_alarm() {
                    self.alarms.raise(self.place(), why.to_string());
                    state.refused = Some((digest, why.clone()));
                }
                Err(why)
            }
        }
    }

    /// The place, for people.
    fn place(&self) -> String {
        format!("openbao {}", self.config.address)
    }

    /// Sees to it that a token is renewed, or another takes its place, when two thirds of its life are over.
    fn keep(self: &Arc<Self>, token: &Token) {
        let Some(left) = token.left().filter(|_| token.renewable || token.ours) else { return };
        let (client, generation) = (Arc::downgrade(self), token.generation);
        tokio::spawn(renew_on_and_on(client, generation, left * 2 / 3));
    }

    /// Renews. In how long again; `None`: never, for it is over, or another has taken its place.
    async fn renew(self: &Arc<Self>, generation: u64) -> Option<Duration> {
        #[derive(Serialize)]
        struct Renew {
            increment: u64,
        }
        let mut state = self.state.lock().await;
        let mut token = state.token.clone().filter(|token| token.generation == generation && token.is_good())?;
        // The last use is for a secret.
        let may = token.renewable && token.uses.is_none_or(|uses| uses > 1);
        let mut passing = false;
        if may {
            let began = Instant::now();
            let lent = token.lend();
            let body = Renew { increment: token.whole.as_secs() };
            let reply = self.ask(Question::post("auth/token/renew-self", &body).by(&lent.secret)).await;
            state.token = Some(token.clone());
            match reply.map(|reply| (reply.status, parse(&reply.body))) {
                Ok((200, Ok(Envelope { auth: Some(auth), .. }))) => {
                    let length = Duration::from_secs(auth.lease_duration);
                    tracing::debug!(place = %self.place(), ?length, "the token is renewed");
                    token.ends = Some(began + length);
                    token.renewable = auth.renewable;
                    state.token = Some(token.clone());
                    // It lives on as it did: no maximum is near.
                    if length + RETRY >= token.whole || !token.ours {
                        return (length > RETRY && token.renewable).then_some(length * 2 / 3);
                    }
                }
                Ok((200..=499, _)) => {}
                Ok(_) => passing = true,
                Err(why) => passing = why.passes(),
            }
        }
        let mut again = passing;
        if !passing && token.ours {
            let Err(why) = self.log_in(&mut state).await else { return None };
            let left = token.left().unwrap_or_default().as_secs();
            tracing::warn!(place = %self.place(), error = %why, left_s = left, "no other login for when this one is over");
            again = true;
        }
        // The old one is good until its end.
        token.left().map(|left| (left / 3).max(RETRY)).filter(|_| again)
    }

    /// Why a question was denied: whether the token is known at all tells whose fault it is.
    pub async fn why_denied(&self, token: &Token) -> OpenBaoError {
        match self.ask(Question::get("auth/token/lookup-self").by(&token.secret)).await {
            Ok(reply) if reply.status == 403 => OpenBaoError::TokenRefused,
            Ok(_) => OpenBaoError::Denied,
            Err(why) => why,
        }
    }

    /// One secret is asked for no longer. With the last, a token that was made for us is given back, and whatever is
    /// leased under it.
    pub async fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let token = {
            let mut state = self.state.lock().await;
            state.closed = true;
            state.secret_id = None;
            state.token.take()
        };
        if let Some(token) = token.filter(|token| token.ours && token.is_good()) {
            let empty = std::collections::BTreeMap::<&str, &str>::new();
            let question = Question::post("auth/token/revoke-self", &empty).by(&token.secret).giving_back();
            let reply = self.ask(question).await;
            if !reply.is_ok_and(|reply| reply.status < 300) {
                tracing::warn!(place = %self.place(), "the broker's token was not given back; it ends by itself");
            }
        }
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

/// Counted from when it was asked for.
fn of_login(auth: AuthBlock, began: Instant) -> Token {
    let AuthBlock { client_token: secret, lease_duration, renewable, num_uses } = auth;
    let whole = Duration::from_secs(lease_duration);
    let ends = (lease_duration > 0).then_some(began + whole);
    let uses = (num_uses > 0).then_some(num_uses);
    Token { secret, generation: 0, ends, whole, renewable, uses, ours: true }
}
