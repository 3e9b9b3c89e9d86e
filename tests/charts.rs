//! The chart, the Kustomize base and the example for Argo CD: rendered by Helm's own library and by kubectl, validated
//! against the schemas of Kubernetes and of the others whose kinds they use, held against their promises, and run as far
//! as a machine without Kubernetes can. `scripts/charts` gets the tools; without them these tests say so and pass.

#[path = "charts/documented.rs"]
mod documented;
#[path = "charts/promises.rs"]
mod promises;
#[path = "charts/renders.rs"]
mod renders;
#[path = "charts/runs.rs"]
mod runs;
#[path = "charts/ships.rs"]
mod ships;
#[path = "charts/tools.rs"]
mod tools;
#[path = "charts/values.rs"]
mod values;
