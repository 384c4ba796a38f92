//! Audio out of a JSON document while it arrives: the base64 text of the member `data` is decoded piece by piece, so that
//! a long clip is never held as a whole.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// The longest member name or text that is kept.
const KEPT: usize = 256;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads one document. Understands just enough of JSON to tell the members of the outermost object apart.
#[derive(Debug, Default)]
pub(super) struct Clip {
    depth: u32,
    inside: Inside,
    escaped: bool,
    /// Whether the next text at the outermost level is the name of a member.
    wants_name: bool,
    name: Vec<u8>,
    message: Vec<u8>,
    number: Vec<u8>,
    code: Option<i64>,
    /// Base64 not decoded yet.
    digits: Vec<u8>,
    begun: bool,
    ended: bool,
    broken: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    Name,
    Data,
    Message,
    Other,
    Number,
}

impl Clip {
    /// Takes the next bytes of the document and gives the audio they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        for byte in bytes {
            self.take(*byte);
        }
        let whole = if self.ended { self.digits.len() } else { self.digits.len() / 4 * 4 };
        let ready: Vec<u8> = self.digits.drain(..whole).collect();
        LENIENT.decode(&ready).unwrap_or_else(|_| {
            self.broken = true;
            Vec::new()
        })
    }

    /// The provider's code, once read.
    pub(super) fn code(&self) -> Option<i64> {
        self.code
    }

    /// What it says beside the code.
    pub(super) fn message(&self) -> &str {
        std::str::from_utf8(&self.message).unwrap_or_default()
    }

    /// Whether the audio had an end and was all base64.
    pub(super) fn is_whole(&self) -> bool {
        self.begun && self.ended && !self.broken
    }

    fn take(&mut self, byte: u8) {
        match self.inside {
            Inside::Nothing => self.between(byte),
            Inside::Number if matches!(byte, b'0'..=b'9' | b'-') => self.number.push(byte),
            Inside::Number => {
                self.code = std::str::from_utf8(&self.number).ok().and_then(|text| text.parse().ok());
                self.inside = Inside::Nothing;
                self.between(byte);
            }
            _ if self.escaped => {
                self.escaped = false;
                match (self.inside, byte) {
                    // The only escape that may stand for a digit of base64.
                    (Inside::Data, b'/') => self.digits.push(b'/'),
                    (Inside::Data, _) => self.broken = true,
                    _ => self.keep(byte),
                }
            }
            _ if byte == b'\\' => self.escaped = true,
            _ if byte == b'"' => {
                self.ended |= self.inside == Inside::Data;
                self.inside = Inside::Nothing;
            }
            Inside::Data => self.digits.push(byte),
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        let kept = match self.inside {
            Inside::Name => &mut self.name,
            Inside::Message => &mut self.message,
            _ => return,
        };
        if kept.len() < KEPT {
            kept.push(byte);
        }
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.wants_name = byte == b'{' && self.depth == 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' => self.wants_name = self.depth == 1,
            b':' => self.wants_name = false,
            b'"' => self.inside = self.text(),
            b'0'..=b'9' | b'-' if self.depth == 1 && self.name == b"code" && !self.wants_name => {
                self.number = vec![byte];
                self.inside = Inside::Number;
            }
            _ => {}
        }
    }

    fn text(&mut self) -> Inside {
        if self.depth != 1 {
            return Inside::Other;
        }
        if self.wants_name {
            self.name.clear();
            return Inside::Name;
        }
        match self.name.as_slice() {
            b"data" if !self.begun => {
                self.begun = true;
                Inside::Data
            }
            b"message" => Inside::Message,
            _ => Inside::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_clip_survives_any_cut(audio in proptest::collection::vec(any::<u8>(), 0..600), size in 1..64usize) {
            let data = STANDARD.encode(&audio).replace('/', "\\/");
            let document = format!(
                r#" {{ "reqid":"x\"data\":\"AAAA", "addition": {{"data":"AAAA","code":1}}, "list":["data",{{"a":2}}],
                "data" : "{data}" , "message":"fine \"so\"", "code" : 3000 }} "#
            );
            let mut clip = Clip::default();
            let heard: Vec<u8> = document.as_bytes().chunks(size).flat_map(|piece| clip.feed(piece)).collect();
            prop_assert_eq!(heard, audio);
            prop_assert_eq!((clip.code(), clip.message()), (Some(3_000), "fine \"so\""));
            prop_assert!(clip.is_whole());
        }

        #[test]
        fn garbage_is_survived(garbage in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut clip = Clip::default();
            clip.feed(&garbage);
            prop_assert!(!clip.is_whole() || garbage.windows(6).any(|window| window == b"\"data\""));
        }
    }
}
