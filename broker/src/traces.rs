//! Spans of grants, in the traces of the requests that need them, for an OpenTelemetry collector.
//!
//! Only a request that is part of a sampled trace has any: nothing is traced otherwise, and nothing is kept. A span is
//! handed over without waiting; where the collector does not keep up, spans are dropped and counted, never a grant:
//! those of the session that has most waiting, so that no agent's flood costs another its trace.
//! Attributes are names and words of ours: no secret, no placeholder, nothing that an agent showed.

use crate::collector::{Collector, CollectorError};
use crate::fair::Fair;
use crate::meters::SpanMeters;
use attache_core::names::Name;
use attache_core::trace::TraceParent;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan, SpanData, SpanProcessor};
use prost::Message as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Most spans that wait for the collector.
const MOST_WAITING: usize = 2048;
/// Most spans that travel together.
const MOST_TOGETHER: usize = 512;
/// The attribute that says whose a span is: a session's name.
pub const SESSION: &str = "attache.session";
/// How long they wait for one another.
const PAUSE: Duration = Duration::from_millis(500);

/// Where spans begin.
pub struct Traces {
    tracer: Option<SdkTracer>,
    meters: SpanMeters,
}

/// One span; it ends when it is dropped. Of a request that nobody traces there is none, and nothing happens.
pub struct Span(Option<Traced>);

struct Traced {
    tracer: SdkTracer,
    context: Context,
}

impl Traces {
    /// Spans for the collector at this URL, if there is one, and what takes them there. `$OTEL_SERVICE_NAME` and
    /// `$OTEL_RESOURCE_ATTRIBUTES` add to what describes the broker.
    pub fn new(endpoint: Option<&str>, instance: &Name) -> (Self, Option<impl Future<Output = ()> + Send + use<>>) {
        let meters = SpanMeters::default();
        let Some(endpoint) = endpoint else { return (Self { tracer: None, meters }, None) };
        // What has not happened yet shows as 0.
        ["exported", "rejected", "dropped"].into_iter().for_each(|result| meters.ended(result, 0));
        let (wake, woken) = channel(1);
        let resource = resource(instance);
        let waiting = Arc::new(Mutex::new(Fair::new(MOST_WAITING)));
        let queue = Queue { waiting: waiting.clone(), parts: Mutex::default(), wake, meters: meters.clone() };
        let provider = SdkTracerProvider::builder().with_span_processor(queue).with_resource(resource.clone()).build();
        let scope = InstrumentationScope::builder("attache").with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = Some(provider.tracer_with_scope(scope));
        let spans = Spans { waiting, woken };
        let export = export(spans, Collector::new(endpoint.to_owned()), (&resource).into(), meters.clone());
        (Self { tracer, meters }, Some(export))
    }

    /// What became of spans.
    pub fn meters(&self) -> &SpanMeters {
        &self.meters
    }

    /// What the broker does for a request of this trace.
    pub fn serve(&self, name: &'static str, parent: Option<TraceParent>) -> Span {
        let (Some(tracer), Some(parent)) = (&self.tracer, parent) else { return Span(None) };
        let ids = (TraceId::from_hex(parent.trace()), SpanId::from_hex(parent.span()));
        let (Ok(trace), Ok(span)) = ids else { return Span(None) };
        let parent = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
        let parent = Context::new().with_remote_span_context(parent);
        Span(Some(Traced::begin(tracer, name, SpanKind::Server, &parent)))
    }
}

impl Traced {
    fn begin(tracer: &SdkTracer, name: &'static str, kind: SpanKind, parent: &Context) -> Self {
        let span = tracer.span_builder(name).with_kind(kind).start_with_context(tracer, parent);
        Self { tracer: tracer.clone(), context: Context::new().with_span(span) }
    }
}

impl Span {
    /// A part of it.
    pub fn child(&self, name: &'static str) -> Span {
        Span(self.0.as_ref().map(|of| Traced::begin(&of.tracer, name, SpanKind::Internal, &of.context)))
    }

    /// Says something of it. The value is written only where somebody reads it.
    pub fn says(&self, key: &'static str, value: impl ToString) {
        if let Some(traced) = &self.0 {
            traced.context.span().set_attribute(KeyValue::new(key, value.to_string()));
        }
    }

    /// It came to nothing, and not because somebody may not: something is wrong.
    pub fn failed(&self, why: &'static str) {
        if let Some(traced) = &self.0 {
            traced.context.span().set_status(Status::error(why));
        }
    }
}

fn resource(instance: &Name) -> Resource {
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    let builder = Resource::builder().with_attribute(KeyValue::new("service.instance.id", instance.to_string()));
    let builder = builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named { builder.build() } else { builder.with_service_name("attache").build() }
}

/// What takes spans that have ended: at once, or not at all.
#[derive(Debug)]
struct Queue {
    waiting: Arc<Mutex<Fair<SpanData>>>,
    /// Parts that have ended, by the span that they are of: that one says whose they are, and ends last.
    parts: Mutex<HashMap<SpanId, Vec<SpanData>>>,
    wake: Sender<()>,
    meters: SpanMeters,
}

impl Queue {
    fn keep(&self, spans: Vec<SpanData>, of: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = match self.wake.is_closed() {
            true => spans.len(),
            false => spans.into_iter().filter_map(|span| waiting.push(of, span)).count(),
        };
        drop(waiting);
        self.meters.ended("dropped", lost);
        // It is full when somebody was told already.
        let _ = self.wake.try_send(());
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut SdkSpan, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if span.span_kind == SpanKind::Internal {
            parts.entry(span.parent_span_id).or_default().push(span);
            return;
        }
        let mut all = parts.remove(&span.span_context.span_id()).unwrap_or_default();
        drop(parts);
        // Of who is nobody's session, all are one.
        let session = span.attributes.iter().find(|said| said.key.as_str() == SESSION);
        let session = session.map(|said| said.value.to_string()).unwrap_or_default();
        all.push(span);
        self.keep(all, &session);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Spans that have ended, and are to go.
struct Spans {
    waiting: Arc<Mutex<Fair<SpanData>>>,
    woken: Receiver<()>,
}

impl Spans {
    /// Some of them, as soon as there are any; none when nobody makes any more.
    async fn some(&mut self) -> Vec<SpanData> {
        loop {
            let some = self.take();
            if !some.is_empty() {
                return some;
            }
            if self.woken.recv().await.is_none() {
                return self.take();
            }
        }
    }

    fn take(&self) -> Vec<SpanData> {
        self.waiting().by_ref().take(MOST_TOGETHER).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Fair<SpanData>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes spans to the collector until nobody makes any more. What it does not take is lost, and counted.
async fn export(
    mut spans: Spans,
    mut collector: Collector,
    resource: ResourceAttributesWithSchema,
    meters: SpanMeters,
) {
    let mut is_told = false;
    loop {
        let together = spans.some().await;
        if together.is_empty() {
            return;
        }
        let many = together.len();
        let resource_spans = group_spans_by_resource_and_scope(together, &resource);
        let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        match collector.post(request).await {
            Ok(answer) => {
                let rejected = rejected(&answer).min(many);
                meters.ended("rejected", rejected);
                meters.ended("exported", many - rejected);
                is_told = false;
            }
            Err(error) => {
                let refused = matches!(error, CollectorError::Refused(_));
                meters.ended(if refused { "rejected" } else { "dropped" }, many);
                // Once: a collector that is away would fill the log.
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "spans are dropped");
                }
            }
        }
        if !spans.woken.is_closed() && spans.waiting().len() < MOST_TOGETHER {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn rejected(answer: &[u8]) -> usize {
    let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0))
}

#[cfg(test)]
mod tests;
