//! An acquire: what a node asks the ledger for of one meter, and how that is written in the log.

use serde::{Deserialize, Serialize};

/// What a node asks for, in the limit's unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acquire {
    /// All of this, at least 1. What happens where less is free depends on `alone`.
    pub need: u64,
    /// Up to this much more, as far as it leaves a fair share to others.
    pub extra: u64,
    /// No call of the node holds anything of the meter. If no other node does, and the limit is one of tokens or money that calls reserve,
    /// such an acquire gets what is free where that is less than `need`.
    pub alone: bool,
}

impl Acquire {
    /// An acquire of exactly `need`, or nothing.
    pub fn of(need: u64) -> Acquire {
        Acquire { need, extra: 0, alone: false }
    }
}

/// The log format of an optional acquire. The first two variants have the bytes of an `Option` of two numbers, as the log had before there
/// was `alone`.
#[derive(Serialize, Deserialize)]
enum Written {
    Nothing,
    Acquire { need: u64, extra: u64 },
    AcquireAlone { need: u64, extra: u64 },
}

/// `#[serde(with = "acquire::written")]`.
pub(super) mod written {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Acquire, Written};

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(in crate::command) fn serialize<S: Serializer>(
        acquire: &Option<Acquire>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let written = match *acquire {
            None => Written::Nothing,
            Some(Acquire { need, extra, alone: false }) => Written::Acquire { need, extra },
            Some(Acquire { need, extra, alone: true }) => Written::AcquireAlone { need, extra },
        };
        written.serialize(serializer)
    }

    pub(in crate::command) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Acquire>, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Nothing => None,
            Written::Acquire { need, extra } => Some(Acquire { need, extra, alone: false }),
            Written::AcquireAlone { need, extra } => Some(Acquire { need, extra, alone: true }),
        })
    }
}
