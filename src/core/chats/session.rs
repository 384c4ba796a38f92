//! One chat socket as a machine without a socket (contract `chats.md` §5, §8).
//!
//! It decides what is answered, in which order calls run, what is sent to this device and when the socket ends; whoever
//! drives it owns the socket, the clock and the use-cases.
//!
//! A device that pulled up to a number and then hears a push far beyond it has missed something, and the shipped client
//! never looks. So the machine remembers for each chat the number up to which this device has everything, and what
//! jumps ahead is read from the log first ([`Call::Repair`]). Pushes heard while a call on the same chat runs are not
//! kept: the chat is marked, and read from the log after the call.

mod line;
mod signals;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::protocol::{Frame, Invoke, Message, Request, parse};
use crate::core::error::{Code, Error};
use crate::core::model::chats::{Heard, NewMessages};
use crate::core::model::ids::{ChatId, UserId};
use line::Line;

pub use signals::{Answer, Call, CallId, Close, Input, Output};

/// How long a socket without a token may take to say who it is.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long pushes wait for the first pull of their chat, where they are held.
pub const HOLD: Duration = Duration::from_millis(500);
const PING_EVERY: Duration = Duration::from_secs(30);
const RECHECK_EVERY: Duration = Duration::from_secs(60);
const MOST_MISSED: u8 = 2;
const MOST_QUEUED: usize = 256;
const MOST_QUEUED_BYTES: usize = 4 * 1024 * 1024;
const MOST_RUNNING: usize = 8;

/// The machine.
#[derive(Debug)]
pub struct Session {
    gate: Gate,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    running: HashMap<CallId, Running>,
    lines: HashMap<ChatId, Line>,
    next: CallId,
    pings: u8,
    last_ping: Duration,
    last_check: Duration,
    holding: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Gate {
    /// Nobody is known, until this time.
    Waiting(Duration),
    /// A token is being judged; the call that brought it waits.
    Judging(Invoke),
    Open,
    Closed,
}

#[derive(Debug)]
struct Queued {
    invoke: Invoke,
    chat: ChatId,
    request: Request,
    bytes: usize,
}

#[derive(Debug)]
struct Running {
    /// None for a repair.
    invoke: Option<Invoke>,
    chat: ChatId,
    /// What the line was to reach when the call began.
    target: i64,
}

impl Session {
    /// A socket that came with a good token.
    pub fn known(user: &UserId) -> (Self, Vec<Output>) {
        let mut session = Self::waiting();
        session.gate = Gate::Open;
        (session, vec![Output::Listen(user.clone()), Output::Send(Message::connected())])
    }

    /// Holds the pushes of a chat until its first pull is answered, [`HOLD`] at most: a device that takes the number of
    /// a push for the end of what it has, and drops before the page it asked for arrives, would lose what lies between.
    pub fn holding(mut self) -> Self {
        self.holding = true;
        self
    }

    /// A socket that came without a token and may still bring one.
    pub fn waiting() -> Self {
        Self {
            gate: Gate::Waiting(PATIENCE),
            queue: VecDeque::new(),
            queued_bytes: 0,
            running: HashMap::new(),
            lines: HashMap::new(),
            next: 0,
            pings: 0,
            last_ping: Duration::ZERO,
            last_check: Duration::ZERO,
            holding: false,
        }
    }

    /// Whether frames should be read: what cannot be run yet stays with its sender.
    pub fn is_hungry(&self) -> bool {
        self.queue.len() < MOST_QUEUED
            && self.queued_bytes < MOST_QUEUED_BYTES
            && !matches!(self.gate, Gate::Judging(_) | Gate::Closed)
    }

    /// Takes what happened and says what to do, in order.
    pub fn step(&mut self, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.gate == Gate::Closed {
            return outputs;
        }
        match input {
            Input::Text(text) => self.read(&text, &mut outputs),
            Input::Binary if self.gate == Gate::Open => {
                outputs.push(Output::Send(Message::malformed("binary frames are not read")));
            }
            Input::Binary => self.close(Close::Unauthorized, &mut outputs),
            Input::Pong => self.pings = 0,
            Input::Judged(verdict) => self.judged(verdict, &mut outputs),
            Input::Heard(Heard::Event(event)) => self.heard(&event.payload, &mut outputs),
            Input::Heard(Heard::Gap) => {
                // Whatever was missed lies behind what was delivered, however little that is.
                for line in self.lines.values_mut() {
                    line.gap = true;
                }
                self.repair_all(&mut outputs);
            }
            Input::Heard(Heard::Closed) => self.close(Close::Unauthorized, &mut outputs),
            Input::Done(id, result) => self.done(id, result, &mut outputs),
            Input::Tick(now) => self.tick(now, &mut outputs),
        }
        outputs
    }

    /// Ends the socket from outside.
    pub fn end(&mut self, why: Close) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.gate != Gate::Closed {
            self.close(why, &mut outputs);
        }
        outputs
    }

    fn close(&mut self, why: Close, outputs: &mut Vec<Output>) {
        self.gate = Gate::Closed;
        outputs.push(Output::Close(why));
    }

    fn read(&mut self, text: &str, outputs: &mut Vec<Output>) {
        let (invoke, request) = match parse(text) {
            Frame::Malformed(why) if self.gate == Gate::Open => {
                outputs.push(Output::Send(Message::malformed(why)));
                return;
            }
            Frame::Malformed(_) => return self.close(Close::Unauthorized, outputs),
            Frame::Silent => return,
            Frame::Call(invoke, request) => (invoke, request),
        };
        if self.gate != Gate::Open {
            let Ok(Request::Authenticate { token }) = request else {
                return self.close(Close::Unauthorized, outputs);
            };
            self.gate = Gate::Judging(invoke);
            outputs.push(Output::Authenticate(token));
            return;
        }
        let chat = match &request {
            Ok(Request::Send { chat, .. } | Request::Pull { chat, .. }) => chat.clone(),
            Ok(Request::Authenticate { .. }) => {
                let already = Error::new(Code::Conflict).saying("already authenticated");
                return outputs.push(Output::Send(Message::failure(&invoke, &already)));
            }
            Err(error) => return outputs.push(Output::Send(Message::failure(&invoke, error))),
        };
        if let Ok(request) = request {
            self.queued_bytes += text.len();
            self.queue.push_back(Queued { invoke, chat, request, bytes: text.len() });
            self.schedule(outputs);
        }
    }

    fn judged(&mut self, verdict: Result<Option<UserId>, Error>, outputs: &mut Vec<Output>) {
        match (std::mem::replace(&mut self.gate, Gate::Open), verdict) {
            (Gate::Judging(invoke), Ok(Some(user))) => {
                outputs.push(Output::Listen(user.clone()));
                outputs.push(Output::Send(Message::connected()));
                outputs.push(Output::Send(Message::authenticated(&invoke, &user)));
            }
            (_, Ok(None)) => self.close(Close::Unauthorized, outputs),
            (Gate::Judging(_), Err(_)) => self.close(Close::Overloaded, outputs),
            // A recheck: nothing was said against the token.
            (gate, _) => self.gate = gate,
        }
    }

    /// Starts what may run: calls of one chat one after another in order of arrival, chats beside each other.
    fn schedule(&mut self, outputs: &mut Vec<Output>) {
        let mut passed: Vec<ChatId> = Vec::new();
        let mut at = 0;
        while at < self.queue.len() && self.clients_running() < MOST_RUNNING {
            let Some(queued) = self.queue.get(at) else { return };
            if passed.contains(&queued.chat) || self.lines.get(&queued.chat).is_some_and(|line| line.busy) {
                passed.push(queued.chat.clone());
                at += 1;
                continue;
            }
            if let Some(queued) = self.queue.remove(at) {
                self.queued_bytes -= queued.bytes;
                self.perform(queued.chat, Some(queued.invoke), Call::Client(queued.request), outputs);
            }
        }
    }

    fn clients_running(&self) -> usize {
        self.running.values().filter(|running| running.invoke.is_some()).count()
    }

    fn perform(&mut self, chat: ChatId, invoke: Option<Invoke>, call: Call, outputs: &mut Vec<Output>) {
        self.next += 1;
        let line = self.lines.entry(chat.clone()).or_default();
        line.busy = true;
        self.running.insert(self.next, Running { invoke, chat, target: line.target });
        outputs.push(Output::Perform(self.next, call));
    }

    fn done(&mut self, id: CallId, result: Result<Answer, Error>, outputs: &mut Vec<Output>) {
        let Some(Running { invoke, chat, target }) = self.running.remove(&id) else { return };
        let line = self.lines.entry(chat.clone()).or_default();
        line.busy = false;
        let mut failed = false;
        match (invoke, result) {
            (Some(invoke), Ok(Answer::Sent(sent))) => {
                outputs.push(Output::Send(Message::sent(&invoke, sent)));
                line.pushed(sent);
            }
            (Some(invoke), Ok(Answer::Page(page))) => {
                outputs.push(Output::Send(Message::page(&invoke, &page)));
                line.pulled(&page);
            }
            (None, Ok(Answer::Page(page))) => {
                let after = line.cursor.unwrap_or(0);
                let missed: Vec<_> = page
                    .messages
                    .into_iter()
                    .filter(|message| message.seq > after && !line.is_own(message.seq))
                    .collect();
                let events = NewMessages::of(&chat, &missed);
                outputs.extend(events.iter().map(|event| Output::Send(Message::new_messages(event))));
                line.advance_to(page.seq.max(after));
                line.gap |= page.has_more;
                // Told numbers that the log does not have must not be asked for again.
                if !page.has_more && line.target == target {
                    line.target = line.cursor.unwrap_or(0);
                }
            }
            (None, Ok(Answer::Sent(_))) => {}
            (invoke, Err(error)) => {
                failed = invoke.is_none();
                let barred = matches!(error.code, Code::NotFound | Code::Forbidden);
                match invoke {
                    Some(invoke) => outputs.push(Output::Send(Message::failure(&invoke, &error))),
                    None if barred => (line.target, line.gap) = (0, false),
                    None => line.gap = true,
                }
                // Nothing of it was delivered and nothing is known of it.
                if barred && line.cursor.is_none() {
                    self.lines.remove(&chat);
                }
            }
        }
        if let Some(line) = self.lines.get_mut(&chat) {
            line.begin();
        }
        self.schedule(outputs);
        // A repair that failed is tried again with the next tick, not in a circle.
        if !failed {
            self.repair(&chat, outputs);
        }
    }

    fn heard(&mut self, event: &NewMessages, outputs: &mut Vec<Output>) {
        let (from, to) = (event.from_seq, event.to_seq);
        if self.gate != Gate::Open || from > to || from < 1 {
            return;
        }
        let line = self.lines.entry(event.chat_id.clone()).or_default();
        line.target = line.target.max(to);
        if line.busy || self.holding && !line.caught_up {
            line.low = Some(line.low.map_or(from, |low| low.min(from)));
            return;
        }
        let after = line.cursor.unwrap_or(from - 1);
        let whole = i64::try_from(event.messages.len()).is_ok_and(|count| count == to - from + 1);
        line.cursor = Some(after);
        if from == after + 1 && whole && line.own.is_empty() {
            outputs.push(Output::Send(Message::new_messages(event)));
            line.advance_to(to);
            return;
        }
        if to > after {
            self.repair(&event.chat_id, outputs);
        }
    }

    fn repair_all(&mut self, outputs: &mut Vec<Output>) {
        let behind = self.lines.iter().filter(|(_, line)| !line.busy && line.is_behind());
        let chats: Vec<ChatId> = behind.map(|(chat, _)| chat.clone()).collect();
        for chat in chats {
            self.repair(&chat, outputs);
        }
    }

    fn repair(&mut self, chat: &ChatId, outputs: &mut Vec<Output>) {
        let holding = self.holding;
        let ready = |line: &&mut Line| !line.busy && line.is_behind() && (line.caught_up || !holding);
        let Some(line) = self.lines.get_mut(chat).filter(ready) else { return };
        if let Some(after) = line.cursor {
            line.gap = false;
            self.perform(chat.clone(), None, Call::Repair { chat: chat.clone(), after }, outputs);
        }
    }

    fn tick(&mut self, now: Duration, outputs: &mut Vec<Output>) {
        if matches!(self.gate, Gate::Waiting(until) if now >= until) {
            return self.close(Close::Unauthorized, outputs);
        }
        if self.gate != Gate::Open {
            return;
        }
        if now >= self.last_ping + PING_EVERY {
            if self.pings >= MOST_MISSED {
                return self.close(Close::Silent, outputs);
            }
            (self.pings, self.last_ping) = (self.pings + 1, now);
            outputs.push(Output::Ping);
        }
        if now >= self.last_check + RECHECK_EVERY {
            self.last_check = now;
            outputs.push(Output::Recheck);
        }
        if self.holding && now >= HOLD {
            self.holding = false;
            self.lines.values_mut().for_each(Line::begin);
        }
        self.repair_all(outputs);
    }
}

#[cfg(test)]
mod tests;
