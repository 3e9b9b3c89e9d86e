//! What the variables of cases stand for in a run.

use std::collections::BTreeMap;

use attache_tests::stack::{CUSTOM, GITHUB, QUERY};
use attache_tests::{Attache, Stack, util};
use serde_json::Value;

use crate::text::Values;

/// The values of one running Attaché.
#[derive(Clone, Default)]
pub struct Known {
    /// By session, what its agent has in its environment.
    pub sessions: BTreeMap<String, Value>,
    /// What filters show to the broker.
    pub door: String,
    pub issuer: String,
    pub jwt: String,
}

impl Known {
    /// Asks the broker as its operator would.
    pub fn of(stack: &Stack<Attache>) -> Self {
        let names: Vec<_> = stack.config.sessions.iter().map(|session| session.name.to_string()).collect();
        let env = |name: &String| (name.clone(), stack.broker.json(&["session", "env", name]));
        let token = std::fs::read_to_string(stack.config.state_dir.join("data-plane.token"));
        Self {
            sessions: names.iter().map(env).collect(),
            door: token.expect("the filters' token").trim().to_owned(),
            ..Self::default()
        }
    }

    /// A session's token.
    pub fn token(&self, session: &str) -> String {
        self.exported(session, "ATTACHE_SESSION_TOKEN")
    }

    fn exported(&self, session: &str, variable: &str) -> String {
        let env = self.sessions.get(session).unwrap_or_else(|| panic!("no session {session:?} here"));
        env[variable].as_str().unwrap_or_else(|| panic!("session {session} has no {variable}")).to_owned()
    }
}

/// The secret of a credential beside the standard ones.
pub fn secret_of(credential: &str) -> String {
    format!("the-real-secret-of-what-{credential}-1234567890")
}

impl Values for Known {
    fn value(&self, name: &str, word: &str) -> Vec<u8> {
        let text = match name {
            "placeholder" => {
                let (session, credential) = word.split_once('.').unwrap_or((word, "github"));
                let variable = match credential {
                    "github" => "GITHUB_TOKEN".to_owned(),
                    "custom" | "query" => format!("{}_KEY", credential.to_uppercase()),
                    other => other.to_uppercase(),
                };
                self.exported(session, &variable)
            }
            "token" => self.token(word),
            "secret" => match word {
                "github" => GITHUB.to_owned(),
                "custom" => CUSTOM.to_owned(),
                "query" => QUERY.to_owned(),
                other => secret_of(other),
            },
            "door" => self.door.clone(),
            "issuer" => self.issuer.clone(),
            "jwt" => self.jwt.clone(),
            "in" => {
                let now = i64::try_from(util::wall_ms() / 1000).expect("a time");
                (now + word.parse::<i64>().expect("was read as a number")).to_string()
            }
            _ => String::new(),
        };
        text.into_bytes()
    }
}
