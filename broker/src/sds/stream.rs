//! One stream of Envoy's, from its first name to its end.

use super::Sds;
use super::messages::{
    Any, DataSource, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Period, Resource, SECRET, Secret, TlsCertificate,
};
use super::subscriptions::{Subscription, Subscriptions, stays};
use crate::ca::{LEAF_LIFETIME, Minted};
use crate::clock::{Now, millis};
use prost::Message as _;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::{Status, Streaming};

/// Resources in one answer.
const MOST_AT_ONCE: usize = 64;

/// Where answers go.
type Answers = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// Answers one stream until either side ends it.
pub(super) async fn run(sds: Arc<Sds>, mut requests: Streaming<DeltaDiscoveryRequest>, answers: Answers) {
    let (mut closing, mut rotated) = (sds.closing.subscribe(), sds.ca.changed());
    let mut tick = tokio::time::interval(sds.bounds.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stream =
        Stream { sds, answers, subscriptions: Subscriptions::default(), answered: 0, generation: None, begun: false };
    loop {
        let going_on = tokio::select! {
            () = async { drop(closing.wait_for(|closing| *closing).await) } => false,
            () = stream.answers.closed() => false,
            request = requests.message() => match request {
                Ok(Some(request)) => stream.answer(request).await,
                // Its end, or no message of Envoy's.
                Ok(None) | Err(_) => false,
            },
            _ = tick.tick() => stream.renew().await,
            Ok(()) = rotated.changed() => stream.renew().await,
        };
        if !going_on {
            return;
        }
    }
}

struct Stream {
    sds: Arc<Sds>,
    answers: Answers,
    subscriptions: Subscriptions,
    answered: u64,
    /// Which authority signed when this was last looked at.
    generation: Option<u64>,
    begun: bool,
}

/// What an answer is made of.
#[derive(Default)]
struct Told {
    resources: Vec<Resource>,
    removed: Vec<Vec<u8>>,
}

impl Told {
    fn len(&self) -> usize {
        self.resources.len() + self.removed.len()
    }
}

impl Stream {
    /// Answers one request; whether Envoy still listens.
    async fn answer(&mut self, request: DeltaDiscoveryRequest) -> bool {
        if request.type_url != SECRET {
            return true;
        }
        if let Some(error) = request.error_detail {
            tracing::warn!(code = error.code, "Envoy did not take a certificate");
        }
        request.resource_names_unsubscribe.iter().for_each(|spelled| self.subscriptions.leave(spelled));
        // After a break: what Envoy has is no flood.
        let first = !std::mem::replace(&mut self.begun, true);
        let known = request.initial_resource_versions.into_iter().filter(|_| first).map(|known| known.name);
        let known: HashSet<_> = known.take(self.sds.bounds.most_others).collect();
        let mut asked = HashSet::new();
        let mut told = Told::default();
        for spelled in request.resource_names_subscribe {
            // An answer that holds it would be none to Envoy, and the stream would end over it.
            if std::str::from_utf8(&spelled).is_err() || !asked.insert(spelled.clone()) {
                continue;
            }
            self.subscription(&spelled, known.contains(&spelled), &mut told).await;
            if told.len() >= MOST_AT_ONCE && !self.tell(&mut told).await {
                return false;
            }
        }
        self.tell(&mut told).await
    }

    /// Gives a name its certificate, or denies it.
    async fn subscription(&mut self, spelled: &[u8], is_known: bool, told: &mut Told) {
        let resource = match self.admit(spelled, is_known, told) {
            Some(minted) => self.mint(spelled, minted).await,
            None => None,
        };
        match resource {
            Some(resource) => told.resources.push(resource),
            None => {
                self.subscriptions.leave(spelled);
                told.removed.push(spelled.to_vec());
            }
        }
    }

    /// Whether there is a certificate for a name, and room for one more.
    fn admit(&mut self, spelled: &[u8], is_known: bool, told: &mut Told) -> Option<Minted> {
        let minted = self.sds.mintable.find(spelled)?;
        if stays(spelled, &minted) || self.subscriptions.has(spelled) {
            return Some(minted);
        }
        if !is_known && !self.sds.admits() {
            return None;
        }
        if self.subscriptions.others() >= self.sds.bounds.most_others {
            told.removed.extend(self.subscriptions.make_room());
        }
        Some(minted)
    }

    async fn mint(&mut self, spelled: &[u8], minted: Minted) -> Option<Resource> {
        let leaf = match self.sds.ca.mint(&minted.name).await {
            Ok(leaf) => leaf,
            Err(error) => {
                tracing::warn!(host = minted.name, %error, "no certificate");
                return None;
            }
        };
        let inline = |pem: &str| Some(DataSource { inline_bytes: pem.as_bytes().to_vec() });
        let certificate =
            TlsCertificate { certificate_chain: inline(&leaf.certificate), private_key: inline(&leaf.key) };
        let secret = Secret { name: spelled.to_vec(), tls_certificate: Some(certificate) };
        // All its room at once: a buffer that grows leaves copies behind.
        let mut value = Vec::with_capacity(secret.encoded_len());
        secret.encode(&mut value).ok()?;
        let resource = Any { type_url: SECRET.to_owned(), value };
        let resource = self.resource(spelled, leaf.serial.clone(), Some(resource));
        self.subscriptions.take(spelled, minted, leaf.serial, leaf.not_after_ms, Instant::now());
        Some(resource)
    }

    fn resource(&self, spelled: &[u8], version: String, resource: Option<Any>) -> Resource {
        let ttl = self.sds.bounds.ttl;
        let ttl = Period { seconds: ttl.as_secs().cast_signed(), nanos: ttl.subsec_nanos().cast_signed() };
        Resource { version, resource, name: spelled.to_vec(), ttl: Some(ttl) }
    }

    /// Gives anew what the policy names, before its time is over, and everything when another authority
    /// signs; lets go of the rest when its time is over. Whether Envoy still listens.
    async fn renew(&mut self) -> bool {
        if self.subscriptions.is_empty() {
            return true;
        }
        let generation = self.sds.ca.current().await;
        let all = self.generation.is_some_and(|before| generation != Some(before));
        self.generation = generation.or(self.generation);
        let (now, wall_ms, ttl) = (Instant::now(), Now::read().wall_ms, self.sds.bounds.ttl);
        let is_due = |subscription: &Subscription| {
            now.duration_since(subscription.told) >= if subscription.stays { ttl / 3 } else { ttl }
        };
        let mut told = Told::default();
        for (spelled, subscription) in self.subscriptions.select(|subscription| all || is_due(subscription)) {
            if !subscription.stays && is_due(&subscription) {
                // Envoy lets go of it by itself.
                self.subscriptions.leave(&spelled);
            } else if all || subscription.not_after_ms.saturating_sub(wall_ms) < millis(LEAF_LIFETIME / 2) {
                match self.mint(&spelled, subscription.minted).await {
                    Some(resource) => told.resources.push(resource),
                    None => {
                        self.subscriptions.leave(&spelled);
                        told.removed.push(spelled);
                    }
                }
            } else {
                // What Envoy has is still good: it is only told so.
                self.subscriptions.told(&spelled, now);
                told.resources.push(self.resource(&spelled, subscription.version, None));
            }
            if told.len() >= MOST_AT_ONCE && !self.tell(&mut told).await {
                return false;
            }
        }
        self.tell(&mut told).await
    }

    /// Sends an answer, if there is something to say; whether Envoy still listens.
    async fn tell(&mut self, told: &mut Told) -> bool {
        let Told { resources, removed: removed_resources } = std::mem::take(told);
        if resources.is_empty() && removed_resources.is_empty() {
            return true;
        }
        self.answered += 1;
        let nonce = self.answered.to_string();
        let answer = DeltaDiscoveryResponse { resources, type_url: SECRET.to_owned(), nonce, removed_resources };
        self.answers.send(Ok(answer)).await.is_ok()
    }
}
