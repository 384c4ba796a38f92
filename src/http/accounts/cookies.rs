//! Signed cookies (contract `auth.md` §4.2, §4.3).

use std::sync::Arc;

use poem::Response;
use poem::http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, COOKIE, SET_COOKIE};
use poem::http::{HeaderMap, HeaderValue};

use crate::core::accounts::SignIn;
use crate::core::model::accounts::Session;

/// Makes and reads the cookies of sessions.
#[derive(Clone)]
pub struct Cookies {
    sign_in: Arc<SignIn>,
    secure: bool,
}

const TOKEN: &str = "better-auth.session_token";
const DATA: &str = "better-auth.session_data";
const FORGET: &str = "better-auth.dont_remember";
const ATTRIBUTES: &str = "Path=/; HttpOnly; SameSite=Lax";
/// Seven days, as the session itself.
const WEEK: u32 = 604_800;
/// Base64 of 32 bytes.
const SIGNATURE: usize = 44;

impl Cookies {
    /// Under an `https` origin names and attributes tell browsers to keep them there.
    pub fn new(sign_in: Arc<SignIn>, origin: &str) -> Self {
        Self { sign_in, secure: origin.starts_with("https://") }
    }

    /// The session token of the request, when its cookie was made by us.
    pub fn token(&self, headers: &HeaderMap) -> Option<String> {
        self.read(headers, TOKEN)
    }

    /// Whether the session is to end with the browser.
    pub fn forgets(&self, headers: &HeaderMap) -> bool {
        self.read(headers, FORGET).as_deref() == Some("true")
    }

    /// The value of a signed cookie of ours, named without the prefix.
    pub fn read(&self, headers: &HeaderMap, name: &str) -> Option<String> {
        let name = self.name(name);
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let found = lines
            .flat_map(|line| line.split(';'))
            .find_map(|pair| pair.trim().split_once('=').filter(|(found, _)| *found == name))?;
        self.open(found.1)
    }

    /// The text of `text.signature`, percent-encoded or not, when the signature is ours.
    pub fn open(&self, signed: &str) -> Option<String> {
        let signed = percent_decode(signed)?;
        let (text, signature) = signed.rsplit_once('.')?;
        let shaped = signature.len() == SIGNATURE && signature.ends_with('=');
        (shaped && self.sign_in.letters.signatures.verifies(text, signature)).then(|| text.to_owned())
    }

    /// Signs a session in: its cookie, its header, and the mark of one that is not to be remembered.
    pub fn put(&self, answer: &mut Response, session: &Session, remember: bool) {
        let token = session.token.expose();
        let signed = format!("{token}.{}", self.sign_in.letters.signatures.sign(token));
        self.add(answer, TOKEN, &signed, remember.then_some(WEEK));
        if !remember {
            self.put_signed(answer, FORGET, "true", None);
        }
        if let Ok(mut value) = HeaderValue::from_str(&signed) {
            value.set_sensitive(true);
            let headers = answer.headers_mut();
            headers.insert("set-auth-token", value);
            headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("set-auth-token"));
        }
    }

    /// Sets a signed cookie, named without the prefix; without `max_age` (s) it ends with the browser.
    pub fn put_signed(&self, answer: &mut Response, name: &str, text: &str, max_age: Option<u32>) {
        let signed = format!("{text}.{}", self.sign_in.letters.signatures.sign(text));
        self.add(answer, name, &signed, max_age);
    }

    /// Signs out: every cookie of a session ends.
    pub fn clear(&self, answer: &mut Response) {
        for name in [TOKEN, DATA, FORGET] {
            self.add(answer, name, "", Some(0));
        }
    }

    /// Ends one cookie, named without the prefix.
    pub fn clear_one(&self, answer: &mut Response, name: &str) {
        self.add(answer, name, "", Some(0));
    }

    fn add(&self, answer: &mut Response, name: &str, value: &str, max_age: Option<u32>) {
        let (name, value) = (self.name(name), percent_encode(value));
        let age = max_age.map(|seconds| format!("Max-Age={seconds}; ")).unwrap_or_default();
        let secure = if self.secure { "; Secure" } else { "" };
        if let Ok(mut line) = HeaderValue::from_str(&format!("{name}={value}; {age}{ATTRIBUTES}{secure}")) {
            line.set_sensitive(true);
            answer.headers_mut().append(SET_COOKIE, line);
        }
    }

    fn name(&self, name: &str) -> String {
        let prefix = if self.secure { "__Secure-" } else { "" };
        format!("{prefix}{name}")
    }
}

/// Everything but `A-Za-z0-9 - _ . ! ~ * ' ( )`.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Nothing for what is not UTF-8 after decoding; a lone percent sign stands for itself.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let escaped = pair.filter(|_| byte == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_undone_by_decoding() {
        let text = "AbC.P4ZWq3NtKBVrQ/1xeSYM5vw0mng2+k85u4OEa5VJ8CQ=";
        assert_eq!(percent_encode(text), "AbC.P4ZWq3NtKBVrQ%2F1xeSYM5vw0mng2%2Bk85u4OEa5VJ8CQ%3D");
        assert_eq!(percent_decode(&percent_encode(text)).unwrap(), text);
        for (odd, decoded) in [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("a+b", "a+b"), ("%2", "%2"), ("é", "é")] {
            assert_eq!(percent_decode(odd).as_deref(), Some(decoded), "{odd}");
        }
        assert_eq!(percent_decode("%ff"), None);
    }
}
