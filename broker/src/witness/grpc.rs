//! The access log of Envoys that send it by gRPC alone, those before 1.37: the same batches, another envelope.

use super::entry::Batch;
use super::{MOST_BYTES, MOST_LINES, Witness};
use crate::grants::Asker;
use axum::Router;
use axum::routing::post;
use std::future::{Ready, ready};
use std::sync::Arc;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The call (`opentelemetry.proto.collector.logs.v1`).
pub const PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// The one call. Who asks is known by then, and may tell of every session.
pub fn router(witness: &Arc<Witness>) -> Router {
    let export = Export(witness.clone());
    let call = async |request: axum::extract::Request| {
        let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MOST_BYTES);
        grpc.unary(export, request).await.map(axum::body::Body::new)
    };
    Router::new().route(PATH, post(call))
}

#[derive(Clone)]
struct Export(Arc<Witness>);

impl UnaryService<Batch> for Export {
    /// An `ExportLogsServiceResponse` in which nothing is rejected has no bytes.
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, request: Request<Batch>) -> Self::Future {
        let peer = request.extensions().get::<Asker>().and_then(|asker| asker.peer.clone());
        let batch = request.into_inner();
        if batch.lines() > MOST_LINES {
            return ready(Err(Status::invalid_argument("more lines than Envoy sends")));
        }
        self.0.saw(batch.entries(), peer.as_ref());
        ready(Ok(Response::new(())))
    }
}
