//! What all secrets of a Connect server share: IDs by name, and items, each read once for all references to it.

use super::answer::{Item, Named, Reference, filter, is_id, one_of, read};
use super::error::ConnectError;
use crate::config::Connect;
use crate::sources::handed::Handed;
use crate::sources::http::{Http, Question, Reply, Server};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// So long a name is taken for what it was: vaults are seldom renamed. What is gone is noticed at once.
const NAMES: Duration = Duration::from_secs(86_400);

/// Where it does not say how long to wait.
const WINDOW: Duration = Duration::from_secs(60);

/// One Connect server, as all lookups of a broker share it.
pub struct Client {
    config: Arc<Connect>,
    handed: Handed,
    http: Http,
    /// An item is good for all references to it for so long.
    age: Duration,
    vaults: Known<String, String>,
    titles: Known<(String, String), String>,
    items: Known<(String, String), Arc<Item>>,
    fields: Mutex<Fields>,
}

/// The fields that references name, in small letters: nothing else of an item is kept.
#[derive(Default)]
struct Fields {
    names: HashSet<String>,
    /// When the last one came: what was read before has lost it.
    since: Option<Instant>,
}

/// What was asked for, by what was asked: for each one question at a time.
struct Known<K, V>(Mutex<HashMap<K, Cell<V>>>);

/// An answer, and when it was asked for.
type Cell<V> = Arc<tokio::sync::Mutex<Option<(Instant, V)>>>;

impl<K: Hash + Eq, V: Clone> Known<K, V> {
    /// What was asked for so lately, or what is asked for now.
    async fn get(
        &self,
        key: K,
        lately: Lately,
        ask: impl Future<Output = Result<V, ConnectError>>,
    ) -> Result<V, ConnectError> {
        let cell = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let mut cell = cell.lock().await;
        if let Some((_, value)) = cell.as_ref().filter(|(asked, _)| lately.is(*asked)) {
            return Ok(value.clone());
        }
        let asked = Instant::now();
        let answer = ask.await;
        *cell = answer.as_ref().ok().map(|value| (asked, value.clone()));
        answer
    }
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// No longer ago, and no earlier.
#[derive(Clone, Copy)]
struct Lately {
    age: Duration,
    since: Option<Instant>,
}

impl Lately {
    fn is(self, asked: Instant) -> bool {
        asked.elapsed() < self.age && self.since.is_none_or(|since| asked >= since)
    }
}

impl Client {
    /// Nobody is asked yet.
    pub fn new(config: Arc<Connect>, handed: Handed, age: Duration) -> Self {
        let (address, ca_file) = (config.address.clone(), config.ca_file.clone());
        let server = Server { address, ca_file, window: Some(WINDOW), ..Server::default() };
        let (vaults, titles, items, fields) = Default::default();
        Self { config, handed, http: Http::new(server), age, vaults, titles, items, fields }
    }

    /// What this reference names will be asked for.
    pub fn enter(&self, reference: &Reference) {
        let mut fields = self.fields();
        if fields.names.insert(reference.field.to_ascii_lowercase()) {
            fields.since = Some(Instant::now());
        }
    }

    fn fields(&self) -> MutexGuard<'_, Fields> {
        self.fields.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, question: Question) -> Result<Reply, ConnectError> {
        let at = &self.config.token;
        let token = self.handed.read(at)?.ok_or_else(|| ConnectError::NoToken(at.place()))?;
        Ok(self.http.ask(question.secret("authorization", "Bearer ", &token)?).await?)
    }

    /// The item that a reference names, asked for no earlier than `since`.
    pub async fn item(&self, reference: &Reference, since: Option<Instant>) -> Result<Arc<Item>, ConnectError> {
        let began = Instant::now();
        let names = |since| Lately { age: NAMES, since };
        let found = self.item_of(reference, names(None), since).await;
        let by_name = !is_id(&reference.vault) || !is_id(&reference.item);
        match found {
            // Its name may lead elsewhere by now.
            Err(why) if why.may_have_moved() && by_name => self.item_of(reference, names(Some(began)), since).await,
            found => found,
        }
    }

    /// With names that were looked up so lately.
    async fn item_of(
        &self,
        reference: &Reference,
        names: Lately,
        since: Option<Instant>,
    ) -> Result<Arc<Item>, ConnectError> {
        let vault = self.vault(&reference.vault, names).await?;
        let id = self.title(&vault, &reference.item, names).await?;
        let path = format!("/v1/vaults/{vault}/items/{id}");
        let ask = async {
            let item: Item = read(&self.ask(Question::get(path)).await?, ConnectError::NoItem)?;
            item.trimmed(&self.fields().names).map(Arc::new)
        };
        let since = since.max(self.fields().since);
        let item = self.items.get((vault, id), Lately { age: self.age, since }, ask).await?;
        let is_it = is_id(&reference.item) || item.is_called(&reference.item);
        if is_it { Ok(item) } else { Err(ConnectError::NoItem) }
    }

    /// The ID of a vault.
    async fn vault(&self, name: &str, lately: Lately) -> Result<String, ConnectError> {
        if is_id(name) {
            return Ok(name.to_owned());
        }
        let question = Question::get("/v1/vaults").with("filter", filter("name", name));
        let ask = async {
            let found: Vec<Named> = read(&self.ask(question).await?, ConnectError::NoVault)?;
            one_of(found, name, "vault")?.ok_or(ConnectError::NoVault)
        };
        self.vaults.get(name.to_owned(), lately, ask).await
    }

    /// The ID of an item.
    async fn title(&self, vault: &str, title: &str, lately: Lately) -> Result<String, ConnectError> {
        if is_id(title) {
            return Ok(title.to_owned());
        }
        let question = Question::get(format!("/v1/vaults/{vault}/items")).with("filter", filter("title", title));
        let ask = async {
            let found: Vec<Named> = read(&self.ask(question).await?, ConnectError::NoVault)?;
            one_of(found, title, "item")?.ok_or(ConnectError::NoItem)
        };
        self.titles.get((vault.to_owned(), title.to_owned()), lately, ask).await
    }
}
