//! One GitHub App, as all tokens of a broker share it.

use super::answer;
use super::error::GitHubError;
use super::jwt;
use crate::clock::Now;
use crate::config::{GitHubApp, TokenScope};
use crate::sources::handed::Handed;
use crate::sources::http::{Http, Question, Reply, Server};
use ::http::HeaderValue;
use attache_core::Secret;
use std::sync::Arc;
use std::time::Duration;

/// What this was written for: <https://docs.github.com/en/rest/about-the-rest-api/api-versions>
const VERSION: HeaderValue = HeaderValue::from_static("2022-11-28");
const JSON: HeaderValue = HeaderValue::from_static("application/vnd.github+json");
/// No answer is longer, in bytes: one that names 500 repositories describes each.
const MOST: usize = 8 << 20;
/// A quota is over in so long, where GitHub does not say: <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>
const WINDOW: Duration = Duration::from_secs(60);
/// What could not be given back is tried again after these, and then left to its end: a broker that ends waits for it.
const GIVEN_BACK: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];

/// One App.
pub struct Client {
    app: Arc<GitHubApp>,
    handed: Handed,
    http: Http,
}

impl Client {
    /// Nobody is asked yet.
    pub fn new(app: Arc<GitHubApp>, handed: Handed) -> Self {
        let (address, ca_file) = (app.api.clone(), app.ca_file.clone());
        let server = Server { address, ca_file, window: Some(WINDOW), ..Server::default() };
        Self { app, handed, http: Http::new(server).busy_if(answer::is_busy) }
    }

    /// The place, for people.
    pub fn place(&self) -> String {
        self.app.place()
    }

    /// How old a token becomes.
    pub fn refresh(&self) -> Duration {
        self.app.refresh
    }

    /// Whether we are an App that is installed, and could give tokens that reach so much. Has none made.
    pub async fn look(&self, scope: &TokenScope) -> Result<(), GitHubError> {
        let path = format!("/app/installations/{}", self.app.installation);
        let reply = self.ask(Question::get(path).secret("authorization", "Bearer ", &self.jwt()?)?).await?;
        answer::installation(&reply, scope).map_err(|error| error.at(&self.app))
    }

    /// Has a token made. Answers with how long it lives, from the question on.
    pub async fn issue(&self, scope: &TokenScope) -> Result<(Secret, Duration), GitHubError> {
        let path = format!("/app/installations/{}/access_tokens", self.app.installation);
        let jwt = self.jwt()?;
        let asked = Now::read();
        let reply = self.ask(Question::post(path, scope).secret("authorization", "Bearer ", &jwt)?).await?;
        self.taken(&reply, scope, asked.wall_ms).await
    }

    /// The token of an answer, if it can be used; `asked_ms` is when it was asked for, in Unix milliseconds.
    pub async fn taken(
        &self,
        reply: &Reply,
        scope: &TokenScope,
        asked_ms: u64,
    ) -> Result<(Secret, Duration), GitHubError> {
        let issued = answer::issued(reply).map_err(|error| error.at(&self.app))?;
        match issued.usable(scope, asked_ms) {
            Ok(valid) => Ok((issued.token, valid)),
            Err(why) => {
                // It works, and what nobody can use nobody may have.
                let given_back = self.give_back(&issued.token).await.is_ok();
                Err(GitHubError::Unused { why: Box::new(why), given_back })
            }
        }
    }

    /// Ends a token, and tries again where that may help.
    pub async fn give_back(&self, token: &Secret) -> Result<(), GitHubError> {
        let mut waits = GIVEN_BACK.into_iter();
        loop {
            let failed = match self.revoke(token).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            match waits.next().filter(|wait| failed.passes() && failed.wait() <= *wait) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(failed),
            }
        }
    }

    async fn revoke(&self, token: &Secret) -> Result<(), GitHubError> {
        let question = Question::delete("/installation/token").giving_back();
        let reply = self.ask(question.secret("authorization", "Bearer ", token)?).await?;
        match reply.status {
            // One that is not known is over.
            204 | 401 => Ok(()),
            _ => Err(answer::failure(&reply).at(&self.app)),
        }
    }

    async fn ask(&self, question: Question) -> Result<Reply, GitHubError> {
        let question = question.header("accept", JSON).header("x-github-api-version", VERSION).up_to(MOST);
        Ok(self.http.ask(question).await?)
    }

    /// Signed anew each time: the key may be another by now.
    fn jwt(&self) -> Result<Secret, GitHubError> {
        let at = &self.app.key;
        let pem = self.handed.read(at)?.ok_or_else(|| GitHubError::NoKey(at.place()))?;
        jwt::sign(&self.app.issuer, &jwt::key(&pem, &at.place())?, Now::read().wall_ms)
    }
}
