//! Secrets of Kubernetes: in volumes laid out as a kubelet lays them out, through a real Envoy; and by the API, against
//! a stand-in for an API server that follows the API's documented contract.

#[path = "kubernetes/api.rs"]
mod api;
#[path = "kubernetes/mounted.rs"]
mod mounted;
#[path = "kubernetes/server.rs"]
mod server;
