//! Answers of model APIs, as their references show them.

use std::sync::Arc;

use attache_tests::stack::Plan;
use attache_tests::upstream::{Asked, Held, Part};
use attache_tests::{Reply, Stack};
use serde_json::{Value, json};

use crate::scene::Scene;

/// A model API behind the gateway: a preset with its host.
pub struct Api {
    pub preset: &'static str,
    pub host: &'static str,
    /// Where the broker finds the secret, and the agent its placeholder.
    pub variable: &'static str,
    pub secret: &'static str,
}

pub const OPENAI: Api = Api {
    preset: "openai",
    host: "api.openai.com",
    variable: "OPENAI_API_KEY",
    secret: "sk-TheRealKeyThatNoAgentEverSees000000000000000000004",
};

pub const ANTHROPIC: Api = Api {
    preset: "anthropic",
    host: "api.anthropic.com",
    variable: "ANTHROPIC_API_KEY",
    secret: "sk-ant-api03-TheRealKeyThatNoAgentEverSees-0000000000000000000000000000000000000000000000000000000000000005",
};

impl Api {
    /// It, and sessions `models` and `watcher`, of which the latter may only read.
    pub fn plan(&self) -> Plan {
        let Self { preset, host, variable, secret } = self;
        let yaml = format!("{{preset: {preset}, destinations: [{{host: {host}, upstream: DIAL}}]}}");
        let plan = Plan::default().credential(preset, secret, &yaml).env(variable, secret);
        let plan = plan.session(&format!("{{name: models, credentials: [{preset}]}}"));
        plan.session(&format!("{{name: watcher, credentials: [{preset}], access_mode: read-only}}"))
    }

    /// A scene with these.
    pub async fn scene(&self) -> Scene {
        let scene = Scene::of(self.plan()).await;
        scene.stack.site.oracle.exports(self.preset, self.variable);
        scene
    }
}

/// Has the upstream answer by what these say of a path; anything else is 404.
pub fn answer<B>(stack: &Stack<B>, replies: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) {
    stack.upstream().answer_with(move |asked| replies(asked).unwrap_or_else(|| Reply::new(404)));
}

pub fn whole(value: &Value) -> Reply {
    Reply::new(200).field("content-type", "application/json").body(value.to_string())
}

/// What a request asks for in JSON.
pub fn wants_stream(asked: &Asked) -> bool {
    serde_json::from_slice(&asked.body).is_ok_and(|body: Value| body["stream"] == json!(true))
}

/// Server-sent events, each named by its `type` where it has one. After the first `before` of them the
/// rest waits.
pub fn events(all: &[Value], before: usize, rest: &Arc<Held>) -> Reply {
    let mut reply = Reply::new(200).field("content-type", "text/event-stream").chunked();
    for (index, event) in all.iter().enumerate() {
        if index == before {
            reply = reply.part(Part::Held(Arc::clone(rest)));
        }
        let name = event["type"].as_str().map(|name| format!("event: {name}\n")).unwrap_or_default();
        let data = event.as_str().map_or_else(|| event.to_string(), str::to_owned);
        reply = reply.body(format!("{name}data: {data}\n\n"));
    }
    reply
}

/// OpenAI, `POST /v1/chat/completions`, streamed.
pub fn chat_chunks(pieces: &[&str]) -> Vec<Value> {
    let chunk = |delta: Value, end: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini",
               "choices": [{"index": 0, "delta": delta, "finish_reason": end}]})
    };
    let pieces = pieces.iter().map(|piece| chunk(json!({"role": "assistant", "content": piece}), Value::Null));
    pieces.chain([chunk(json!({}), json!("stop")), json!("[DONE]")]).collect()
}

/// OpenAI, `POST /v1/responses`.
pub fn response(text: &str) -> Value {
    json!({"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "gpt-4o-mini",
           "output": [message(text)], "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
           "usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
                     "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2}})
}

/// The same, streamed.
pub fn response_events(text: &str) -> Vec<Value> {
    let part = json!({"type": "output_text", "text": "", "annotations": []});
    let mut created = response("");
    created["status"] = json!("in_progress");
    created["output"] = json!([]);
    created["usage"] = Value::Null;
    let begun = json!({"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []});
    vec![
        json!({"type": "response.created", "sequence_number": 0, "response": created}),
        json!({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": begun}),
        json!({"type": "response.content_part.added", "sequence_number": 2, "item_id": "msg_1", "output_index": 0,
               "content_index": 0, "part": part}),
        json!({"type": "response.output_text.delta", "sequence_number": 3, "item_id": "msg_1", "output_index": 0,
               "content_index": 0, "delta": text, "logprobs": []}),
        json!({"type": "response.output_item.done", "sequence_number": 4, "output_index": 0, "item": message(text)}),
        json!({"type": "response.completed", "sequence_number": 5, "response": response(text)}),
    ]
}

fn message(text: &str) -> Value {
    json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
           "content": [{"type": "output_text", "text": text, "annotations": []}]})
}

/// Anthropic, `POST /v1/messages`.
pub fn anthropic_message(text: &str) -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
           "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
           "usage": {"input_tokens": 1, "output_tokens": 1}})
}

/// The same, streamed.
pub fn anthropic_events(pieces: &[&str]) -> Vec<Value> {
    let mut begun = anthropic_message("");
    begun["content"] = json!([]);
    begun["stop_reason"] = Value::Null;
    let mut all = vec![
        json!({"type": "message_start", "message": begun}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    let delta =
        |piece| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}});
    all.extend(pieces.iter().map(delta));
    all.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
               "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ]);
    all
}
