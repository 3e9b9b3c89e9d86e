//! The policy: what was written ([`Spec`]) and what runs ([`Policy`]).

mod spec;

pub use spec::{
    AccessMode, AccessSpec, BindingSpec, BodyRule, Carrier, DestinationSpec, MissingPlaceholder, OperationSpec, Spec,
    Unmatched,
};
