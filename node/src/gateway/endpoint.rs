//! The inference paths that are served. It is an allow-list: a replica's operation, developer and LoRA paths,
//! `/invocations`, `/metrics` and whatever its next version adds are not in it and never reach it.

use super::dialect::Dialect;

/// What a path does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Chat messages in, generated text out.
    Chat,
    /// The same for several conversations at once; never streamed.
    ChatBatch,
    /// A prompt in, generated text out.
    Completions,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Text in, numbers out: embeddings, scores, rankings, classes.
    Encode,
    /// Speech in, generated text out. Its body is a form with a file.
    Speech,
    /// Counting or translating tokens: authorized, not metered.
    Tokens,
}

/// A path that is forwarded.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Endpoint {
    /// The path, here (behind the model's prefix) and at the replica.
    pub(super) path: &'static str,
    /// What it does.
    pub(super) kind: Kind,
}

const fn endpoint(path: &'static str, kind: Kind) -> Endpoint {
    Endpoint { path, kind }
}

static ENDPOINTS: [Endpoint; 19] = [
    endpoint("/v1/chat/completions", Kind::Chat),
    endpoint("/v1/chat/completions/batch", Kind::ChatBatch),
    endpoint("/v1/completions", Kind::Completions),
    endpoint("/v1/responses", Kind::Responses),
    endpoint("/v1/messages", Kind::Messages),
    endpoint("/v1/messages/count_tokens", Kind::Tokens),
    endpoint("/v1/audio/transcriptions", Kind::Speech),
    endpoint("/v1/audio/translations", Kind::Speech),
    endpoint("/v1/embeddings", Kind::Encode),
    endpoint("/v2/embed", Kind::Encode),
    endpoint("/v1/score", Kind::Encode),
    endpoint("/score", Kind::Encode),
    endpoint("/v1/rerank", Kind::Encode),
    endpoint("/v2/rerank", Kind::Encode),
    endpoint("/rerank", Kind::Encode),
    endpoint("/pooling", Kind::Encode),
    endpoint("/classify", Kind::Encode),
    endpoint("/tokenize", Kind::Tokens),
    endpoint("/detokenize", Kind::Tokens),
];

impl Endpoint {
    /// The endpoint at `path`, if it is served.
    pub(super) fn at(path: &str) -> Option<&'static Endpoint> {
        ENDPOINTS.iter().find(|endpoint| endpoint.path == path)
    }

    /// How its callers speak.
    pub(super) fn dialect(&self) -> Dialect {
        match self.kind {
            Kind::Messages => Dialect::Anthropic,
            Kind::Tokens if self.path.starts_with("/v1/messages/") => Dialect::Anthropic,
            Kind::Responses => Dialect::Responses,
            Kind::Chat | Kind::ChatBatch | Kind::Completions | Kind::Encode | Kind::Speech | Kind::Tokens => {
                Dialect::OpenAi
            }
        }
    }

    /// What OpenTelemetry calls such a call.
    pub(super) fn operation(&self) -> &'static str {
        match self.kind {
            Kind::Chat | Kind::ChatBatch | Kind::Responses | Kind::Messages => "chat",
            Kind::Completions => "text_completion",
            Kind::Encode | Kind::Tokens => "embeddings",
            Kind::Speech => "generate_content",
        }
    }

    /// Whether calls cost tokens.
    pub(super) fn is_metered(&self) -> bool {
        self.kind != Kind::Tokens
    }

    /// Whether calls generate text, so that an output has to be reserved.
    pub(super) fn generates(&self) -> bool {
        !matches!(self.kind, Kind::Encode | Kind::Tokens)
    }

    /// Whether the body is a form (`multipart/form-data`) and not JSON.
    pub(super) fn takes_form(&self) -> bool {
        self.kind == Kind::Speech
    }

    /// Whether the answer can be asked for as bytes instead of JSON.
    pub(super) fn answers_bytes(&self) -> bool {
        matches!(self.path, "/v1/embeddings" | "/pooling")
    }

    /// Whether one text is compared with others, each pair of them read as one.
    pub(super) fn compares(&self) -> bool {
        self.path.ends_with("/score") || self.path.ends_with("/rerank")
    }

    /// The fields that bound what a call generates, for each of its choices; the first one is added where none is there.
    pub(super) fn max_tokens_fields(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Chat | Kind::ChatBatch => &["max_completion_tokens", "max_tokens"],
            Kind::Completions | Kind::Messages => &["max_tokens"],
            Kind::Responses => &["max_output_tokens"],
            Kind::Speech => &["max_completion_tokens"],
            Kind::Encode | Kind::Tokens => &[],
        }
    }

    /// Where a replica says what tokens the prompt of such a call has, if it may be asked at all.
    pub(super) fn render_path(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Chat => Some("/v1/chat/completions/render"),
            Kind::Completions => Some("/v1/completions/render"),
            Kind::Responses => Some("/v1/responses/render"),
            Kind::Messages => Some("/v1/messages/render"),
            Kind::ChatBatch | Kind::Encode | Kind::Speech | Kind::Tokens => None,
        }
    }

    /// Where a replica that does not render counts the tokens of a text or of messages: not those of media.
    pub(super) fn tokenize_path(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Chat | Kind::Completions => Some("/tokenize"),
            Kind::ChatBatch | Kind::Responses | Kind::Messages | Kind::Encode | Kind::Speech | Kind::Tokens => None,
        }
    }

    /// Whether a stream only reports usage when it is asked to: by `stream_options.include_usage`, in a form by `stream_include_usage`.
    pub(super) fn must_ask_for_usage(&self) -> bool {
        matches!(self.kind, Kind::Chat | Kind::Completions | Kind::Speech)
    }
}
