//! Headers and trailers, and answers that have no body.

use attache_tests::Reply;
use attache_tests::stack::{CUSTOM, GITHUB, Plan, QUERY, SOON};
use attache_tests::upstream::Part;

use super::{HOST, both, over_h2, spellings, stars, uses};

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_echoes_everything_gives_nothing_away() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    let bearer = format!("Bearer {placeholder}");
    let mut h2 = stack.agent().h2(stack.proxy).await;
    let headers = [("authorization", &*bearer), ("x-own", "stays")];
    let of_h1 = stack.agent().request(stack.proxy, "POST", HOST, "/echo?trailers", &headers, b"body").await;
    let of_h2 = h2.request("POST", HOST, "/echo?trailers", &headers, b"body").await.expect("an answer");
    let masked = format!("Bearer {}", stars(GITHUB.len()));
    for answer in [&of_h1, &of_h2] {
        assert_eq!((answer.status, answer.complete), (200, true));
        assert_eq!(answer.header("x-echo-authorization").as_deref(), Some(&*masked));
        assert_eq!(answer.header("x-echo-x-own").as_deref(), Some("stays"));
        assert!(answer.text().contains(&format!("authorization: {masked}\n")), "{}", answer.text());
        assert!(answer.text().ends_with("\nbody"), "{}", answer.text());
    }
    assert_eq!(of_h2.trailers.text("x-echo-authorization").as_deref(), Some(&*masked));
    assert_eq!(of_h2.trailers.text("x-echo-x-own").as_deref(), Some("stays"));

    // A header with a format, and a query parameter, which comes back percent-encoded in the target.
    let key = stack.placeholder("writer", "custom");
    let custom = stack.agent().get(stack.proxy, "api.custom.test", "/v1/echo", &[("x-custom-key", &key)]).await;
    assert_eq!(custom.status, 200, "{}", custom.text());
    stack.upstream().answer_with(|asked| {
        let key = asked.fields.text("x-custom-key").unwrap_or_default();
        let target = format!("https://{}{}?{}", asked.authority, asked.path, asked.query);
        Reply::new(302).field("location", target).field("x-key", key)
    });
    let custom = stack.agent().get(stack.proxy, "api.custom.test", "/v1/echo", &[("x-custom-key", &key)]).await;
    assert_eq!(custom.header("x-key"), Some(format!("Key {}", stars(CUSTOM.len()))));
    let query = format!("/?key={}&more=1", stack.placeholder("writer", "query"));
    let answer = stack.agent().get(stack.proxy, "query.custom.test", &query, &[]).await;
    let location = answer.header("location").expect("a location");
    let stars = location.matches('*').count();
    assert!(location.starts_with("https://query.custom.test/?") && stars > QUERY.len(), "{location}");
    assert!(location.contains("more=1") && location.replace('*', "").len() + stars == location.len(), "{location}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_is_masked_in_every_header() {
    let stack = Plan::default().start().await;
    for spelling in spellings().into_iter().filter(|spelling| !spelling.contains('\n')) {
        let reply = Reply::new(401)
            .field("www-authenticate", format!("Bearer error=\"{spelling}\""))
            .field("set-cookie", "first=1")
            .field("set-cookie", format!("t={spelling}; Secure"))
            .field("set-cookie", "last=1")
            .body("no");
        for answer in both(&stack, reply).await {
            assert_eq!((answer.status, &*answer.body), (401, &b"no"[..]));
            let challenge = answer.header("www-authenticate").expect("a challenge");
            assert_eq!(challenge.len(), format!("Bearer error=\"{spelling}\"").len(), "{spelling}");
            assert!(challenge.matches('*').count() > GITHUB.len() - 2, "{spelling}: {challenge}");
            let cookies: Vec<_> = answer.fields.iter().filter(|(name, _)| *name == b"set-cookie").collect();
            assert_eq!(cookies.len(), 3, "{spelling}");
            assert_eq!((cookies[0].1, cookies[2].1), (&b"first=1"[..], &b"last=1"[..]));
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_headers_are_masked_too() {
    const SECRET: &str = "lower-case-secret-0123456789";
    let yaml = "{source: {file: lower}, inject: bearer, agent_env: {LOWER: placeholder}, \
                destinations: [{host: lower.extra.test, upstream: DIAL}]}";
    let plan = Plan::default().credential("lower", SECRET, yaml).session("{name: low, credentials: [lower]}");
    let stack = plan.start().await;
    stack.upstream().answer_with(|_| Reply::new(200).field(format!("x-{SECRET}"), "value").body("ok"));
    let answer = stack.get("lower.extra.test", "/", &stack.broker.exported("low", "LOWER")).await;
    assert_eq!(answer.header(&format!("x-{}", stars(SECRET.len()))).as_deref(), Some("value"), "{answer:?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_are_masked_and_stay_what_they_are() {
    let stack = Plan::default().start().await;
    for status in [204, 304] {
        // What says how a body would be encoded says nothing where there is none.
        let reply = Reply::new(status).field("x-echo", GITHUB).field("content-encoding", "gzip");
        for answer in both(&stack, reply).await {
            assert_eq!((answer.status, answer.complete, answer.body.len()), (status, true, 0));
            assert_eq!(answer.header("x-echo"), Some(stars(GITHUB.len())));
        }
    }
    let reply = Reply::new(200).field("x-echo", GITHUB).field("content-encoding", "gzip").body("four");
    stack.upstream().answer_with(move |_| reply.clone());
    let answer = over_h2(&stack, "HEAD").await;
    assert_eq!((answer.status, answer.complete, answer.body.len()), (200, true, 0));
    let of_h1 = stack.send("HEAD", HOST, "/", &stack.placeholder("writer", "github"), b"").await;
    for answer in [answer, of_h1] {
        assert_eq!(answer.header("x-echo"), Some(stars(GITHUB.len())));
        assert_eq!(answer.header("content-length").as_deref(), Some("4"));
    }
    stack.reconcile().await;
}

/// gRPC says what went wrong in trailers, percent-encoded; or in headers, when there is nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_grpc_says_at_the_end_is_masked() {
    let stack = Plan::default().start().await;
    let percent: String = GITHUB.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let (ends, begins) = (format!("bad token {percent}"), &GITHUB[..7]);
    let reply = Reply::new(200)
        .field("content-type", "application/grpc")
        // A body that ends within what may be the secret is let go by its trailers.
        .body([&b"\0\0\0\0\x09ok"[..], begins.as_bytes()].concat())
        .part(Part::Pause(std::time::Duration::from_millis(20)))
        .trailer("grpc-status", "16")
        .trailer("grpc-message", &ends);
    stack.upstream().answer_with(move |_| reply.clone());
    let answer = over_h2(&stack, "POST").await;
    assert!(answer.complete && answer.body.ends_with(begins.as_bytes()), "{answer:?}");
    assert_eq!(answer.trailers.text("grpc-message"), Some(format!("bad token {}", stars(percent.len()))));
    assert_eq!(answer.trailers.text("grpc-status").as_deref(), Some("16"));
    assert_eq!(uses(&stack, 1).await[0].text("masked"), "1");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_asked_for_whole_and_uncompressed() {
    let stack = Plan::default().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let wanted =
        [("authorization", &*bearer), ("accept-encoding", "gzip, br"), ("range", "bytes=0-9"), ("if-range", "x")];
    stack.agent().get(stack.proxy, HOST, "/", &wanted).await;
    stack.agent().get(stack.proxy, HOST, "/", &wanted[..1]).await;
    for asked in stack.upstream().wait_for(2, SOON).await {
        assert_eq!(asked.header("accept-encoding").as_deref(), Some("identity"));
        assert_eq!((asked.header("range"), asked.header("if-range")), (None, None));
    }
    stack.reconcile().await;
}

/// The operator hears of it: each echo in the record and in the metrics, each destination once in the log.
#[tokio::test(flavor = "multi_thread")]
async fn an_echo_is_recorded_counted_and_told_of() {
    let stack = Plan::default().start().await;
    let reply = Reply::new(200).field("x-echo", GITHUB).body(format!("{GITHUB} {GITHUB}"));
    both(&stack, reply).await;
    stack.upstream().answer_with(|_| Reply::new(200).body("nothing"));
    super::once(&stack).await;
    let masked: Vec<_> = uses(&stack, 3).await.iter().map(|used| used.text("masked")).collect();
    assert_eq!(masked, ["3", "3", ""]);
    stack.envoy.wait_stat("wasmcustom.attache.masked", |masked| masked == 6, SOON).await;
    let told = |log: &str| log.matches("has sent back the credential").count();
    attache_tests::util::eventually(SOON, || told(&stack.envoy.log()) > 0).await;
    assert_eq!(told(&stack.envoy.log()), 1);
    assert!(stack.envoy.log().contains("api.github.com:443 has sent back"));
    stack.reconcile().await;
}

/// Why a request was refused here only we say: an upstream that says it, too, would have its agent believe it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_does_not_speak_for_the_filter() {
    let stack = Plan::default().start().await;
    let reply = Reply::new(403)
        .field("x-attache-reason", "read_only")
        .field("x-attache-reason", GITHUB)
        .field("x-reason", "its own")
        .body("no")
        .trailer("x-attache-reason", "read_only")
        .trailer("x-end", "1");
    for answer in both(&stack, reply).await {
        assert_eq!((answer.status, &*answer.body), (403, &b"no"[..]));
        assert_eq!((answer.header("x-attache-reason"), answer.header("x-reason").as_deref()), (None, Some("its own")));
        assert_eq!(answer.trailers.text("x-attache-reason"), None);
    }
    let reply = Reply::new(200).field("x-attache-reason", "read_only").field("content-encoding", "gzip").body("no");
    for answer in both(&stack, reply).await {
        assert_eq!(answer.header("x-attache-reason").as_deref(), Some("response_unreadable"), "ours stays");
    }
    stack.reconcile().await;
}
