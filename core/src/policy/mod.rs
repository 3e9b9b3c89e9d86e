//! The policy: what was written ([`Spec`]) and what runs ([`Policy`]).

mod compile;
mod spec;

pub use compile::{Binding, Destination, Policy, PolicyError};
pub use spec::{
    AccessMode, AccessSpec, BindingSpec, BodyRule, Carrier, CompanionSpec, DestinationSpec, EvidenceSpec, GraphqlSpec,
    MissingPlaceholder, OperationSpec, Spec, StripSpec, Unmatched,
};
