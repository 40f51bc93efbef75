//! What one user can make the cluster keep, whatever the user does.
//!
//! | what | at most | of whom |
//! |---|---|---|
//! | keys that work | `spec.apiKeys.maxPerUser` of the Tenant | users who are no administrators |
//! | keys that have ended | as many; those that ended the longest ago are forgotten first | everybody |
//! | texts of all these keys | [`TEXT_BYTES_PER_KEY`] for each key that one may have | users who are no administrators |
//! | texts of one key | [`KEY_NAME_BYTES_MAX`] and the like | everybody |
//!
//! A key that is there stays, however many there are: the bounds are for new ones. They are looked at where keys are made, so requests
//! at several nodes do not pass them together.

use super::ApiKey;
use crate::command::{CommandRefusal, NewKey};
use crate::resources::ADMINISTRATORS;
use crate::state::{State, Token};

/// A key's name, in bytes of UTF-8.
pub const KEY_NAME_BYTES_MAX: usize = 512;
/// A key's description, in bytes of UTF-8.
pub const KEY_DESCRIPTION_BYTES_MAX: usize = 4096;
/// All of a key's labels together, names and values, in bytes of UTF-8.
pub const KEY_LABELS_BYTES_MAX: usize = 8192;
/// What one user may have in texts for each key that the user may have: names, descriptions and labels of all the user's keys, those that
/// have ended included, and the owner's groups, which each key has. Most keys have a tenth of it.
const TEXT_BYTES_PER_KEY: u64 = 4096;
/// So much a user may have anyway: several of the longest.
const TEXT_BYTES_MIN: u64 = 64 * 1024;
/// How many ended keys one creation may forget. Only where an earlier version or a higher bound left more, it takes several.
const FORGOTTEN_MAX: usize = 256;

/// The bytes of a key's texts.
pub(super) fn text_bytes(key: &ApiKey) -> u64 {
    bytes_of(&key.name, &key.description, &key.groups, &key.labels)
}

fn bytes_of(name: &str, description: &str, groups: &[String], labels: &[(String, String)]) -> u64 {
    let groups: usize = groups.iter().map(String::len).sum();
    (name.len() + description.len() + groups + label_bytes(labels)) as u64
}

fn label_bytes(labels: &[(String, String)]) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Errors: a text is too long. The admin API checks the same first; this holds if it does not.
pub(super) fn check_texts(new: &NewKey) -> Result<(), CommandRefusal> {
    let fields = [
        ("name", new.name.len(), KEY_NAME_BYTES_MAX),
        ("description", new.description.len(), KEY_DESCRIPTION_BYTES_MAX),
        ("labels", label_bytes(&new.labels), KEY_LABELS_BYTES_MAX),
    ];
    match fields.into_iter().find(|(_, bytes, max)| bytes > max) {
        None => Ok(()),
        Some((field, bytes, max)) => {
            Err(CommandRefusal::KeyFieldTooLong { field: field.to_owned(), bytes: bytes as u64, max: max as u64 })
        }
    }
}

impl State {
    /// Whether the bearer of a token administers the cluster.
    pub(super) fn is_administrators(&self, token: &Token) -> bool {
        token.groups.iter().any(|group| group == ADMINISTRATORS) || self.is_in_group(&token.username, ADMINISTRATORS)
    }

    /// Errors: the user has as many working keys as one may have.
    pub(super) fn check_count(&self, username: &str) -> Result<(), CommandRefusal> {
        let max = self.key_bounds().max_per_user;
        let Some(owned) = self.keys_by_owner.get(username) else { return Ok(()) };
        if owned.working(self.time, max as usize) < max as usize {
            return Ok(());
        }
        Err(CommandRefusal::TooManyKeys { max: u64::from(max) })
    }

    /// Forgets ended keys of the owner of a new one: those beyond the bound, and more if the texts, being `bounded`, have no room.
    pub(super) fn make_room(&mut self, new: &NewKey, bounded: bool) {
        let max = self.key_bounds().max_per_user as usize;
        let text_max = self.text_bytes_max();
        let Some(owned) = self.keys_by_owner.get(&new.username) else { return };
        // Only where there are more than that can so many have ended, and need counting.
        let ended = if owned.len() > max { owned.ended(self.time, max + FORGOTTEN_MAX) } else { 0 };
        let beyond = ended.saturating_sub(max);
        for forgotten in 0..FORGOTTEN_MAX {
            let Some(owned) = self.keys_by_owner.get(&new.username) else { return };
            let has_room = !bounded || owned.text_bytes + new_bytes(new) <= text_max;
            if has_room && forgotten >= beyond {
                return;
            }
            let Some(first) = owned.first_ended(self.time) else { return };
            self.forget_key(first);
        }
    }

    /// Errors: the texts of the user's keys, a new one among them, are longer than those of one user may be.
    pub(super) fn check_text(&self, new: &NewKey) -> Result<(), CommandRefusal> {
        let has = self.keys_by_owner.get(&new.username).map_or(0, |owned| owned.text_bytes);
        let max = self.text_bytes_max();
        if has + new_bytes(new) <= max { Ok(()) } else { Err(CommandRefusal::KeyTextUsedUp { max }) }
    }

    fn text_bytes_max(&self) -> u64 {
        (u64::from(self.key_bounds().max_per_user) * TEXT_BYTES_PER_KEY).max(TEXT_BYTES_MIN)
    }
}

fn new_bytes(new: &NewKey) -> u64 {
    bytes_of(&new.name, &new.description, &new.groups, &new.labels)
}
