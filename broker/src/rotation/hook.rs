//! A server that makes a new secret, or retires an old one: version 1 of the contract in docs/rotation.md.

use super::{Action, RotationError, command};
use crate::config::handed::SecretAt;
use crate::sources::handed::Handed;
use crate::sources::http::{Http, HttpError, Question, Server};
use attache_core::Secret;
use attache_core::names::Name;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The version of the contract.
const VERSION: u32 = 1;

/// A hook.
pub struct Hook {
    http: Http,
    token: Option<(SecretAt, Handed)>,
    timeout: Duration,
}

#[derive(Serialize)]
struct Asked<'a> {
    version: u32,
    action: &'static str,
    credential: &'a Name,
    id: &'a str,
    /// The secret in use, or the one to be retired.
    secret: &'a str,
}

#[derive(Deserialize)]
struct Answered {
    secret: Secret,
}

impl Hook {
    /// Nobody is asked yet.
    pub fn new(url: &str, ca_file: Option<PathBuf>, token: Option<(SecretAt, Handed)>, timeout: Duration) -> Self {
        let server = Server { address: url.to_owned(), ca_file, ..Server::default() };
        Self { http: Http::new(server), token, timeout }
    }

    /// Asks. Answers with the new secret, where there is to be one.
    pub async fn ask(
        &self,
        (action, id, credential): (Action, &str, &Name),
        secret: &Secret,
    ) -> Result<Option<Secret>, RotationError> {
        // Exposed to whoever replaces it.
        let asked = Asked { version: VERSION, action: action.as_str(), credential, id, secret: secret.expose() };
        let mut question = Question::post("", &asked).within(self.timeout);
        if let Some((at, handed)) = &self.token {
            let token = handed.read(at)?.ok_or(RotationError::NoToken)?;
            question = question.secret("authorization", "Bearer ", &token)?;
        }
        let reply = self.http.ask(question).await.map_err(|error| match error {
            HttpError::TimedOut => RotationError::HookTimedOut(self.timeout),
            error => error.into(),
        })?;
        match (action, reply.status) {
            (Action::Rotate, 200) => {
                let answered: Result<Answered, _> = serde_json::from_slice(&reply.body);
                // Exposed to be looked at: it is kept only if it can be a secret.
                let answered = answered.map_err(|_| RotationError::HookForm)?;
                command::secret(answered.secret.expose()).map(Some)
            }
            (Action::Retire, 204) => Ok(None),
            (_, status) => Err(RotationError::HookStatus(status)),
        }
    }
}
