//! Under construction.

use super::{FieldError, NewObject, Spec};

pub(super) fn validate_metadata(_object: &NewObject) -> Result<(), Vec<FieldError>> {
    Ok(())
}
pub(super) fn parse(_object: &NewObject) -> Result<Spec, Vec<FieldError>> {
    Ok(Spec::Plain)
}
