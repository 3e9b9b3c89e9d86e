//! What goes through a tunnel of a forward proxy.

use std::sync::Arc;

use rustls::ClientConfig;

use super::Outcome;
use crate::agent::{H1, PATIENCE};
use crate::stack::SOON;
use crate::{Attache, Response, Spelled, Stack, Unanswered};

/// A client behind the proxy: whom it trusts.
pub struct Inside {
    /// Its TLS, with the authority that the proxy's certificates are signed by.
    pub tls: Arc<ClientConfig>,
}

/// A tunnel, and what is done in it.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// What CONNECT names.
    pub authority: String,
    /// Lines beside it.
    pub headers: Vec<(String, String)>,
    /// The session token that opens it: what the oracle knows its session by.
    pub opened_with: String,
    /// The name in the handshake; `None` for none.
    pub sni: Option<String>,
    /// What is said in place of a handshake.
    pub said: Option<Vec<u8>>,
}

impl Tunnel {
    /// Opens it, and sends a request through it.
    pub(super) async fn carry(&self, stack: &Stack<Attache>, request: &Spelled, inside: &Inside) -> Outcome {
        let mut client = stack.agent().h1(stack.proxy).await;
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match client.connect(&self.authority, &headers).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Outcome::Http(whole(client, answer).await),
            Err(why) => return Outcome::Http(Err(why)),
        }
        if let Some(said) = &self.said {
            client.send(said).await.ok();
            return match client.rest(SOON).await {
                Ok(bytes) => Outcome::Shut(bytes),
                Err(why) => Outcome::Http(Err(why)),
            };
        }
        let mut tls = ClientConfig::clone(&inside.tls);
        tls.enable_sni = self.sni.is_some();
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name = self.sni.as_deref().unwrap_or(host);
        let wire = match client.into_tls(name, Arc::new(tls)).await {
            Ok(wire) => wire,
            Err(why) => return Outcome::Unshaken(why.to_string()),
        };
        let label = format!("in a tunnel to {}, opened with {}", self.authority, self.opened_with);
        let mut connection = stack.agent().h1_over(wire, label);
        connection.send(request.to_h1()).await.ok();
        Outcome::Http(connection.response(PATIENCE).await)
    }
}

/// The answer to a CONNECT that opened no tunnel, with its body.
async fn whole(mut client: H1, mut answer: Response) -> Result<Response, Unanswered> {
    while let Some(piece) = client.piece(PATIENCE).await? {
        answer.body.extend_from_slice(&piece);
    }
    answer.complete = true;
    Ok(answer)
}
