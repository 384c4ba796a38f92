//! A pretended speech engine, so that a server with nothing configured can be heard: a hum whose length follows the text.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio, TtsEngine};

/// What one character lasts at normal speed, ms.
const MS_PER_CHARACTER: u32 = 60;
/// Samples per second, 16 bits each, one channel.
const RATE: u32 = 8_000;
/// How often the hum swings per second.
const PITCH: u32 = 220;
/// How loud it is, of 32767.
const LOUDNESS: i32 = 6_000;
/// The hum swells and fades over this many samples, so that it neither begins nor ends with a click.
const FADE: u32 = RATE / 50;
/// Samples made at once.
const PIECE: u32 = 4_096;

/// Speaks for `sandbox:` addresses itself and passes all other attempts on.
pub struct SandboxVoice {
    /// Where real attempts go.
    pub inner: Arc<dyn TtsEngine>,
}

#[async_trait]
impl TtsEngine for SandboxVoice {
    async fn speak(&self, attempt: &SpeechAttempt) -> Result<SpokenAudio, SpeechFailure> {
        if !attempt.base_url.starts_with("sandbox:") {
            return self.inner.speak(attempt).await;
        }
        let samples = samples(&attempt.text, attempt.speed.unwrap_or(1.0));
        let pieces = (0..samples.div_ceil(PIECE)).map(move |piece| {
            let from = piece * PIECE;
            let until = (from + PIECE).min(samples);
            Ok((from..until).flat_map(|at| sample(at, samples).to_le_bytes()).collect())
        });
        let body = stream::iter([Ok(head(samples))]).chain(stream::iter(pieces)).boxed();
        Ok(SpokenAudio { content_type: "audio/wav".to_owned(), body })
    }
}

fn samples(text: &str, speed: f64) -> u32 {
    let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    // In hundredths, so that lengths are whole numbers; callers are held to 0.25 to 4.
    let hundredths = (1..=400_u32).rev().find(|step| f64::from(*step) <= speed * 100.0).unwrap_or(25).max(25);
    let normal = characters.saturating_mul(MS_PER_CHARACTER).saturating_mul(RATE / 1_000);
    normal.saturating_mul(100) / hundredths
}

/// The header of a RIFF file of 16-bit samples in one channel.
fn head(samples: u32) -> Bytes {
    let size = samples * 2;
    let mut head = Vec::with_capacity(44);
    head.extend_from_slice(b"RIFF");
    head.extend_from_slice(&(36 + size).to_le_bytes());
    head.extend_from_slice(b"WAVEfmt ");
    head.extend_from_slice(&16_u32.to_le_bytes());
    // Plain samples, one channel.
    head.extend_from_slice(&1_u16.to_le_bytes());
    head.extend_from_slice(&1_u16.to_le_bytes());
    head.extend_from_slice(&RATE.to_le_bytes());
    head.extend_from_slice(&(RATE * 2).to_le_bytes());
    head.extend_from_slice(&2_u16.to_le_bytes());
    head.extend_from_slice(&16_u16.to_le_bytes());
    head.extend_from_slice(b"data");
    head.extend_from_slice(&size.to_le_bytes());
    head.into()
}

/// A triangle wave under an envelope.
fn sample(at: u32, samples: u32) -> i16 {
    let period = RATE / PITCH;
    let phase = i32::try_from(at % period).unwrap_or(0);
    let half = i32::try_from(period / 2).unwrap_or(1).max(1);
    let swing = (phase - half).abs() * 2 - half;
    let near = at.min(samples - at).min(FADE);
    let loud = LOUDNESS * i32::try_from(near).unwrap_or(0) / i32::try_from(FADE).unwrap_or(1);
    i16::try_from(swing * loud / half).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::model::secret::Secret;
    use crate::core::model::tts::TtsProvider;
    use crate::ports::mocks::MockTtsEngine;
    use crate::ports::upstream::Patience;

    async fn spoken(text: &str, speed: Option<f64>) -> Vec<u8> {
        let long = Duration::from_secs(60);
        let attempt = SpeechAttempt {
            provider: TtsProvider::Azure,
            base_url: "sandbox://local".to_owned(),
            key: Secret::new(""),
            params: serde_json::Map::new(),
            text: text.to_owned(),
            voice: None,
            speed,
            response_format: Some("mp3".to_owned()),
            patience: Patience { head: long, first_byte: long, idle: long, total: long },
        };
        let engine = SandboxVoice { inner: Arc::new(MockTtsEngine::new()) };
        let audio = engine.speak(&attempt).await.unwrap();
        assert_eq!(audio.content_type, "audio/wav");
        audio.body.map(Result::unwrap).collect::<Vec<_>>().await.concat()
    }

    #[tokio::test]
    async fn the_clip_is_as_long_as_its_head_says_and_follows_the_text() {
        for (text, speed, ms) in
            [("hi", None, 120), ("你好，世界", None, 300), ("hi", Some(2.0), 60), ("hi", Some(0.25), 480)]
        {
            let clip = spoken(text, speed).await;
            assert_eq!((&clip[..4], &clip[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
            let number = |at: usize| u32::from_le_bytes(clip[at..at + 4].try_into().unwrap());
            assert_eq!(number(4) as usize, clip.len() - 8);
            assert_eq!(number(40) as usize, clip.len() - 44);
            assert_eq!(number(40) / 2 * 1_000 / RATE, ms, "{text} {speed:?}");
        }
        let longest = spoken(&"x".repeat(4_096), Some(0.25)).await;
        assert!(longest.len() < 25 << 20);
    }

    #[tokio::test]
    async fn the_hum_is_heard_and_begins_and_ends_silently() {
        let clip = spoken("hello", None).await;
        let wave: Vec<i16> = clip[44..].chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        assert!(wave[0].abs() < 100 && wave.last().unwrap().abs() < 100);
        assert!(wave.iter().any(|sample| *sample > 4_000) && wave.iter().any(|sample| *sample < -4_000));
    }
}
