//! What the media of a prompt may cost, by kind.

use raft::resources::{AUDIO_TOKENS_ANNOTATION, DOCUMENT_TOKENS_ANNOTATION, MediaTokens, VIDEO_TOKENS_ANNOTATION};

use super::container::pdf::Pages;
use super::container::{audio_seconds, pdf, video_seconds};
use super::encoded::Encoded;
use super::source::{Payload, Source};

/// Encoders like Whisper's read windows of so many seconds, and some models pay for the whole of the last one.
pub(super) const AUDIO_WINDOW: u64 = 30;
/// vLLM takes 32 frames of a video, however short it is: as much as 16 seconds at two frames a second.
const VIDEO_SECONDS_MIN: u64 = 16;
/// Audio that is elsewhere is taken to be so long, where nothing says better and no limit is hard.
const AUDIO_SECONDS_ELSEWHERE: u64 = 300;
/// Pages of a document that is elsewhere, likewise.
const PAGES_ELSEWHERE: u64 = 5;
/// Bytes of a second of audio whose length cannot be read: speech at 32 kbit/s.
pub(super) const AUDIO_BYTES: u64 = 4000;
/// Bytes of a second of video, likewise: a small one at 500 kbit/s.
const VIDEO_BYTES: u64 = 62_500;
/// Bytes of a page of a document whose pages cannot be counted: a scanned one.
const PAGE_BYTES: u64 = 128 * 1024;
/// What is looked at to tell a text from other files.
const TEXT_HEAD: usize = 4096;

/// What a content part stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Picture,
    Audio,
    Video,
    Document,
    /// What an encoder would have made of a medium.
    Embeddings,
}

/// Why there is no bound for a prompt.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unbounded {
    #[error(
        "`{part}` is at a URL or behind an id, so its length is not known: send it as base64, or ask an administrator for the annotation {annotation} on the model"
    )]
    Elsewhere { part: &'static str, annotation: &'static str },
    #[error(
        "the length of `{part}` cannot be read from its file: send another format (WAV, FLAC, MP3, Ogg, MP4, WebM), or ask an administrator for the annotation {annotation} on the model"
    )]
    Length { part: &'static str, annotation: &'static str },
    #[error(
        "the pages of `{part}` cannot be counted: send a PDF without compressed objects or plain text, or ask an administrator for the annotation {DOCUMENT_TOKENS_ANNOTATION} on the model"
    )]
    Pages { part: &'static str },
    #[error("`{part}` does not show how many tokens it becomes: send the medium itself")]
    Embeddings { part: &'static str },
    #[error("a content part has the unknown type `{0}`")]
    UnknownType(String),
    #[error("a name of a field is not Unicode, so what follows it cannot be read")]
    Unreadable,
}

/// The sums over all media of a prompt.
pub(super) struct Tally<'a> {
    media: &'a MediaTokens,
    /// Bytes of the body that are files and no text.
    pub(super) file_bytes: u64,
    /// Whether there are any.
    pub(super) has_media: bool,
    /// The most tokens that the media become.
    pub(super) bound: u64,
    /// The tokens that they usually become.
    pub(super) guess: u64,
    /// Why `bound` is none, if something in the prompt has no bound: the first reason.
    pub(super) unbounded: Option<Unbounded>,
}

/// What one medium may cost.
pub(super) struct Cost {
    pub(super) bound: u64,
    pub(super) guess: u64,
}

impl<'a> Tally<'a> {
    pub(super) fn new(media: &'a MediaTokens) -> Tally<'a> {
        Tally { media, file_bytes: 0, has_media: false, bound: 0, guess: 0, unbounded: None }
    }

    /// Adds a medium. `part` is how a caller knows it: the part's type.
    pub(super) fn add(&mut self, kind: Kind, part: &'static str, source: &Source<'_>) {
        self.has_media = true;
        let file = match source {
            Source::Here(payload) => {
                self.file_bytes += payload.written;
                Some(payload)
            }
            Source::Elsewhere => None,
        };
        let cost = match kind {
            Kind::Picture => Cost { bound: self.media.image_max, guess: self.media.image_max / 16 },
            Kind::Audio => self.audio(part, file),
            Kind::Video => self.video(part, file),
            Kind::Document => self.document(part, file),
            Kind::Embeddings => self.embeddings(part, file),
        };
        self.bound = self.bound.saturating_add(cost.bound);
        self.guess = self.guess.saturating_add(cost.guess);
    }

    /// Notes that the prompt has no bound. The first reason is kept.
    pub(super) fn has_no_bound(&mut self, why: Unbounded) {
        self.unbounded.get_or_insert(why);
    }

    fn audio(&mut self, part: &'static str, file: Option<&Payload<'_>>) -> Cost {
        let (rate, most) = (self.media.audio_per_second, self.media.audio_max);
        let Some(file) = file else {
            return self.elsewhere(part, AUDIO_TOKENS_ANNOTATION, most, AUDIO_SECONDS_ELSEWHERE.saturating_mul(rate));
        };
        let file = Encoded::new(file.base64());
        let seconds = audio_seconds(&file).unwrap_or_else(|| {
            self.uncounted(most, Unbounded::Length { part, annotation: AUDIO_TOKENS_ANNOTATION });
            (file.len() as u64).div_ceil(AUDIO_BYTES)
        });
        let windows = seconds.max(1).div_ceil(AUDIO_WINDOW).saturating_mul(AUDIO_WINDOW);
        // Most models keep a quarter of what the encoder makes.
        Cost { bound: windows.saturating_mul(rate), guess: seconds.saturating_mul(rate) / 4 }.capped(most)
    }

    fn video(&mut self, part: &'static str, file: Option<&Payload<'_>>) -> Cost {
        let (rate, most) = (self.media.video_per_second, self.media.video_max);
        let Some(file) = file else {
            return self.elsewhere(part, VIDEO_TOKENS_ANNOTATION, most, VIDEO_SECONDS_MIN.saturating_mul(rate));
        };
        let seconds = video_length(file).unwrap_or_else(|| {
            self.uncounted(most, Unbounded::Length { part, annotation: VIDEO_TOKENS_ANNOTATION });
            (Encoded::new(file.base64()).len() as u64).div_ceil(VIDEO_BYTES)
        });
        let bound = seconds.max(VIDEO_SECONDS_MIN).saturating_mul(rate);
        Cost { bound, guess: bound / 16 }.capped(most)
    }

    fn document(&mut self, part: &'static str, file: Option<&Payload<'_>>) -> Cost {
        let (rate, most) = (self.media.document_per_page, self.media.document_max);
        let of_pages = |pages: u64| pages.saturating_mul(rate);
        let Some(payload) = file else {
            return self.elsewhere(part, DOCUMENT_TOKENS_ANNOTATION, most, of_pages(PAGES_ELSEWHERE));
        };
        let file = Encoded::new(payload.base64());
        let size = file.len() as u64;
        let bound = match pdf::pages(&file) {
            Some(Pages::All(pages)) => of_pages(pages),
            None if is_text(&file) => size,
            uncounted => {
                self.uncounted(most, Unbounded::Pages { part });
                let seen = if let Some(Pages::AtLeast(pages)) = uncounted { pages } else { 0 };
                of_pages(seen.max(size.div_ceil(PAGE_BYTES)))
            }
        };
        Cost { bound, guess: bound / 4 }.capped(most)
    }

    /// A tensor says itself how many tokens it is, and a small file may hold a large one.
    fn embeddings(&mut self, part: &'static str, file: Option<&Payload<'_>>) -> Cost {
        /// Bytes of a token: a thousand numbers of two bytes, which is what small models have.
        const TOKEN_BYTES: u64 = 2048;
        self.has_no_bound(Unbounded::Embeddings { part });
        let bound = match file {
            Some(file) => (Encoded::new(file.base64()).len() as u64).div_ceil(TOKEN_BYTES),
            None => self.media.image_max,
        };
        Cost { bound, guess: bound / 4 }
    }

    /// Of a medium that is elsewhere: what is configured as its `most`. Without that it has no bound, and counts as a `usual` one.
    fn elsewhere(&mut self, part: &'static str, annotation: &'static str, most: Option<u64>, usual: u64) -> Cost {
        self.uncounted(most, Unbounded::Elsewhere { part, annotation });
        let bound = most.unwrap_or(usual);
        Cost { bound, guess: bound / 4 }
    }

    /// Notes that a medium's length is not known, unless the `most` of its kind is configured.
    fn uncounted(&mut self, most: Option<u64>, why: Unbounded) {
        if most.is_none() {
            self.has_no_bound(why);
        }
    }
}

impl Cost {
    pub(super) fn capped(self, most: Option<u64>) -> Cost {
        let bound = most.map_or(self.bound, |most| self.bound.min(most));
        Cost { bound, guess: self.guess.min(bound) }
    }
}

/// Seconds of a video. vLLM takes frames as JPEG, too, with commas between them: each as long as one at two a second.
fn video_length(file: &Payload<'_>) -> Option<u64> {
    if file.media_type.as_deref() == Some("video/jpeg") {
        let frames = 1 + memchr::memchr_iter(b',', file.base64().as_bytes()).count() as u64;
        return Some(frames.div_ceil(2));
    }
    video_seconds(&Encoded::new(file.base64()))
}

/// Whether a file is plain text, which becomes at most a token for each byte.
fn is_text(file: &Encoded<'_>) -> bool {
    let head = file.read(0, TEXT_HEAD);
    let is_cut = |error: std::str::Utf8Error| error.error_len().is_none();
    !head.is_empty() && !head.contains(&0) && std::str::from_utf8(&head).err().is_none_or(is_cut)
}
