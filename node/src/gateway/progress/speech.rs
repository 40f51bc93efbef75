//! Speech written down as a stream. vLLM sends chunks as of a chat, without a fingerprint, and each window of the speech ends with a reason
//! of its own. OpenAI's events have types, and no end mark behind the last of them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Progress, Stage, kind_of, text};
use crate::gateway::sse::{Event, EventAction};
use crate::gateway::usage;

/// OpenAI's last event.
#[derive(Deserialize)]
struct Done<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

impl Progress {
    pub(super) fn note_speech(&mut self, event: &Event<'_>) -> EventAction {
        match kind_of(event) {
            b"transcript.text.delta" => self.tally.text(0, text(&event.data, &["delta"]), false),
            b"transcript.text.done" => {
                if let Ok(done) = serde_json::from_slice::<Done<'_>>(&event.data) {
                    self.tally.reported_of_all(usage::read(done.usage));
                }
                self.stage = Stage::Complete;
            }
            _ => return self.note_chunk(&event.data),
        }
        EventAction::Pass
    }
}
