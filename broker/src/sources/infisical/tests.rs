//! Against a stand-in for Infisical, which says what it follows; and what each answer means.

#[path = "../../../../tests/vaults/infisical.rs"]
mod stand_in;

use super::answer::{Read, login, read};
use super::*;
use crate::config::handed::SecretAt;
use crate::config::{Infisical, InfisicalSecret};
use crate::seal::Sealer;
use crate::sources::handed::Handed;
use crate::sources::http::Reply;
use crate::sources::{Source as _, SourceError};
use attache_core::Secret;
use stand_in::{CLIENT_ID, CLIENT_SECRET, Fault, PROJECT};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const LOGIN: &str = "POST /api/v1/auth/universal-auth/login";
const SECRET: &str = "s3cret-in-an-answer";

struct World {
    there: stand_in::Infisical,
    client: Arc<Client>,
    refresh: Duration,
}

impl World {
    async fn new() -> Self {
        Self::at(SecretAt::Env("S".into()), Some(Secret::new(CLIENT_SECRET))).await
    }

    async fn at(client_secret: SecretAt, given: Option<Secret>) -> Self {
        let there = stand_in::Infisical::start().await;
        there.put("prod", "/", "GITHUB_TOKEN", "ghp_the-real-one");
        there.put("prod", "/", "OTHER", "the-other-one");
        let refresh = Duration::from_secs(600);
        let server = Infisical {
            address: format!("http://{}", there.addr),
            ca_file: None,
            client_id: CLIENT_ID.into(),
            client_secret,
            refresh,
        };
        let client = Arc::new(Client::new(Arc::new(server), Handed::new(given, Sealer::plain())));
        Self { there, client, refresh }
    }

    fn secret(&self, name: &str) -> InfisicalSecret {
        let server = Infisical {
            address: String::new(),
            ca_file: None,
            client_id: String::new(),
            client_secret: SecretAt::Stdin,
            refresh: self.refresh,
        };
        let name = name.to_owned();
        let (project, environment, path) = (PROJECT.into(), "prod".into(), "/".into());
        InfisicalSecret { server: Arc::new(server), project, environment, path, name, version: None }
    }

    async fn read(&self, secret: &InfisicalSecret) -> Result<Option<String>, InfisicalError> {
        Ok(self.client.read(secret).await?.map(|secret| secret.expose().to_owned()))
    }

    async fn token(&self) -> Result<String, InfisicalError> {
        self.read(&self.secret("GITHUB_TOKEN")).await.map(Option::unwrap)
    }

    fn logins(&self) -> usize {
        self.there.asked(LOGIN)
    }
}

#[tokio::test]
async fn a_secret_is_read_by_its_place_and_its_question_says_what_is_meant() {
    let world = World::new().await;
    assert_eq!(world.token().await.unwrap(), "ghp_the-real-one");
    let expected = format!(
        "GET /api/v4/secrets/GITHUB_TOKEN?projectId={PROJECT}&environment=prod&secretPath=%2F&viewSecretValue=true&\
         expandSecretReferences=true&include_imports=true&includeImports=true"
    );
    assert_eq!(world.there.world().asked, [LOGIN.to_owned(), expected]);
    world.there.put("prod", "/apps/reviewer", "GITHUB_TOKEN", "first");
    world.there.put("prod", "/apps/reviewer", "GITHUB_TOKEN", "second");
    let mut secret = InfisicalSecret { path: "/apps/reviewer".into(), ..world.secret("GITHUB_TOKEN") };
    assert_eq!(world.read(&secret).await.unwrap().as_deref(), Some("second"));
    secret.version = Some(1);
    assert_eq!(world.read(&secret).await.unwrap().as_deref(), Some("first"));
    assert_eq!(secret.place(), "infisical prod:/apps/reviewer/GITHUB_TOKEN (version 1)");
}

#[tokio::test]
async fn absent_is_one_answer_and_nowhere_hidden_and_denied_are_others() {
    let world = World::new().await;
    let of = |name: &str| world.secret(name);
    assert_eq!(world.read(&of("NONE")).await.unwrap(), None);
    // Names that sound like another answer.
    assert_eq!(world.read(&of("FOLDER_WITH_PATH")).await.unwrap(), None);
    world.there.world().hidden.insert("OTHER");
    world.there.world().denied.insert("GITHUB_TOKEN");
    for (secret, error) in [
        (of("OTHER"), InfisicalError::Hidden),
        (of("GITHUB_TOKEN"), InfisicalError::Denied),
        (InfisicalSecret { environment: "none".into(), ..of("OTHER") }, InfisicalError::NoFolder),
        (InfisicalSecret { path: "/none".into(), ..of("OTHER") }, InfisicalError::NoFolder),
        (InfisicalSecret { project: "none".into(), ..of("OTHER") }, InfisicalError::NoProject),
        (InfisicalSecret { version: Some(7), ..of("OTHER") }, InfisicalError::NoVersion),
    ] {
        let found = world.read(&secret).await.unwrap_err();
        assert_eq!(format!("{found:?}"), format!("{error:?}"), "{secret:?}");
    }
    assert_eq!(world.logins(), 1, "none of it is a matter of who we are");
}

#[tokio::test]
async fn one_login_serves_all_secrets_and_is_given_back_with_the_last() {
    let world = World::new().await;
    let sources: Vec<_> = (0..20)
        .map(|index| Arc::new(open(&world.secret(["GITHUB_TOKEN", "OTHER"][index % 2]), world.client.clone())))
        .collect();
    let reading: Vec<_> = sources
        .iter()
        .cloned()
        .map(|source: Arc<_>| tokio::spawn(async move { source.read().await.unwrap().is_some() }))
        .collect();
    for read in reading {
        assert!(read.await.unwrap());
    }
    assert_eq!(world.logins(), 1);
    for source in &sources {
        assert!(world.there.world().revoked.is_empty());
        source.close().await;
    }
    assert_eq!(world.there.world().revoked, ["eyJ.a-token-that-nobody-may-see.1"]);
    // Nobody logs in any longer.
    assert!(world.token().await.is_err());
    assert_eq!(world.logins(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_and_another_takes_its_place_near_its_maximum() {
    let wait = async |world: &World, what: &str, count: usize| {
        for _ in 0..600 {
            if world.there.asked(what) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} was not asked {count} times: {:?}", world.there.world().asked);
    };
    let world = World::new().await;
    world.there.world().ttl = 2;
    world.token().await.unwrap();
    wait(&world, "POST /api/v1/auth/token/renew", 2).await;
    assert_eq!((world.token().await.unwrap().as_str(), world.logins()), ("ghp_the-real-one", 1));
    // Its maximum is nearer than a renewal takes: it would be refused, and the token with it.
    let world = World::new().await;
    (world.there.world().ttl, world.there.world().max_ttl) = (2, 4);
    world.token().await.unwrap();
    wait(&world, LOGIN, 2).await;
    assert_eq!(world.there.asked("POST /api/v1/auth/token/renew"), 0);
    assert_eq!(world.token().await.unwrap(), "ghp_the-real-one");
}

#[tokio::test]
async fn a_token_that_is_revoked_or_used_up_is_replaced_by_another_once() {
    let world = World::new().await;
    world.token().await.unwrap();
    world.there.forget_tokens();
    assert_eq!((world.token().await.unwrap().as_str(), world.logins()), ("ghp_the-real-one", 2));
    world.there.world().uses = 2;
    for _ in 0..6 {
        assert_eq!(world.token().await.unwrap(), "ghp_the-real-one");
    }
    // One use of the second was made before there was a limit.
    assert_eq!(world.logins(), 5);
    // What is refused at once is not made over and over.
    world.there.world().refuses_tokens = true;
    let before = world.logins();
    let refused = world.token().await.unwrap_err();
    assert!(matches!(refused, InfisicalError::TokenRefused) && !refused.passes(), "{refused:?}");
    for _ in 0..3 {
        assert!(matches!(world.token().await, Err(InfisicalError::TokenRefused)));
    }
    assert_eq!(world.logins(), before + 1);
}

#[tokio::test]
async fn a_client_secret_that_is_refused_is_not_tried_again_and_the_next_one_is_at_once() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let file = temp.path().join("client_secret");
    let put = |text: &str| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let world = World::at(SecretAt::Private(file.clone()), None).await;
    let why = world.token().await.unwrap_err();
    assert!(why.to_string().starts_with("there is nothing to log in with: file "), "{why}");
    put("st.of-yesterday");
    for _ in 0..5 {
        assert!(matches!(world.token().await, Err(InfisicalError::LoginRefused)));
    }
    assert_eq!(world.logins(), 1, "three failures would lock the identity");
    put(CLIENT_SECRET);
    world.there.world().logins_left = Some(1);
    assert_eq!(world.token().await.unwrap(), "ghp_the-real-one");
    world.there.forget_tokens();
    for _ in 0..5 {
        assert!(matches!(world.token().await, Err(InfisicalError::SecretUsedUp)));
    }
    assert_eq!(world.logins(), 3);
    put("st.the-next-one");
    world.there.world().client_secret = "st.the-next-one".into();
    world.there.world().logins_left = None;
    assert_eq!(world.token().await.unwrap(), "ghp_the-real-one");
}

#[tokio::test]
async fn a_server_without_version_4_is_asked_by_version_3_and_that_is_remembered() {
    let world = World::new().await;
    world.there.world().has_v4 = false;
    for _ in 0..3 {
        assert_eq!(world.token().await.unwrap(), "ghp_the-real-one");
    }
    assert_eq!(world.read(&world.secret("NONE")).await.unwrap(), None);
    let asked = |what: &str| world.there.asked(what);
    assert_eq!((asked("GET /api/v4/"), asked("GET /api/v3/secrets/raw/")), (1, 4));
    assert!(world.there.world().asked.iter().any(|asked| asked.contains(&format!("?workspaceId={PROJECT}&"))));
    // It was upgraded, and has lost version 3.
    (world.there.world().has_v4, world.there.world().has_v3) = (true, false);
    assert_eq!(world.token().await.unwrap(), "ghp_the-real-one");
    assert_eq!(world.token().await.unwrap(), "ghp_the-real-one");
    assert_eq!((asked("GET /api/v4/"), asked("GET /api/v3/secrets/raw/")), (3, 5));
    world.there.world().has_v4 = false;
    assert!(matches!(world.token().await, Err(InfisicalError::Malformed)));
}

#[tokio::test]
async fn who_says_that_it_is_too_much_is_left_alone_and_what_was_found_holds() {
    let world = World::new().await;
    let [one, other] = ["GITHUB_TOKEN", "OTHER"].map(|name| open(&world.secret(name), world.client.clone()));
    assert!(one.read().await.unwrap().is_some());
    world.there.world().fault = Some(Fault::Busy("40"));
    one.forget();
    assert_eq!(one.read().await.unwrap().unwrap().secret.expose(), "ghp_the-real-one");
    assert!(one.trouble().unwrap().to_string().contains("too many requests"));
    assert!(one.next().unwrap() > Duration::from_secs(30), "{:?}", one.next());
    world.there.world().fault = None;
    let asked = world.there.world().asked.len();
    let Err(SourceError::Remote { why, .. }) = other.read().await else { panic!("it has answered") };
    assert!(why.passes() && why.wait() > Duration::from_secs(30), "{why:?}");
    assert_eq!(why.fix(), "wait; a longer sources.infisical.refresh asks less often");
    assert_eq!(world.there.world().asked.len(), asked, "nobody asks");
}

#[tokio::test]
async fn who_is_silent_down_or_somebody_else_is_told_apart() {
    for (fault, error, passes) in [
        (Fault::Says(502, SECRET.into()), "it fails (HTTP 502)", true),
        (Fault::Says(503, SECRET.into()), "it fails (HTTP 503)", true),
        (Fault::Says(200, format!("<html>{SECRET}</html>")), "does not answer as Infisical does", false),
        (Fault::Says(404, format!("<html>{SECRET}</html>")), "does not answer as Infisical does", false),
        (Fault::Says(200, "s".repeat(2 << 20)), "longer than one can be", false),
        (Fault::Silent, "it has not answered within 5 s", true),
    ] {
        let world = World::new().await;
        let source = open(&world.secret("GITHUB_TOKEN"), world.client.clone());
        world.there.world().fault = Some(fault);
        let Err(SourceError::Remote { place, why }) = source.read().await else { panic!("it has answered") };
        assert_eq!(place, "infisical prod:/GITHUB_TOKEN");
        let said = format!("{why} {}", why.fix());
        assert!(said.contains(error) && !said.contains(SECRET) && why.passes() == passes, "{error}: {said}");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::new().await;
    let mut server = (*world.secret("X").server).clone();
    (server.address, server.client_secret) = (format!("http://{port}"), SecretAt::Env("S".into()));
    let client = Client::new(Arc::new(server), Handed::new(Some(Secret::new("x")), Sealer::plain()));
    let why = Arc::new(client).read(&world.secret("X")).await.err().unwrap();
    assert!(why.to_string().contains("cannot be reached") && why.passes());
}

fn reply(status: u16, error: &str, message: &str) -> Reply {
    let body = serde_json::json!({"reqId": SECRET, "statusCode": status, "error": error,
        "message": format!("{message} {SECRET}")});
    Reply { status, body: zeroize::Zeroizing::new(body.to_string().into_bytes()), ..Reply::default() }
}

#[tokio::test]
async fn each_refusal_of_a_login_has_its_fix_and_none_holds_a_byte_of_the_answer() {
    for (status, error, message, words, fix, passes) in [
        (401, "UnauthorizedError", "Invalid credentials", "is not accepted", "new client secret", false),
        (401, "UnauthorizedError", "Access denied due to expired client secret", "has expired", "longer TTL", false),
        (
            401,
            "UnauthorizedError",
            "Access denied due to client secret usage limit reached",
            "all uses",
            "limit",
            false,
        ),
        (
            401,
            "UnauthorizedError",
            "Failed to authenticate identity credentials due to client secret number of uses limit reached",
            "all uses of the client secret",
            "without a limit",
            false,
        ),
        (401, "UnauthorizedError", "This identity auth method is temporarily locked", "is locked", "clear", true),
        (
            403,
            "ForbiddenError",
            "You are not allowed to access this resource from the current IP address",
            "this machine's address",
            "client secret's trusted IPs",
            false,
        ),
        (422, "ValidationFailure", "", "is not accepted", "new client secret", false),
        (404, "Not Found", "Route POST:/api", "does not answer as Infisical", "without /api", false),
        (500, "InternalServerError", "Something went wrong", "HTTP 500", "its log", true),
    ] {
        let why = login(&reply(status, error, message)).err().unwrap();
        let shown = format!("{why} {why:?}");
        let trouble = Trouble::from(why);
        assert!(shown.contains(words) && !shown.contains(SECRET), "{status} {message}: {shown}");
        assert!(trouble.fix().contains(fix) && trouble.passes() == passes, "{message}: {}", trouble.fix());
    }
}

#[tokio::test]
async fn each_answer_to_a_question_means_one_thing_and_no_error_holds_a_byte_of_it() {
    let world = World::new().await;
    let wanted = world.secret("TOKEN");
    let over = |status, error, message| matches!(read(&reply(status, error, message), &wanted), Ok(Read::TokenOver(_)));
    assert!(over(401, "UnauthorizedError", "No identity access token found"));
    assert!(over(403, "TokenError", "Your token has expired. Please re-authenticate."));
    assert!(over(400, "BadRequest", "Unable to renew because access token number of uses limit reached"));
    // Of either implementation of its server.
    for message in ["Secret with name 'TOKEN' not found", "Secret not found"] {
        assert!(matches!(read(&reply(404, "NotFound", message), &wanted), Ok(Read::Absent)));
    }
    for (status, error, message, words) in [
        (404, "NotFound", "Environment not found", "no such environment"),
        (404, "NotFound", "Folder not found", "no such environment"),
        (404, "NotFound", "Project with ID 'x' not found", "no such project"),
        (404, "NotFound", "Something else", "does not answer as Infisical"),
        (403, "ForbiddenError", "You are not a member of this project", "may not read it"),
        (403, "ForbiddenReadSecretError", "You do not have permission", "not its value"),
        (403, "ForbiddenError", "… from the current IP address", "this machine's address"),
        (400, "BadRequest", "Missing environment", "HTTP 400"),
        (422, "ValidationFailure", "", "HTTP 422"),
        (500, "InternalServerError", "", "HTTP 500"),
        (418, "", "", "does not answer as Infisical"),
    ] {
        let why = read(&reply(status, error, message), &wanted).err().unwrap_or_else(|| panic!("{message}"));
        let shown = format!("{why} {why:?}");
        assert!(shown.contains(words) && !shown.contains(SECRET), "{status} {message}: {shown}");
        assert!(Trouble::from(why).fix().len() > 10);
    }
    let with = |value: serde_json::Value, hidden: bool| {
        let secret = serde_json::json!({"secretKey": "TOKEN", "secretValue": value, "secretValueHidden": hidden,
            "version": 3, "secretComment": SECRET});
        let body = serde_json::json!({"secret": secret}).to_string().into_bytes();
        read(&Reply { status: 200, body: zeroize::Zeroizing::new(body), ..Reply::default() }, &wanted)
    };
    assert!(matches!(with("x".into(), false), Ok(Read::Secret(secret)) if secret.expose() == "x"));
    for (value, hidden, words) in [
        ("x".into(), true, "not its value"),
        ("<hidden-by-infisical>".into(), false, "not its value"),
        ("".into(), false, "is empty"),
        ("s".repeat(70_000).into(), false, "longer than 64 KiB"),
        (5.into(), false, "does not answer as Infisical"),
    ] {
        let why = with(value, hidden).err().unwrap().to_string();
        assert!(why.contains(words) && !why.contains(SECRET), "{why}");
    }
}
