//! Against a stand-in for a Connect server, which says what it follows.

#[path = "../../../../../tests/vaults/connect.rs"]
mod stand_in;

use super::*;
use crate::config::Connect;
use crate::config::handed::SecretAt;
use crate::seal::Sealer;
use crate::sources::handed::Handed;
use crate::sources::{Source as _, SourceError};
use attache_core::Secret;
use serde_json::json;
use stand_in::{Fault, ITEM, TOKEN, VAULT, field, item};

const SECRET: &str = "s3cret-in-an-answer";

struct World {
    there: stand_in::Connect,
    client: Arc<Client>,
    refresh: Duration,
}

impl World {
    async fn new() -> Self {
        Self::refreshing(Duration::from_secs(600)).await
    }

    async fn refreshing(refresh: Duration) -> Self {
        let there = stand_in::Connect::start().await;
        let server =
            Connect { address: format!("http://{}", there.addr), token: SecretAt::Env("T".into()), ca_file: None };
        let handed = Handed::new(Some(Secret::new(TOKEN)), Sealer::plain());
        let client = Arc::new(Client::new(Arc::new(server), handed, age(refresh)));
        Self { there, client, refresh }
    }

    fn source(&self, reference: &str) -> Remembered<Item> {
        let config = OnePassword { reference: reference.into(), op: "op".into(), connect: None, refresh: self.refresh };
        open(&config, self.client.clone())
    }

    async fn read(&self, reference: &str) -> Result<String, Trouble> {
        said(&self.source(reference)).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.there.world().asked)
    }
}

async fn said(source: &Remembered<Item>) -> Result<String, Trouble> {
    match source.read().await {
        Ok(found) => Ok(found.expect("never absent").secret.expose().to_owned()),
        Err(SourceError::Remote { why, .. }) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn names_are_looked_up_once_and_ids_never() {
    let world = World::new().await;
    assert_eq!(world.read("op://Private/GitHub/token").await.unwrap(), "ghp_the-real-one");
    let item = format!("/v1/vaults/{VAULT}/items/{ITEM}?");
    let titles = format!("/v1/vaults/{VAULT}/items?filter=title eq \"GitHub\"");
    assert_eq!(world.asked(), ["/v1/vaults?filter=name eq \"Private\"", &titles, &item]);
    let source = world.source("op://private/GITHUB/token");
    assert!(said(&source).await.is_err(), "a filter is to the letter");
    world.asked();
    let source = world.source("op://Private/GitHub/token");
    source.forget();
    assert_eq!(said(&source).await.unwrap(), "ghp_the-real-one");
    assert_eq!(world.asked().join(" "), item);
    let world = World::new().await;
    assert_eq!(world.read(&format!("op://{VAULT}/{ITEM}/credential")).await.unwrap(), "ghp_the-real-one");
    assert_eq!(world.asked(), [item]);
}

#[tokio::test]
async fn a_field_is_named_by_its_id_or_its_label_and_its_section() {
    let world = World::new().await;
    world.there.world().items.push(item(
        "3fcbqwe9ndg175zg2dzwftvkpa",
        VAULT,
        "A \"quoted\" \\ name",
        vec![
            field("a1", "", "token", "of-no-section"),
            field("a2", "s1", "token", "of-tokens"),
            field("a3", "s2", "token", "of-old"),
            field("a4", "s1", "key", "one"),
            field("a5", "s2", "key", "another"),
            field("a6", "", "empty", ""),
            field("a7", "", "long", &"s".repeat(70_000)),
            json!({"id": "a8", "type": "STRING", "label": "without"}),
        ],
    ));
    for (rest, found) in [
        ("token", Ok("of-no-section")),
        ("Tokens/token", Ok("of-tokens")),
        ("s2/TOKEN", Ok("of-old")),
        ("a3", Ok("of-old")),
        ("s1/a2", Ok("of-tokens")),
        ("key", Err("more than one field has this name")),
        ("Old/key", Ok("another")),
        ("none", Err("no such field")),
        ("s2/a2", Err("no such field")),
        ("None/token", Err("no such field")),
        ("empty", Err("is empty")),
        ("without", Err("is empty")),
        ("long", Err("longer than 64 KiB")),
    ] {
        let reference = format!("op://Private/A \"quoted\" \\ name/{rest}");
        match (world.read(&reference).await, found) {
            (Ok(value), Ok(found)) => assert_eq!(value, found, "{rest}"),
            (Err(why), Err(words)) => assert!(why.to_string().contains(words) && !why.passes(), "{rest}: {why}"),
            (read, _) => panic!("{rest}: {:?}", read.map(|_| "a value")),
        }
    }
    let quoted = r#"filter=title eq "A \"quoted\" \\ name""#;
    assert!(world.asked().iter().any(|asked| asked.ends_with(quoted)), "it is escaped");
}

#[tokio::test]
async fn what_is_not_there_ambiguous_or_not_ours_is_told_apart() {
    let world = World::new().await;
    {
        let mut there = world.there.world();
        there.vaults.push(json!({"id": "aaaapm2xxwmwrsd7rjqn7grzfz", "name": "Twin"}));
        there.vaults.push(json!({"id": "bbbbpm2xxwmwrsd7rjqn7grzfz", "name": "Twin"}));
        there.vaults.push(json!({"id": "ccccpm2xxwmwrsd7rjqn7grzfz", "name": "Elsewhere"}));
        there.out_of_scope = Some("ccccpm2xxwmwrsd7rjqn7grzfz");
        for id in ["1aaaqwe9ndg175zg2dzwftvkpa", "2aaaqwe9ndg175zg2dzwftvkpa"] {
            there.items.push(item(id, VAULT, "Twin", vec![]));
        }
        let mut archived = item("3aaaqwe9ndg175zg2dzwftvkpa", VAULT, "Archived", vec![field("f", "", "f", "old")]);
        archived["state"] = "ARCHIVED".into();
        there.items.push(archived);
    }
    for (reference, words) in [
        ("op://None/GitHub/token", "no such vault"),
        ("op://Private/None/token", "no such item"),
        ("op://Private/Archived/f", "in its archive"),
        (&format!("op://{VAULT}/3aaaqwe9ndg175zg2dzwftvkpa/f"), "in its archive"),
        (&format!("op://{VAULT}/4aaaqwe9ndg175zg2dzwftvkpa/f"), "no such item"),
        (&format!("op://ddddpm2xxwmwrsd7rjqn7grzfz/{ITEM}/f"), "no such item"),
        ("op://Twin/GitHub/token", "more than one vault has this name"),
        ("op://Private/Twin/token", "more than one item has this name"),
        ("op://Elsewhere/GitHub/token", "may not read this vault"),
    ] {
        let why = world.read(reference).await.unwrap_err();
        assert!(why.to_string().contains(words) && !why.passes() && why.fix().len() > 10, "{reference}: {why}");
        assert!(!format!("{why:?}").contains(SECRET));
    }
    world.there.world().token = "eyJ.another".into();
    let why = world.read("op://Private/GitHub/token").await.unwrap_err();
    assert!(why.to_string().contains("does not accept our token") && why.fix().contains("op connect token create"));
}

#[tokio::test]
async fn one_reading_of_an_item_serves_all_references_to_it_and_no_field_that_nobody_names_is_kept() {
    let world = World::new().await;
    let sources: Vec<_> = (0..10)
        .map(|index| world.source(["op://Private/GitHub/token", "op://Private/GitHub/Tokens/deploy"][index % 2]))
        .collect();
    for (index, source) in sources.iter().enumerate() {
        assert_eq!(said(source).await.unwrap(), ["ghp_the-real-one", "ghp_of-the-section"][index % 2]);
    }
    let reading = format!("/v1/vaults/{VAULT}/items/{ITEM}");
    assert_eq!((world.there.asked(&reading), world.asked().len()), (1, 3));
    // Who is told to look, looks.
    world.there.put(0, "ghp_the-next-one");
    sources[0].forget();
    assert_eq!(said(&sources[0]).await.unwrap(), "ghp_the-next-one");
    assert_eq!(world.there.asked(&reading), 1);
    let other = Reference::parse("op://Private/GitHub/password");
    let kept = world.client.item(&other, None).await.unwrap();
    assert!(kept.value(&other).is_ok(), "the ID of a field that its label names");
    let world = World::new().await;
    world.read("op://Private/GitHub/token").await.unwrap();
    let kept = world.client.item(&other, None).await.unwrap();
    assert!(matches!(kept.value(&other), Err(ConnectError::NoField)));
}

#[tokio::test]
async fn a_change_is_found_within_refresh_whoever_else_reads_the_item() {
    let refresh = Duration::from_secs(1);
    let world = World::refreshing(refresh).await;
    let sources: Vec<_> = (0..8).map(|_| world.source("op://Private/GitHub/token")).collect();
    for source in &sources {
        said(source).await.unwrap();
        tokio::time::sleep(Duration::from_millis(37)).await;
    }
    let began = std::time::Instant::now();
    let mut longest = Duration::ZERO;
    for version in 0..3 {
        let wanted = format!("ghp_version-{version}");
        world.there.put(0, &wanted);
        let changed = std::time::Instant::now();
        let mut left: Vec<_> = sources.iter().collect();
        while !left.is_empty() {
            let mut stale = Vec::new();
            for source in left {
                source.mark();
                if said(source).await.unwrap() != wanted {
                    stale.push(source);
                }
            }
            left = stale;
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(changed.elapsed() < refresh * 10, "never picked up");
        }
        longest = longest.max(changed.elapsed());
    }
    assert!(longest < refresh + Duration::from_millis(500), "{longest:?}");
    let readings = world.there.asked(&format!("/v1/vaults/{VAULT}/items/{ITEM}"));
    let most = 3 * (began.elapsed().as_secs() + 2);
    assert!(readings as u64 <= most, "{readings} of {most}");
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_by_now_is_looked_up_again() {
    let world = World::new().await;
    let source = world.source("op://Private/GitHub/token");
    said(&source).await.unwrap();
    // Another has its name.
    let next = "5fcbqwe9ndg175zg2dzwftvkpa";
    {
        let mut there = world.there.world();
        there.items[0]["title"] = "GitHub (old)".into();
        there.items.push(item(next, VAULT, "GitHub", vec![field("x", "", "token", "ghp_of-the-next-item")]));
    }
    source.forget();
    assert_eq!(said(&source).await.unwrap(), "ghp_of-the-next-item");
    // It is gone, and made anew.
    world.there.world().items.retain(|item| item["id"] != next);
    source.forget();
    assert!(said(&source).await.unwrap_err().to_string().contains("no such item"));
    world.there.world().items[0]["title"] = "GitHub".into();
    source.forget();
    assert_eq!(said(&source).await.unwrap(), "ghp_the-real-one");
}

#[tokio::test]
async fn too_many_requests_no_answer_and_an_answer_of_somebody_else_are_told_apart() {
    for (fault, words, passes) in [
        (Fault::Busy("90"), "too many requests", true),
        (Fault::Says(500, SECRET.into()), "it fails (HTTP 500)", true),
        (Fault::Says(503, SECRET.into()), "it fails (HTTP 503)", true),
        (Fault::Says(400, SECRET.into()), "HTTP 400", false),
        (Fault::Says(404, format!("<html>{SECRET}</html>")), "does not answer as a Connect server does", false),
        (Fault::Says(200, format!("<html>{SECRET}</html>")), "does not answer as a Connect server does", false),
        (Fault::Says(200, "s".repeat(2 << 20)), "longer than one can be", false),
        (Fault::Silent, "it has not answered within 5 s", true),
    ] {
        let world = World::new().await;
        let [one, other] = ["op://Private/GitHub/token", "op://Private/GitHub/Tokens/deploy"].map(|r| world.source(r));
        said(&one).await.unwrap();
        world.there.world().fault = Some(fault.clone());
        one.forget();
        assert_eq!(said(&one).await.is_ok(), passes, "{words}: what was found holds, or does not");
        let why = one.trouble().unwrap();
        assert!(why.to_string().contains(words) && why.passes() == passes, "{words}: {why}");
        assert!(!format!("{why} {why:?}").contains(SECRET));
        if matches!(fault, Fault::Busy(_)) {
            assert!(one.next().unwrap() > Duration::from_secs(80), "{:?}", one.next());
            world.there.world().fault = None;
            let asked = world.asked().len();
            other.forget();
            assert!(said(&other).await.unwrap_err().wait() > Duration::from_secs(80));
            assert!(asked > 0 && world.asked().is_empty(), "nobody asks");
        }
    }
}
