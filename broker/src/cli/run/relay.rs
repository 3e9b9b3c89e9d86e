//! From the loopback of an isolated child to the proxy. The socket listens in there; we accept out here.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Pause after an accept that failed for want of resources.
const PAUSE: Duration = Duration::from_millis(50);

/// Carries each connection to the proxy, and nowhere else, for as long as this is polled.
pub async fn run(listener: TcpListener, proxy: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((inside, _)) => drop(tokio::spawn(carry(inside, proxy))),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A proxy that is not there closes the connection: clients know that from one that is on their machine.
async fn carry(mut inside: TcpStream, proxy: SocketAddr) {
    let Ok(mut outside) = TcpStream::connect(proxy).await else { return };
    let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
    let _ = copy_bidirectional(&mut inside, &mut outside).await;
}
