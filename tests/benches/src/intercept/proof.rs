//! Before a proxy is measured, it shows that it does the job.

use anyhow::{Context, Result, ensure};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};

use super::site::{IMPOSTOR, KNOWN, SECRET, Site};
use super::way::{Door, Way, nothing, small, whole};
use crate::rules::PROOF_PATH;

/// The placeholder must be replaced by the credential, for both sessions; the reader must not write; strangers must
/// not come in; an upstream that somebody else vouches for must get nothing.
pub async fn prove(site: &Site, writer: &Way, reader: &Way) -> Result<()> {
    proven(site, writer, reader).await.with_context(|| format!("{} does not do its work", writer.name))
}

async fn proven(site: &Site, writer: &Way, reader: &Way) -> Result<()> {
    let secret = format!("Bearer {SECRET}");
    arrives(site, reader, Method::GET, &secret).await?;
    arrives(site, writer, Method::GET, &secret).await?;
    arrives(site, writer, Method::POST, &secret).await?;

    let status = send(reader, KNOWN, Method::POST).await?;
    ensure!(status == StatusCode::FORBIDDEN, "a reader's write is answered {status}");
    let theirs = Way { token: writer.token.clone(), ..reader.clone() };
    let status = send(&theirs, KNOWN, Method::GET).await?;
    ensure!(status.is_client_error(), "another session's placeholder is answered {status}");
    let door = writer.door.as_ref().context("a proxy has a door")?;
    let stranger = Door { token: "nobody".to_owned(), ..door.clone() };
    let status = stranger.answer(KNOWN).await?;
    ensure!(status == StatusCode::PROXY_AUTHENTICATION_REQUIRED, "a wrong token is answered {status}");
    // A tunnel that is not opened is as good.
    if let Ok(status) = send(writer, IMPOSTOR, Method::GET).await {
        ensure!(status == StatusCode::BAD_GATEWAY, "an impostor is answered {status}");
    }
    for upstream in [&site.upstream, &site.impostor] {
        ensure!(upstream.take_received().is_none(), "what must be refused reached an upstream");
    }
    Ok(())
}

/// Without a proxy what the client holds arrives as it is.
pub async fn prove_direct(site: &Site, direct: &Way) -> Result<()> {
    arrives(site, direct, Method::GET, &format!("Bearer {}", direct.token)).await
}

async fn arrives(site: &Site, way: &Way, method: Method, expected: &str) -> Result<()> {
    let status = send(way, KNOWN, method.clone()).await?;
    ensure!(status == StatusCode::OK, "a {method} is answered {status}");
    let received = site.upstream.take_received().unwrap_or_default();
    let values: Vec<_> = received.get_all(AUTHORIZATION).iter().collect();
    ensure!(values == [expected], "not the one expected Authorization reached the upstream");
    ensure!(!received.contains_key("proxy-authorization"), "the session's token reached the upstream");
    Ok(())
}

async fn send(way: &Way, host: &str, method: Method) -> Result<StatusCode> {
    let mut tunnel = way.open(host).await?;
    let body = if method == Method::POST { small("{}") } else { nothing() };
    Ok(whole(tunnel.send(method, PROOF_PATH, body).await?).await?.0)
}
