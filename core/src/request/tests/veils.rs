//! Where echoes are masked, the answer is asked for whole and as it is.

use crate::fixture::{PLACEHOLDER, Request, SECRET, accepted, compiled, destination, get, granted, header, test};
use crate::policy::Unmatched;
use crate::secret::Secret;

fn upstream(mask: &[&str]) -> Request {
    let policy = compiled(Unmatched::Deny);
    let mut granted = granted("github", header("authorization", &format!("Bearer {SECRET}")));
    granted.mask = mask.iter().copied().map(Secret::new).collect();
    let request = get("api.github.com", "/user").bearer(PLACEHOLDER);
    let request = request.with("accept-encoding", "gzip, br").with("range", "bytes=0-1").with("if-range", "x");
    let request = request.with("grpc-accept-encoding", "gzip").with("accept-encoding", "zstd").with("accept", "*/*");
    let request = request.with("connect-accept-encoding", "gzip").with("accept-charset", "utf-16");
    let request = request.with("sec-websocket-extensions", "permessage-deflate");
    request.upstream(&policy, &accepted(&policy, destination::API, granted)).unwrap()
}

#[test]
fn the_answer_is_asked_for_whole_and_as_it_is() {
    let sent = upstream(&[SECRET]);
    assert_eq!(sent.all("accept-encoding"), ["identity"]);
    for veil in [
        "range",
        "if-range",
        "grpc-accept-encoding",
        "connect-accept-encoding",
        "accept-charset",
        "sec-websocket-extensions",
    ] {
        assert!(sent.all(veil).is_empty(), "{veil}");
    }
    assert_eq!(sent.all("accept"), ["*/*"]);
}

#[test]
fn where_masking_is_off_the_agent_gets_what_it_asks_for() {
    let sent = upstream(&[]);
    assert_eq!(sent.all("accept-encoding"), ["gzip, br", "zstd"]);
    assert_eq!(sent.all("range"), ["bytes=0-1"]);
    assert_eq!(sent.all("sec-websocket-extensions"), ["permessage-deflate"]);
    assert_eq!((sent.all("if-range").len(), sent.all("grpc-accept-encoding").len()), (1, 1));
}
