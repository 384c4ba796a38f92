-- The reference's 34 tables as its twelve migrations leave them, so that either server can run on the database.
-- Applied to an empty database only; elsewhere it is the yardstick that tables are compared with. Names, types and
-- column order are the contract (schema.md section 3): never rename, retype or drop one.

create table "user" (
    "id" text not null,
    "name" text not null,
    "email" text not null,
    "email_verified" boolean default false not null,
    "image" text,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "last_seen_at" timestamp,
    constraint "user_pkey" primary key ("id"),
    constraint "user_email_unique" unique ("email")
);

create table "session" (
    "id" text not null,
    "expires_at" timestamp not null,
    "token" text not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp not null,
    "ip_address" text,
    "user_agent" text,
    "user_id" text not null,
    constraint "session_pkey" primary key ("id"),
    constraint "session_token_unique" unique ("token")
);

create table "account" (
    "id" text not null,
    "account_id" text not null,
    "provider_id" text not null,
    "user_id" text not null,
    "access_token" text,
    "refresh_token" text,
    "id_token" text,
    "access_token_expires_at" timestamp,
    "refresh_token_expires_at" timestamp,
    "scope" text,
    "password" text,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp not null,
    constraint "account_pkey" primary key ("id")
);

create table "verification" (
    "id" text not null,
    "identifier" text not null,
    "value" text not null,
    "expires_at" timestamp not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    constraint "verification_pkey" primary key ("id")
);

create table "jwks" (
    "id" text not null,
    "public_key" text not null,
    "private_key" text not null,
    "created_at" timestamp not null,
    "expires_at" timestamp,
    constraint "jwks_pkey" primary key ("id")
);

create table "oauth_client" (
    "id" text not null,
    "client_id" text not null,
    "client_secret" text,
    "disabled" boolean default false,
    "skip_consent" boolean,
    "enable_end_session" boolean,
    "subject_type" text,
    "scopes" text[],
    "user_id" text,
    "created_at" timestamp,
    "updated_at" timestamp,
    "name" text,
    "uri" text,
    "icon" text,
    "contacts" text[],
    "tos" text,
    "policy" text,
    "software_id" text,
    "software_version" text,
    "software_statement" text,
    "redirect_uris" text[] not null,
    "post_logout_redirect_uris" text[],
    "token_endpoint_auth_method" text,
    "grant_types" text[],
    "response_types" text[],
    "public" boolean,
    "type" text,
    "require_pkce" boolean,
    "reference_id" text,
    "metadata" jsonb,
    constraint "oauth_client_pkey" primary key ("id"),
    constraint "oauth_client_client_id_unique" unique ("client_id")
);

create table "oauth_refresh_token" (
    "id" text not null,
    "token" text not null,
    "client_id" text not null,
    "session_id" text,
    "user_id" text not null,
    "reference_id" text,
    "expires_at" timestamp,
    "created_at" timestamp,
    "revoked" timestamp,
    "auth_time" timestamp,
    "scopes" text[] not null,
    constraint "oauth_refresh_token_pkey" primary key ("id")
);

create table "oauth_access_token" (
    "id" text not null,
    "token" text,
    "client_id" text not null,
    "session_id" text,
    "user_id" text,
    "reference_id" text,
    "refresh_id" text,
    "expires_at" timestamp,
    "created_at" timestamp,
    "scopes" text[] not null,
    constraint "oauth_access_token_pkey" primary key ("id"),
    constraint "oauth_access_token_token_unique" unique ("token")
);

create table "oauth_consent" (
    "id" text not null,
    "client_id" text not null,
    "user_id" text,
    "reference_id" text,
    "scopes" text[] not null,
    "created_at" timestamp,
    "updated_at" timestamp,
    constraint "oauth_consent_pkey" primary key ("id")
);

create table "characters" (
    "id" text not null,
    "version" text not null,
    "cover_url" text not null,
    "creator_id" text not null,
    "owner_id" text not null,
    "character_id" text not null,
    "avatar_url" text,
    "creator_role" text,
    "price_credit" text default '0' not null,
    "likes_count" integer default 0 not null,
    "bookmarks_count" integer default 0 not null,
    "interactions_count" integer default 0 not null,
    "forks_count" integer default 0 not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "characters_pkey" primary key ("id")
);

create table "character_covers" (
    "id" text not null,
    "character_id" text not null,
    "foreground_url" text not null,
    "background_url" text not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "character_covers_pkey" primary key ("id")
);

create table "avatar_model" (
    "id" text not null,
    "character_id" text not null,
    "name" text not null,
    "type" text not null,
    "description" text not null,
    "config" jsonb not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "avatar_model_pkey" primary key ("id")
);

create table "character_capabilities" (
    "id" text not null,
    "character_id" text not null,
    "type" text not null,
    "config" jsonb not null,
    constraint "character_capabilities_pkey" primary key ("id")
);

create table "character_i18n" (
    "id" text not null,
    "character_id" text not null,
    "language" text not null,
    "name" text not null,
    "tagline" text,
    "description" text not null,
    "tags" text[] not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "character_i18n_pkey" primary key ("id")
);

create table "character_prompts" (
    "id" text not null,
    "character_id" text not null,
    "language" text not null,
    "type" text not null,
    "content" text not null,
    constraint "character_prompts_pkey" primary key ("id")
);

create table "user_character_likes" (
    "user_id" text not null,
    "character_id" text not null,
    "created_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "user_character_likes_user_id_character_id_pk" primary key ("user_id", "character_id")
);

create table "user_character_bookmarks" (
    "user_id" text not null,
    "character_id" text not null,
    "created_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "user_character_bookmarks_user_id_character_id_pk" primary key ("user_id", "character_id")
);

create table "chats" (
    "id" text not null,
    "type" text not null,
    "title" text,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "chats_pkey" primary key ("id")
);

create table "chat_members" (
    "id" text not null,
    "chat_id" text not null,
    "member_type" text not null,
    "user_id" text,
    "character_id" text,
    constraint "chat_members_pkey" primary key ("id")
);

create table "messages" (
    "id" text not null,
    "chat_id" text not null,
    "sender_id" text,
    "role" text not null,
    "content" text not null,
    "media_ids" text[] not null,
    "sticker_ids" text[] not null,
    "reply_message_id" text,
    "forward_from_message_id" text,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    "seq" integer,
    constraint "messages_pkey" primary key ("id")
);

create table "media" (
    "id" text not null,
    "url" text not null,
    "mime_type" text not null,
    "size" integer not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    constraint "media_pkey" primary key ("id")
);

create table "stickers" (
    "id" text not null,
    "url" text not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    constraint "stickers_pkey" primary key ("id")
);

create table "sticker_packs" (
    "id" text not null,
    "name" text not null,
    "description" text not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    constraint "sticker_packs_pkey" primary key ("id")
);

create table "user_provider_configs" (
    "id" text not null,
    "owner_id" text not null,
    "definition_id" text not null,
    "name" text not null,
    "config" jsonb default '{}'::jsonb not null,
    "validated" boolean default false not null,
    "validation_bypassed" boolean default false not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "user_provider_configs_pkey" primary key ("id")
);

create table "system_provider_configs" (
    "id" text not null,
    "definition_id" text not null,
    "name" text not null,
    "config" jsonb default '{}'::jsonb not null,
    "validated" boolean default false not null,
    "validation_bypassed" boolean default false not null,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "system_provider_configs_pkey" primary key ("id")
);

create table "user_flux" (
    "user_id" text not null,
    "flux" bigint default 0 not null,
    "stripe_customer_id" text,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "user_flux_pkey" primary key ("user_id")
);

create table "flux_transaction" (
    "id" text not null,
    "user_id" text not null,
    "type" text not null,
    "amount" bigint not null,
    "balance_before" bigint not null,
    "balance_after" bigint not null,
    "request_id" text,
    "description" text not null,
    "metadata" jsonb,
    "created_at" timestamp default now() not null,
    constraint "flux_transaction_pkey" primary key ("id")
);

create table "llm_request_log" (
    "id" text not null,
    "user_id" text not null,
    "model" text not null,
    "status" integer not null,
    "duration_ms" integer not null,
    "flux_consumed" bigint not null,
    "prompt_tokens" integer,
    "completion_tokens" integer,
    "created_at" timestamp default now() not null,
    constraint "llm_request_log_pkey" primary key ("id")
);

create table "flux_grant_batch" (
    "id" text not null,
    "name" text not null,
    "type" text not null,
    "amount" bigint not null,
    "description" text,
    "status" text not null,
    "created_by_user_id" text not null,
    "created_at" timestamp default now() not null,
    "started_at" timestamp,
    "completed_at" timestamp,
    constraint "flux_grant_batch_pkey" primary key ("id")
);

create table "flux_grant_batch_recipient" (
    "id" text not null,
    "batch_id" text not null,
    "input_email" text not null,
    "user_id" text,
    "status" text not null,
    "error_reason" text,
    "flux_transaction_id" text,
    "attempt_count" integer default 0 not null,
    "last_attempted_at" timestamp,
    "created_at" timestamp default now() not null,
    constraint "flux_grant_batch_recipient_pkey" primary key ("id")
);

create table "stripe_customer" (
    "id" text not null,
    "user_id" text not null,
    "stripe_customer_id" text not null,
    "email" text,
    "name" text,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "stripe_customer_pkey" primary key ("id"),
    constraint "stripe_customer_stripe_customer_id_unique" unique ("stripe_customer_id")
);

create table "stripe_checkout_session" (
    "id" text not null,
    "user_id" text not null,
    "stripe_session_id" text not null,
    "stripe_customer_id" text,
    "mode" text not null,
    "status" text,
    "payment_status" text,
    "amount_total" integer,
    "currency" text,
    "success_url" text,
    "cancel_url" text,
    "stripe_payment_intent_id" text,
    "stripe_subscription_id" text,
    "metadata" text,
    "expires_at" timestamp,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "flux_credited" boolean default false not null,
    "deleted_at" timestamp,
    constraint "stripe_checkout_session_pkey" primary key ("id"),
    constraint "stripe_checkout_session_stripe_session_id_unique" unique ("stripe_session_id")
);

create table "stripe_subscription" (
    "id" text not null,
    "user_id" text not null,
    "stripe_subscription_id" text not null,
    "stripe_customer_id" text not null,
    "stripe_price_id" text,
    "status" text not null,
    "current_period_start" timestamp,
    "current_period_end" timestamp,
    "cancel_at_period_end" boolean,
    "canceled_at" timestamp,
    "ended_at" timestamp,
    "metadata" text,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "deleted_at" timestamp,
    constraint "stripe_subscription_pkey" primary key ("id"),
    constraint "stripe_subscription_stripe_subscription_id_unique" unique ("stripe_subscription_id")
);

create table "stripe_invoice" (
    "id" text not null,
    "user_id" text not null,
    "stripe_invoice_id" text not null,
    "stripe_customer_id" text,
    "stripe_subscription_id" text,
    "status" text,
    "amount_due" integer,
    "amount_paid" integer,
    "currency" text,
    "invoice_url" text,
    "invoice_pdf" text,
    "period_start" timestamp,
    "period_end" timestamp,
    "paid_at" timestamp,
    "metadata" text,
    "created_at" timestamp default now() not null,
    "updated_at" timestamp default now() not null,
    "flux_credited" boolean default false not null,
    "deleted_at" timestamp,
    constraint "stripe_invoice_pkey" primary key ("id"),
    constraint "stripe_invoice_stripe_invoice_id_unique" unique ("stripe_invoice_id")
);

alter table "session"
    add constraint "session_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade;
alter table "account"
    add constraint "account_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade;
alter table "oauth_client"
    add constraint "oauth_client_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade;
alter table "oauth_refresh_token"
    add constraint "oauth_refresh_token_client_id_oauth_client_client_id_fk" foreign key ("client_id") references "oauth_client" ("client_id") on delete cascade;
alter table "oauth_refresh_token"
    add constraint "oauth_refresh_token_session_id_session_id_fk" foreign key ("session_id") references "session" ("id") on delete set null;
alter table "oauth_refresh_token"
    add constraint "oauth_refresh_token_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade;
alter table "oauth_access_token"
    add constraint "oauth_access_token_client_id_oauth_client_client_id_fk" foreign key ("client_id") references "oauth_client" ("client_id") on delete cascade;
alter table "oauth_access_token"
    add constraint "oauth_access_token_session_id_session_id_fk" foreign key ("session_id") references "session" ("id") on delete set null;
alter table "oauth_access_token"
    add constraint "oauth_access_token_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade;
alter table "oauth_access_token"
    add constraint "oauth_access_token_refresh_id_oauth_refresh_token_id_fk" foreign key ("refresh_id") references "oauth_refresh_token" ("id") on delete cascade;
alter table "oauth_consent"
    add constraint "oauth_consent_client_id_oauth_client_client_id_fk" foreign key ("client_id") references "oauth_client" ("client_id") on delete cascade;
alter table "oauth_consent"
    add constraint "oauth_consent_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade;
alter table "character_covers"
    add constraint "character_covers_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade;
alter table "avatar_model"
    add constraint "avatar_model_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade;
alter table "character_capabilities"
    add constraint "character_capabilities_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade;
alter table "character_i18n"
    add constraint "character_i18n_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade;
alter table "character_prompts"
    add constraint "character_prompts_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade;
alter table "user_character_likes"
    add constraint "user_character_likes_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade;
alter table "user_character_bookmarks"
    add constraint "user_character_bookmarks_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade;
alter table "chat_members"
    add constraint "chat_members_chat_id_chats_id_fk" foreign key ("chat_id") references "chats" ("id") on delete cascade;
alter table "messages"
    add constraint "messages_chat_id_chats_id_fk" foreign key ("chat_id") references "chats" ("id") on delete cascade;
create index "session_userId_idx" on "session" ("user_id");
create index "account_userId_idx" on "account" ("user_id");
create index "verification_identifier_idx" on "verification" ("identifier");
create unique index "flux_tx_user_request_uniq" on "flux_transaction" ("user_id", "request_id") where request_id is not null;
create index "flux_tx_user_id_idx" on "flux_transaction" ("user_id");
create index "flux_tx_created_at_idx" on "flux_transaction" ("created_at");
create index "flux_grant_batch_status_idx" on "flux_grant_batch" ("status");
create index "flux_grant_batch_created_by_idx" on "flux_grant_batch" ("created_by_user_id");
create unique index "flux_grant_batch_recipient_batch_email_uniq" on "flux_grant_batch_recipient" ("batch_id", "input_email");
create index "flux_grant_batch_recipient_batch_status_idx" on "flux_grant_batch_recipient" ("batch_id", "status");
create index "flux_grant_batch_recipient_pending_idx" on "flux_grant_batch_recipient" ("status", "last_attempted_at") where status = 'pending';
