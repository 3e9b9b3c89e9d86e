//! Certificates on demand, as Envoy asks for them: one stream of delta xDS carries them all.
//!
//! A resource's name is the host name as a client has spelled it. What may not be minted is denied at
//! once, and Envoy fails the handshake; what may is given for a time ([`Bounds::ttl`]), and given anew
//! before that is over for as long as the policy names it. Nothing here outlives a stream but the tokens for new ones.

mod messages;
mod stream;
mod subscriptions;
mod token_bucket;

use crate::ca::{Ca, Mintable};
use axum::Router;
use axum::routing::post;
use messages::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use token_bucket::TokenBucket;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longest message of Envoy's, in bytes: the names of a full house, twice, as it says after a break.
const LONGEST: usize = 8 << 20;
/// Answers that may wait for Envoy to read them.
const QUEUE: usize = 4;

/// What keeps certificates few, and new ones slow.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long Envoy keeps a certificate of which it hears nothing more.
    pub ttl: Duration,
    /// How often it is looked what has to be given anew.
    pub tick: Duration,
    /// Names on one stream that the policy does not name, or not as they are spelled; the oldest makes way.
    pub most_others: usize,
    /// Such names that may be new, a second.
    pub new_per_second: u32,
    /// And at once.
    pub new_at_once: u32,
}

impl Bounds {
    /// As brokers have it.
    pub const DEFAULT: Bounds = Bounds {
        ttl: Duration::from_secs(1800),
        tick: Duration::from_secs(1),
        most_others: 4096,
        new_per_second: 50,
        new_at_once: 256,
    };
}

/// What answers Envoy.
pub struct Sds {
    ca: Arc<Ca>,
    mintable: Mintable,
    bounds: Bounds,
    bucket: Mutex<TokenBucket>,
    closing: watch::Sender<bool>,
}

impl Sds {
    /// Answers for one authority and one policy.
    pub fn new(ca: Arc<Ca>, mintable: Mintable, bounds: Bounds) -> Self {
        let bucket = TokenBucket::new(bounds.new_per_second, bounds.new_at_once, Instant::now());
        Self { ca, mintable, bounds, bucket: Mutex::new(bucket), closing: watch::Sender::new(false) }
    }

    /// The one call, gRPC. It asks nobody who they are.
    pub fn router(self: &Arc<Self>) -> Router {
        let certificates = Certificates(self.clone());
        let call = async |request: axum::extract::Request| {
            let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(LONGEST);
            grpc.streaming(certificates, request).await.map(axum::body::Body::new)
        };
        Router::new().route(messages::DELTA_PATH, post(call))
    }

    /// Ends all streams.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Whether one more name may be new.
    fn admits(&self) -> bool {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }
}

#[derive(Clone)]
struct Certificates(Arc<Sds>);

impl StreamingService<DeltaDiscoveryRequest> for Certificates {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let (answers, stream) = mpsc::channel(QUEUE);
        tokio::spawn(stream::run(self.0.clone(), request.into_inner(), answers));
        ready(Ok(Response::new(ReceiverStream::new(stream))))
    }
}
