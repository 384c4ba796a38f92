//! Volcengine openspeech v1, the one-shot "query" (contract `audio.md` §4.3).

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Serialize;
use serde_json::{Number, Value, json};
use tokio::time::timeout_at;

use super::volcengine_clip::Clip;
use super::wire::{Limits, begin, explain, media_type, send};
use super::{Egress, UNSUPPORTED_FORMAT};
use crate::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio};
use crate::ports::upstream::{ByteStream, UpstreamError};

const DEFAULT_VOICE: &str = "BV001_streaming";
const DEFAULT_CLUSTER: &str = "volcano_tts";
/// The documented longest text, UTF-8 bytes.
const MAX_TEXT: usize = 1_024;
/// The code of a success.
pub(super) const SUCCESS: i64 = 3_000;
/// How much audio is held back while the code that judges it has not been read.
const UNJUDGED: usize = 64 * 1024;

#[derive(Serialize)]
pub(super) struct Call<'a> {
    app: App<'a>,
    user: User,
    audio: Audio<'a>,
    request: Request<'a>,
}

#[derive(Serialize)]
struct App<'a> {
    appid: &'a str,
    token: &'a str,
    cluster: &'a str,
}

#[derive(Serialize)]
struct User {
    uid: &'static str,
}

#[derive(Serialize)]
struct Audio<'a> {
    voice_type: &'a str,
    encoding: &'a str,
    speed_ratio: Number,
}

#[derive(Serialize)]
struct Request<'a> {
    reqid: &'a str,
    text: &'a str,
    operation: &'static str,
}

pub(super) async fn speak(
    egress: &Egress,
    attempt: &SpeechAttempt,
    id: &str,
    limits: Limits,
) -> Result<SpokenAudio, SpeechFailure> {
    let call = Call::of(attempt, id, "query")?;
    let content_type = media_type(call.audio.encoding).to_owned();
    let url = (egress.admit)(&attempt.base_url).map_err(SpeechFailure::Misconfigured)?;
    let request = egress.client.post(url).header(AUTHORIZATION, authorization(attempt)?).json(&call);
    let response = send(egress, request, limits).await?;
    let body = response.bytes_stream().map(|read| read.map_err(|error| UpstreamError::Transport(explain(error))));
    let audio = judged(body.boxed(), limits).await?;
    begin(audio, content_type, limits).await
}

impl<'a> Call<'a> {
    /// What both forms send, judged without asking the provider.
    pub(super) fn of(attempt: &'a SpeechAttempt, id: &'a str, operation: &'static str) -> Result<Self, SpeechFailure> {
        let param = |name: &str| attempt.params.get(name).and_then(Value::as_str);
        let appid = param("appid").filter(|appid| !appid.is_empty());
        let appid = appid.ok_or_else(|| SpeechFailure::Misconfigured("adapterParams.appid is missing".to_owned()))?;
        if attempt.text.len() > MAX_TEXT {
            return Err(SpeechFailure::Unsupported { path: "input", message: "is too long for this model" });
        }
        Ok(Self {
            app: App { appid, token: attempt.key.expose(), cluster: param("cluster").unwrap_or(DEFAULT_CLUSTER) },
            user: User { uid: "airi-server" },
            audio: Audio {
                voice_type: attempt.voice.as_deref().unwrap_or(DEFAULT_VOICE),
                encoding: encoding(attempt.response_format.as_deref())?,
                speed_ratio: speed_ratio(attempt.speed),
            },
            request: Request { reqid: id, text: &attempt.text, operation },
        })
    }

    pub(super) fn media_type(&self) -> &'static str {
        media_type(self.audio.encoding)
    }
}

/// Always said: the provider's own default is raw samples.
fn encoding(asked: Option<&str>) -> Result<&str, SpeechFailure> {
    match asked.unwrap_or_default() {
        "" => Ok("mp3"),
        "opus" => Ok("ogg_opus"),
        "aac" | "flac" => Err(UNSUPPORTED_FORMAT),
        own => Ok(own),
    }
}

/// A whole ratio is written without a fraction, as the reference writes it.
fn speed_ratio(speed: Option<f64>) -> Number {
    let ratio = speed.unwrap_or(1.0).clamp(0.2, 3.0);
    let whole = [1_u8, 2, 3].into_iter().find(|whole| (ratio - f64::from(*whole)).abs() < f64::EPSILON);
    whole.map(Number::from).or_else(|| Number::from_f64(ratio)).unwrap_or_else(|| 1.into())
}

/// A semicolon and no space (AU-D09).
pub(super) fn authorization(attempt: &SpeechAttempt) -> Result<HeaderValue, SpeechFailure> {
    let mut value = HeaderValue::from_str(&format!("Bearer;{}", attempt.key.expose()))
        .map_err(|_| SpeechFailure::Misconfigured("the key is not a valid header value".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A code of the provider, as what it stands for (AU-D10).
pub(super) fn failure_of(code: i64, message: &str) -> SpeechFailure {
    let status = match code {
        3_001 => 401,
        3_003 => 429,
        3_005 | 3_006 => 503,
        3_010 | 3_011 | 3_050 => 400,
        3_030 => return SpeechFailure::Timeout,
        _ => 502,
    };
    let body = json!({ "code": code, "message": message }).to_string();
    SpeechFailure::Status { status, body: body.into(), retry_after: None }
}

/// The audio inside the document, once the code beside it says it is some.
async fn judged(
    mut body: ByteStream,
    limits: Limits,
) -> Result<impl Stream<Item = Result<Bytes, UpstreamError>> + Send + 'static, SpeechFailure> {
    let mut clip = Clip::default();
    let mut held = Vec::new();
    loop {
        let read = timeout_at(limits.first_byte, body.next()).await.map_err(|_| SpeechFailure::Timeout)?;
        let ended = read.is_none();
        match read {
            Some(Ok(bytes)) => held.extend(clip.feed(&bytes)),
            Some(Err(error)) => return Err(SpeechFailure::Transport(error.to_string())),
            None => {}
        }
        match clip.code() {
            Some(code) if code != SUCCESS => return Err(failure_of(code, clip.message())),
            Some(_) if !held.is_empty() => break,
            None if held.len() >= UNJUDGED => break,
            _ => {}
        }
        if ended {
            return Err(SpeechFailure::NoAudio(format!("code {:?} and no audio", clip.code())));
        }
    }
    let rest = stream::unfold(Some((body, clip)), |under_way| async move {
        let (mut body, mut clip) = under_way?;
        match body.next().await {
            Some(Ok(bytes)) => Some((Ok(Bytes::from(clip.feed(&bytes))), Some((body, clip)))),
            Some(Err(error)) => Some((Err(error), None)),
            None if clip.is_whole() && clip.code().is_none_or(|code| code == SUCCESS) => None,
            None => Some((Err(UpstreamError::Transport("the clip is not whole".to_owned())), None)),
        }
    });
    Ok(stream::iter([Ok(Bytes::from(held))]).chain(rest))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::model::secret::Secret;
    use crate::core::model::tts::TtsProvider;
    use crate::ports::upstream::Patience;

    fn attempt(text: &str, speed: Option<f64>) -> SpeechAttempt {
        let long = Duration::from_secs(60);
        SpeechAttempt {
            provider: TtsProvider::Volcengine,
            base_url: "https://x".to_owned(),
            key: Secret::new("k3y"),
            params: json!({ "appid": "a1" }).as_object().unwrap().clone(),
            text: text.to_owned(),
            voice: None,
            speed,
            response_format: None,
            patience: Patience { head: long, first_byte: long, idle: long, total: long },
        }
    }

    #[test]
    fn the_body_is_the_documented_one_in_its_order() {
        let attempt = attempt("你好", None);
        assert_eq!(
            serde_json::to_string(&Call::of(&attempt, "r", "query").unwrap()).unwrap(),
            r#"{"app":{"appid":"a1","token":"k3y","cluster":"volcano_tts"},"user":{"uid":"airi-server"},"#.to_owned()
                + r#""audio":{"voice_type":"BV001_streaming","encoding":"mp3","speed_ratio":1},"#
                + r#""request":{"reqid":"r","text":"你好","operation":"query"}}"#
        );
        for (speed, expected) in [(0.1, "0.2"), (4.0, "3"), (1.25, "1.25"), (2.0, "2")] {
            assert_eq!(speed_ratio(Some(speed)).to_string(), expected);
        }
        assert_eq!(authorization(&attempt).unwrap().to_str().unwrap(), "Bearer;k3y");
    }

    #[test]
    fn what_the_provider_would_refuse_is_refused_here() {
        let fits = attempt(&"字".repeat(341), None);
        assert!(Call::of(&fits, "r", "query").is_ok());
        let long = attempt(&"字".repeat(342), None);
        assert!(matches!(Call::of(&long, "r", "query"), Err(SpeechFailure::Unsupported { path: "input", .. })));
        let mut bare = attempt("x", None);
        bare.params.clear();
        assert!(matches!(Call::of(&bare, "r", "query"), Err(SpeechFailure::Misconfigured(_))));
        assert!(encoding(Some("flac")).is_err());
        assert_eq!(encoding(Some("opus")).unwrap(), "ogg_opus");
    }

    async fn heard(document: &'static str, size: usize) -> Result<Vec<u8>, SpeechFailure> {
        let long = Duration::from_secs(60);
        let limits = Limits::from_now(Patience { head: long, first_byte: long, idle: long, total: long });
        let pieces: Vec<_> = document.as_bytes().chunks(size).map(|piece| Ok(Bytes::from_static(piece))).collect();
        let audio = judged(stream::iter(pieces).boxed(), limits).await?;
        let read: Vec<Result<Bytes, UpstreamError>> = audio.collect().await;
        read.into_iter().map(|read| read.map_err(|error| SpeechFailure::Transport(error.to_string()))).try_fold(
            Vec::new(),
            |mut whole, bytes| {
                whole.extend_from_slice(&bytes?);
                Ok(whole)
            },
        )
    }

    macro_rules! sample {
        ($name:literal) => {
            include_str!(concat!("../../../tests/fixtures/provider-responses/volcengine-", $name, ".json"))
        };
    }

    #[tokio::test]
    async fn every_sample_gives_its_outcome_however_it_is_cut() {
        for size in [1, 2, 3, 7, 4_096] {
            assert_eq!(heard(sample!("200"), size).await.unwrap(), b"ID3fixture-audio");
            for (sample, expected) in [
                (sample!("200-code-3001"), Some(401)),
                (sample!("401"), Some(401)),
                (sample!("200-code-3003"), Some(429)),
                (sample!("200-code-3005"), Some(503)),
                (sample!("200-code-3010"), Some(400)),
                (sample!("200-code-3011"), Some(400)),
                (sample!("200-code-3030"), None),
                (sample!("200-code-3031"), Some(502)),
                (sample!("200-code-3050"), Some(400)),
            ] {
                match heard(sample, size).await.unwrap_err() {
                    SpeechFailure::Status { status, .. } => assert_eq!(Some(status), expected, "{sample}"),
                    failure => assert_eq!((failure, None), (SpeechFailure::Timeout, expected), "{sample}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_success_without_audio_and_a_clip_cut_short_are_failures() {
        for document in [
            "",
            "{}",
            "[]",
            "<html>",
            r#"{"code":3000}"#,
            r#"{"code":3000,"data":""}"#,
            r#"{"code":3000,"data":"AAAA*AAA"}"#,
            r#"{"code":3000,"data":"AAAAA"}"#,
        ] {
            assert!(matches!(heard(document, 64).await, Err(SpeechFailure::NoAudio(_))), "{document}");
        }
        for document in [r#"{"code":3000,"data":"AAAA"#, r#"{"code":3000,"data":"AAAABBBB*CCC"}"#] {
            assert!(matches!(heard(document, 25).await, Err(SpeechFailure::Transport(_))), "{document}");
        }
    }
}
