//! Whole numbers as they are read: unsigned, of 64 bits. The derive calls each of them `int64`, which
//! ends in the middle.

use utoipa::Modify;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::schema::{ArrayItems, KnownFormat, Object, Schema, SchemaFormat};
use utoipa::openapi::{OpenApi as Document, RefOr};
use utoipa::{Number, openapi::path::Parameter};

/// Says what numbers are.
pub(super) struct Numbers;

impl Modify for Numbers {
    fn modify(&self, document: &mut Document) {
        let named = document.components.iter_mut().flat_map(|components| components.schemas.values_mut());
        named.for_each(whole);
        let parameters = document.paths.paths.values_mut().flat_map(parameters);
        parameters.filter_map(|parameter| parameter.schema.as_mut()).for_each(whole);
    }
}

fn parameters(path: &mut PathItem) -> impl Iterator<Item = &mut Parameter> {
    let all = super::operations(path).filter_map(|operation| operation.parameters.as_mut()).flatten();
    all.filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    })
}

fn whole(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => number(object),
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                whole(items);
            }
        }
        Schema::OneOf(kinds) => kinds.items.iter_mut().for_each(whole),
        Schema::AllOf(kinds) => kinds.items.iter_mut().for_each(whole),
        Schema::AnyOf(kinds) => kinds.items.iter_mut().for_each(whole),
        _ => {}
    }
}

fn number(object: &mut Object) {
    object.properties.values_mut().for_each(whole);
    if matches!(object.format, Some(SchemaFormat::KnownFormat(KnownFormat::Int64))) {
        object.format = Some(SchemaFormat::Custom("uint64".into()));
        object.maximum.get_or_insert(Number::from(u64::MAX));
    }
}
