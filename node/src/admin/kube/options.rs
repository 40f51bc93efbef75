//! The query parameters of a request, understood. Unknown ones are ignored, as in Kubernetes.

use axum::extract::Query;
use http::{StatusCode, Uri};

use super::error::Failure;
use super::selector::{FieldSelector, LabelSelector};

/// What a request asks for beside its path and body.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Which labels.
    pub(super) labels: LabelSelector,
    /// Which name and namespace.
    pub(super) fields: FieldSelector,
    /// Stream changes instead of answering once.
    pub(super) watch: bool,
    /// Not older than this (lists), or after this (watches); 0 is any.
    pub(super) resource_version: Option<u64>,
    /// `Exact` and not merely not older.
    pub(super) exact: bool,
    /// Check everything, change nothing.
    pub(super) dry_run: bool,
    /// What to do about unknown fields.
    pub(super) validation: FieldValidation,
    /// When a watch ends.
    pub(super) timeout_seconds: Option<u64>,
    /// What a table's rows carry beside their cells.
    pub(super) include_object: IncludeObject,
    /// Who applies.
    pub(super) field_manager: String,
    /// A watch that begins with a list.
    pub(super) send_initial_events: bool,
}

/// What to do about fields that nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FieldValidation {
    /// Nothing.
    Ignore,
    /// Say so in a Warning header.
    #[default]
    Warn,
    /// Refuse.
    Strict,
}

/// What a table's rows carry beside their cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum IncludeObject {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl Options {
    /// Errors: a known parameter has a value that means nothing.
    pub(super) fn parse(uri: &Uri) -> Result<Options, Failure> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Failure::bad_request("the query string cannot be read"))?;
        let mut options = Options::default();
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let wrong = || Failure::bad_request(format!("query parameter {name}: {value:?} is not a value it takes"));
        match name {
            "labelSelector" => self.labels = LabelSelector::parse(value).map_err(Failure::bad_request)?,
            "fieldSelector" => self.fields = FieldSelector::parse(value).map_err(Failure::bad_request)?,
            "watch" => self.watch = flag(value).ok_or_else(wrong)?,
            "resourceVersion" => self.resource_version = Some(value.parse().map_err(|_| wrong())?),
            "resourceVersionMatch" => match value {
                "Exact" => self.exact = true,
                "NotOlderThan" => self.exact = false,
                _ => return Err(wrong()),
            },
            "dryRun" => match value {
                "All" => self.dry_run = true,
                _ => {
                    return Err(Failure::new(
                        StatusCode::UNPROCESSABLE_ENTITY,
                        "Invalid",
                        format!("dryRun: {value:?} is not supported: use \"All\""),
                    ));
                }
            },
            "fieldValidation" => {
                self.validation = match value {
                    "Ignore" => FieldValidation::Ignore,
                    "Warn" => FieldValidation::Warn,
                    "Strict" => FieldValidation::Strict,
                    _ => return Err(wrong()),
                }
            }
            "timeoutSeconds" => self.timeout_seconds = Some(value.parse().map_err(|_| wrong())?),
            "includeObject" => {
                self.include_object = match value {
                    "None" => IncludeObject::None,
                    "Metadata" => IncludeObject::Metadata,
                    "Object" => IncludeObject::Object,
                    _ => return Err(wrong()),
                }
            }
            "fieldManager" => value.clone_into(&mut self.field_manager),
            "sendInitialEvents" => self.send_initial_events = flag(value).ok_or_else(wrong)?,
            _ => {}
        }
        Ok(())
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}
