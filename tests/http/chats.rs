//! `/api/v1/chats` and `/ws/chat` over a real world in memory, through a real socket (contract `chats.md` §2, §5, §10).

use std::sync::Arc;

use airi_server::compose::testing;
use airi_server::core::model::ids::UserId;
use airi_server::ports::Ports;
use airi_server::ports::mocks::MockSessionRepo;
use futures::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{connect_async, connect_async_with_config};

use crate::house::{House, PATIENCE, Peer, access_token};
use crate::world::unavailable;

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_routes_of_a_chat_from_its_making_to_its_end() {
    let house = House::open().await;
    let ((alice, token), (bob, bobs)) = (house.person("alice").await, house.person("bob").await);
    let (status, made) = house.ask(&token, "POST", "", Some("{}")).await;
    assert_eq!((status, &made["type"], &made["title"]), (201, &json!("group"), &Value::Null));
    assert_eq!(made["createdAt"], made["updatedAt"]);
    assert_eq!(made["createdAt"].as_str().unwrap().len(), 24);
    let keys: Vec<_> = made.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["id", "type", "title", "createdAt", "updatedAt"]);
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 21);

    let mine = r#"{"id":"mine","type":"bot","members":[{"type":"character","characterId":"lain"}]}"#;
    assert_eq!(house.ask(&token, "POST", "", Some(mine)).await.0, 201);
    for who in [&token, &bobs] {
        let (status, refused) = house.ask(who, "POST", "", Some(mine)).await;
        assert_eq!((status, &refused["error"]), (409, &json!("CONFLICT")));
    }
    let (_, list) = house.ask(&token, "GET", "", None).await;
    assert_eq!(list["chats"][0]["id"], "mine");
    let keys: Vec<_> = list["chats"][0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["id", "type", "title", "createdAt", "updatedAt", "deletedAt"]);
    let (_, page) = house.ask(&token, "GET", "?limit=1", None).await;
    let cursor = page["nextCursor"].as_str().unwrap();
    let (_, rest) = house.ask(&token, "GET", &format!("?limit=1&cursor={cursor}"), None).await;
    assert_eq!((&rest["chats"][0]["id"], rest.get("nextCursor")), (&json!(id), None));

    let (status, found) = house.ask(&token, "GET", "/mine", None).await;
    assert_eq!((status, found["members"].as_array().unwrap().len()), (200, 2));
    assert_eq!(found["members"][0]["userId"], alice);
    let (status, renamed) = house.ask(&token, "PATCH", "/mine", Some(r#"{"title":"new"}"#)).await;
    assert_eq!((status, &renamed["title"]), (200, &json!("new")));
    let add = format!(r#"{{"type":"user","userId":"{bob}"}}"#);
    let (status, member) = house.ask(&token, "POST", "/mine/members", Some(&add)).await;
    assert_eq!((status, &member["userId"], &member["characterId"]), (200, &json!(bob), &Value::Null));
    assert_eq!(house.ask(&token, "POST", "/mine/members", Some(&add)).await.1, member);
    assert_eq!(house.ask(&bobs, "GET", "/mine", None).await.0, 200);
    let path = format!("/mine/members/{}", member["id"].as_str().unwrap());
    assert_eq!(house.ask(&token, "DELETE", &path, None).await, (200, member));
    let (status, gone) = house.ask(&token, "DELETE", &path, None).await;
    assert_eq!((status, &gone["message"]), (404, &json!("Member not found")));
    assert_eq!(house.ask(&bobs, "GET", "/mine", None).await.0, 403);

    let (status, deleted) = house.ask(&token, "DELETE", "/mine", None).await;
    assert_eq!((status, deleted["deletedAt"].is_string()), (200, true));
    for (method, body) in [("DELETE", None), ("GET", None), ("PATCH", Some("{}"))] {
        let (status, refused) = house.ask(&token, method, "/mine", body).await;
        assert_eq!((status, &refused["message"]), (404, &json!("Chat not found")), "{method}");
    }
    assert_eq!(house.socket(&token).await.push("mine", ["m".to_owned()]).await.unwrap_err()["statusCode"], 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_a_rule_are_400_and_nothing_of_them_comes_back() {
    let house = House::open().await;
    let (_, token) = house.person("alice").await;
    house.ask(&token, "POST", "", Some(r#"{"id":"c"}"#)).await;
    let long = format!(r#"{{"id":"{}"}}"#, "secret-7".repeat(4));
    for (method, path, body) in [
        ("POST", "", long.as_str()),
        ("POST", "", r#"{"type":"secret-7"}"#),
        ("POST", "", r#"{"title":"secret-7\u0000"}"#),
        ("POST", "", "secret-7"),
        ("POST", "", ""),
        ("PATCH", "/nope", r#"{"title":null}"#),
        ("POST", "/c/members", r#"{"type":"user","characterId":"secret-7"}"#),
    ] {
        let (status, refused) = house.ask(&token, method, path, Some(body)).await;
        assert_eq!((status, &refused["error"]), (400, &json!("INVALID_REQUEST")), "{body}");
        let problem = &refused["details"][0];
        assert!(problem["kind"].is_string() && problem["path"].is_array(), "{refused}");
        assert!(!refused.to_string().contains("secret-7"), "{refused}");
    }
    let ghost = r#"{"type":"user","userId":"ghost"}"#;
    let (status, refused) = house.ask(&token, "POST", "/c/members", Some(ghost)).await;
    assert_eq!((status, &refused["message"]), (404, &json!("User not found")));
    let big = format!(r#"{{"title":"{}"}}"#, "x".repeat(1024 * 1024));
    assert_eq!(house.ask(&token, "POST", "", Some(&big)).await.0, 413);
    assert_eq!(house.ask("", "POST", "", Some("{}")).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_told_by_the_close_code_and_other_requests_find_nothing() {
    let house = House::open().await;
    let (_, token) = house.person("alice").await;
    for path in ["/ws/chat?token=", "/ws/chat?token=bad", "/ws/chat"] {
        assert_eq!(house.raw(path).await.closed().await, (4001, "unauthorized".to_owned()), "{path}");
    }
    let answer = house.client.get(format!("http://{}/ws/chat", house.address)).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    for path in ["/ws/chat/", "/ws/other"] {
        let Err(Error::Http(refused)) = connect_async(format!("ws://{}{path}?token={token}", house.address)).await
        else {
            panic!("{path} was upgraded")
        };
        assert_eq!(refused.status(), 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_judged_is_503() {
    let mut sessions = MockSessionRepo::new();
    sessions.expect_find_by_token().returning(|_| Err(unavailable()));
    let house = House::of(Ports { sessions: Arc::new(sessions), ..testing::ports().await.unwrap() }).await;
    let Err(Error::Http(refused)) = connect_async(format!("ws://{}/ws/chat?token=x", house.address)).await else {
        panic!("upgraded")
    };
    assert_eq!(refused.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_come_as_protocol_or_as_first_frame() {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let house = House::open().await;
    let (alice, token) = house.person("alice").await;
    for asked in [format!("bearer, {token}"), format!("bearer.{token}")] {
        let mut request = format!("ws://{}/ws/chat", house.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", asked.parse().unwrap());
        let (socket, answer) = connect_async(request).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], asked.split(',').next().unwrap());
        assert_eq!(Peer(socket).frame().await["type"], "eventa:adapters:hono-ws:connected");
    }
    let mut peer = house.raw("/ws/chat").await;
    peer.start("chat:authenticate", "i", &json!({ "token": token })).await;
    assert_eq!(peer.frame().await["type"], "eventa:adapters:hono-ws:connected");
    assert_eq!(peer.frame().await["payload"]["body"]["content"], json!({ "userId": alice }));
    assert_eq!(peer.pull("nope", 0).await.unwrap_err()["message"], "Chat not found");
    let mut peer = house.raw("/ws/chat").await;
    peer.start("chat:authenticate", "i", &json!({ "token": "bad" })).await;
    assert_eq!(peer.closed().await.0, 4001);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_opens_the_socket_in_every_way_a_session_does() {
    let house = House::open().await;
    let (alice, _) = house.person("alice").await;
    let token = access_token(&house.app, &alice, 3_600).await;
    assert!(house.socket(&token).await.pull("nope", 0).await.is_err_and(|error| error["statusCode"] == 404));
    let mut peer = house.raw("/ws/chat").await;
    peer.start("chat:authenticate", "i", &json!({ "token": token })).await;
    assert_eq!(peer.frame().await["type"], "eventa:adapters:hono-ws:connected");
    assert_eq!(peer.frame().await["payload"]["body"]["content"], json!({ "userId": alice }));
    let ended = access_token(&house.app, &alice, 0).await;
    let long = "x".repeat(4_097);
    for bad in [ended, long] {
        assert_eq!(house.raw(&format!("/ws/chat?token={bad}")).await.closed().await.0, 4001, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_pulls_many_long_chats_at_once() {
    // More than the outbox and the buffers of both ends hold together.
    const CHATS: usize = 6;
    const PIECES: usize = 8;
    let house = House::open().await;
    let (_, alice) = house.person("alice").await;
    let mut one = house.socket(&alice).await;
    let piece = "y".repeat(500 * 1024);
    for chat in 0..CHATS {
        house.ask(&alice, "POST", "", Some(&format!(r#"{{"id":"c-{chat}"}}"#))).await;
        for n in 0..PIECES {
            let message = json!([{ "id": format!("m-{chat}-{n}"), "role": "user", "content": piece }]);
            let call = json!({ "chatId": format!("c-{chat}"), "messages": message });
            one.call("chat:send-messages", call).await.unwrap();
        }
    }
    let mut fresh = house.socket(&alice).await;
    for chat in 0..CHATS {
        fresh.start("chat:pull-messages", &chat.to_string(), &json!({ "chatId": format!("c-{chat}") })).await;
    }
    // It takes its time; by now everything it asked for could have been read.
    for chat in 0..CHATS {
        one.pull(&format!("c-{chat}"), 0).await.unwrap();
    }
    for chat in 0..CHATS {
        let frame = fresh.frame().await;
        assert_eq!(frame["type"], format!("chat:pull-messages-receive-{chat}"));
        assert_eq!(frame["payload"]["body"]["content"]["messages"].as_array().unwrap().len(), PIECES);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_reach_other_devices_once_in_order_and_in_pieces() {
    let house = House::open().await;
    let ((_, alice), (bob, bobs)) = (house.person("alice").await, house.person("bob").await);
    let body = format!(r#"{{"id":"c","members":[{{"type":"user","userId":"{bob}"}}]}}"#);
    house.ask(&alice, "POST", "", Some(&body)).await;
    let (mut one, mut two, mut other) =
        (house.socket(&alice).await, house.socket(&alice).await, house.socket(&bobs).await);
    assert_eq!(one.push("c", ["m-1".to_owned(), "m-2".to_owned()]).await.unwrap(), json!({ "seq": 2 }));
    assert_eq!((two.told().await, other.told().await), ((1, 2, 2), (1, 2, 2)));
    assert_eq!(one.push("c", ["m-1".to_owned(), "m-2".to_owned()]).await.unwrap(), json!({ "seq": 2 }));
    assert_eq!(one.push("c", (3..=1_202).map(|n| format!("m-{n}"))).await.unwrap(), json!({ "seq": 1_202 }));
    for peer in [&mut two, &mut other] {
        assert_eq!(peer.told().await, (3, 502, 500));
        assert_eq!(peer.told().await, (503, 1_002, 500));
        assert_eq!(peer.told().await, (1_003, 1_202, 200));
    }
    let page = two.pull("c", 0).await.unwrap();
    assert_eq!(
        (page["messages"].as_array().unwrap().len(), &page["seq"], &page["hasMore"]),
        (100, &json!(100), &json!(true))
    );
    // The calling socket was told nothing: the answer to its next call is the next frame.
    assert_eq!(one.pull("c", 1_202).await.unwrap()["seq"], 1_202);

    for n in 0..100 {
        let message = json!([{ "id": format!("p-{n}"), "role": "user", "content": "x" }]);
        one.start("chat:send-messages", &n.to_string(), &json!({ "chatId": "c", "messages": message })).await;
    }
    for n in 0..100 {
        let frame = one.frame().await;
        assert_eq!(frame["type"], format!("chat:send-messages-receive-{n}"));
        assert_eq!(frame["payload"]["body"]["content"]["seq"], 1_203 + n);
        assert_eq!(other.told().await, (1_203 + n, 1_203 + n, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_answered_and_others_notice_nothing() {
    let house = House::open().await;
    let (_, alice) = house.person("alice").await;
    house.ask(&alice, "POST", "", Some(r#"{"id":"c"}"#)).await;
    let (mut bad, mut good) = (house.socket(&alice).await, house.socket(&alice).await);
    for text in ["no json", "null", r#"{"type":"chat:pull-messages-send"}"#] {
        bad.say(text).await;
        let frame = bad.frame().await;
        assert_eq!(frame["type"], "eventa:adapters:hono-ws:error");
        assert!(frame["payload"]["body"]["error"]["message"].is_string());
    }
    bad.0.send(Message::binary(vec![1, 2])).await.unwrap();
    assert_eq!(bad.frame().await["type"], "eventa:adapters:hono-ws:error");
    let error = bad.call("chat:unknown", json!({})).await.unwrap_err();
    assert_eq!((&error["statusCode"], &error["name"]), (&json!(404), &json!("ApiError")));
    bad.say(r#"{"type":"chat:send-messages-send-abort","payload":{"body":{"invokeId":"x"}}}"#).await;
    bad.say(r#"{"type":"chat:new-messages","payload":{"body":{"chatId":"c"}}}"#).await;
    let error =
        bad.call("chat:send-messages", json!({ "chatId": "c", "messages": [{ "id": "m" }] })).await.unwrap_err();
    assert_eq!((&error["statusCode"], &error["errorCode"]), (&json!(400), &json!("INVALID_REQUEST")));
    // The server may close before the whole frame was taken, so sending it may fail.
    let _ = bad.0.send(Message::text("x".repeat(10 * 1024 * 1024))).await;
    match bad.next().await {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1009),
        Some(Err(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(good.push("c", ["m".to_owned()]).await.unwrap(), json!({ "seq": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_closed_and_others_notice_nothing() {
    let house = House::open().await;
    let (_, alice) = house.person("alice").await;
    house.ask(&alice, "POST", "", Some(r#"{"id":"c"}"#)).await;
    let config = WebSocketConfig::default();
    let url = format!("ws://{}/ws/chat?token={alice}", house.address);
    let (silent, _) = connect_async_with_config(url, Some(config), true).await.unwrap();
    let (mut one, mut two) = (house.socket(&alice).await, house.socket(&alice).await);
    let long = "y".repeat(512 * 1024);
    for n in 0..60 {
        let message = json!([{ "id": format!("m-{n}"), "role": "user", "content": long }]);
        one.call("chat:send-messages", json!({ "chatId": "c", "messages": message })).await.unwrap();
        assert_eq!(two.told().await, (n + 1, n + 1, 1));
    }
    // It was cut off; what it reads now ends, and not with everything.
    let (mut silent, mut heard) = (Peer(silent), 0);
    while let Some(Ok(message)) = silent.next().await {
        heard += usize::from(message.is_text());
    }
    assert!(heard < 60, "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaving_server_says_goodbye_and_waits_for_its_sockets() {
    let house = House::open().await;
    let (_, alice) = house.person("alice").await;
    let mut peer = house.socket(&alice).await;
    house.leaving.cancel();
    assert_eq!(peer.closed().await.0, 1001);
    tokio::time::timeout(PATIENCE, house.served).await.expect("the server did not end").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_gone_loses_its_sockets_and_others_keep_theirs() {
    let house = House::open().await;
    let ((id, alice), (_, bob)) = (house.person("alice").await, house.person("bob").await);
    let (mut one, mut two, mut other) =
        (house.socket(&alice).await, house.socket(&alice).await, house.socket(&bob).await);
    house.app.chats.close_account(&UserId::new(id)).await;
    for peer in [&mut one, &mut two] {
        assert_eq!(peer.closed().await, (4001, "unauthorized".to_owned()));
    }
    assert_eq!(other.pull("nope", 0).await.unwrap_err()["statusCode"], 404);
}
