//! `stream_options`: read, and switched on where the gateway needs more of it.

/// What of `stream_options` matters here.
#[derive(serde::Deserialize, Default)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub(super) include_usage: Option<bool>,
    #[serde(default)]
    pub(super) continuous_usage_stats: Option<bool>,
}

pub(super) fn stream_options(json: &[u8]) -> StreamOptions {
    serde_json::from_slice(json).unwrap_or_default()
}

/// The caller's `stream_options` with these on. What is no object stays as it is: the replica refuses it.
pub(super) fn with_options(stream_options: &[u8], names: &[&str]) -> String {
    let on = |mut options: serde_json::Map<String, serde_json::Value>| {
        options.extend(names.iter().map(|name| ((*name).to_owned(), true.into())));
        serde_json::Value::Object(options).to_string()
    };
    match serde_json::from_slice::<serde_json::Value>(stream_options) {
        Ok(serde_json::Value::Object(options)) => on(options),
        Ok(serde_json::Value::Null) => on(serde_json::Map::new()),
        Ok(_) | Err(_) => String::from_utf8_lossy(stream_options).into_owned(),
    }
}
