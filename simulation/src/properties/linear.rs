//! LINEAR: administrators see one history. Every group is a register; the check is the search of Wing and Gong with the memory of
//! Lowe: an order of all calls that respects their real times and explains every answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use raft::View;
use raft::resources::{Kind, ObjectKey, Spec};

use super::Violation;
use crate::world::{AdminOp, AdminOutcome, FIRST_VALUE, GROUPS, Shared, group_name};

/// A call of one register.
#[derive(Clone, Debug)]
struct Event {
    began: Duration,
    /// `None`: nobody knows, so it may take effect at any later time, or never.
    ended: Option<Duration>,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Write(String),
    Read(String),
}

pub(super) fn check(shared: &Shared, state: Option<Arc<View>>) -> Result<(), Violation> {
    for group in 1..=GROUPS {
        let mut events = history(shared, group);
        if let Some(value) = state.as_ref().and_then(|state| member(state, group)) {
            events.push(Event { began: Duration::MAX, ended: Some(Duration::MAX), what: What::Read(value) });
        }
        forget_unseen(&mut events);
        if !is_linearizable(&events, FIRST_VALUE) {
            let lines: Vec<String> = events.iter().map(|event| format!("\n    {event:?}")).collect();
            let text =
                format!("no order of these calls explains what was answered about group {group}:{}", lines.concat());
            return Err(Violation::new("LINEAR", text));
        }
    }
    Ok(())
}

/// The group's member in a state.
fn member(state: &View, group: usize) -> Option<String> {
    let object = state.object(&ObjectKey::new(Kind::Group, "", group_name(group)))?;
    match &object.spec {
        Spec::Group(group) => group.users.first().map(ToString::to_string),
        _ => None,
    }
}

/// A write of which nobody knows whether it took effect, and whose value nobody read, explains nothing. Each one kept would double the
/// search.
fn forget_unseen(events: &mut Vec<Event>) {
    let reads: HashSet<String> = events.iter().filter_map(|event| event.what.read().map(str::to_owned)).collect();
    events.retain(|event| match &event.what {
        What::Write(value) => event.ended.is_some() || reads.contains(value),
        What::Read(_) => true,
    });
}

impl What {
    fn read(&self) -> Option<&str> {
        match self {
            What::Read(value) => Some(value),
            What::Write(_) => None,
        }
    }
}

fn history(shared: &Shared, wanted: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for call in shared.admin.borrow().iter() {
        let (began, ended) = (call.began, call.ended.as_ref());
        let is_success = |status: u16| (200..300).contains(&status);
        match (&call.op, ended) {
            (AdminOp::Write { group, value }, ended) if *group == wanted => {
                let ended = match ended {
                    Some((at, AdminOutcome::Answered(status, _))) if is_success(*status) => Some(*at),
                    // Refused for good: it had no effect.
                    Some((_, AdminOutcome::Answered(400..500, _))) => continue,
                    Some((_, AdminOutcome::Answered(..) | AdminOutcome::Unknown)) | None => None,
                };
                events.push(Event { began, ended, what: What::Write(value.clone()) });
            }
            (AdminOp::Read { group }, Some((at, AdminOutcome::Answered(status, Some(value)))))
                if *group == wanted && is_success(*status) =>
            {
                events.push(Event { began, ended: Some(*at), what: What::Read(value.clone()) });
            }
            // A read without an answer says nothing.
            _ => {}
        }
    }
    events
}

/// Whether some order of the events, each between its beginning and its end, explains every read.
fn is_linearizable(events: &[Event], first: &str) -> bool {
    let mut tried = HashSet::new();
    let open = (0..events.len()).collect();
    search(events, open, first, &mut tried)
}

fn search(events: &[Event], open: Vec<usize>, value: &str, tried: &mut HashSet<(Vec<usize>, String)>) -> bool {
    if open.iter().all(|at| events[*at].ended.is_none()) {
        return true;
    }
    if !tried.insert((open.clone(), value.to_owned())) {
        return false;
    }
    // Whatever comes next must have begun before everything else that is open has ended.
    let first_end = open.iter().filter_map(|at| events[*at].ended).min();
    for (place, at) in open.iter().enumerate() {
        let event = &events[*at];
        if first_end.is_some_and(|end| event.began > end) {
            continue;
        }
        let next = match &event.what {
            What::Write(written) => written.as_str(),
            What::Read(read) if read == value => value,
            What::Read(_) => continue,
        };
        let mut rest = open.clone();
        rest.remove(place);
        if search(events, rest, next, tried) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(lines: &[(&str, u64, u64)]) -> Vec<Event> {
        lines
            .iter()
            .map(|(what, began, ended)| {
                let (kind, value) = what.split_once(' ').unwrap();
                Event {
                    began: Duration::from_millis(*began),
                    ended: (*ended > 0).then(|| Duration::from_millis(*ended)),
                    what: if kind == "w" { What::Write(value.to_owned()) } else { What::Read(value.to_owned()) },
                }
            })
            .collect()
    }

    #[test]
    fn histories_that_can_and_that_cannot_be_explained() {
        let check = |history: &[(&str, u64, u64)], expected: bool| {
            assert_eq!(is_linearizable(&events(history), "a"), expected, "{history:?}");
        };
        check(&[("r a", 1, 2)], true);
        check(&[("r b", 1, 2)], false);
        check(&[("w b", 1, 5), ("r a", 2, 3), ("r b", 4, 6)], true);
        check(&[("w b", 1, 5), ("r b", 2, 3), ("r a", 4, 6)], false);
        check(&[("w b", 1, 2), ("r a", 3, 4)], false);
        // Nobody knows when the write took effect.
        check(&[("w b", 1, 0), ("r a", 3, 4), ("r b", 8, 9)], true);
        check(&[("w b", 1, 0), ("r b", 3, 4), ("r a", 8, 9)], false);
        check(&[("w b", 1, 2), ("w c", 1, 2), ("r b", 3, 4), ("r c", 5, 6)], false);
    }
}
