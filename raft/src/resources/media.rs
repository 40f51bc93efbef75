//! How many tokens a model makes of media in a prompt: what administrators say of it in annotations of a MaaSModelRef.

use std::collections::BTreeMap;

use super::fields::Report;

/// The most tokens of one picture. Default: 16,384, which is the most that Qwen2-VL and its successors make of one.
pub const IMAGE_TOKENS_ANNOTATION: &str = "tollgate.dev/image-tokens-max";
/// Tokens of a second of audio. Default: 50, which is what Whisper's encoder makes of it; most models keep half or a quarter of them.
pub const AUDIO_RATE_ANNOTATION: &str = "tollgate.dev/audio-tokens-per-second";
/// The most tokens of one audio, however long it is. Default: none.
pub const AUDIO_TOKENS_ANNOTATION: &str = "tollgate.dev/audio-tokens-max";
/// Tokens of a second of video. Default: 1,536, which is two frames (as Qwen2-VL samples) of 768 tokens (its largest frame).
pub const VIDEO_RATE_ANNOTATION: &str = "tollgate.dev/video-tokens-per-second";
/// The most tokens of one video, however long it is. Default: none.
pub const VIDEO_TOKENS_ANNOTATION: &str = "tollgate.dev/video-tokens-max";
/// Tokens of a page of a document. Default: 5,000, which is Anthropic's figure: up to 3,000 of its text, and its picture.
pub const PAGE_TOKENS_ANNOTATION: &str = "tollgate.dev/document-tokens-per-page";
/// The most tokens of one document, however long it is. Default: none.
pub const DOCUMENT_TOKENS_ANNOTATION: &str = "tollgate.dev/document-tokens-max";

/// More is a slip of the pen: no context is that long.
const TOKENS_MAX: u64 = 100_000_000;

/// How many tokens a model makes of media. The defaults are above what known models make of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaTokens {
    /// Of one picture, at most.
    pub image_max: u64,
    /// Of a second of audio.
    pub audio_per_second: u64,
    /// Of one audio, at most.
    pub audio_max: Option<u64>,
    /// Of a second of video.
    pub video_per_second: u64,
    /// Of one video, at most.
    pub video_max: Option<u64>,
    /// Of a page of a document.
    pub document_per_page: u64,
    /// Of one document, at most.
    pub document_max: Option<u64>,
}

impl Default for MediaTokens {
    fn default() -> MediaTokens {
        MediaTokens {
            image_max: 16_384,
            audio_per_second: 50,
            audio_max: None,
            video_per_second: 1536,
            video_max: None,
            document_per_page: 5000,
            document_max: None,
        }
    }
}

/// Reads all of the annotations. What is absent or wrong is as by default.
pub(super) fn parse(report: &Report, annotations: &BTreeMap<String, String>) -> MediaTokens {
    let tokens = |name: &str| {
        let written = annotations.get(name)?;
        let tokens = written.trim().parse().ok().filter(|tokens| (1..=TOKENS_MAX).contains(tokens));
        if tokens.is_none() {
            let message = format!("\"{written}\" is not a number of tokens: write an integer from 1 to {TOKENS_MAX}");
            report.error(format!("metadata.annotations.{name}"), message);
        }
        tokens
    };
    let default = MediaTokens::default();
    MediaTokens {
        image_max: tokens(IMAGE_TOKENS_ANNOTATION).unwrap_or(default.image_max),
        audio_per_second: tokens(AUDIO_RATE_ANNOTATION).unwrap_or(default.audio_per_second),
        audio_max: tokens(AUDIO_TOKENS_ANNOTATION),
        video_per_second: tokens(VIDEO_RATE_ANNOTATION).unwrap_or(default.video_per_second),
        video_max: tokens(VIDEO_TOKENS_ANNOTATION),
        document_per_page: tokens(PAGE_TOKENS_ANNOTATION).unwrap_or(default.document_per_page),
        document_max: tokens(DOCUMENT_TOKENS_ANNOTATION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, written: &str) -> (MediaTokens, Vec<String>) {
        let report = Report::default();
        let read = parse(&report, &BTreeMap::from([(name.to_owned(), written.to_owned())]));
        (read, report.into_errors().into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect())
    }

    #[test]
    fn each_annotation_sets_its_number_and_mistakes_are_told() {
        let default = MediaTokens::default();
        let table = [
            (IMAGE_TOKENS_ANNOTATION, "1600", MediaTokens { image_max: 1600, ..default }),
            (AUDIO_RATE_ANNOTATION, " 25 ", MediaTokens { audio_per_second: 25, ..default }),
            (AUDIO_TOKENS_ANNOTATION, "1500", MediaTokens { audio_max: Some(1500), ..default }),
            (VIDEO_RATE_ANNOTATION, "600", MediaTokens { video_per_second: 600, ..default }),
            (VIDEO_TOKENS_ANNOTATION, "24576", MediaTokens { video_max: Some(24_576), ..default }),
            (PAGE_TOKENS_ANNOTATION, "3000", MediaTokens { document_per_page: 3000, ..default }),
            (DOCUMENT_TOKENS_ANNOTATION, "90000", MediaTokens { document_max: Some(90_000), ..default }),
        ];
        for (name, written, expected) in table {
            assert_eq!(read(name, written), (expected, Vec::new()), "{name}");
            for wrong in ["", "0", "-1", "1.5", "many", "100000001"] {
                let message = format!(
                    "metadata.annotations.{name}: \"{wrong}\" is not a number of tokens: write an integer from 1 to 100000000"
                );
                assert_eq!(read(name, wrong), (default, vec![message]), "{name}");
            }
        }
    }
}
