//! gRPC: the path names service and method in full, and nothing else tells what a call does.

use super::Operation;
use crate::request::Media;

/// Methods that read.
#[derive(Clone, Debug, Default)]
pub(super) struct Grpc(Vec<Method>);

/// A method, or all of a service's.
#[derive(Clone, Debug)]
enum Method {
    /// `/package.Service/Method`.
    One(String),
    /// `/package.Service/`.
    All(String),
}

/// The text names no gRPC method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a gRPC method is `package.Service/Method`, or `package.Service/*` for all of a service")]
pub struct GrpcError;

impl Grpc {
    pub(super) fn compile(methods: &[String]) -> Result<Self, GrpcError> {
        methods.iter().map(|text| Method::parse(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a call is one of them, to the letter (gRPC over HTTP2, "Requests").
    pub(super) fn reads(&self, operation: Operation<'_>) -> bool {
        operation.method == b"POST"
            && operation.media == Media::Grpc
            && operation.query.is_none()
            && self.0.iter().any(|method| method.is(operation.path))
    }
}

impl Method {
    fn parse(text: &str) -> Result<Self, GrpcError> {
        let (service, method) = text.split_once('/').ok_or(GrpcError)?;
        if !service.split('.').all(is_identifier) {
            return Err(GrpcError);
        }
        match method {
            "*" => Ok(Method::All(format!("/{service}/"))),
            method if is_identifier(method) => Ok(Method::One(format!("/{service}/{method}"))),
            _ => Err(GrpcError),
        }
    }

    fn is(&self, path: &[u8]) -> bool {
        match self {
            Method::One(full) => full.as_bytes() == path,
            Method::All(service) => {
                let method = path.strip_prefix(service.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok());
                method.is_some_and(is_identifier)
            }
        }
    }
}

/// A name of Protocol Buffers.
fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    bytes.next().is_some_and(first) && bytes.all(|b| first(b) || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    #[test]
    fn a_call_reads_if_its_full_method_is_listed() {
        let listed = ["shop.v1.Stock/Get", "shop.v1.Prices/*", "Plain/Get_2"].map(str::to_owned);
        let grpc = Grpc::compile(&listed).unwrap();
        let call = |method: &'static str, target: &'static str, media| {
            let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.as_bytes())));
            let (method, path) = (method.as_bytes(), path.as_bytes());
            grpc.reads(Operation { method, path, query, media, ..Operation::default() })
        };
        for (path, reads) in [
            ("/shop.v1.Stock/Get", true),
            ("/shop.v1.Prices/List", true),
            ("/Plain/Get_2", true),
            ("/shop.v1.Stock/Set", false),
            ("/shop.v1.Stock/get", false),
            ("/shop.v1.Stock/Get/", false),
            ("/shop.v1.Stock/G%65t", false),
            ("/shop.v1.Stock/Get?x=1", false),
            ("/shop.v1.Stock/Get?", false),
            ("/shop.v1.Stock", false),
            ("/shop.v1.StockX/Get", false),
            ("/x/shop.v1.Stock/Get", false),
            ("/shop.v1.Prices/", false),
            ("/shop.v1.Prices/*", false),
            ("/shop.v1.Prices/List/x", false),
            ("/shop.v1.Prices/L%69st", false),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", false),
        ] {
            assert_eq!(call("POST", path, Media::Grpc), reads, "{path}");
        }
        for media in [Media::Json, Media::Other, Media::Nothing, Media::Unsaid, Media::Form] {
            assert!(!call("POST", "/shop.v1.Stock/Get", media), "{media:?}");
        }
        assert!(!call("PUT", "/shop.v1.Stock/Get", Media::Grpc));
        for text in [
            "",
            "Stock",
            "/Stock/Get",
            "Stock/",
            "Stock/Get*",
            "*/Get",
            "*/*",
            "a..B/Get",
            "a.B/Get/x",
            "a-B/Get",
            "1a/Get",
        ] {
            assert!(Grpc::compile(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
