//! What an upstream says about its trouble, made fit for a client: no address, no credential, no end.

use crate::core::llm::sanitise::explanation;

/// Longest text a client sees, characters.
const CHARS: usize = 500;

/// The text without addresses and credentials; never empty.
pub fn sanitised(text: &str) -> String {
    let document = serde_json::json!({ "message": text }).to_string();
    let words = explanation(502, document.as_bytes(), "");
    let clean = |word: &str| if is_address(word) { "[redacted]".to_owned() } else { word.to_owned() };
    let words: String = words.split(' ').map(clean).collect::<Vec<_>>().join(" ").chars().take(CHARS).collect();
    if text.trim().is_empty() { "Upstream failed".to_owned() } else { words }
}

/// An URL, an IP address, or a host with a port.
fn is_address(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '[' && c != ']');
    if word.contains("://") {
        return true;
    }
    let dotted = word.split(':').next().unwrap_or_default();
    let quads: Vec<_> = dotted.split('.').collect();
    let is_v4 = quads.len() == 4 && quads.iter().all(|quad| quad.parse::<u8>().is_ok());
    let is_v6 = word.matches(':').count() >= 2 && word.chars().all(|c| c.is_ascii_hexdigit() || ":[].".contains(c));
    let has_port = word.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !port.is_empty()
            && port.parse::<u16>().is_ok()
            && host.contains(|c: char| c.is_alphabetic())
    });
    is_v4 || is_v6 || has_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_credentials_do_not_pass() {
        for (said, clean) in [
            ("quota exceeded", "quota exceeded"),
            ("dial tcp 10.0.0.7:443: refused", "dial tcp [redacted] refused"),
            ("see wss://inner.example/x now", "see [redacted] now"),
            ("host tts.internal:8080 is down", "host [redacted] is down"),
            ("[::1]:9 closed", "[redacted] closed"),
            ("Bearer abc.def was wrong", "[redacted] was wrong"),
            ("ratio 3:1 of 1.5", "ratio 3:1 of 1.5"),
            ("", "Upstream failed"),
        ] {
            assert_eq!(sanitised(said), clean, "{said}");
        }
        assert!(sanitised(&"é".repeat(900)).chars().count() <= 500);
    }
}
