-- A message is known by its chat and its id (chats.md W-1), and nobody is in a chat twice (W-11; schema.md section 6).
-- One statement at a time, so that writers go on; each may be repeated. A unique index that the data forbids is built
-- plain: the row lock of the chat keeps the rules all the same.

create unique index concurrently if not exists "airi_messages_chat_id" on "messages" (chat_id, id);
-- The name stays the reference's; the index takes it over.
alter table "messages" drop constraint if exists "messages_pkey", add constraint "messages_pkey" primary key using index "airi_messages_chat_id";
delete from "chat_members" where member_type = 'user' and user_id is null;
delete from "chat_members" as extra using "chat_members" as kept where extra.member_type = 'user' and kept.member_type = 'user' and kept.chat_id = extra.chat_id and kept.user_id = extra.user_id and kept.id < extra.id;
delete from "chat_members" as extra using "chat_members" as kept where extra.character_id is not null and kept.chat_id = extra.chat_id and kept.member_type = extra.member_type and kept.character_id = extra.character_id and kept.id < extra.id;
create unique index concurrently if not exists "airi_chat_members_person" on "chat_members" (chat_id, user_id) where member_type = 'user' and user_id is not null;
create unique index concurrently if not exists "airi_chat_members_label" on "chat_members" (chat_id, member_type, character_id) where character_id is not null;
