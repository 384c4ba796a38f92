-- Twin of the PostgreSQL file: a message is known by its chat and its id (chats.md W-1), and nobody is in a chat twice
-- (W-11; schema.md section 6). A primary key cannot be changed in place.

create table "messages_by_chat" (
    "id" text not null,
    "chat_id" text not null,
    "sender_id" text,
    "role" text not null,
    "content" text not null,
    "media_ids" text not null check (json_valid("media_ids")),
    "sticker_ids" text not null check (json_valid("sticker_ids")),
    "reply_message_id" text,
    "forward_from_message_id" text,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    "seq" integer,
    constraint "messages_pkey" primary key ("chat_id", "id"),
    constraint "messages_chat_id_chats_id_fk" foreign key ("chat_id") references "chats" ("id") on delete cascade
) strict;

insert into "messages_by_chat" (id, chat_id, sender_id, role, content, media_ids, sticker_ids, reply_message_id,
    forward_from_message_id, created_at, updated_at, deleted_at, seq)
select id, chat_id, sender_id, role, content, media_ids, sticker_ids, reply_message_id, forward_from_message_id,
    created_at, updated_at, deleted_at, seq from "messages";
drop table "messages";
alter table "messages_by_chat" rename to "messages";
create unique index "airi_messages_chat_seq" on "messages" (chat_id, seq) where seq is not null;

delete from "chat_members" where member_type = 'user' and user_id is null;
delete from "chat_members" where rowid in (
    select extra.rowid from "chat_members" as extra join "chat_members" as kept
    on kept.chat_id = extra.chat_id and kept.member_type = extra.member_type and kept.id < extra.id
    and (kept.user_id = extra.user_id and extra.member_type = 'user' or kept.character_id = extra.character_id)
);
create unique index "airi_chat_members_person" on "chat_members" (chat_id, user_id) where member_type = 'user' and user_id is not null;
create unique index "airi_chat_members_label" on "chat_members" (chat_id, member_type, character_id) where character_id is not null;
