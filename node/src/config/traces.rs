//! `[traces]`: where the spans of calls go.

use std::path::PathBuf;

use http::Uri;

use super::section::Reader;

/// Where the spans of calls go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Traces {
    /// `endpoint`: the base URL of an OpenTelemetry collector that takes OTLP over HTTP, such as `http://otel-collector:4318`. Without it there
    /// are no spans.
    pub endpoint: Option<String>,
    /// `ca`: who signs its certificate, if it is `https://`.
    pub ca: Option<PathBuf>,
}

impl Traces {
    pub(super) fn read(reader: &Reader<'_>) -> Traces {
        let section = reader.section("traces");
        let endpoint = section.text("endpoint");
        let is_url = |text: &String| {
            let url: Option<Uri> = text.parse().ok();
            url.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.query().is_none())
        };
        if let Some(text) = endpoint.as_ref().filter(|text| !is_url(text)) {
            section.mistake("endpoint", format!("\"{text}\" is not a URL such as \"http://otel-collector:4318\""));
        }
        let ca = section.path("ca");
        if endpoint.as_ref().is_some_and(|text| text.starts_with("https:")) && ca.is_none() {
            section.mistake("ca", "is missing: an https:// collector is known by who signs its certificate");
        }
        Traces { endpoint, ca }
    }
}
