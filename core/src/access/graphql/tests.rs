use super::*;
use crate::access::Access;
use crate::fixture::test;
use crate::policy::{AccessMode, AccessSpec, OperationSpec};

const OK: Result<(), Reason> = Ok(());
const WRITES: Result<(), Reason> = Err(Reason::ReadOnly);
const UNREADABLE: Result<(), Reason> = Err(Reason::BodyUnreadable);

fn endpoint(subscriptions: bool) -> Access {
    let graphql = GraphqlSpec { paths: vec!["/graphql".into(), "/*/api".into()], subscriptions };
    // A rule that would let everything pass does not, where GraphQL is spoken.
    let any = OperationSpec {
        method: "POST".into(),
        path: "/**".into(),
        query: Default::default(),
        no_other_query: false,
        body: None,
    };
    Access::compile(&AccessSpec { reads: vec![any], graphql: Some(graphql), ..AccessSpec::default() }).unwrap()
}

fn send(method: &str, target: &str, media: Media, body: Body<'_>) -> Result<(), Reason> {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.as_bytes())));
    let (method, path, carrier) = (method.as_bytes(), path.as_bytes(), Some(&b"my_key"[..]));
    let operation = Operation { method, path, query, disguised: false, media, carrier, strip: None };
    endpoint(false).check(AccessMode::ReadOnly, operation, || body)
}

fn post(body: &str) -> Result<(), Reason> {
    send("POST", "/graphql", Media::Json, Body::Whole(body.as_bytes()))
}

fn get(target: &str) -> Result<(), Reason> {
    send("GET", target, Media::Nothing, Body::Whole(b""))
}

/// A call of this document and this operation.
fn call(document: &str, name: Option<&str>) -> String {
    serde_json::json!({"query": document, "operationName": name}).to_string()
}

#[test]
fn a_document_runs_one_operation_that_all_servers_agree_on() {
    for (document, name, verdict) in [
        ("{ a }", None, OK),
        ("query { a }", None, OK),
        ("query Q { a }", None, OK),
        ("query Q { a }", Some(""), OK),
        ("query Q { a }", Some("Q"), OK),
        ("query Q { a } query R { b }", Some("R"), OK),
        ("query Q { a } mutation M { b }", Some("Q"), OK),
        ("{ ...F } fragment F on Query { a }", None, OK),
        ("fragment F on Query { a } { ...F }", None, OK),
        (
            "query ($id: [ID!]! = [1]) @d(x: {y: [1.5e3, true, null, E]}) { a(id: $id) @include(if: true) { b } }",
            None,
            OK,
        ),
        ("{ a { ... on T @defer(label: \"x\") { b } ... @stream { c } } }", None, OK),
        // Words of the language are names as good as any.
        ("{ mutation }", None, OK),
        ("{ mutation: a }", None, OK),
        ("{ a: mutation(subscription: mutation) { query } }", None, OK),
        ("query mutation { a }", None, OK),
        ("query subscription { a }", Some("subscription"), OK),
        ("fragment mutation on query { a } { ...mutation }", None, OK),
        ("{ a(x: \"} mutation { b }\") }", None, OK),
        ("{ a(x: \"\"\"\n\\\"\"\" } mutation { b }\n\"\"\") }", None, OK),
        ("{ a # } mutation { b }\n }", None, OK),
        ("{ a } # mutation { b }", None, OK),
        ("# mutation\r\n{ a,,, b\t}", None, OK),
        ("mutation { a }", None, WRITES),
        ("mutation M { a }", Some("M"), WRITES),
        ("query Q { a } mutation M { b }", Some("M"), WRITES),
        ("# query\nmutation { a }", None, WRITES),
        ("# query\r\nmutation { a }", None, WRITES),
        (",,,\nmutation\n,\nQ\n{\na\n}", None, WRITES),
        ("fragment Q on Mutation { a } mutation { ...Q }", None, WRITES),
        ("subscription { a }", None, WRITES),
        ("query Q { a } subscription S { b }", Some("S"), WRITES),
        // Servers could differ in what runs, or in what is a document at all.
        ("query Q { a } mutation M { b }", None, UNREADABLE),
        ("query Q { a } mutation M { b }", Some(""), UNREADABLE),
        ("query Q { a } query R { b }", None, UNREADABLE),
        ("query Q { a } mutation Q { b }", Some("Q"), UNREADABLE),
        ("query Q { a } query Q { b }", Some("Q"), UNREADABLE),
        ("query Q { a } mutation { b }", Some("Q"), UNREADABLE),
        ("{ a } mutation M { b }", Some(""), UNREADABLE),
        ("{ a } { b }", None, UNREADABLE),
        ("query Q { a }", Some("R"), UNREADABLE),
        ("query Q { a }", Some("q"), UNREADABLE),
        ("query Q { a }", Some(" Q"), UNREADABLE),
        ("{ a }", Some("Q"), UNREADABLE),
        ("", None, UNREADABLE),
        (" # nothing", None, UNREADABLE),
        ("fragment F on T { a }", None, UNREADABLE),
        ("{ a } type T { a: Int }", None, UNREADABLE),
        ("{ a } extend type Query { a: Int }", None, UNREADABLE),
        ("schema { query: Q } { a }", None, UNREADABLE),
        ("query", None, UNREADABLE),
        ("query Q", None, UNREADABLE),
        ("{ }", None, UNREADABLE),
        ("{ a", None, UNREADABLE),
        ("{ a } }", None, UNREADABLE),
        ("{ a } mutation", None, UNREADABLE),
        ("QUERY { a }", None, UNREADABLE),
        ("Mutation { a }", None, UNREADABLE),
        ("{ a(x: \"} mutation { b }) }", None, UNREADABLE),
        ("{ a(x: \"\n\") }", None, UNREADABLE),
        ("{ a(x: \"\\q\") }", None, UNREADABLE),
        ("{ a(x: \"\"\"\\\"\"\"} mutation { b }) }", None, UNREADABLE),
        ("{ a ? }", None, UNREADABLE),
        ("{ é }", None, UNREADABLE),
        ("\u{1}{ a }", None, UNREADABLE),
        // To some servers these end a comment, or are white space.
        ("{ a } # \rmutation { b }", None, UNREADABLE),
        ("{ a } # \u{2028}mutation { b }", None, UNREADABLE),
        ("{ a } # \u{2029}mutation { b }", None, UNREADABLE),
        ("{ a } # \u{85}mutation { b }", None, UNREADABLE),
        ("{ a } # \u{b}mutation { b }", None, UNREADABLE),
        ("{ a } # \u{c}mutation { b }", None, UNREADABLE),
        ("{ a } # \u{0}mutation { b }", None, UNREADABLE),
        ("\u{feff}{ a }", None, UNREADABLE),
        ("{ a(x: \"\u{2028}\") }", None, UNREADABLE),
    ] {
        assert_eq!(post(&call(document, name)), verdict, "{document:?} {name:?}");
    }
}

#[test]
fn a_subscription_reads_where_the_config_says_so() {
    let check = |document: &str, subscriptions| {
        let body = call(document, None);
        let operation = Operation { method: b"POST", path: b"/graphql", media: Media::Json, ..Operation::default() };
        endpoint(subscriptions).check(AccessMode::ReadOnly, operation, || Body::Whole(body.as_bytes()))
    };
    assert_eq!((check("subscription { a }", false), check("subscription { a }", true)), (WRITES, OK));
    assert_eq!((check("mutation { a }", false), check("mutation { a }", true)), (WRITES, WRITES));
}

#[test]
fn a_body_is_a_call_or_a_list_of_calls() {
    for (body, verdict) in [
        (r#"{"query":"{a}"}"#, OK),
        (r#"{"query":"{a}","variables":{"x":[{"query":"mutation{a}"}]},"operationName":null,"extensions":null}"#, OK),
        (r#"{"query":"{a}","extensions":{"clientLibrary":{"name":"x"}}}"#, OK),
        (r#"{"qu\u0065ry":"{a}"}"#, OK),
        (r#"[{"query":"{a}"},{"query":"query Q{a}","operationName":"Q"}]"#, OK),
        (r#"{"query":"mut\u0061tion{a}"}"#, WRITES),
        (r#"[{"query":"{a}"},{"query":"mutation{a}"}]"#, WRITES),
        (r#"[{"query":"mutation{a}"},{"query":"{a}"}]"#, WRITES),
        (r#"{"query":"{a}","query":"mutation{a}"}"#, UNREADABLE),
        (r#"{"query":"{a}","Query":"mutation{a}"}"#, UNREADABLE),
        (r#"{"query":"{a}","mutation":"{a}"}"#, UNREADABLE),
        (r#"{"query":"query Q{a} mutation M{b}","operationName":"Q","operationName":"M"}"#, UNREADABLE),
        (r#"{"query":"query Q{a} mutation M{b}","operationName":"Q","operationname":"M"}"#, UNREADABLE),
        (r#"{"query":"{a}","operationName":1}"#, UNREADABLE),
        (r#"{"query":["{a}"]}"#, UNREADABLE),
        (r#"{"query":null}"#, UNREADABLE),
        (r#"{"query":{"query":"{a}"}}"#, UNREADABLE),
        (r#"{"variables":{}}"#, UNREADABLE),
        (r#"{"id":"7","query":"{a}"}"#, UNREADABLE),
        (r#"{"documentId":"sha256:x"}"#, UNREADABLE),
        (r#"{"doc_id":"7","query":"{a}"}"#, UNREADABLE),
        (r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"x"}}}"#, UNREADABLE),
        (r#"{"query":"{a}","extensions":{"persistedQuery":{"version":1,"sha256Hash":"x"}}}"#, UNREADABLE),
        (r#"{"query":"{a}","extensions":["persistedQuery"]}"#, UNREADABLE),
        (r#"["{a}"]"#, UNREADABLE),
        (r#"[["{a}"]]"#, UNREADABLE),
        (r#"[[{"query":"{a}"}]]"#, UNREADABLE),
        ("[]", UNREADABLE),
        ("{}", UNREADABLE),
        ("", UNREADABLE),
        ("{a}", UNREADABLE),
        ("\u{feff}{\"query\":\"{a}\"}", UNREADABLE),
        (r#"{"query":"{a}"}{"query":"mutation{a}"}"#, UNREADABLE),
        (r#"{"query":"{a(x:\"\ud800\")}"}"#, UNREADABLE),
        ("\u{1f}\u{8b}", UNREADABLE),
    ] {
        assert_eq!(post(body), verdict, "{body}");
    }
    assert_eq!(send("POST", "/graphql", Media::Json, Body::Whole(b"{\"query\":\"{a}#\xff\"}")), UNREADABLE);
    assert_eq!(send("POST", "/graphql", Media::Json, Body::Unread), UNREADABLE);
    assert_eq!(send("POST", "/graphql", Media::Json, Body::TooLarge), Err(Reason::BodyTooLarge));
}

#[test]
fn a_body_is_what_it_is_announced_to_be() {
    let json = Body::Whole(br#"{"query":"{a}"}"#);
    let plain = |text: &'static str| send("POST", "/graphql", Media::Graphql, Body::Whole(text.as_bytes()));
    assert_eq!((plain("{ a }"), plain("query Q { a }")), (OK, OK));
    assert_eq!(plain("mutation { a }"), WRITES);
    assert_eq!(plain("query Q { a } mutation M { b }"), UNREADABLE);
    assert_eq!(plain(r#"{"query":"{a}"}"#), UNREADABLE);
    assert_eq!(send("POST", "/graphql", Media::Graphql, Body::Whole(b"{ a } # \xff")), UNREADABLE);
    for (media, verdict) in [
        (Media::Json, OK),
        (Media::Graphql, UNREADABLE),
        (Media::OnJson, UNREADABLE),
        (Media::Other, UNREADABLE),
        (Media::Nothing, UNREADABLE),
        (Media::Form, WRITES),
        (Media::Unsaid, WRITES),
    ] {
        assert_eq!(send("POST", "/graphql", media, json), verdict, "{media:?}");
    }
}

#[test]
fn an_endpoint_is_one_in_every_spelling_and_by_every_method() {
    let read = Body::Whole(br#"{"query":"{a}"}"#);
    for (method, target, verdict) in [
        ("POST", "/graphql", OK),
        ("POST", "/v1/api", OK),
        ("POST", "/graph%71l", OK),
        ("POST", "/graphql/", WRITES),
        ("POST", "/GraphQL", WRITES),
        ("POST", "/graphql;x=1", WRITES),
        ("PUT", "/graphql", WRITES),
        ("QUERY", "/graphql", WRITES),
        ("DELETE", "/graphql", WRITES),
        ("OPTIONS", "/graphql", OK),
        // In the query string stands nothing beside a body, but for a credential, which never arrives.
        ("POST", "/graphql?", OK),
        ("POST", "/graphql?access_token=x&My_Key=y", OK),
        ("POST", "/graphql?query=%7Ba%7D", WRITES),
        ("POST", "/graphql?operationName=M", WRITES),
        ("POST", "/graphql?a=1", WRITES),
        ("POST", "/graphql?access_token=x;query=mutation%7Ba%7D", WRITES),
    ] {
        assert_eq!(send(method, target, Media::Json, read), verdict, "{method} {target}");
    }
    // The rule of `/**` holds elsewhere.
    assert_eq!(send("POST", "/other", Media::Json, Body::Unread), OK);
}

#[test]
fn a_get_runs_what_its_query_string_holds() {
    for (target, verdict) in [
        ("/graphql", OK),
        ("/graphql?", OK),
        ("/graphql?query=%7Ba%7D", OK),
        ("/graphql?query={a}&variables=%7B%7D&operationName=", OK),
        ("/graphql?qu%65ry=query+Q{a}+mutation+M{b}&operationName=Q", OK),
        ("/graphql?query={a}&access_token=x&my_key=y", OK),
        ("/graphql?query={a}%23+caf%C3%A9", OK),
        ("/graphql?query=mutation{a}", WRITES),
        ("/graphql?query=mut%61tion+M{a}&operationName=M", WRITES),
        ("/graphql?query=query+Q{a}+mutation+M{b}&operationName=M", WRITES),
        ("/graphql?query=subscription{a}", WRITES),
        ("/graphql?query={a}%23%0Amutation{b}", UNREADABLE),
        ("/graphql?query=query+Q{a}+mutation+M{b}", UNREADABLE),
        ("/graphql?query=", UNREADABLE),
        ("/graphql?query={a}&query=mutation{a}", WRITES),
        ("/graphql?query=mutation{a}&query={a}", WRITES),
        ("/graphql?query={a}&Query=mutation{a}", WRITES),
        ("/graphql?query={a}&query[]=mutation{a}", WRITES),
        ("/graphql?query={a}&%20query=mutation{a}", WRITES),
        ("/graphql?query={a};query=mutation{a}", WRITES),
        ("/graphql?query={a}&x=1;query=mutation{a}", WRITES),
        ("/graphql?query={a}&id=7", WRITES),
        ("/graphql?id=7", WRITES),
        ("/graphql?documentId=7", WRITES),
        ("/graphql?operationName=M", WRITES),
        ("/graphql?variables=%7B%7D", WRITES),
        ("/graphql?extensions=%7B%22persistedQuery%22%3A%7B%7D%7D", WRITES),
        ("/graphql?query={a}&extensions=%7B%7D", WRITES),
        ("/graphql?query={a}%23%u000amutation{b}", WRITES),
        ("/graphql?query={a}%23%ff", WRITES),
        ("/graphql?query={a}%", WRITES),
        ("/v1/api?query=mutation{a}", WRITES),
        ("/graphql/?query=mutation{a}", WRITES),
        ("/GRAPHQL?query=mutation{a}", WRITES),
        ("/graphql;x?query=mutation{a}", WRITES),
        // Some servers overlook what comes after.
        ("/graphql.json?query=mutation{a}", WRITES),
        ("/graphql/x?page=2&%71uery={a}", WRITES),
        ("/graphql/x;QUERY={a}?a;query={a}", WRITES),
        ("/graphql/x?page=2", OK),
        ("/graphqlx?query={a}", OK),
        ("/other?query=mutation{a}", OK),
    ] {
        assert_eq!(get(target), verdict, "{target}");
    }
    assert_eq!(send("HEAD", "/graphql?query=mutation{a}", Media::Nothing, Body::Whole(b"")), WRITES);
    // A GET may have a body, which some servers read.
    for (body, verdict) in
        [(Body::Whole(&b"{}"[..]), WRITES), (Body::Unread, UNREADABLE), (Body::TooLarge, Err(Reason::BodyTooLarge))]
    {
        assert_eq!(send("GET", "/graphql?query={a}", Media::Json, body), verdict, "{body:?}");
    }
}

#[test]
fn a_path_with_many_beginnings_is_refused_unread() {
    for (path, verdict) in [
        (format!("/a{}", ".".repeat(63)), OK),
        (format!("/a{}", ".".repeat(64)), WRITES),
        ("/a".repeat(64), OK),
        ("/a".repeat(65), WRITES),
        (format!("/{}", "a".repeat(4095)), OK),
        (format!("/{}", "a".repeat(4096)), WRITES),
        (format!("/a{}", ".".repeat(58_000)), WRITES),
    ] {
        assert_eq!(get(&format!("{path}?query={{a}}")), verdict, "{} bytes", path.len());
        assert_eq!(get(&format!("{path}?page=2")), OK, "{} bytes", path.len());
    }
}

#[test]
fn a_document_has_bounds() {
    let nested = |depth: usize| format!("{}{}", "{a".repeat(depth), "}".repeat(depth));
    let listed = |depth: usize| format!("{{a(x:{}{})}}", "[".repeat(depth), "]".repeat(depth));
    let object = |depth: usize| format!("{{a(x:{}1{})}}", "{x:".repeat(depth), "}".repeat(depth));
    let typed = |depth: usize| format!("query($x:{}Int{}){{a}}", "[".repeat(depth), "]".repeat(depth));
    for (depth, verdict) in [(30, OK), (1_000, UNREADABLE), (20_000, UNREADABLE)] {
        for document in [nested(depth), listed(depth), object(depth), typed(depth)] {
            assert_eq!(post(&call(&document, None)), verdict, "{depth}: {:.40}", document);
        }
    }
    assert_eq!(post(&call(&format!("{{a{}}}", " a".repeat(9_000)), None)), OK);
    assert_eq!(post(&call(&format!("{{a{}}}", " a".repeat(11_000)), None)), UNREADABLE);
}
