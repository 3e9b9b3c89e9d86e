//! The session that a child runs in: one that exists and is left alone, or one made for it, which ends
//! with it.
//!
//! The one that is made is held: the broker ends it as soon as our connection is gone, however we went.

use super::RunArgs;
use super::RunError;
use crate::api::view::{Changed, CreateSession, SessionView};
use crate::cli::client::{Client, ClientError, Kept};
use crate::cli::session::scopes;
use crate::clock::millis;
use crate::config::Bind;
use crate::operator::HELD;
use crate::random;
use attache_core::names::Name;
use http::Method;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long is waited until a broker that is gone is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// A session to run in.
pub enum Permission {
    /// Somebody else's.
    Lent(Name),
    /// Made for the child.
    Made {
        /// Its name.
        name: Name,
        /// Who keeps the connection.
        holder: JoinHandle<()>,
    },
}

impl Permission {
    /// Finds the session that the arguments name, or makes one.
    pub async fn obtain(args: &RunArgs, client: &Client) -> Result<Self, RunError> {
        if let Some(name) = &args.session {
            return Ok(Self::Lent(name.clone()));
        }
        let name = format!("run-{}", random::id()?);
        let name = Name::parse(&name).map_err(|_| ClientError::Answer(http::StatusCode::CREATED))?;
        let wish = CreateSession {
            name: name.clone(),
            credentials: args.credentials.clone(),
            access_mode: args.access_mode,
            // Whoever dies before the next line leaves one that ends soon.
            ttl_ms: Some(millis(HELD)),
            bind: Bind::default(),
            scopes: scopes(args.scopes.clone()).map_err(RunError::Scopes)?,
        };
        let _: SessionView = client.change(Method::POST, "/v1/sessions", &wish).await?;
        let kept = client.keep(&hold(&name)).await?;
        let holder = tokio::spawn(keep(client.again(), name.clone(), kept));
        Ok(Self::Made { name, holder })
    }

    /// Its name.
    pub fn session(&self) -> &Name {
        let (Self::Lent(name) | Self::Made { name, .. }) = self;
        name
    }

    /// Ends it, if it was made for the child, and waits until no worker uses it any more.
    pub async fn end(self, client: &Client) -> Result<(), ClientError> {
        let Self::Made { name, holder } = self else { return Ok(()) };
        let revoked: Result<Changed, _> =
            client.change(Method::POST, &format!("/v1/sessions/{name}/revoke"), &()).await;
        holder.abort();
        match revoked {
            // Over already: an operator was faster.
            Ok(_) | Err(ClientError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Holds a session until it is over. A broker that went will be back, and finds it alive.
async fn keep(client: Client, name: Name, mut kept: Kept) {
    loop {
        kept.ended().await;
        kept = loop {
            match client.keep(&hold(&name)).await {
                Ok(kept) => break kept,
                Err(ClientError::Refused(_)) => return,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
    }
}

fn hold(name: &Name) -> String {
    format!("/v1/sessions/{name}/hold")
}
