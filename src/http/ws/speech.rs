//! `GET /api/v1/audio/speech/ws`: the socket of streaming speech (contract `audio.md` §6).
//!
//! A thin driver: what happens on the client's socket, on the upstream's and on the clock is fed to
//! [`crate::core::tts::session::Session`], and what it answers is done.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::{FutureExt, SinkExt, StreamExt};
use poem::web::websocket::{Message, WebSocket, WebSocketStream};
use poem::{Endpoint, FromRequest, IntoResponse, Request, Response};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{agree, closing, config, is_too_large, judge, query_token};
use crate::core::App;
use crate::core::model::ids::RequestId;
use crate::core::model::tts::Frame;
use crate::core::tts::session::{End, Input, Output, Session, Undialled, error_frame};
use crate::core::tts::streams::{OpenStream, SpeechLink};
use crate::http::auth::Doorkeeper;

/// Where the socket is. A request without an upgrade is none of it and goes on to the guard.
const PATH: &str = "/api/v1/audio/speech/ws";
/// What the library accepts of a client; the session refuses less, with a better reason.
const MAX_MESSAGE: usize = 512 * 1024;
/// What a socket reads at once: hundreds of them are open at the same time.
const BUFFER: usize = 8 * 1024;
/// How long either side may take to accept what it is sent.
const SLOW: Duration = Duration::from_secs(30);
/// How long a closing handshake may take.
const FAREWELL: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);

/// Stands before the guard: the socket has its own way of telling who is calling and of refusing.
pub(in crate::http) async fn speech_socket<E: Endpoint>(
    next: Arc<E>,
    req: Request,
    app: Arc<App>,
    door: Doorkeeper,
    leaving: CancellationToken,
) -> poem::Result<Response> {
    if req.uri().path() != PATH {
        return next.call(req).await.map(IntoResponse::into_response);
    }
    let Ok(socket) = WebSocket::from_request_without_body(&req).await else {
        return next.call(req).await.map(IntoResponse::into_response);
    };
    let token = query_token(&req).unwrap_or_default();
    let request = req.extensions().get::<RequestId>().cloned().unwrap_or_else(|| RequestId::new(app.ids.id()));
    let upgraded = socket.config(config(BUFFER, MAX_MESSAGE)).on_upgrade(move |socket| async move {
        // Shutdown waits for what this has begun.
        let alive = app.speech.outlive("speech.socket");
        attend(socket, &app, &door, &token, request, leaving).await;
        drop(alive);
    });
    Ok(upgraded.into_response())
}

async fn attend(
    mut socket: WebSocketStream,
    app: &App,
    door: &Doorkeeper,
    token: &str,
    request: RequestId,
    leaving: CancellationToken,
) {
    let user = match judge(door, token).await {
        Ok(Some(user)) => user,
        Ok(None) => return close(&mut socket, 4001, "unauthorized").await,
        Err(_) => return refuse(&mut socket, 1011, "service_unavailable").await,
    };
    match app.speech.open_stream(user, request).await {
        Ok(stream) => relay(&mut socket, app, stream, leaving).await,
        Err(why) => refuse(&mut socket, why.code, why.reason).await,
    }
}

type Dial = BoxFuture<'static, Result<SpeechLink, Undialled>>;

/// One admitted client and its upstream, until either is done.
async fn relay(socket: &mut WebSocketStream, app: &App, stream: OpenStream, leaving: CancellationToken) {
    let dialler = stream.dialler();
    let mut session = Session::new(app.clock.elapsed(), stream.keys());
    let (mut dial, mut link): (Option<Dial>, Option<SpeechLink>) = (None, None);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut inputs = VecDeque::new();
    let end = 'session: loop {
        let happened = tokio::select! {
            () = leaving.cancelled() => Some(Input::Shutdown),
            dialled = OptionFuture::from(dial.as_mut()), if dial.is_some() => {
                dial = None;
                match dialled {
                    Some(Ok(opened)) => {
                        link = Some(opened);
                        Some(Input::Dialled)
                    }
                    Some(Err(why)) => Some(Input::DialFailed(why)),
                    None => None,
                }
            }
            said = OptionFuture::from(link.as_mut().map(|link| link.frames.next())), if link.is_some() => match said {
                Some(Some(Ok(frame))) => Some(Input::Upstream(frame)),
                _ => Some(Input::UpstreamClosed),
            },
            said = socket.next() => said_by_client(said),
            _ = ticks.tick() => Some(Input::Tick),
        };
        inputs.extend(happened);
        while let Some(input) = inputs.pop_front() {
            for output in session.step(app.clock.elapsed(), input) {
                let failed = match output {
                    Output::Dial(key) => {
                        let dialler = dialler.clone();
                        dial = Some(async move { dialler.dial(key).await }.boxed());
                        None
                    }
                    Output::Forward(frame) => forward(&mut link, frame).await,
                    Output::Send(frame) => say(socket, message(frame)).await,
                    Output::Ping => say(socket, Message::Ping(Vec::new())).await,
                    Output::FirstAudio(after) => {
                        stream.first_audio(session.model(), after);
                        None
                    }
                    Output::End(end) => break 'session end,
                };
                inputs.extend(failed);
            }
        }
    };
    // A dial under way is given up here.
    drop(dial);
    part(socket, link, stream, end).await;
}

/// Lets go of both sides; what is owed is settled whether or not they answer.
async fn part(socket: &mut WebSocketStream, link: Option<SpeechLink>, stream: OpenStream, end: End) {
    stream.end(end.bill, end.outcome);
    if let Some(mut link) = link {
        let farewell = async {
            if end.cancel {
                let cancel = Frame::Text(r#"{"event":"cancel"}"#.to_owned());
                drop(link.sink.send(cancel).await);
            }
            drop(link.sink.close().await);
        };
        drop(timeout(FAREWELL, farewell).await);
    }
    if let Some((code, reason)) = end.close {
        close(socket, code, reason).await;
    }
}

/// What a client's message or silence is for the session; pings and pongs are nothing.
fn said_by_client(said: Option<io::Result<Message>>) -> Option<Input> {
    match said {
        Some(Ok(Message::Text(text))) => Some(Input::Client(Frame::Text(text))),
        Some(Ok(Message::Binary(bytes))) => Some(Input::Client(Frame::Binary(bytes.into()))),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
        Some(Ok(Message::Close(_))) | None => Some(Input::ClientLeft),
        Some(Err(error)) if is_too_large(&error) => Some(Input::ClientTooLarge),
        // The library gives its reasons as text only.
        Some(Err(error)) if error.to_string().contains("closing handshake") => Some(Input::ClientLeft),
        Some(Err(_)) => Some(Input::ClientBroken),
    }
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => Message::Text(text),
        Frame::Binary(bytes) => Message::Binary(bytes.into()),
    }
}

/// While this waits nothing is read from the upstream, so a slow client holds its provider up and not our memory.
async fn say(socket: &mut WebSocketStream, message: Message) -> Option<Input> {
    match timeout(SLOW, socket.send(message)).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(Input::ClientLeft),
        Err(_) => Some(Input::ClientSlow),
    }
}

async fn forward(link: &mut Option<SpeechLink>, frame: Frame) -> Option<Input> {
    let link = link.as_mut()?;
    match timeout(SLOW, link.sink.send(frame)).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) | Err(_) => Some(Input::SendFailed),
    }
}

async fn refuse(socket: &mut WebSocketStream, code: u16, reason: &'static str) {
    say(socket, message(error_frame(reason, reason))).await;
    close(socket, code, reason).await;
}

async fn close(socket: &mut WebSocketStream, code: u16, reason: &'static str) {
    let farewell = async {
        if socket.send(closing(code, reason)).await.is_ok() {
            agree(socket).await;
        }
    };
    drop(timeout(FAREWELL, farewell).await);
}
