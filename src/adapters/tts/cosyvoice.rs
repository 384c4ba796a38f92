//! Alibaba CosyVoice over HTTP: one call that names a file, one that fetches it (contract `audio.md` §4.2).

use bytes::Bytes;
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, Response};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::wire::{Limits, audio, document, media_type, said, send};
use super::{Egress, UNSUPPORTED_FORMAT};
use crate::ports::tts::{SpeechAttempt, SpeechFailure, SpokenAudio};

const DEFAULT_MODEL: &str = "cosyvoice-v2";
const DEFAULT_VOICE: &str = "longxiaochun_v2";
/// Where files lie unless `adapterParams.downloadHosts` says otherwise.
const FILES: &str = "aliyuncs.com";
/// The longest answer of the first call, bytes.
const ANSWER_CAP: usize = 64 * 1024;

#[derive(Serialize)]
struct Call<'a> {
    model: &'a str,
    input: Input<'a>,
}

#[derive(Serialize)]
struct Input<'a> {
    text: &'a str,
    voice: &'a str,
    format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
}

pub(super) async fn speak(
    egress: &Egress,
    attempt: &SpeechAttempt,
    limits: Limits,
) -> Result<SpokenAudio, SpeechFailure> {
    let format = format_of(attempt)?;
    let url = (egress.admit)(&attempt.base_url).map_err(SpeechFailure::Misconfigured)?;
    let call = Call {
        model: model_of(attempt),
        input: Input { text: &attempt.text, voice: voice_of(attempt), format, rate: rate_of(attempt.speed) },
    };
    let request = egress.client.request(Method::POST, url).header(AUTHORIZATION, bearer(attempt)?).json(&call);
    let answer = document(send(egress, request, limits).await?, limits, ANSWER_CAP).await?;
    let address = file_address(&answer)?;
    let response = fetch(egress, attempt, &address, limits).await?;
    audio(response, media_type(format).to_owned(), limits).await
}

pub(super) fn model_of(attempt: &SpeechAttempt) -> &str {
    attempt.params.get("model").and_then(Value::as_str).unwrap_or(DEFAULT_MODEL)
}

pub(super) fn voice_of(attempt: &SpeechAttempt) -> &str {
    attempt.voice.as_deref().unwrap_or(DEFAULT_VOICE)
}

pub(super) fn format_of(attempt: &SpeechAttempt) -> Result<&str, SpeechFailure> {
    match attempt.response_format.as_deref().unwrap_or("mp3") {
        "" => Ok("mp3"),
        "aac" | "flac" => Err(UNSUPPORTED_FORMAT),
        format => Ok(format),
    }
}

/// Said only when it is not the usual (AU-D07).
pub(super) fn rate_of(speed: Option<f64>) -> Option<f64> {
    speed.map(|speed| speed.clamp(0.5, 2.0)).filter(|rate| (rate - 1.0).abs() > f64::EPSILON)
}

/// The value of `authorization`, refused when no header can carry it.
pub(super) fn bearer(attempt: &SpeechAttempt) -> Result<reqwest::header::HeaderValue, SpeechFailure> {
    let text = format!("Bearer {}", attempt.key.expose());
    let mut value = reqwest::header::HeaderValue::from_str(&text)
        .map_err(|_| SpeechFailure::Misconfigured("the key is not a valid header value".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn file_address(answer: &Bytes) -> Result<String, SpeechFailure> {
    let document: Value = serde_json::from_slice(answer).map_err(|_| SpeechFailure::NoAudio(said(answer)))?;
    if let Some(url) = document["output"]["audio"]["url"].as_str().filter(|url| !url.is_empty()) {
        return Ok(url.to_owned());
    }
    Err(match document["code"].as_str() {
        Some(code) => refusal(code, document["message"].as_str().unwrap_or_default()),
        None => SpeechFailure::NoAudio(said(answer)),
    })
}

/// A code of the provider where a success was due, as the status it stands for.
pub(super) fn refusal(code: &str, message: &str) -> SpeechFailure {
    let status = match code {
        "InvalidApiKey" => 401,
        "InvalidParameter" | "DataInspectionFailed" => 400,
        _ if code == "Throttling" || code.starts_with("Throttling.") => 429,
        _ => return SpeechFailure::NoAudio(format!("{code}: {message}").chars().take(256).collect()),
    };
    let body = serde_json::json!({ "code": code, "message": message }).to_string();
    SpeechFailure::Status { status, body: body.into(), retry_after: None }
}

/// Fetches the file without credentials. The address comes from a third party: only hosts of the provider, only public
/// addresses, encrypted unless that fails (AU-D08).
async fn fetch(
    egress: &Egress,
    attempt: &SpeechAttempt,
    address: &str,
    limits: Limits,
) -> Result<Response, SpeechFailure> {
    let plain = Url::parse(address).map_err(|_| SpeechFailure::NoAudio("the file has no usable address".to_owned()))?;
    let refused = |why: &str| SpeechFailure::NoAudio(format!("the address of the file is refused: {why}"));
    if !matches!(plain.scheme(), "http" | "https") {
        return Err(refused("scheme"));
    }
    if !is_file_host(&plain, attempt) {
        return Err(refused("host"));
    }
    let mut secure = plain.clone();
    secure.set_scheme("https").map_err(|()| refused("scheme"))?;
    let secure = (egress.admit)(secure.as_str()).map_err(|why| refused(&why))?;
    if plain.scheme() == "http" && plain.port().is_some() {
        // Nobody speaks TLS on a port of plain http.
        return fetched(send(egress, egress.client.get(plain), limits).await);
    }
    let request = egress.client.get(secure).build();
    let request = request.map_err(|error| SpeechFailure::NoAudio(super::wire::explain(error)))?;
    let encrypted = egress.bounded.send(request);
    let encrypted = tokio::time::timeout_at(limits.first_byte, encrypted).await.map_err(|_| SpeechFailure::Timeout)?;
    let response = match encrypted {
        Ok(response) => response,
        Err(error) if plain.scheme() == "http" && error.is_connect() => {
            // The name resolves through the same guarded resolver, and a literal address was judged above.
            return fetched(send(egress, egress.client.get(plain), limits).await);
        }
        Err(error) => return Err(SpeechFailure::Transport(error.explain())),
    };
    if response.status().is_success() {
        return Ok(response);
    }
    Err(SpeechFailure::NoAudio(format!("the file answered {}", response.status().as_u16())))
}

/// The file lies with another party: its refusals say nothing about the key or the request.
fn fetched(answer: Result<Response, SpeechFailure>) -> Result<Response, SpeechFailure> {
    answer.map_err(|failure| match failure {
        SpeechFailure::Status { status, .. } => SpeechFailure::NoAudio(format!("the file answered {status}")),
        other => other,
    })
}

fn is_file_host(url: &Url, attempt: &SpeechAttempt) -> bool {
    let Some(host) = url.host_str() else { return false };
    match attempt.params.get("downloadHosts").and_then(Value::as_array) {
        Some(hosts) => hosts.iter().filter_map(Value::as_str).any(|allowed| is_below(host, allowed)),
        None => is_below(host, FILES),
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_the_documented_one_in_its_order() {
        let body = |rate| {
            let input = Input { text: "你好", voice: "v", format: "mp3", rate };
            serde_json::to_string(&Call { model: "cosyvoice-v2", input }).unwrap()
        };
        assert_eq!(body(None), r#"{"model":"cosyvoice-v2","input":{"text":"你好","voice":"v","format":"mp3"}}"#);
        assert!(body(Some(1.5)).ends_with(r#""format":"mp3","rate":1.5}}"#));
        assert_eq!((rate_of(Some(1.0)), rate_of(None), rate_of(Some(4.0))), (None, None, Some(2.0)));
    }

    #[test]
    fn a_success_names_a_file_or_says_why_not() {
        let fixture = |text: &'static str| file_address(&Bytes::from_static(text.as_bytes()));
        let ok = include_str!("../../../tests/fixtures/provider-responses/cosyvoice-200.json");
        assert!(fixture(ok).unwrap().starts_with("http://result-bucket.oss-cn-beijing.aliyuncs.com/"));
        let empty = include_str!("../../../tests/fixtures/provider-responses/cosyvoice-200-empty.json");
        assert!(matches!(fixture(empty), Err(SpeechFailure::NoAudio(_))));
        let status = |code| match refusal(code, "m") {
            SpeechFailure::Status { status, .. } => Some(status),
            _ => None,
        };
        assert_eq!(status("InvalidApiKey"), Some(401));
        assert_eq!(status("Throttling.RateQuota"), Some(429));
        assert_eq!(status("DataInspectionFailed"), Some(400));
        assert_eq!(status("InternalError"), None);
    }

    #[test]
    fn only_hosts_of_the_provider_hold_files() {
        for (host, known) in [
            ("x.oss-cn-beijing.aliyuncs.com", true),
            ("aliyuncs.com", true),
            ("evilaliyuncs.com", false),
            ("aliyuncs.com.evil.example", false),
            ("169.254.169.254", false),
        ] {
            assert_eq!(is_below(host, FILES), known, "{host}");
        }
    }
}
