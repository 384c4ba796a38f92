//! One speech stream as a state machine without sockets, clocks or money (contract `audio.md` §6).
//!
//! Whoever drives it feeds what happened and does what it answers, in order. It has the last word exactly once:
//! [`Output::End`].

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::spoken_error::sanitised;
use crate::core::model::request_log::MODEL_CHARS;
use crate::core::model::tts::{Frame, units};

/// Frames and bytes that may wait for the upstream to open (AU-D15).
const QUEUE_FRAMES: usize = 64;
const QUEUE_BYTES: usize = 1 << 20;
/// The longest frames of a client (AU-D22).
const MAX_TEXT: usize = 64 * 1024;
const MAX_BINARY: usize = 256 * 1024;
/// How long the first frame is waited for (AU-D13).
const START_WAIT: Duration = Duration::from_secs(10);
/// Longest silence in both directions, longest session, and how often the client is pinged (AU-D21).
const IDLE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(15 * 60);
const PING: Duration = Duration::from_secs(25);
/// How a client is let go that told the upstream to stop.
const CANCELLED: Option<(u16, &str)> = Some((1000, "session_cancelled"));
/// The label of a session whose client named no model.
const NO_MODEL: &str = "streaming-tts";
/// A provider's count beyond this many times the text sent, and a little, is not believed.
const MOST_PER_UNIT: i64 = 4;
const MOST_BESIDE: i64 = 16;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The client said something.
    Client(Frame),
    /// The client said more than a socket accepts.
    ClientTooLarge,
    /// The client closed, or its connection ended.
    ClientLeft,
    /// The client's connection broke.
    ClientBroken,
    /// The client did not take what it was sent for 30 s.
    ClientSlow,
    /// The upstream is open.
    Dialled,
    /// The upstream did not open.
    DialFailed(Undialled),
    /// The upstream said something.
    Upstream(Frame),
    /// The upstream closed, or its connection broke.
    UpstreamClosed,
    /// A frame could not be sent to the upstream.
    SendFailed,
    /// Time passed; comes at least every second.
    Tick,
    /// The server stops.
    Shutdown,
}

/// Why the upstream did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undialled {
    /// Its address cannot be used.
    Unusable,
    /// It refused, or could not be reached.
    Refused,
    /// It took too long.
    Timeout,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open the upstream with the key at this position.
    Dial(usize),
    /// Say this to the upstream.
    Forward(Frame),
    /// Say this to the client.
    Send(Frame),
    /// Ping the client.
    Ping,
    /// Audio came for the first time, this long after the first text.
    FirstAudio(Duration),
    /// Let go of everything, settle, and close. Nothing follows.
    End(End),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// How the client's socket is closed; absent when the client is gone.
    pub close: Option<(u16, &'static str)>,
    /// Whether the upstream is told to stop, if it is open.
    pub cancel: bool,
    /// What is owed and told; absent when the session leaves no row.
    pub bill: Option<Bill>,
    /// `finished`, `client_closed`, `upstream_error` or `timeout`.
    pub outcome: &'static str,
}

/// What is owed for a session, and how its row ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The model the client named.
    pub model: String,
    /// Units to be billed.
    pub units: i64,
    /// Units spoken, but not asked of the user.
    pub forgiven: i64,
    /// Status of the row.
    pub status: u16,
    /// Code of the row.
    pub error: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitingStart,
    Dialling,
    Open,
    Ended,
}

/// One session of an admitted client.
#[derive(Debug)]
pub struct Session {
    state: State,
    /// Keys there are to dial with, and the one in use.
    keys: usize,
    key: usize,
    queue: VecDeque<Frame>,
    queued: usize,
    model: String,
    /// Units of text the upstream was sent.
    forwarded: i64,
    audio: bool,
    /// The client told the upstream to stop: however that ends then, it is the client's end.
    cancelled: bool,
    started: Duration,
    last_frame: Duration,
    last_ping: Duration,
    first_text: Option<Duration>,
}

impl Session {
    /// A session that begins `now`, with this many keys to dial with.
    pub fn new(now: Duration, keys: usize) -> Self {
        Self {
            state: State::AwaitingStart,
            keys,
            key: 0,
            queue: VecDeque::new(),
            queued: 0,
            model: NO_MODEL.to_owned(),
            forwarded: 0,
            audio: false,
            cancelled: false,
            started: now,
            last_frame: now,
            last_ping: now,
            first_text: None,
        }
    }

    /// The model the client named.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Takes what happened and says what is to be done, in order. After the end it says nothing.
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Output> {
        if self.state == State::Ended {
            return Vec::new();
        }
        match input {
            Input::Client(frame) => {
                self.last_frame = now;
                self.client(now, frame)
            }
            Input::Upstream(frame) => {
                self.last_frame = now;
                self.upstream(now, frame)
            }
            Input::Dialled => {
                self.state = State::Open;
                self.queued = 0;
                let waiting = std::mem::take(&mut self.queue);
                waiting.into_iter().map(|frame| self.forward(now, frame)).collect()
            }
            Input::DialFailed(why) => self.undialled(why),
            Input::Tick => self.tick(now),
            Input::ClientTooLarge => self.end_for_client(Some((1009, "frame_too_large"))),
            Input::ClientLeft => self.end_for_client(None),
            Input::ClientBroken => self.end_for_client(Some((1011, "internal_error"))),
            Input::ClientSlow => self.end_for_client(Some((1013, "slow_consumer"))),
            Input::UpstreamClosed | Input::SendFailed if self.cancelled => self.end_for_client(CANCELLED),
            Input::UpstreamClosed => self.end_for_upstream((1011, "upstream_closed"), 502, Vec::new()),
            Input::SendFailed => self.end_for_upstream((1011, "upstream_send_failed"), 502, Vec::new()),
            Input::Shutdown => self.end_for_upstream((1001, "server_shutdown"), 503, Vec::new()),
        }
    }

    fn client(&mut self, now: Duration, frame: Frame) -> Vec<Output> {
        let limit = if matches!(frame, Frame::Text(_)) { MAX_TEXT } else { MAX_BINARY };
        if frame.bytes() > limit {
            return self.end_for_client(Some((1009, "frame_too_large")));
        }
        match self.state {
            State::AwaitingStart => {
                let Some(start) = event(&frame).filter(|event| event["event"] == "start") else {
                    return self.refuse("invalid_first_frame");
                };
                if let Some(model) = start["model"].as_str().filter(|model| !model.is_empty()) {
                    self.model = model.chars().take(MODEL_CHARS).collect();
                }
                self.state = State::Dialling;
                self.enqueue(frame);
                vec![Output::Dial(0)]
            }
            State::Dialling if self.queue.len() >= QUEUE_FRAMES || self.queued + frame.bytes() > QUEUE_BYTES => {
                self.end_for_client(Some((1009, "queue_overflow")))
            }
            State::Dialling => {
                self.enqueue(frame);
                Vec::new()
            }
            State::Open => vec![self.forward(now, frame)],
            State::Ended => Vec::new(),
        }
    }

    fn enqueue(&mut self, frame: Frame) {
        self.queued += frame.bytes();
        self.queue.push_back(frame);
    }

    /// Text is owed for from the moment the upstream is sent it.
    fn forward(&mut self, now: Duration, frame: Frame) -> Output {
        let said = event(&frame).unwrap_or_default();
        match said["event"].as_str() {
            Some("text") => {
                let spoken = units(said["text"].as_str().unwrap_or_default());
                self.forwarded = self.forwarded.saturating_add(spoken);
                self.first_text.get_or_insert(now);
            }
            Some("cancel") => self.cancelled = true,
            _ => {}
        }
        Output::Forward(frame)
    }

    fn upstream(&mut self, now: Duration, frame: Frame) -> Vec<Output> {
        if let Frame::Binary(bytes) = &frame {
            let first = !bytes.is_empty() && !std::mem::replace(&mut self.audio, true);
            let after = self.first_text.filter(|_| first).map(|text| Output::FirstAudio(now.saturating_sub(text)));
            return std::iter::once(Output::Send(frame)).chain(after).collect();
        }
        let said = event(&frame).unwrap_or_default();
        match said["event"].as_str() {
            Some("session.finished") => self.finished(frame, &said["payload"]["usage"]["text_words"]),
            Some("error") => {
                let code = said["code"].as_str().filter(|code| is_code(code)).unwrap_or("upstream_error");
                let message = sanitised(said["message"].as_str().unwrap_or_default());
                let told = vec![error(code, &message)];
                if self.cancelled {
                    return told.into_iter().chain(self.end_for_client(CANCELLED)).collect();
                }
                self.end_for_upstream((1011, "upstream_error"), 502, told)
            }
            _ => vec![Output::Send(frame)],
        }
    }

    /// The provider's count decides; a broken one must not drain a balance.
    fn finished(&mut self, frame: Frame, reported: &Value) -> Vec<Output> {
        let most = self.forwarded.saturating_mul(MOST_PER_UNIT).saturating_add(MOST_BESIDE);
        let units = whole(reported).map_or(self.forwarded, |units| units.min(most));
        let bill = Bill { units, status: 200, ..self.nothing() };
        self.state = State::Ended;
        let end = End {
            close: Some((1000, "session_finished")),
            cancel: false,
            bill: (units > 0).then_some(bill),
            outcome: "finished",
        };
        vec![Output::Send(frame), Output::End(end)]
    }

    fn undialled(&mut self, why: Undialled) -> Vec<Output> {
        if why == Undialled::Unusable {
            let told = vec![error("config_unavailable", "config_unavailable")];
            return self.end_for_upstream((1011, "config_unavailable"), 503, told);
        }
        self.key += 1;
        if self.key < self.keys {
            return vec![Output::Dial(self.key)];
        }
        let told = vec![error("upstream_error", "Upstream connection failed")];
        match why {
            Undialled::Timeout => self.end_for_upstream((1011, "upstream_timeout"), 504, told),
            _ => self.end_for_upstream((1011, "upstream_error"), 502, told),
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Output> {
        if now.saturating_sub(self.started) >= LONGEST {
            return self.timed_out("session_timeout");
        }
        if self.state == State::AwaitingStart && now.saturating_sub(self.started) >= START_WAIT {
            return self.refuse("invalid_first_frame");
        }
        if now.saturating_sub(self.last_frame) >= IDLE {
            return self.timed_out("idle_timeout");
        }
        if now.saturating_sub(self.last_ping) >= PING {
            self.last_ping = now;
            return vec![Output::Ping];
        }
        Vec::new()
    }

    /// The client's first word was not the right one.
    fn refuse(&mut self, reason: &'static str) -> Vec<Output> {
        self.state = State::Ended;
        let end = End { close: Some((1008, reason)), cancel: false, bill: None, outcome: "client_closed" };
        vec![error(reason, reason), Output::End(end)]
    }

    /// The client is at an end: what it heard is owed, as far as the upstream was sent it (AU-D16).
    fn end_for_client(&mut self, close: Option<(u16, &'static str)>) -> Vec<Output> {
        self.let_go(close, "client_closed")
    }

    fn timed_out(&mut self, reason: &'static str) -> Vec<Output> {
        self.let_go(Some((1001, reason)), "timeout")
    }

    fn let_go(&mut self, close: Option<(u16, &'static str)>, outcome: &'static str) -> Vec<Output> {
        let units = if self.audio { self.forwarded } else { 0 };
        let bill = (self.state != State::AwaitingStart).then(|| Bill { units, status: 499, ..self.nothing() });
        let cancel = self.state == State::Open && !self.cancelled;
        self.state = State::Ended;
        vec![Output::End(End { close, cancel, bill, outcome })]
    }

    /// The upstream, or this server, is at fault: nothing is owed (AU-D17).
    fn end_for_upstream(&mut self, close: (u16, &'static str), status: u16, mut told: Vec<Output>) -> Vec<Output> {
        let forgiven = if self.audio { self.forwarded } else { 0 };
        let bill = Bill { forgiven, status, error: Some(close.1), ..self.nothing() };
        let bill = (self.state != State::AwaitingStart).then_some(bill);
        let cancel = self.state == State::Open && status == 503;
        self.state = State::Ended;
        let end = End { close: Some(close), cancel, bill, outcome: "upstream_error" };
        told.push(Output::End(end));
        told
    }

    fn nothing(&self) -> Bill {
        Bill { model: self.model.clone(), units: 0, forgiven: 0, status: 0, error: None }
    }
}

/// The event of a text frame; nothing for binary frames and text that is no JSON object.
fn event(frame: &Frame) -> Option<Value> {
    let Frame::Text(text) = frame else { return None };
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// What the client is told before its socket is closed.
pub fn error_frame(code: &str, message: &str) -> Frame {
    Frame::Text(json!({ "event": "error", "code": code, "message": message }).to_string())
}

fn error(code: &str, message: &str) -> Output {
    Output::Send(error_frame(code, message))
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

/// A finite number that is not negative, without its fraction.
fn whole(value: &Value) -> Option<i64> {
    if let Some(whole) = value.as_i64() {
        return (whole >= 0).then_some(whole);
    }
    let number = value.as_f64().filter(|number| number.is_finite() && *number >= 0.0)?;
    let text = format!("{:.0}", number.floor());
    Some(text.parse().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
