//! How a refusal is written down, so that the client that gets it shows it to whoever runs it.
//!
//! Clients show one thing each: some the whole body, some its `error`, some its `message`, and some
//! nothing but plain text. So the hint stands in all of them.

use super::Reason;
use crate::audit::escape_into;
use crate::headers;

/// What begins every text for people.
const WHO: &str = "request refused by attache: ";

/// In what form a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An object, for all but those below.
    Json,
    /// The same, but with an object as its `error`, for clients that look for a message in there.
    Nested,
    /// The same, and a `Status` of Kubernetes' API by its other members.
    Status,
    /// One line of text, for clients that show no other body.
    Text,
}

impl Form {
    /// The form for whoever sent this serialised header map.
    pub fn of(headers: &[u8]) -> Self {
        let agent = headers::lines(headers).find(|line| line.name.of(headers) == b"user-agent");
        let agent = agent.map_or(&b""[..], |line| line.value.of(headers));
        let holds = |word: &[u8]| memchr::memmem::find(agent, word).is_some();
        match agent {
            // git and libgit2 (git's http.c, `show_http_message`).
            _ if agent.starts_with(b"git/") => Form::Text,
            // kubectl, helm and whatever else is made with client-go (`DefaultKubernetesUserAgent`).
            _ if holds(b") kubernetes/") => Form::Status,
            // OpenAI's SDKs (Python's `_make_status_error_from_response`).
            _ if holds(b"OpenAI/") => Form::Nested,
            _ => Form::Json,
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Json | Form::Nested | Form::Status => "application/json",
            Form::Text => "text/plain; charset=utf-8",
        }
    }
}

impl Reason {
    /// The body of a refusal. `request_id` is the only outside text in it.
    pub fn body_in(self, form: Form, request_id: &[u8]) -> String {
        match form {
            Form::Json => self.body(request_id),
            Form::Status => {
                let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":"#;
                self.flat(format!("{status}{},", self.status()), request_id)
            }
            Form::Nested => {
                let mut error = String::from("{\"error\":{");
                member(&mut error, "message", WHO, self.hint().as_bytes());
                error.push(',');
                member(&mut error, "code", "", self.as_str().as_bytes());
                error.push_str("},");
                self.rest(error, request_id)
            }
            Form::Text => self.line(request_id),
        }
    }

    /// The JSON body of a refusal. `error` and `message` say the same to clients that show one of them.
    pub fn body(self, request_id: &[u8]) -> String {
        self.flat(String::from("{"), request_id)
    }

    fn flat(self, mut body: String, request_id: &[u8]) -> String {
        member(&mut body, "error", WHO, self.hint().as_bytes());
        body.push(',');
        self.rest(body, request_id)
    }

    fn rest(self, mut body: String, request_id: &[u8]) -> String {
        member(&mut body, "reason", "", self.as_str().as_bytes());
        body.push(',');
        member(&mut body, "request_id", "", request_id);
        body.push(',');
        member(&mut body, "hint", "", self.hint().as_bytes());
        body.push(',');
        member(&mut body, "message", WHO, self.hint().as_bytes());
        body.push_str("}\n");
        body
    }

    fn line(self, request_id: &[u8]) -> String {
        let mut line = String::from(WHO);
        line.extend([self.hint(), " (", self.as_str()]);
        if !request_id.is_empty() {
            line.push_str(", request ");
            escape_into(&mut line, request_id);
        }
        line.push_str(")\n");
        line
    }
}

fn member(body: &mut String, name: &str, begins: &str, text: &[u8]) {
    body.extend(["\"", name, "\":\"", begins]);
    escape_into(body, text);
    body.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{get, test};

    const HOSTILE: &[u8] = b"a\"\\\n\xff";

    #[test]
    fn a_refusal_is_json_whatever_the_request_id_holds() {
        for reason in Reason::ALL {
            let said = format!("request refused by attache: {}", reason.hint());
            let nested = serde_json::json!({"message": said, "code": reason.as_str()});
            for (form, error) in [(Form::Json, said.clone().into()), (Form::Nested, nested)] {
                let body = reason.body_in(form, HOSTILE);
                let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
                let expected = serde_json::json!({
                    "error": error,
                    "reason": reason.as_str(),
                    "request_id": "a\"\\\n\u{ff}",
                    "hint": reason.hint(),
                    "message": said,
                });
                assert_eq!(parsed, expected);
            }
        }
    }

    #[test]
    fn a_refusal_is_a_status_of_kubernetes() {
        for reason in Reason::ALL {
            let body = reason.body_in(Form::Status, HOSTILE);
            let mut status: serde_json::Value = serde_json::from_str(&body).unwrap();
            for (name, value) in [("kind", "Status"), ("apiVersion", "v1"), ("status", "Failure")] {
                assert_eq!(status.as_object_mut().unwrap().remove(name), Some(value.into()));
            }
            assert_eq!(status.as_object_mut().unwrap().remove("code"), Some(reason.status().into()));
            let rest: serde_json::Value = serde_json::from_str(&reason.body(HOSTILE)).unwrap();
            assert_eq!(status, rest);
        }
    }

    #[test]
    fn a_refusal_is_one_line_whatever_the_request_id_holds() {
        for reason in Reason::ALL {
            let line = reason.body_in(Form::Text, HOSTILE);
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.is_ascii() && line.contains(reason.hint()) && line.contains(reason.as_str()), "{line}");
        }
        let hint = Reason::Stale.hint();
        assert_eq!(Reason::Stale.body_in(Form::Text, b""), format!("request refused by attache: {hint} (stale)\n"));
    }

    #[test]
    fn each_form_says_what_it_is() {
        for form in [Form::Json, Form::Nested, Form::Status] {
            assert_eq!(form.content_type(), "application/json");
        }
        assert_eq!(Form::Text.content_type(), "text/plain; charset=utf-8");
    }

    #[test]
    fn a_client_gets_the_form_that_it_shows() {
        for (agent, form) in [
            ("git/2.47.3", Form::Text),
            ("git/2.0 (libgit2 1.7.2)", Form::Text),
            ("kubectl/v1.20.2 (linux/amd64) kubernetes/faecb19", Form::Status),
            ("OpenAI/Python 3.57.0", Form::Nested),
            ("AsyncOpenAI/Python 3.57.0", Form::Nested),
            ("git-lfs/3.3.0 (GitHub; linux amd64; go 1.19.8)", Form::Json),
            ("GitHub CLI 2.23.0", Form::Json),
            ("npm/10.8.2 node/v20.20.2 linux x64 workspaces/false", Form::Json),
            ("curl/7.88.1", Form::Json),
            ("", Form::Json),
        ] {
            assert_eq!(Form::of(&get("h", "/").with("user-agent", agent).bytes()), form, "{agent}");
        }
        assert_eq!(Form::of(&get("h", "/").bytes()), Form::Json);
        assert_eq!(Form::of(b"\x07\0\0"), Form::Json);
    }
}
