//! `GET /ws/chat`: drives a chat session over a socket. Every rule is the session's.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use poem::http::HeaderMap;
use poem::http::header::SEC_WEBSOCKET_PROTOCOL;
use poem::web::websocket::{Message, WebSocket, WebSocketStream};
use poem::{FromRequest, IntoResponse, Request, RequestBody, Response};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::outbox::Outbox;
use super::{Sockets, agree, closing, config, is_too_large, query_token};
use crate::core::App;
use crate::core::chats::protocol::Request as Asked;
use crate::core::chats::session::{Answer, Call, CallId, Close, HOLD, Input, Output, Session};
use crate::core::error::{Code, Error};
use crate::core::model::chats::Heard;
use crate::core::model::fact::Fact;
use crate::core::model::ids::UserId;
use crate::http::HttpSettings;
use crate::http::auth::Doorkeeper;
use crate::http::error::{no_route, refuse};

/// What chat sockets share.
#[derive(Clone)]
pub(in crate::http) struct ChatSockets {
    app: Arc<App>,
    door: Doorkeeper,
    sockets: Sockets,
    largest_frame: usize,
    holds: bool,
    /// After an outage every socket reads what it missed: a few at a time.
    repairs: Arc<Semaphore>,
}

/// Repairs of all sockets at once.
const REPAIRS: usize = 4;
/// Messages of one repair.
const REPAIR_PAGE: u32 = 500;
/// How often a session is told the time.
const TICK: Duration = Duration::from_secs(5);
/// The same while nobody is known.
const WAITING_TICK: Duration = Duration::from_millis(500);
/// How long a peer may take to answer a close.
const FAREWELL: Duration = Duration::from_secs(3);
/// What a socket reads at once: most of them are idle.
const READ_BUFFER: usize = 2 * 1024;

impl ChatSockets {
    pub(in crate::http) fn new(app: Arc<App>, door: Doorkeeper, sockets: Sockets, settings: &HttpSettings) -> Self {
        let (largest_frame, holds) = (settings.ws_frame_limit_bytes, settings.ws_hold_first_pushes);
        Self { app, door, sockets, largest_frame, holds, repairs: Arc::new(Semaphore::new(REPAIRS)) }
    }
}

/// Upgrades; whatever asks for anything else is told that there is nothing here.
///
/// A bad token is told by closing the socket with 4001, since browsers hide the status of a refused upgrade. A token
/// that cannot be judged now is an HTTP 503, so that the client keeps it.
pub(in crate::http) async fn chat_socket(req: &Request, sockets: ChatSockets) -> Response {
    let Ok(socket) = WebSocket::from_request(req, &mut RequestBody::default()).await else {
        return no_route(req.method(), req.uri().path());
    };
    let token = token(req);
    let who = match &token {
        Some(token) => match judge(&sockets.door, token).await {
            Ok(who) => who,
            Err(error) => return refuse(error),
        },
        None => None,
    };
    let (session, outputs) = match (&token, who) {
        (Some(_), None) => {
            let mut session = Session::waiting();
            let outputs = session.end(Close::Unauthorized);
            (session, outputs)
        }
        (Some(_), Some(user)) => Session::known(&user),
        (None, _) => (Session::waiting(), Vec::new()),
    };
    let session = if sockets.holds { session.holding() } else { session };
    let asked = req.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|asked| asked.to_str().ok());
    let asked = asked.and_then(|asked| asked.split(',').next()).map(|first| first.trim().to_owned());
    let limits = config(READ_BUFFER, sockets.largest_frame);
    let tracker = sockets.sockets.open.clone();
    let upgraded = socket.protocols(asked).config(limits).on_upgrade(move |stream| {
        let token = token.unwrap_or_default();
        tracker.track_future(Box::pin(Driver::of(sockets, session, token).run(stream, outputs)))
    });
    upgraded.into_response()
}

/// The token of the query, or of the requested protocols: `bearer, TOKEN` or `bearer.TOKEN`.
fn token(req: &Request) -> Option<String> {
    query_token(req).or_else(|| protocol_token(req.headers()))
}

fn protocol_token(headers: &HeaderMap) -> Option<String> {
    let mut asked = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.split(',').map(str::trim);
    while let Some(protocol) = asked.next() {
        if protocol.eq_ignore_ascii_case("bearer") {
            return asked.next().map(str::to_owned);
        }
        if let Some(token) = protocol.strip_prefix("bearer.") {
            return Some(token.to_owned());
        }
    }
    None
}

async fn judge(door: &Doorkeeper, token: &str) -> Result<Option<UserId>, Error> {
    super::judge(door, token).await.map_err(|error| match error.code {
        Code::ServiceUnavailable => error,
        _ => Error::new(Code::ServiceUnavailable).because(error),
    })
}

type Verdict = BoxFuture<'static, Input>;

/// One socket, its session and everything under way for it.
struct Driver {
    sockets: ChatSockets,
    session: Session,
    token: String,
    outbox: Outbox,
    user: Option<UserId>,
    heard: Option<BoxStream<'static, Heard>>,
    calls: FuturesUnordered<Verdict>,
    /// Pulls and repairs wait until the peer has read what was sent: their answers are the long ones.
    reads: VecDeque<(CallId, Call)>,
    /// The one of them under way. Several at once would answer more than may wait.
    reading: Option<CallId>,
    closing: bool,
}

impl Driver {
    fn of(sockets: ChatSockets, session: Session, token: String) -> Self {
        Self {
            sockets,
            session,
            token,
            outbox: Outbox::default(),
            user: None,
            heard: None,
            calls: FuturesUnordered::new(),
            reads: VecDeque::new(),
            reading: None,
            closing: false,
        }
    }

    async fn run(mut self, mut stream: WebSocketStream, outputs: Vec<Output>) {
        let begun = Instant::now();
        let tick = if outputs.is_empty() { WAITING_TICK } else { TICK };
        let mut ticks = interval_at(begun + if self.sockets.holds { HOLD } else { tick }, tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let leaving = self.sockets.sockets.leaving.clone();
        self.perform(outputs).await;
        while !self.closing {
            let hungry = self.session.is_hungry();
            let (outbox, heard) = (&mut self.outbox, &mut self.heard);
            let input = tokio::select! {
                biased;
                () = leaving.cancelled() => {
                    let outputs = self.session.end(Close::Leaving);
                    self.perform(outputs).await;
                    break;
                }
                Some(input) = self.calls.next(), if !self.calls.is_empty() => Some(input),
                Some(heard) = next(heard) => Some(Input::Heard(heard)),
                moved = poll_fn(|cx| poll_socket(outbox, &mut stream, hungry, cx)) => match moved {
                    Some(Ok(Message::Ping(_))) => None,
                    Some(Ok(Message::Text(text))) => Some(Input::Text(text)),
                    Some(Ok(Message::Binary(_))) => Some(Input::Binary),
                    Some(Ok(Message::Pong(_))) => Some(Input::Pong),
                    Some(Ok(Message::Close(_))) | None => break,
                    Some(Err(error)) if is_too_large(&error) => {
                        let outputs = self.session.end(Close::TooLarge);
                        self.perform(outputs).await;
                        break;
                    }
                    Some(Err(_)) => break,
                },
                now = ticks.tick() => Some(Input::Tick(now - begun)),
            };
            if let Some(input) = input {
                if matches!(&input, Input::Done(id, _) if self.reading == Some(*id)) {
                    self.reading = None;
                }
                let outputs = self.session.step(input);
                self.perform(outputs).await;
            }
            self.start_read();
        }
        // Nobody must wait for a peer that is gone, nor count it.
        self.heard = None;
        if self.user.take().is_some() {
            self.sockets.app.journal.record(Fact::SocketClosed);
        }
        drop(timeout(FAREWELL, farewell(&mut self.outbox, &mut stream)).await);
    }

    async fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(message) => {
                    let app = &self.sockets.app;
                    let text = message.print(&app.ids.id(), app.clock.now().timestamp_millis());
                    self.send(Message::Text(text));
                }
                Output::Ping => self.send(Message::Ping(Vec::new())),
                Output::Authenticate(token) => {
                    self.token.clone_from(&token);
                    self.judge();
                }
                Output::Recheck => self.judge(),
                Output::Listen(user) => self.listen(user).await,
                Output::Perform(id, call @ (Call::Repair { .. } | Call::Client(Asked::Pull { .. }))) => {
                    self.reads.push_back((id, call));
                }
                Output::Perform(id, call) => self.call(id, call),
                Output::Close(why) => self.close(why),
            }
            if self.closing {
                return;
            }
        }
    }

    fn send(&mut self, message: Message) {
        if self.outbox.push(message).is_err() {
            // What waits would hold the farewell back.
            self.outbox.clear();
            let _ended = self.session.end(Close::Overloaded);
            self.close(Close::Overloaded);
        }
    }

    fn close(&mut self, why: Close) {
        self.outbox.push_last(closing(why.code(), why.reason()));
        self.closing = true;
    }

    fn judge(&mut self) {
        let (door, token) = (self.sockets.door.clone(), self.token.clone());
        self.calls.push(async move { Input::Judged(judge(&door, &token).await) }.boxed());
    }

    async fn listen(&mut self, user: UserId) {
        match self.sockets.app.chats.teller.broadcaster.subscribe(&user).await {
            Ok(heard) => self.heard = Some(heard),
            Err(_) => return self.close(Close::Overloaded),
        }
        self.sockets.app.journal.record(Fact::SocketOpened);
        self.user = Some(user);
    }

    fn start_read(&mut self) {
        if self.reading.is_some() || !self.outbox.is_low() {
            return;
        }
        let Some((id, call)) = self.reads.pop_front() else { return };
        self.reading = Some(id);
        self.call(id, call);
    }

    fn call(&mut self, id: CallId, call: Call) {
        let Some(user) = self.user.clone() else { return };
        let (app, repairs) = (self.sockets.app.clone(), self.sockets.repairs.clone());
        self.calls.push(async move { Input::Done(id, answer(&app, &repairs, &user, call).await) }.boxed());
    }
}

async fn answer(app: &App, repairs: &Semaphore, user: &UserId, call: Call) -> Result<Answer, Error> {
    match call {
        Call::Client(request) => app.chats.perform(user, request).await,
        Call::Repair { chat, after } => {
            let _turn = repairs.acquire().await;
            app.chats.pull(user, &chat, after, REPAIR_PAGE).await.map(Answer::Page)
        }
    }
}

async fn next(heard: &mut Option<BoxStream<'static, Heard>>) -> Option<Heard> {
    match heard {
        Some(heard) => heard.next().await,
        None => std::future::pending().await,
    }
}

/// Writes what waits, then reads when something may be read. Something written counts as a ping: nothing to be told.
fn poll_socket(
    outbox: &mut Outbox,
    stream: &mut WebSocketStream,
    hungry: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<io::Result<Message>>> {
    if let Poll::Ready(written) = outbox.poll_progress(stream, cx) {
        return Poll::Ready(Some(written.map(|()| Message::Ping(Vec::new()))));
    }
    if hungry { stream.poll_next_unpin(cx) } else { Poll::Pending }
}

/// Writes what waits, the close at its end.
async fn farewell(outbox: &mut Outbox, stream: &mut WebSocketStream) {
    while !outbox.is_done() {
        if poll_fn(|cx| outbox.poll_progress(stream, cx)).await.is_err() {
            return;
        }
    }
    agree(stream).await;
}
