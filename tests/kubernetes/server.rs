//! A stand-in for an API server of Kubernetes: over TLS, with bearer tokens, it answers `get` of a Secret as the API's
//! reference documents it, and everything else with 403. It is none: what a real one does besides is not shown here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use attache_tests::Ca;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// The stand-in; dropping it closes its port.
pub struct Server {
    pub address: SocketAddr,
    pub ca: Ca,
    told: Arc<Mutex<Told>>,
    accepting: AbortHandle,
}

/// What it knows, and what it was asked.
#[derive(Default)]
pub struct Told {
    /// By `NAMESPACE/NAME`: the data of a Secret, in the clear.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// By token: the Secrets that its Role names.
    pub roles: BTreeMap<String, Vec<String>>,
    /// A status that is answered whatever is asked.
    pub failing: Option<u16>,
    /// Method and path of each question.
    pub asked: Vec<String>,
}

impl Server {
    /// Starts it, with a certificate for these names.
    pub async fn start(names: &[&str]) -> Self {
        let ca = Ca::new();
        let tls = TlsAcceptor::from(ca.issue(names).server_config(&["http/1.1"]));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let told = Arc::new(Mutex::new(Told::default()));
        let knows = Arc::clone(&told);
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, knows) = (tls.clone(), Arc::clone(&knows));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let answer = answer(&mut knows.lock().expect("no panic"), &request);
                        async move { Ok::<_, std::convert::Infallible>(answer) }
                    });
                    // A client that leaves is no failure.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { address, ca, told, accepting: accepting.abort_handle() }
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no panic")
    }

    pub fn put(&self, secret: &str, key: &str, value: &[u8]) {
        let data = BTreeMap::from([(key.to_owned(), value.to_vec())]);
        self.told().secrets.insert(secret.to_owned(), data);
    }

    pub fn allow(&self, token: &str, secrets: &[&str]) {
        self.told().roles.insert(token.to_owned(), secrets.iter().map(|name| (*name).to_owned()).collect());
    }

    /// A kubeconfig whose user is `user`, in the namespace `agents`.
    pub fn kubeconfig(&self, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: main\nclusters:\n- name: here\n  cluster: {{server: \
             'https://127.0.0.1:{}', certificate-authority: {}}}\nusers:\n- name: broker\n  user: {user}\ncontexts:\n- name: \
             main\n  context: {{cluster: here, user: broker, namespace: agents}}\n",
            self.address.port(),
            self.ca.pem_path().display()
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn answer(told: &mut Told, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    told.asked.push(format!("{} {}", request.method(), request.uri()));
    if let Some(status) = told.failing {
        return reply(status, &status_of(status, "InternalError", json!({})));
    }
    let token = request.headers().get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(role) = token.and_then(|token| told.roles.get(token)) else {
        return reply(401, &status_of(401, "Unauthorized", json!({})));
    };
    let parts: Vec<_> = path.split('/').collect();
    let name = match parts[..] {
        ["", "api", "v1", "namespaces", namespace, "secrets", name] => format!("{namespace}/{name}"),
        _ => String::new(),
    };
    let details = json!({"name": parts.last(), "kind": "secrets"});
    if request.method() != "GET" || request.uri().query().is_some() || !role.contains(&name) {
        return reply(403, &status_of(403, "Forbidden", details));
    }
    let Some(data) = told.secrets.get(&name) else { return reply(404, &status_of(404, "NotFound", details)) };
    let data: BTreeMap<_, _> = data.iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
    let metadata = json!({"name": parts.last(), "namespace": parts.get(4), "resourceVersion": "7"});
    reply(200, &json!({"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data, "type": "Opaque"}))
}

/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>
fn status_of(code: u16, reason: &str, details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "in words", "reason": reason,
           "details": details, "code": code})
}

fn reply(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::from(body.to_string()))).expect("an answer")
}
