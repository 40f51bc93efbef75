//! Which path is what.

use http::Method;

use crate::config::{Config, Kind};

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Chat,
    ChatRender,
    Completions,
    CompletionsRender,
    Responses,
    /// A response by its id, which is never known.
    Response(String),
    Messages,
    CountTokens,
    Transcriptions,
    Translations,
    Embeddings,
    Score,
    Rerank,
    Pooling,
    Tokenize,
    Detokenize,
    Models,
    Version,
    Load,
    Health,
    /// Health, also by POST.
    Ping,
    Metrics {
        content_type: &'static str,
    },
}

impl Route {
    /// The endpoint of a path; what the kind of model does not have, or is not enabled, is not there.
    pub(crate) fn of(path: &str, config: &Config) -> Option<Self> {
        let generative = matches!(config.kind, Kind::Generative { .. });
        let renders = generative && config.scale_out_endpoints;
        let route = match path {
            "/v1/chat/completions" | "/invocations" if generative => Self::Chat,
            "/v1/chat/completions/render" if renders => Self::ChatRender,
            "/v1/completions" if generative => Self::Completions,
            "/v1/completions/render" if renders => Self::CompletionsRender,
            "/v1/responses" if generative => Self::Responses,
            "/v1/messages" if generative => Self::Messages,
            "/v1/messages/count_tokens" if generative => Self::CountTokens,
            "/v1/audio/transcriptions" if generative && config.audio => Self::Transcriptions,
            "/v1/audio/translations" if generative && config.audio => Self::Translations,
            "/v1/embeddings" if !generative => Self::Embeddings,
            "/score" | "/v1/score" if !generative => Self::Score,
            "/rerank" | "/v1/rerank" | "/v2/rerank" if !generative => Self::Rerank,
            "/pooling" if !generative => Self::Pooling,
            "/tokenize" => Self::Tokenize,
            "/detokenize" => Self::Detokenize,
            "/v1/models" => Self::Models,
            "/version" => Self::Version,
            "/load" => Self::Load,
            "/health" => Self::Health,
            "/ping" => Self::Ping,
            "/metrics" => Self::Metrics { content_type: "text/plain; version=1.0.0; charset=utf-8" },
            "/metrics/" => Self::Metrics { content_type: "text/plain; version=0.0.4; charset=utf-8" },
            _ => return Self::response(path).filter(|_| generative),
        };
        Some(route)
    }

    fn response(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v1/responses/")?;
        let id = rest.strip_suffix("/cancel").unwrap_or(rest);
        (!id.is_empty() && !id.contains('/')).then(|| Self::Response(id.to_owned()))
    }

    pub(crate) fn methods(&self) -> &'static [Method] {
        const GET: &[Method] = &[Method::GET];
        const POST: &[Method] = &[Method::POST];
        const BOTH: &[Method] = &[Method::GET, Method::POST];
        match self {
            Self::Models | Self::Version | Self::Load | Self::Health | Self::Metrics { .. } => GET,
            Self::Ping | Self::Response(_) => BOTH,
            _ => POST,
        }
    }

    /// Endpoints whose body is a form.
    pub(crate) fn takes_form(&self) -> bool {
        matches!(self, Self::Transcriptions | Self::Translations)
    }

    /// Endpoints that only look.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self, Self::Models | Self::Version | Self::Load | Self::Health | Self::Ping | Self::Metrics { .. })
    }

    /// Its name in `http_requests_total`.
    pub(crate) fn handler(&self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::ChatRender => "/v1/chat/completions/render",
            Self::Completions => "/v1/completions",
            Self::CompletionsRender => "/v1/completions/render",
            Self::Responses => "/v1/responses",
            Self::Response(_) => "/v1/responses/{response_id}",
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Transcriptions => "/v1/audio/transcriptions",
            Self::Translations => "/v1/audio/translations",
            Self::Embeddings => "/v1/embeddings",
            Self::Score => "/score",
            Self::Rerank => "/rerank",
            Self::Pooling => "/pooling",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::Models => "/v1/models",
            Self::Version => "/version",
            Self::Load => "/load",
            Self::Health => "/health",
            Self::Ping => "/ping",
            Self::Metrics { .. } => "/metrics",
        }
    }
}
