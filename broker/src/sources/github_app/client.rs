//! One GitHub App, as all tokens of a broker share it.

use super::answer::{self, Issued};
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

/// One App.
pub struct Client {
    app: Arc<GitHubApp>,
    handed: Handed,
    http: Http,
}

impl Client {
    /// Nobody is asked yet.
    pub fn new(app: Arc<GitHubApp>, handed: Handed) -> Self {
        let server = Server { address: app.api.clone(), ca_file: app.ca_file.clone(), ..Server::default() };
        Self { app, handed, http: Http::new(server) }
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

    /// Has a token made.
    pub async fn issue(&self, scope: &TokenScope) -> Result<Issued, GitHubError> {
        let path = format!("/app/installations/{}/access_tokens", self.app.installation);
        let jwt = self.jwt()?;
        let asked = Now::read();
        let reply = self.ask(Question::post(path, scope).secret("authorization", "Bearer ", &jwt)?).await?;
        let issued = answer::issued(&reply, asked.wall_ms).map_err(|error| error.at(&self.app))?;
        if let Err(wider) = issued.within(scope) {
            // What nobody asked for nobody may have.
            let _ = self.give_back(&issued.token).await;
            return Err(wider);
        }
        Ok(issued)
    }

    /// Ends a token.
    pub async fn give_back(&self, token: &Secret) -> Result<(), GitHubError> {
        let reply =
            self.ask(Question::delete("/installation/token").secret("authorization", "Bearer ", token)?).await?;
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
