//! What operators watch: every metric of filter and broker is documented, every query of the dashboard and of the alerts asks
//! for what a real run exposes, and a grant is a span in the trace of the request that needed it.
//! `scripts/prometheus` gets a real Prometheus; without it what only that can show is skipped, and said so.

#[path = "signals/documented.rs"]
mod documented;
#[path = "signals/exposition.rs"]
mod exposition;
#[path = "signals/labels.rs"]
mod labels;
#[path = "signals/prometheus.rs"]
mod prometheus;
#[path = "signals/queries.rs"]
mod queries;
#[path = "signals/rules.rs"]
mod rules;
#[path = "signals/scene.rs"]
mod scene;
#[path = "signals/scraped.rs"]
mod scraped;
#[path = "signals/traced.rs"]
mod traced;
