//! An agent never receives the credential that was injected for it: what an upstream sends back of
//! it is masked at equal length, in any documented spelling, wherever it stands.

#[path = "masks/bodies.rs"]
mod bodies;
#[path = "masks/heads.rs"]
mod heads;
#[path = "masks/off.rs"]
mod off;
#[path = "masks/raw.rs"]
mod raw;
#[path = "masks/streams.rs"]
mod streams;
#[path = "masks/unreadable.rs"]
mod unreadable;

use std::time::Instant;

use attache_tests::oracle::{Audit, Record};
use attache_tests::stack::{GITHUB, SOON};
use attache_tests::{Attache, Reply, Response, Stack};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

const HOST: &str = "api.github.com";

/// Both answers to the same request, over HTTP/1 and over HTTP/2.
async fn both(stack: &Stack<Attache>, reply: Reply) -> [Response; 2] {
    stack.upstream().answer_with(move |_| reply.clone());
    [once(stack).await, over_h2(stack, "GET").await]
}

async fn once(stack: &Stack<Attache>) -> Response {
    stack.get(HOST, "/", &stack.placeholder("writer", "github")).await
}

async fn over_h2(stack: &Stack<Attache>, method: &str) -> Response {
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let mut h2 = stack.agent().h2(stack.proxy).await;
    h2.request(method, HOST, "/", &[("authorization", &bearer)], b"").await.expect("an answer")
}

/// The records of uses, when there are as many.
async fn uses(stack: &Stack<Attache>, n: usize) -> Vec<Record> {
    let begun = Instant::now();
    loop {
        let (audit, _) = Audit::read(Some(&stack.dir().join("state/default/audit.jsonl")));
        let uses: Vec<Record> = audit.of_kind("use").cloned().collect();
        if uses.len() >= n {
            return uses;
        }
        assert!(begun.elapsed() < SOON, "{} of {n} uses", uses.len());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn stars(n: usize) -> String {
    "*".repeat(n)
}

/// Every documented spelling of the GitHub token.
fn spellings() -> Vec<String> {
    let each = |one: &dyn Fn(usize, u8) -> String| -> String {
        GITHUB.bytes().enumerate().map(|(at, byte)| one(at, byte)).collect()
    };
    let mut spellings = vec![
        GITHUB.to_owned(),
        each(&|_, byte| format!("{byte:02x}")),
        each(&|_, byte| format!("{byte:02X}")),
        each(&|_, byte| format!("%{byte:02x}")),
        each(&|_, byte| format!("%{byte:02X}")),
        each(&|_, byte| format!("\\u{byte:04x}")),
        GITHUB.replace('_', "\\u005F"),
        each(&|at, byte| match at % 3 {
            0 => format!("%{byte:02X}"),
            1 => format!("\\u{byte:04X}"),
            _ => char::from(byte).to_string(),
        }),
    ];
    for before in ["", "u", "x-access-token:", "us:"] {
        let text = format!("{before}{GITHUB}");
        spellings.extend([STANDARD.encode(&text), URL_SAFE.encode(&text), STANDARD.encode(&text).replace('=', "%3D")]);
    }
    let long = STANDARD.encode(format!("{}{GITHUB}", "x".repeat(30)));
    spellings.push(format!("{}\r\n{}", &long[..76], &long[76..]));
    spellings
}
