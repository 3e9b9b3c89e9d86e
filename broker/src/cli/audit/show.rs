//! A record for people: one line, in printable ASCII.

use serde_json::Value;

/// A record for people: what happened, to whom, why.
pub fn plain(line: &str) -> String {
    let Ok(record) = serde_json::from_str::<Value>(line) else { return visible(line.trim_end()) };
    let text = |field: &str| match record.get(field) {
        Some(Value::String(text)) => visible(text),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    // Where the request went says more than how the agent spelled it.
    let destination = text("destination");
    let place = if destination.is_empty() { text("authority") } else { destination };
    let where_to = format!("{place}{}", text("path"));
    // A request of nobody knows whom has its columns, too.
    let of_request = |field: &str| match text(field) {
        nobody if nobody.is_empty() && !text("method").is_empty() => "-".to_owned(),
        told => told,
    };
    let fields = [
        text("timestamp"),
        format!("{:6}", text("kind")),
        of_request("session"),
        of_request("access_mode"),
        text("method"),
        where_to,
        text("response_code"),
        text("decision"),
        text("reason"),
        text("credential"),
        text("lease_id"),
    ];
    fields.into_iter().filter(|field| !field.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Text in printable ASCII, as the log itself writes it: agents chose some of it, and none of it
/// shall steer a terminal.
fn visible(text: &str) -> String {
    let escape = |c: char| match c {
        ' '..='~' => String::from(c),
        _ => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_in_one_line() {
        let line = r#"{"timestamp":"T","kind":"deny","method":"GET","path":"/x","authority":"a.test","response_code":403,"reason":"read_only"}"#;
        assert_eq!(plain(line), "T deny   - - GET a.test/x 403 read_only");
    }

    #[test]
    fn what_an_agent_chose_steers_no_terminal() {
        assert_eq!(plain(r#"{"kind":"deny","path":"/\u001b[31m\u009b\u202e"}"#), r"deny   /\u001b[31m\u009b\u202e");
        assert_eq!(plain("no JSON \u{1b}c\n"), r"no JSON \u001bc");
    }
}
