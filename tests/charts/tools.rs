//! What renders and validates, as `scripts/charts` has put it into `.tools`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use attache_tests::util;
use serde_json::{Value, json};

/// The Kubernetes whose schemas are asked: the oldest that the chart takes, and the newest.
const KUBERNETES: [&str; 2] = ["1.29", "1.37"];

/// A file of the repository.
pub fn at(path: &str) -> PathBuf {
    util::workspace_root().join(path)
}

/// Its text.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// What the chart makes of values.
pub struct Rendered {
    pub objects: Vec<Value>,
    pub notes: String,
}

impl Rendered {
    /// The objects of a kind.
    pub fn all(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The one object of a kind.
    pub fn the(&self, kind: &str) -> &Value {
        let all = self.all(kind);
        assert_eq!(all.len(), 1, "{} of the kind {kind}", all.len());
        all[0]
    }

    /// The pod that the Deployment makes.
    pub fn pod(&self) -> &Value {
        &self.the("Deployment")["spec"]["template"]
    }

    /// The `attache.yaml` that the broker reads.
    pub fn config(&self) -> &str {
        self.the("ConfigMap")["data"]["attache.yaml"].as_str().expect("a config")
    }
}

/// The chart, and what asks it.
pub struct Helm {
    python: PathBuf,
}

impl Helm {
    /// Helm's library, or a skip.
    pub fn here() -> Option<Self> {
        let python = at(".tools/charts/bin/python");
        let has_it = Command::new(&python).args(["-c", "import helm_python, kubernetes_validate"]).output();
        if has_it.is_ok_and(|output| output.status.success()) {
            return Some(Self { python });
        }
        util::skipped("no Helm library here, so the chart is not rendered: `scripts/charts` says what is missing");
        None
    }

    /// Renders and lints with values, written as in a file for `helm --values`; or what Helm has against them.
    pub fn render(&self, values: &str) -> Result<Arc<Rendered>, String> {
        static KNOWN: Mutex<BTreeMap<String, Result<Arc<Rendered>, String>>> = Mutex::new(BTreeMap::new());
        // Held meanwhile: the same values are rendered once, whoever asks.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rendered) = known.get(values) {
            return rendered.clone();
        }
        let rendered = self.render_anew(values).map(Arc::new);
        known.insert(values.to_owned(), rendered.clone());
        rendered
    }

    fn render_anew(&self, values: &str) -> Result<Rendered, String> {
        let chart = at("envoy/helm");
        let question =
            json!({"do": "render", "chart": chart, "values": values, "release": "attache", "namespace": "attache"});
        let answer = self.ask(&question);
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_owned());
        }
        assert_eq!(answer["findings"], json!([]), "helm lint --strict");
        let objects = answer["objects"].as_array().expect("objects").clone();
        Ok(Rendered { objects, notes: answer["notes"].as_str().expect("notes").to_owned() })
    }

    /// What is wrong with these objects, by the schemas of Kubernetes and of the others whose kinds they are.
    pub fn wrong(&self, objects: &[Value]) -> Vec<String> {
        let answer = self.ask(&json!({"do": "validate", "versions": KUBERNETES, "objects": objects}));
        let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).expect("texts") };
        let mut wrong = texts(&answer["wrong"]);
        let others = answer["others"].as_array().expect("objects");
        if !others.is_empty() {
            wrong.extend(wrong_by_their_own(others));
        }
        wrong
    }

    /// The objects of a file.
    pub fn parse(&self, text: &str) -> Vec<Value> {
        self.ask(&json!({"do": "parse", "text": text}))["objects"].as_array().expect("objects").clone()
    }

    /// What `kubectl kustomize` makes of a directory.
    pub fn kustomize(&self, dir: &str) -> Option<Vec<Value>> {
        let kubectl = at(".tools/charts/bin/kubectl");
        if !kubectl.is_file() {
            util::skipped("no kubectl here, so no overlay is built: `scripts/charts` says what is missing");
            return None;
        }
        let output = Command::new(kubectl).arg("kustomize").arg(at(dir)).output().expect("kubectl runs");
        assert!(output.status.success(), "kubectl kustomize {dir}: {}", String::from_utf8_lossy(&output.stderr));
        Some(self.parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// One process answers all tests: it takes a second to load what it needs.
    fn ask(&self, question: &Value) -> Value {
        static ANSWERS: Mutex<Option<Answers>> = Mutex::new(None);
        let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get_or_insert_with(|| Answers::start(&self.python)).to(question)
    }
}

/// A running `helm.py`. It ends with this process, whose end it hears.
struct Answers {
    _process: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Answers {
    fn start(python: &Path) -> Self {
        let mut command = Command::new(python);
        let streams = command.arg(at("tests/charts/helm.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = streams.spawn().expect("python runs");
        let says = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { asks: child.stdin.take().expect("a pipe"), says, _process: child }
    }

    fn to(&mut self, question: &Value) -> Value {
        writeln!(self.asks, "{question}").expect("it reads");
        let mut line = String::new();
        self.says.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("helm.py ended: {question}"))
    }
}

/// By the schemas that cert-manager, External Secrets, Prometheus' operator and Argo CD generate from their CRDs.
fn wrong_by_their_own(objects: &[Value]) -> Vec<String> {
    let kinds = at(".tools/charts-kinds");
    if !kinds.join("node_modules/@kubernetes-models").is_dir() {
        util::skipped(
            "no schemas of others' kinds here, so these are not validated: `scripts/charts` says what is missing",
        );
        return Vec::new();
    }
    let mut command = Command::new("node");
    let said = json_of(answer(command.arg(at("tests/charts/kinds.mjs")).arg(kinds), &json!(objects)));
    serde_json::from_value(said).expect("texts")
}

/// What a program says to JSON.
pub fn answer(command: &mut Command, question: &Value) -> Output {
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().expect("a program starts");
    child.stdin.take().expect("a pipe").write_all(question.to_string().as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn json_of(output: Output) -> Value {
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{why}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// `attache check` on a config; what it says.
pub fn check(config: &str) -> Result<String, String> {
    let dir = util::temp_dir();
    let file = dir.path().join("attache.yaml");
    std::fs::write(&file, config).expect("a config");
    let mut command = Command::new(util::broker_bin());
    let output =
        command.args(["check", "--config"]).arg(&file).arg("--state-dir").arg(dir.path().join("state")).output();
    let output = output.expect("attache runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}
