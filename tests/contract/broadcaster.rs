//! `Broadcaster`: every device hears every event once, or that it missed some.

use std::sync::Arc;

use airi_server::core::model::chats::{ChatEvent, Heard, NewMessages};
use airi_server::core::model::ids::{ChatId, InstanceId, UserId};
use airi_server::ports::chats::Broadcaster;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::json;

use super::world::{somebody, soon};

/// Two processes; one and the same where there is only one.
struct Two {
    here: Arc<dyn Broadcaster>,
    there: Arc<dyn Broadcaster>,
}

fn event(user: &UserId, seq: i64) -> ChatEvent {
    ChatEvent {
        user_id: user.clone(),
        payload: NewMessages {
            chat_id: ChatId::new("c1"),
            messages: vec![json!({"id": format!("m{seq}"), "content": "hé \"q\" </x> \u{1f600}", "seq": seq})],
            from_seq: seq,
            to_seq: seq,
        },
        origin_instance_id: InstanceId::new("here"),
    }
}

/// The number of the next event; `None` for a gap.
async fn next(heard: &mut BoxStream<'static, Heard>) -> Option<i64> {
    match soon("something heard", heard.next()).await.unwrap() {
        Heard::Event(event) => Some(event.payload.from_seq),
        Heard::Gap => None,
        Heard::Closed => panic!("closed"),
    }
}

async fn every_subscriber_of_every_process_hears_each_event_once(two: Two) {
    let user = somebody();
    let mut devices = vec![
        two.here.subscribe(&user).await.unwrap(),
        two.here.subscribe(&user).await.unwrap(),
        two.there.subscribe(&user).await.unwrap(),
        two.there.subscribe(&user).await.unwrap(),
    ];
    for seq in 1..=3 {
        two.here.publish(&event(&user, seq)).await.unwrap();
    }
    for device in &mut devices {
        for seq in 1..=3 {
            // A second copy of an event would stand in the place of the next one.
            assert_eq!(next(device).await, Some(seq));
        }
    }
}

async fn events_of_others_are_not_heard(two: Two) {
    let (user, other) = (somebody(), somebody());
    let mut device = two.there.subscribe(&user).await.unwrap();
    two.here.publish(&event(&other, 1)).await.unwrap();
    two.here.publish(&event(&user, 2)).await.unwrap();
    assert_eq!(next(&mut device).await, Some(2));
}

async fn an_event_arrives_as_it_was_published(two: Two) {
    let user = somebody();
    let mut device = two.there.subscribe(&user).await.unwrap();
    two.here.publish(&event(&user, 1)).await.unwrap();
    assert_eq!(soon("the event", device.next()).await, Some(Heard::Event(event(&user, 1))));
}

async fn a_device_that_left_does_not_disturb_those_that_stay(two: Two) {
    let user = somebody();
    let left = two.there.subscribe(&user).await.unwrap();
    let mut stays = two.there.subscribe(&user).await.unwrap();
    drop(left);
    for seq in 1..=2 {
        two.here.publish(&event(&user, seq)).await.unwrap();
    }
    assert_eq!((next(&mut stays).await, next(&mut stays).await), (Some(1), Some(2)));
}

async fn a_device_that_comes_back_hears_everything_from_then_on_and_little_from_before(two: Two) {
    let user = somebody();
    drop(two.there.subscribe(&user).await.unwrap());
    two.here.publish(&event(&user, 1)).await.unwrap();
    let mut back = two.there.subscribe(&user).await.unwrap();
    for seq in 2..=4 {
        two.here.publish(&event(&user, seq)).await.unwrap();
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&Some(4)) {
        heard.push(next(&mut back).await);
    }
    // What was under way between processes comes first and once.
    let from_now_on = [Some(2), Some(3), Some(4)];
    assert!(heard == from_now_on || (heard[0] == Some(1) && heard[1..] == from_now_on), "{heard:?}");
}

async fn within_a_process_nothing_from_before_is_heard(two: Two) {
    let user = somebody();
    drop(two.here.subscribe(&user).await.unwrap());
    two.here.publish(&event(&user, 1)).await.unwrap();
    let mut back = two.here.subscribe(&user).await.unwrap();
    two.here.publish(&event(&user, 2)).await.unwrap();
    assert_eq!(next(&mut back).await, Some(2));
}

async fn the_end_of_an_account_is_heard_everywhere_by_its_devices_only(two: Two) {
    let (user, other) = (somebody(), somebody());
    let mut devices = [two.here.subscribe(&user).await.unwrap(), two.there.subscribe(&user).await.unwrap()];
    let mut others = [two.here.subscribe(&other).await.unwrap(), two.there.subscribe(&other).await.unwrap()];
    two.here.publish(&event(&user, 1)).await.unwrap();
    two.here.close(&user).await.unwrap();
    two.here.publish(&event(&other, 2)).await.unwrap();
    for device in &mut devices {
        // Announcements travel beside the events.
        let heard = [soon("the event", device.next()).await, soon("the end", device.next()).await];
        assert!(heard.contains(&Some(Heard::Closed)) && heard.contains(&Some(Heard::Event(event(&user, 1)))));
    }
    for device in &mut others {
        assert_eq!(next(device).await, Some(2));
    }
}

async fn a_device_that_does_not_read_hears_of_a_gap_instead_of_everything(two: Two) {
    let user = somebody();
    let mut slow = two.here.subscribe(&user).await.unwrap();
    for seq in 1..=500 {
        two.here.publish(&event(&user, seq)).await.unwrap();
    }
    assert_eq!(next(&mut slow).await, None);
    assert!(next(&mut slow).await.unwrap() > 250);
}

macro_rules! cases {
    ($two:expr) => {
        cases! { $two =>
            every_subscriber_of_every_process_hears_each_event_once
            events_of_others_are_not_heard
            an_event_arrives_as_it_was_published
            a_device_that_left_does_not_disturb_those_that_stay
            a_device_that_comes_back_hears_everything_from_then_on_and_little_from_before
            within_a_process_nothing_from_before_is_heard
            the_end_of_an_account_is_heard_everywhere_by_its_devices_only
            a_device_that_does_not_read_hears_of_a_gap_instead_of_everything
        }
    };
    ($two:expr => $($case:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let (two, _world) = $two;
            super::$case(two).await;
        }
    )+};
}

mod memory {
    use airi_server::adapters::memory::broadcaster::MemoryBroadcaster;

    use super::*;

    fn two() -> (Two, ()) {
        let one = Arc::new(MemoryBroadcaster::new());
        (Two { here: one.clone(), there: one }, ())
    }

    cases!(two());
}

#[cfg(feature = "live")]
mod redis {
    use ::redis::Commands;
    use airi_server::adapters::memory::broadcaster::MemoryBroadcaster;
    use airi_server::adapters::redis::Redis;
    use airi_server::adapters::redis::broadcaster::RedisBroadcaster;
    use airi_server::adapters::redis::bus::Bus;
    use airi_server::core::model::fact::Fact;

    use super::*;
    use crate::redis_world::{Namespace, PrivateRedis};
    use crate::world::{Notebook, eventually};

    fn process(redis: &Redis, name: &str, journal: Arc<Notebook>) -> Arc<dyn Broadcaster> {
        let bus = Bus::start(redis, journal).unwrap();
        let local = Arc::new(MemoryBroadcaster::new());
        Arc::new(RedisBroadcaster::new(redis.clone(), bus, InstanceId::new(name), local))
    }

    fn two() -> (Two, Namespace) {
        let space = Namespace::new();
        let here = process(&space.redis, "here", space.journal.clone());
        let there = process(&space.redis, "there", space.journal.clone());
        (Two { here, there }, space)
    }

    cases!(two());

    fn channel(space: &Namespace, user: &UserId) -> String {
        space.key(&format!("user:{user}:chat:broadcast"))
    }

    fn listeners(space: &Namespace, user: &UserId) -> usize {
        let counted: Vec<(String, usize)> =
            ::redis::cmd("PUBSUB").arg("NUMSUB").arg(channel(space, user)).query(&mut space.raw()).unwrap();
        counted[0].1
    }

    #[tokio::test]
    async fn the_message_is_the_text_of_the_reference() {
        let (two, space) = two();
        let user = somebody();
        let mut raw = space.raw();
        let mut reference = raw.as_pubsub();
        reference.subscribe(channel(&space, &user)).unwrap();
        two.here.publish(&event(&user, 7)).await.unwrap();
        let text: String = reference.get_message().unwrap().get_payload().unwrap();
        let expected = r#"{"userId":"USER","payload":{"chatId":"c1","messages":[{"id":"m7","content":"hé \"q\" </x> 😀","seq":7}],"fromSeq":7,"toSeq":7},"originInstanceId":"here"}"#;
        assert_eq!(text, expected.replace("USER", user.as_str()));
    }

    #[tokio::test]
    async fn messages_of_the_reference_are_heard_and_unusable_ones_are_not() {
        let (two, space) = two();
        let user = somebody();
        let mut device = two.here.subscribe(&user).await.unwrap();
        let good = format!(
            r#"{{"userId":"{user}","payload":{{"chatId":"c","messages":[],"fromSeq":5,"toSeq":5}},"originInstanceId":"ref"}}"#
        );
        let own = good.replace("ref", "here").replace(":5,", ":4,");
        for text in ["", "{", "[]", "{}", &own, &good] {
            let _: () = space.raw().publish(channel(&space, &user), text).unwrap();
        }
        assert_eq!(next(&mut device).await, Some(5));
    }

    #[tokio::test]
    async fn the_user_inside_the_message_decides_who_hears_it() {
        let (two, space) = two();
        let (user, other) = (somebody(), somebody());
        let mut device = two.here.subscribe(&user).await.unwrap();
        let mut others = two.here.subscribe(&other).await.unwrap();
        let text = serde_json::to_string(&ChatEvent { origin_instance_id: InstanceId::new("ref"), ..event(&other, 1) });
        let _: () = space.raw().publish(channel(&space, &user), text.unwrap()).unwrap();
        assert_eq!(next(&mut others).await, Some(1));
        two.there.publish(&event(&user, 2)).await.unwrap();
        assert_eq!(next(&mut device).await, Some(2));
    }

    #[tokio::test]
    async fn a_process_listens_once_per_user_and_only_while_somebody_is_there() {
        let (two, space) = two();
        let user = somebody();
        let first = two.here.subscribe(&user).await.unwrap();
        let second = two.here.subscribe(&user).await.unwrap();
        assert_eq!(listeners(&space, &user), 1);
        drop(first);
        let mut second = second;
        two.there.publish(&event(&user, 1)).await.unwrap();
        assert_eq!(next(&mut second).await, Some(1));
        drop(second);
        eventually("unsubscribed", || async { listeners(&space, &user) == 0 }).await;
    }

    #[tokio::test]
    async fn what_a_publisher_could_not_say_is_a_gap_for_listeners_whose_connection_held() {
        let server = PrivateRedis::start();
        let redis = server.redis();
        let journal = Arc::new(Notebook::default());
        let (here, there) = (process(&redis, "here", journal.clone()), process(&redis, "there", journal));
        let user = somebody();
        let mut device = there.subscribe(&user).await.unwrap();
        let may_publish = |rule: &str| {
            let mut acl = ::redis::cmd("ACL");
            acl.arg("SETUSER").arg("default").arg(rule).exec(&mut server.raw()).unwrap();
        };
        may_publish("-publish");
        assert!(here.publish(&event(&user, 1)).await.is_err());
        may_publish("+publish");
        assert_eq!(next(&mut device).await, None);
        here.publish(&event(&user, 2)).await.unwrap();
        assert_eq!(next(&mut device).await, Some(2));
    }

    #[tokio::test]
    async fn a_restart_of_redis_is_a_gap_and_then_messages_flow_again() {
        let mut server = PrivateRedis::start();
        let redis = server.redis();
        let journal = Arc::new(Notebook::default());
        let (here, there) = (process(&redis, "here", journal.clone()), process(&redis, "there", journal.clone()));
        let user = somebody();
        let mut device = there.subscribe(&user).await.unwrap();
        here.publish(&event(&user, 1)).await.unwrap();
        assert_eq!(next(&mut device).await, Some(1));

        server.stop();
        let mut own = here.subscribe(&user).await.unwrap();
        assert!(here.publish(&event(&user, 2)).await.is_err());
        assert_eq!(next(&mut own).await, Some(2), "this process is served without redis");
        server.restart();

        assert_eq!(next(&mut device).await, None);
        assert_eq!(next(&mut own).await, None, "who came during the outage is told, too");
        eventually("published again", || async { here.publish(&event(&user, 3)).await.is_ok() }).await;
        assert_eq!(next(&mut own).await, Some(3));
        assert_eq!(next(&mut device).await, Some(3));
        let told = |state| journal.count(|fact| matches!(fact, Fact::SubscriberState { state: s } if *s == state));
        assert_eq!(told("connected"), 4);
        assert_eq!(told("reconnecting"), 2);
    }
}
