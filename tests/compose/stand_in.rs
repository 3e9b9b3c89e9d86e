//! What stands around the containers of a test: `upstream CERTIFICATES KEY`, in a container, is the API that agents
//! want; `host`, beside the engine, is the machine: its services, and its DNS server. Each says on standard output
//! whatever reaches it, a line each.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["upstream", chain, key] => tokio::join!(upstream(Path::new(chain), Path::new(key)), datagrams()).0,
        ["host", port] => tokio::join!(service(port.parse().expect("a port")), dns()).0,
        _ => panic!("upstream CERTIFICATES KEY, or host PORT"),
    }
}

/// Answers everything with what it was sent, credential included.
async fn upstream(chain: &Path, key: &Path) {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(chain).expect("certificates").collect();
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain.expect("certificates"), key).expect("a pair");
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("0.0.0.0:443").await.expect("port 443");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let tls = tls.clone();
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let serving = hyper::server::conn::http1::Builder::new();
            let _ = serving.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
        });
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let seen = serde_json::json!({
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "host": header("host"),
        "authorization": header("authorization"),
    });
    let line = seen.to_string();
    println!("{line}");
    let _ = request.into_body().collect().await;
    Ok(Response::new(Full::new(line.into())))
}

/// Keeps what nobody has to answer.
async fn datagrams() {
    let socket = UdpSocket::bind("0.0.0.0:53").await.expect("port 53");
    let mut buffer = [0; 4096];
    loop {
        let (length, _) = socket.recv_from(&mut buffer).await.expect("a datagram");
        let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
        println!("{}", serde_json::json!({"method": "UDP", "path": text}));
    }
}

/// A service on all of the machine's addresses, for the machine alone.
async fn service(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).await.expect("a free port");
    loop {
        let (_stream, from) = listener.accept().await.expect("a connection");
        println!("called by {from}");
    }
}

/// Where resolvers on the machine ask. It knows nothing, and that is not the point.
async fn dns() {
    let socket = UdpSocket::bind("127.0.0.53:53").await.expect("port 53");
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.expect("a question");
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let Some(query) = question.queries.first() else { continue };
        println!("asked for {}", query.name().to_ascii());
        let mut reply = Message::response(question.metadata.id, OpCode::Query);
        reply.queries.push(query.clone());
        reply.metadata.response_code = ResponseCode::NXDomain;
        let _ = socket.send_to(&reply.to_vec().expect("a reply"), from).await;
    }
}
