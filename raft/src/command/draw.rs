//! A draw: what a node wants from a meter, and how that is written in the log.

use serde::{Deserialize, Serialize};

/// A wish for tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Draw {
    /// All of this, at least 1. What happens where less is free depends on `alone`.
    pub need: u64,
    /// Up to this much more, as far as it leaves a fair share to others.
    pub extra: u64,
    /// No call of the node holds anything of the meter. If no other node does, and the limit is one of tokens or money that calls reserve,
    /// such a draw gets what is free where that is less than `need`.
    pub alone: bool,
}

impl Draw {
    /// A draw of exactly `need`, or nothing.
    pub fn of(need: u64) -> Draw {
        Draw { need, extra: 0, alone: false }
    }
}

/// The log format of an optional draw. The first two variants have the bytes of an `Option` of two numbers, as the log had before there
/// was `alone`.
#[derive(Serialize, Deserialize)]
enum Written {
    Nothing,
    Draw { need: u64, extra: u64 },
    DrawAlone { need: u64, extra: u64 },
}

/// `#[serde(with = "draw::written")]`.
pub(super) mod written {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Draw, Written};

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(in crate::command) fn serialize<S: Serializer>(draw: &Option<Draw>, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match *draw {
            None => Written::Nothing,
            Some(Draw { need, extra, alone: false }) => Written::Draw { need, extra },
            Some(Draw { need, extra, alone: true }) => Written::DrawAlone { need, extra },
        };
        written.serialize(serializer)
    }

    pub(in crate::command) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Draw>, D::Error> {
        Ok(match Written::deserialize(deserializer)? {
            Written::Nothing => None,
            Written::Draw { need, extra } => Some(Draw { need, extra, alone: false }),
            Written::DrawAlone { need, extra } => Some(Draw { need, extra, alone: true }),
        })
    }
}
