//! Events out of bytes: the `text/event-stream` format of the HTML standard, fed in pieces of any size.

/// The longest event that is read, in bytes; a longer one is skipped without being kept.
const EVENT_CAP: usize = 1 << 20;

/// What lay at the end of the bytes that were taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Boundary {
    /// An event ended; its data, lines joined by `\n`. Empty for a comment.
    Event(Vec<u8>),
    /// An event ended that was longer than is read.
    Unparsed,
    /// A line ended, or the bytes did, inside an event.
    Within,
}

/// Finds the ends of events. Line ends are `\n`, `\r\n` or `\r`; the data field may do without its space.
#[derive(Debug, Default)]
pub struct EventSplitter {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// Bytes of the current event, line ends included.
    size: usize,
    /// Whether the current event has lines other than comments.
    has_fields: bool,
    /// Whether a first line was seen, before which a byte order mark may stand.
    begun: bool,
    /// The last byte taken was a carriage return that ended a line; a line feed next to it belongs to it.
    after_carriage: bool,
    /// Lines end in `\r\n`, as far as seen.
    pairs: bool,
    /// The carriage return of a blank line was taken and, lines ending in `\r\n`, its line feed is awaited: the event
    /// must not end in the middle of a pair.
    awaits_feed: bool,
}

impl EventSplitter {
    /// Takes bytes up to the next end of a line and says what ended there. May take none when what came before turns
    /// out to have been the end of an event; call again until all are taken.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Boundary) {
        let Some(&first) = bytes.first() else { return (0, Boundary::Within) };
        if std::mem::take(&mut self.awaits_feed) {
            self.pairs = first == b'\n';
            return (usize::from(self.pairs), self.end_event());
        }
        if std::mem::take(&mut self.after_carriage) {
            self.pairs = first == b'\n';
            if self.pairs {
                return (1, Boundary::Within);
            }
        }
        let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.take(bytes);
            return (bytes.len(), Boundary::Within);
        };
        self.take(&bytes[..end]);
        self.size = self.size.saturating_add(1);
        if bytes[end] == b'\n' {
            return (end + 1, self.end_line());
        }
        match bytes.get(end + 1) {
            Some(&next) => {
                self.pairs = next == b'\n';
                (end + 1 + usize::from(self.pairs), self.end_line())
            }
            None if self.pairs && self.line.is_empty() => {
                self.awaits_feed = true;
                (end + 1, Boundary::Within)
            }
            None => {
                self.after_carriage = true;
                (end + 1, self.end_line())
            }
        }
    }

    /// Whether bytes were taken whose event has not ended.
    pub fn is_inside(&self) -> bool {
        self.size > 0
    }

    /// Whether the bytes taken so far may go on although their event has not ended: only comments, or too long.
    pub fn may_pass(&self) -> bool {
        self.size == 0 || self.size > EVENT_CAP || (!self.has_fields && self.line.is_empty())
    }

    /// The bytes ended: the data of an event that lacks its blank line.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if !self.line.is_empty() {
            self.end_line();
        }
        match self.end_event() {
            Boundary::Event(data) => Some(data),
            Boundary::Unparsed | Boundary::Within => None,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.size = self.size.saturating_add(bytes.len());
        if self.size <= EVENT_CAP {
            self.line.extend_from_slice(bytes);
            return;
        }
        // Too long to be read: one byte is enough to know that the line is not blank.
        self.data = None;
        if self.line.is_empty() && !bytes.is_empty() {
            self.line.push(b' ');
        }
        self.line.truncate(1);
    }

    fn end_line(&mut self) -> Boundary {
        if self.line.is_empty() {
            return self.end_event();
        }
        let first = !std::mem::replace(&mut self.begun, true);
        let line = std::mem::take(&mut self.line);
        let text = if first { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line) } else { &line };
        self.has_fields |= !text.is_empty() && text[0] != b':';
        if self.size <= EVENT_CAP
            && let Some(value) = data_of(text)
        {
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
        // The buffer is kept: lines of a stream are of a size.
        self.line = line;
        self.line.clear();
        Boundary::Within
    }

    fn end_event(&mut self) -> Boundary {
        let size = std::mem::take(&mut self.size);
        let data = self.data.take().unwrap_or_default();
        self.has_fields = false;
        if size > EVENT_CAP { Boundary::Unparsed } else { Boundary::Event(data) }
    }
}

fn data_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}
