//! The policy that filters fetch. What sessions demand can grow while the broker runs; then it is
//! published anew, under another version, and every filter fetches it.

use crate::changes::Feed;
use crate::config::{Bind, named, written};
use attache_core::policy::Spec;
use bytes::Bytes;
use std::sync::{Arc, PoisonError, RwLock};

/// The policy in force.
pub struct Publication {
    feed: Arc<Feed>,
    current: RwLock<Published>,
}

/// A policy as it is sent.
#[derive(Clone)]
pub struct Published {
    spec: Arc<Spec>,
    /// JSON.
    pub body: Bytes,
}

impl Publication {
    /// A publication that begins with this policy, of which the feed tells.
    pub fn new(spec: Spec, feed: Arc<Feed>) -> Self {
        Self { feed, current: RwLock::new(Published::of(spec)) }
    }

    /// What filters fetch now.
    pub fn current(&self) -> Published {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has filters read what a session demands. Until they do, its demands are not met.
    pub fn demand(&self, bind: &Bind) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut evidence = current.spec.evidence.clone();
        bind.demand(&mut evidence);
        if evidence == current.spec.evidence {
            return;
        }
        let spec = Spec { evidence, ..Spec::clone(&current.spec) };
        *current = Published::of(named(spec));
        // While it is locked: the feed never tells of an older policy than the newest.
        self.feed.publish_policy(&current.spec.version);
        tracing::info!(policy = %current.spec.version, "filters read more evidence");
    }
}

impl Published {
    fn of(spec: Spec) -> Self {
        let body = written(&spec).into();
        Self { spec: spec.into(), body }
    }

    /// What names it.
    pub fn version(&self) -> &str {
        &self.spec.version
    }
}
