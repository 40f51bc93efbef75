//! Replies to recent requests: a proposal that was repeated because nobody knew whether it took effect is answered as the first time.

use super::State;
use crate::command::{CommandRefusal, Reply};
use crate::ids::RequestId;

/// Replies kept. A proposer repeats itself for 10 s; changes other than quota come by the dozen a second, not by the hundred.
const RECENT_MAX: usize = 4096;

impl State {
    /// What this request was answered, if it was applied not long ago.
    pub(super) fn earlier_reply(&self, request: RequestId) -> Option<Reply> {
        self.recent.get(&request).map(|(_, reply)| reply.clone())
    }

    /// Refuses a request whose proposer had applied the log up to `seen` when it was made, if a reply was forgotten since: it may be a
    /// repetition of one that was applied, and nobody can tell. What it would make may have been ended and forgotten meanwhile.
    pub(super) fn check_in_time(&self, seen: u64) -> Result<(), CommandRefusal> {
        let oldest = self.recent_order.front().and_then(|request| self.recent.get(request));
        match oldest {
            Some((index, _)) if self.recent_order.len() >= RECENT_MAX && seen < *index => Err(CommandRefusal::TooLate),
            _ => Ok(()),
        }
    }

    /// Keeps the reply, and forgets the oldest beyond the bound.
    pub(super) fn remember(&mut self, index: u64, request: RequestId, reply: Reply) {
        self.recent.insert(request, (index, reply));
        self.recent_order.push_back(request);
        while self.recent_order.len() > RECENT_MAX {
            if let Some(oldest) = self.recent_order.pop_front() {
                self.recent.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::ids::Timestamp;

    #[test]
    fn a_repeated_request_is_answered_as_the_first_time_until_it_is_long_ago() {
        let mut state = State::default();
        let revoke = || Command::RevokeKey { id: uuid::Uuid::nil(), owner: None };
        let refused = Reply::Refused(CommandRefusal::KeyNotFound);
        for index in 1..=4097_u64 {
            let outcome = state.apply(index, RequestId(u128::from(index)), Timestamp(index), revoke());
            assert_eq!(outcome.reply, refused);
        }
        assert_eq!(state.recent.len(), RECENT_MAX);

        // The oldest was forgotten, the second oldest was not.
        assert_eq!(state.earlier_reply(RequestId(1)), None);
        let again = state.apply(9000, RequestId(2), Timestamp(1), revoke());
        assert_eq!((again.reply, again.changed), (refused, false));

        // Repeating moves the log on and takes no place.
        assert_eq!((state.applied, state.time, state.recent.len()), (9000, Timestamp(4097), RECENT_MAX));
    }
}
