//! When a replica counts as healthy: after one good probe, until two in a row fail or one finds nobody listening. Pure.

/// So many failed probes in a row take a replica out.
const FAILURES_MAX: u32 = 2;

/// What one probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It serves.
    Good,
    /// Nothing listens there.
    Refused,
    /// It says itself that it is not ready.
    NotReady,
    /// It did not answer, or not well.
    Bad(String),
}

/// What changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Transition {
    /// It gets calls from now on. `is_new`: its process may be another one, with an empty cache.
    Up { is_new: bool },
    /// It gets no calls from now on, and why.
    Down(String),
    /// Nothing.
    Same,
}

/// A replica's record.
#[derive(Default)]
pub(super) struct Health {
    failures: u32,
    was_gone: bool,
    /// Why it is down, as last said.
    said: Option<String>,
}

impl Health {
    /// Counts a probe of a replica that is (not) up.
    pub(super) fn transition(&mut self, verdict: Verdict, is_up: bool) -> Transition {
        let (reason, limit) = match verdict {
            Verdict::Good => {
                self.failures = 0;
                self.said = None;
                let is_new = std::mem::take(&mut self.was_gone);
                return if is_up { Transition::Same } else { Transition::Up { is_new } };
            }
            Verdict::Refused => {
                self.was_gone = true;
                ("connection refused".to_owned(), 1)
            }
            Verdict::NotReady => {
                self.was_gone = true;
                ("/health answered 503: it is starting, or its engine is dead".to_owned(), FAILURES_MAX)
            }
            Verdict::Bad(reason) => (reason, FAILURES_MAX),
        };
        self.failures = self.failures.saturating_add(1);
        let is_out = !is_up || self.failures >= limit;
        if is_out && self.said.as_ref() != Some(&reason) {
            self.said = Some(reason.clone());
            return Transition::Down(reason);
        }
        Transition::Same
    }
}

/// Whether the server does not know `/health`, or guards it: `/v1/models` is asked then.
pub(super) fn needs_other_path(status: u16) -> bool {
    matches!(status, 401 | 403 | 404 | 405)
}

/// Of an answer to `/health`.
pub(super) fn judge(answer: Result<u16, String>) -> Verdict {
    match answer {
        Ok(200..=299) => Verdict::Good,
        Ok(503) => Verdict::NotReady,
        Ok(status) => Verdict::Bad(format!("/health answered {status}")),
        Err(error) if error.contains("refused") => Verdict::Refused,
        Err(error) => Verdict::Bad(error),
    }
}

/// Of an answer to `/v1/models`. A server that asks for credentials is there.
pub(super) fn judge_models(answer: Result<u16, String>) -> Verdict {
    match answer {
        Ok(200..=299 | 401 | 403) => Verdict::Good,
        Ok(status) => Verdict::Bad(format!("/v1/models answered {status}")),
        Err(error) => judge(Err(error)),
    }
}

#[cfg(test)]
mod tests;
