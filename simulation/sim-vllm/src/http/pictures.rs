//! Pictures in prompts: refused, unless the model is multimodal.

use serde_json::Value;

use super::{call::Call, errors::ApiError};
use crate::config::Config;

/// Tokens that one picture becomes.
const PICTURE_TOKENS: usize = 256;

/// What a model does with content that is not text.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    model: &'a str,
    sees: bool,
}

impl<'a> Sight<'a> {
    pub(crate) fn of(config: &'a Config) -> Self {
        Self { model: config.model(), sees: config.multimodal }
    }

    /// Of a model that reads text only.
    pub(crate) fn none() -> Self {
        Self { model: "", sees: false }
    }

    /// What stands in the prompt for a content part that is not text.
    ///
    /// # Errors
    /// The model sees no pictures; the part is none; or it is to be fetched, which never succeeds here: vLLM answers 500.
    pub(crate) fn look(self, part: &Value) -> Result<String, ApiError> {
        if !self.sees {
            return Err(ApiError::bad(format!("{} is not a multimodal model", self.model)));
        }
        let places = [&part["image_url"]["url"], &part["image_url"], &part["source"]["url"], &part["source"]["data"]];
        match places.into_iter().find_map(Value::as_str) {
            None => Err(ApiError::bad(format!("Unknown part type: {}", part["type"]))),
            Some(url) if url.starts_with("http") => Err(ApiError::crash(&format!("Cannot connect to host {url}"))),
            Some(_) => Ok(" image".repeat(PICTURE_TOKENS)),
        }
    }
}

impl Call {
    pub(crate) fn sight(&self) -> Sight<'_> {
        Sight::of(&self.shared.config)
    }
}
