//! What speech may cost that is sent as a file to be written down or translated.
//!
//! vLLM cuts it into windows of about 30 seconds, each with the whole text beside it and an answer of its own. What it reports for speech of
//! Whisper's kind are frames of the spectrogram, a hundred a second; the encoder makes one of two of them, and that one is what the model's
//! annotation counts.

use raft::resources::{AUDIO_TOKENS_ANNOTATION, MediaTokens};

use super::container::audio_seconds;
use super::encoded::Encoded;
use super::tally::{AUDIO_BYTES, AUDIO_WINDOW, Cost, Unbounded};
use super::{PromptEstimate, TEMPLATE_TOKENS};

/// Reported of each token that an encoder makes.
const FRAMES: u64 = 2;
/// vLLM cuts where it is silent, in the last second of a window.
const CUT_SECONDS: u64 = 1;

/// How long speech is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::gateway) struct Speech {
    seconds: u64,
    /// It is only guessed from the file's size.
    is_guessed: bool,
}

impl Speech {
    /// Of a file, whose header is believed.
    pub(in crate::gateway) fn of(file: &[u8]) -> Speech {
        let read = audio_seconds(&Encoded::Plain(file));
        let guessed = (file.len() as u64).div_ceil(AUDIO_BYTES);
        Speech { seconds: read.unwrap_or(guessed).max(1), is_guessed: read.is_none() }
    }

    /// How many windows it has at most.
    pub(in crate::gateway) fn windows(self) -> u64 {
        if self.seconds <= AUDIO_WINDOW { 1 } else { self.seconds.div_ceil(AUDIO_WINDOW - CUT_SECONDS) }
    }

    /// With so many bytes of text beside it. The second is why there is no bound, if there is none.
    pub(super) fn estimate(self, text: u64, media: &MediaTokens) -> (PromptEstimate, Option<Unbounded>) {
        let (rate, most) = (FRAMES.saturating_mul(media.audio_per_second), media.audio_max);
        let of_seconds = |seconds: u64| seconds.saturating_mul(rate);
        let windows = self.windows();
        let speech = Cost { bound: of_seconds(windows.saturating_mul(AUDIO_WINDOW)), guess: of_seconds(self.seconds) };
        let speech = speech.capped(most.map(|most| most.saturating_mul(FRAMES)));
        let texts = text.saturating_add(TEMPLATE_TOKENS).saturating_mul(windows);
        let has_bound = !self.is_guessed || most.is_some();
        let estimate = PromptEstimate {
            bound: speech.bound.saturating_add(texts),
            guess: speech.guess.saturating_add(text.div_ceil(4)),
            has_bound,
            has_media: true,
        };
        let unbounded = Unbounded::Length { part: "file", annotation: AUDIO_TOKENS_ANNOTATION };
        (estimate, (!has_bound).then_some(unbounded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 kHz, mono, 8 bits.
    fn wav(seconds: usize) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0".to_vec();
        file.resize(12 + 8000 * seconds, 0);
        file
    }

    #[test]
    fn speech_counts_by_its_windows_and_what_is_of_no_known_format_has_no_bound() {
        let default = MediaTokens::default();
        let capped = MediaTokens { audio_max: Some(1500), ..default };
        // The file, windows; bound and guess of the speech, and whether there is a bound.
        let table = [
            (wav(1), default, 1, 3000, 100, true),
            (wav(30), default, 1, 3000, 3000, true),
            (wav(31), default, 2, 6000, 3100, true),
            (wav(58), default, 2, 6000, 5800, true),
            (wav(59), default, 3, 9000, 5900, true),
            (wav(59), capped, 3, 3000, 3000, true),
            (vec![7; 400_000], default, 4, 12_000, 10_000, false),
            (vec![7; 400_000], capped, 4, 3000, 3000, true),
        ];
        for (file, media, windows, bound, guess, is_bounded) in table {
            let speech = Speech::of(&file);
            assert_eq!(speech.windows(), windows, "{} bytes", file.len());
            let (estimate, unbounded) = speech.estimate(40, &media);
            let (bound, guess) = (bound + windows * (40 + TEMPLATE_TOKENS), guess + 10);
            let expected = PromptEstimate { bound, guess, has_bound: is_bounded, has_media: true };
            assert_eq!(estimate, expected, "{} bytes, {media:?}", file.len());
            assert_eq!(unbounded.is_none(), is_bounded, "{unbounded:?}");
        }
    }
}
