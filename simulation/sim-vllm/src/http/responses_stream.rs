//! The events of a streamed response: items are opened, filled and closed, one after the other.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    call::Part,
    events::{Writer, named},
    responses::complete,
    usage::UsageStyle,
};
use crate::script::Call as ToolCall;

/// What kind of item is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Reasoning,
    Message,
    Call(usize),
}

/// Writes `response.*` events.
pub(crate) struct ResponseWriter {
    frame: Value,
    usage: UsageStyle,
    /// For the reasoning, the message and the calls.
    ids: [String; 3],
    open: Option<Item>,
    output_index: usize,
    sequence: u64,
}

impl ResponseWriter {
    /// A writer, and the events that come before the first token.
    pub(crate) fn begin(frame: Value, usage: UsageStyle, ids: [String; 3]) -> (Self, VecDeque<Bytes>) {
        let mut writer = Self { frame, usage, ids, open: None, output_index: 0, sequence: 0 };
        let mut first = VecDeque::new();
        for name in ["response.created", "response.in_progress"] {
            let event = json!({"response": writer.frame});
            writer.push(name, event, &mut first);
        }
        (writer, first)
    }

    /// Numbers an event and writes it.
    fn push(&mut self, name: &str, mut event: Value, out: &mut VecDeque<Bytes>) {
        event["sequence_number"] = self.sequence.into();
        event["type"] = name.into();
        self.sequence += 1;
        out.push_back(named(name, &event));
    }

    fn item_id(&self, item: Item) -> String {
        match item {
            Item::Reasoning => self.ids[0].clone(),
            Item::Message => self.ids[1].clone(),
            Item::Call(number) => format!("{}{number}", self.ids[2]),
        }
    }

    /// Makes sure that `item` is the open one.
    fn ensure(&mut self, item: Item, part: &Part, out: &mut VecDeque<Bytes>) {
        if self.open == Some(item) {
            return;
        }
        self.close(part, out);
        self.open = Some(item);
        let (id, index) = (self.item_id(item), self.output_index);
        match item {
            Item::Reasoning => {
                let added = json!({"id": id, "summary": [], "type": "reasoning", "content": null,
                    "encrypted_content": null, "status": "in_progress"});
                self.push("response.output_item.added", json!({"item": added, "output_index": index}), out);
                let empty = json!({"text": "", "type": "reasoning_text"});
                let event = json!({"content_index": 0, "item_id": id, "output_index": index, "part": empty});
                self.push("response.reasoning_part.added", event, out);
            }
            Item::Message => {
                let added = json!({"id": id, "content": [], "role": "assistant", "status": "in_progress",
                    "type": "message", "phase": null});
                self.push("response.output_item.added", json!({"item": added, "output_index": index}), out);
                let empty = json!({"annotations": [], "text": "", "type": "output_text", "logprobs": []});
                let event = json!({"content_index": 0, "item_id": id, "output_index": index, "part": empty});
                self.push("response.content_part.added", event, out);
            }
            Item::Call(number) => {
                let added = function_call(&id, &part.script.calls[number], "", "in_progress");
                self.push("response.output_item.added", json!({"item": added, "output_index": index}), out);
            }
        }
    }

    /// Closes the open item with all of its text.
    fn close(&mut self, part: &Part, out: &mut VecDeque<Bytes>) {
        let Some(item) = self.open.take() else { return };
        let (script, end) = (&part.script, part.produced);
        let (id, index) = (self.item_id(item), self.output_index);
        let done = match item {
            Item::Reasoning => {
                let text = script.text(0, script.reasoning.min(end));
                let event = json!({"content_index": 0, "item_id": id, "output_index": index, "text": text});
                self.push("response.reasoning_text.done", event, out);
                let whole = json!({"text": text, "type": "reasoning_text"});
                let event = json!({"content_index": 0, "item_id": id, "output_index": index, "part": whole});
                self.push("response.reasoning_part.done", event, out);
                json!({"id": id, "summary": [], "type": "reasoning", "content": [whole], "encrypted_content": null,
                    "status": "completed"})
            }
            Item::Message => {
                let text = script.text(script.reasoning.min(end), script.content_end().min(end));
                let event = json!({"content_index": 0, "item_id": id, "logprobs": [], "output_index": index});
                self.push_text_done(event, text, out);
                let event = json!({"content_index": 0, "item_id": id, "output_index": index, "part": text_part(text)});
                self.push("response.content_part.done", event, out);
                json!({"id": id, "content": [text_part(text)], "role": "assistant", "status": "completed",
                    "type": "message", "phase": null, "summary": []})
            }
            Item::Call(number) => {
                let call = &script.calls[number];
                let arguments = script.text(call.arguments, call.end.min(end));
                let event = json!({"arguments": arguments, "item_id": id, "name": call.name, "output_index": index});
                self.push("response.function_call_arguments.done", event, out);
                function_call(&id, call, arguments, "completed")
            }
        };
        self.push("response.output_item.done", json!({"item": done, "output_index": index}), out);
        self.output_index += 1;
    }

    /// `output_text.done` has its text after its number.
    fn push_text_done(&mut self, mut event: Value, text: &str, out: &mut VecDeque<Bytes>) {
        event["sequence_number"] = self.sequence.into();
        event["text"] = text.into();
        self.push("response.output_text.done", event, out);
    }

    fn delta(&mut self, item: Item, text: &str, part: &Part, out: &mut VecDeque<Bytes>) {
        self.ensure(item, part, out);
        let (id, index) = (self.item_id(item), self.output_index);
        match item {
            Item::Reasoning => {
                let event = json!({"content_index": 0, "delta": text, "item_id": id, "output_index": index});
                self.push("response.reasoning_text.delta", event, out);
            }
            Item::Message => {
                let event =
                    json!({"content_index": 0, "delta": text, "item_id": id, "logprobs": [], "output_index": index});
                self.push("response.output_text.delta", event, out);
            }
            Item::Call(_) => {
                let event = json!({"delta": text, "item_id": id, "output_index": index});
                self.push("response.function_call_arguments.delta", event, out);
            }
        }
    }
}

impl Writer for ResponseWriter {
    fn advance(&mut self, index: usize, parts: &[Part], from: usize, out: &mut VecDeque<Bytes>) {
        let part = &parts[index];
        let (script, to) = (&part.script, part.produced);
        let mut sections =
            vec![(Item::Reasoning, 0, script.reasoning), (Item::Message, script.reasoning, script.content_end())];
        sections.extend(script.calls.iter().enumerate().map(|(at, call)| (Item::Call(at), call.arguments, call.end)));
        for (item, begin, end) in sections {
            let (begin, end) = (begin.max(from), end.min(to));
            if begin < end {
                self.delta(item, script.text(begin, end), part, out);
            }
        }
    }

    fn end(&mut self, parts: &[Part], out: &mut VecDeque<Bytes>) {
        self.close(&parts[0], out);
        let response = complete(self.frame.clone(), parts, self.usage, &self.ids);
        self.push("response.completed", json!({"response": response}), out);
    }
}

/// A text part of a message.
pub(super) fn text_part(text: &str) -> Value {
    json!({"annotations": [], "text": text, "type": "output_text", "logprobs": null})
}

/// A function call as an item.
pub(super) fn function_call(id: &str, call: &ToolCall, arguments: &str, status: &str) -> Value {
    json!({
        "arguments": arguments, "call_id": format!("call_{id}"), "name": call.name, "type": "function_call", "id": id,
        "caller": null, "namespace": null, "status": status,
    })
}
