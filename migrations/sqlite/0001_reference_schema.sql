-- Twin of the PostgreSQL file: the same 34 tables and columns. Times are whole microseconds since 1970 UTC,
-- because entries of one user are ordered by strictly increasing time; bool is 0 or 1; jsonb and text[] are JSON text.

create table "user" (
    "id" text not null,
    "name" text not null,
    "email" text not null,
    "email_verified" integer not null default 0 check ("email_verified" in (0, 1)),
    "image" text,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "last_seen_at" integer,
    constraint "user_pkey" primary key ("id"),
    constraint "user_email_unique" unique ("email")
) strict;

create table "session" (
    "id" text not null,
    "expires_at" integer not null,
    "token" text not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null,
    "ip_address" text,
    "user_agent" text,
    "user_id" text not null,
    constraint "session_pkey" primary key ("id"),
    constraint "session_token_unique" unique ("token"),
    constraint "session_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade
) strict;

create table "account" (
    "id" text not null,
    "account_id" text not null,
    "provider_id" text not null,
    "user_id" text not null,
    "access_token" text,
    "refresh_token" text,
    "id_token" text,
    "access_token_expires_at" integer,
    "refresh_token_expires_at" integer,
    "scope" text,
    "password" text,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null,
    constraint "account_pkey" primary key ("id"),
    constraint "account_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade
) strict;

create table "verification" (
    "id" text not null,
    "identifier" text not null,
    "value" text not null,
    "expires_at" integer not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "verification_pkey" primary key ("id")
) strict;

create table "jwks" (
    "id" text not null,
    "public_key" text not null,
    "private_key" text not null,
    "created_at" integer not null,
    "expires_at" integer,
    constraint "jwks_pkey" primary key ("id")
) strict;

create table "oauth_client" (
    "id" text not null,
    "client_id" text not null,
    "client_secret" text,
    "disabled" integer default 0 check ("disabled" in (0, 1)),
    "skip_consent" integer check ("skip_consent" in (0, 1)),
    "enable_end_session" integer check ("enable_end_session" in (0, 1)),
    "subject_type" text,
    "scopes" text check (json_valid("scopes")),
    "user_id" text,
    "created_at" integer,
    "updated_at" integer,
    "name" text,
    "uri" text,
    "icon" text,
    "contacts" text check (json_valid("contacts")),
    "tos" text,
    "policy" text,
    "software_id" text,
    "software_version" text,
    "software_statement" text,
    "redirect_uris" text not null check (json_valid("redirect_uris")),
    "post_logout_redirect_uris" text check (json_valid("post_logout_redirect_uris")),
    "token_endpoint_auth_method" text,
    "grant_types" text check (json_valid("grant_types")),
    "response_types" text check (json_valid("response_types")),
    "public" integer check ("public" in (0, 1)),
    "type" text,
    "require_pkce" integer check ("require_pkce" in (0, 1)),
    "reference_id" text,
    "metadata" text check (json_valid("metadata")),
    constraint "oauth_client_pkey" primary key ("id"),
    constraint "oauth_client_client_id_unique" unique ("client_id"),
    constraint "oauth_client_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade
) strict;

create table "oauth_refresh_token" (
    "id" text not null,
    "token" text not null,
    "client_id" text not null,
    "session_id" text,
    "user_id" text not null,
    "reference_id" text,
    "expires_at" integer,
    "created_at" integer,
    "revoked" integer,
    "auth_time" integer,
    "scopes" text not null check (json_valid("scopes")),
    constraint "oauth_refresh_token_pkey" primary key ("id"),
    constraint "oauth_refresh_token_client_id_oauth_client_client_id_fk" foreign key ("client_id") references "oauth_client" ("client_id") on delete cascade,
    constraint "oauth_refresh_token_session_id_session_id_fk" foreign key ("session_id") references "session" ("id") on delete set null,
    constraint "oauth_refresh_token_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade
) strict;

create table "oauth_access_token" (
    "id" text not null,
    "token" text,
    "client_id" text not null,
    "session_id" text,
    "user_id" text,
    "reference_id" text,
    "refresh_id" text,
    "expires_at" integer,
    "created_at" integer,
    "scopes" text not null check (json_valid("scopes")),
    constraint "oauth_access_token_pkey" primary key ("id"),
    constraint "oauth_access_token_token_unique" unique ("token"),
    constraint "oauth_access_token_client_id_oauth_client_client_id_fk" foreign key ("client_id") references "oauth_client" ("client_id") on delete cascade,
    constraint "oauth_access_token_session_id_session_id_fk" foreign key ("session_id") references "session" ("id") on delete set null,
    constraint "oauth_access_token_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade,
    constraint "oauth_access_token_refresh_id_oauth_refresh_token_id_fk" foreign key ("refresh_id") references "oauth_refresh_token" ("id") on delete cascade
) strict;

create table "oauth_consent" (
    "id" text not null,
    "client_id" text not null,
    "user_id" text,
    "reference_id" text,
    "scopes" text not null check (json_valid("scopes")),
    "created_at" integer,
    "updated_at" integer,
    constraint "oauth_consent_pkey" primary key ("id"),
    constraint "oauth_consent_client_id_oauth_client_client_id_fk" foreign key ("client_id") references "oauth_client" ("client_id") on delete cascade,
    constraint "oauth_consent_user_id_user_id_fk" foreign key ("user_id") references "user" ("id") on delete cascade
) strict;

create table "characters" (
    "id" text not null,
    "version" text not null,
    "cover_url" text not null,
    "creator_id" text not null,
    "owner_id" text not null,
    "character_id" text not null,
    "avatar_url" text,
    "creator_role" text,
    "price_credit" text not null default '0',
    "likes_count" integer not null default 0,
    "bookmarks_count" integer not null default 0,
    "interactions_count" integer not null default 0,
    "forks_count" integer not null default 0,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "characters_pkey" primary key ("id")
) strict;

create table "character_covers" (
    "id" text not null,
    "character_id" text not null,
    "foreground_url" text not null,
    "background_url" text not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "character_covers_pkey" primary key ("id"),
    constraint "character_covers_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade
) strict;

create table "avatar_model" (
    "id" text not null,
    "character_id" text not null,
    "name" text not null,
    "type" text not null,
    "description" text not null,
    "config" text not null check (json_valid("config")),
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "avatar_model_pkey" primary key ("id"),
    constraint "avatar_model_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade
) strict;

create table "character_capabilities" (
    "id" text not null,
    "character_id" text not null,
    "type" text not null,
    "config" text not null check (json_valid("config")),
    constraint "character_capabilities_pkey" primary key ("id"),
    constraint "character_capabilities_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade
) strict;

create table "character_i18n" (
    "id" text not null,
    "character_id" text not null,
    "language" text not null,
    "name" text not null,
    "tagline" text,
    "description" text not null,
    "tags" text not null check (json_valid("tags")),
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "character_i18n_pkey" primary key ("id"),
    constraint "character_i18n_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade
) strict;

create table "character_prompts" (
    "id" text not null,
    "character_id" text not null,
    "language" text not null,
    "type" text not null,
    "content" text not null,
    constraint "character_prompts_pkey" primary key ("id"),
    constraint "character_prompts_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade
) strict;

create table "user_character_likes" (
    "user_id" text not null,
    "character_id" text not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "user_character_likes_user_id_character_id_pk" primary key ("user_id", "character_id"),
    constraint "user_character_likes_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade
) strict;

create table "user_character_bookmarks" (
    "user_id" text not null,
    "character_id" text not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "user_character_bookmarks_user_id_character_id_pk" primary key ("user_id", "character_id"),
    constraint "user_character_bookmarks_character_id_characters_id_fk" foreign key ("character_id") references "characters" ("id") on delete cascade
) strict;

create table "chats" (
    "id" text not null,
    "type" text not null,
    "title" text,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "chats_pkey" primary key ("id")
) strict;

create table "chat_members" (
    "id" text not null,
    "chat_id" text not null,
    "member_type" text not null,
    "user_id" text,
    "character_id" text,
    constraint "chat_members_pkey" primary key ("id"),
    constraint "chat_members_chat_id_chats_id_fk" foreign key ("chat_id") references "chats" ("id") on delete cascade
) strict;

create table "messages" (
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
    constraint "messages_pkey" primary key ("id"),
    constraint "messages_chat_id_chats_id_fk" foreign key ("chat_id") references "chats" ("id") on delete cascade
) strict;

create table "media" (
    "id" text not null,
    "url" text not null,
    "mime_type" text not null,
    "size" integer not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "media_pkey" primary key ("id")
) strict;

create table "stickers" (
    "id" text not null,
    "url" text not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "stickers_pkey" primary key ("id")
) strict;

create table "sticker_packs" (
    "id" text not null,
    "name" text not null,
    "description" text not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "sticker_packs_pkey" primary key ("id")
) strict;

create table "user_provider_configs" (
    "id" text not null,
    "owner_id" text not null,
    "definition_id" text not null,
    "name" text not null,
    "config" text not null default '{}' check (json_valid("config")),
    "validated" integer not null default 0 check ("validated" in (0, 1)),
    "validation_bypassed" integer not null default 0 check ("validation_bypassed" in (0, 1)),
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "user_provider_configs_pkey" primary key ("id")
) strict;

create table "system_provider_configs" (
    "id" text not null,
    "definition_id" text not null,
    "name" text not null,
    "config" text not null default '{}' check (json_valid("config")),
    "validated" integer not null default 0 check ("validated" in (0, 1)),
    "validation_bypassed" integer not null default 0 check ("validation_bypassed" in (0, 1)),
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "system_provider_configs_pkey" primary key ("id")
) strict;

create table "user_flux" (
    "user_id" text not null,
    "flux" integer not null default 0,
    "stripe_customer_id" text,
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "user_flux_pkey" primary key ("user_id"),
    constraint "airi_user_flux_flux_not_negative" check ("flux" >= 0)
) strict;

create table "flux_transaction" (
    "id" text not null,
    "user_id" text not null,
    "type" text not null,
    "amount" integer not null,
    "balance_before" integer not null,
    "balance_after" integer not null,
    "request_id" text,
    "description" text not null,
    "metadata" text check (json_valid("metadata")),
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "flux_transaction_pkey" primary key ("id"),
    constraint "airi_flux_transaction_amount_not_negative" check ("amount" >= 0)
) strict;

create table "llm_request_log" (
    "id" text not null,
    "user_id" text not null,
    "model" text not null,
    "status" integer not null,
    "duration_ms" integer not null,
    "flux_consumed" integer not null,
    "prompt_tokens" integer,
    "completion_tokens" integer,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "llm_request_log_pkey" primary key ("id")
) strict;

create table "flux_grant_batch" (
    "id" text not null,
    "name" text not null,
    "type" text not null,
    "amount" integer not null,
    "description" text,
    "status" text not null,
    "created_by_user_id" text not null,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "started_at" integer,
    "completed_at" integer,
    constraint "flux_grant_batch_pkey" primary key ("id")
) strict;

create table "flux_grant_batch_recipient" (
    "id" text not null,
    "batch_id" text not null,
    "input_email" text not null,
    "user_id" text,
    "status" text not null,
    "error_reason" text,
    "flux_transaction_id" text,
    "attempt_count" integer not null default 0,
    "last_attempted_at" integer,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "flux_grant_batch_recipient_pkey" primary key ("id")
) strict;

create table "stripe_customer" (
    "id" text not null,
    "user_id" text not null,
    "stripe_customer_id" text not null,
    "email" text,
    "name" text,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "stripe_customer_pkey" primary key ("id"),
    constraint "stripe_customer_stripe_customer_id_unique" unique ("stripe_customer_id")
) strict;

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
    "expires_at" integer,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "flux_credited" integer not null default 0 check ("flux_credited" in (0, 1)),
    "deleted_at" integer,
    constraint "stripe_checkout_session_pkey" primary key ("id"),
    constraint "stripe_checkout_session_stripe_session_id_unique" unique ("stripe_session_id")
) strict;

create table "stripe_subscription" (
    "id" text not null,
    "user_id" text not null,
    "stripe_subscription_id" text not null,
    "stripe_customer_id" text not null,
    "stripe_price_id" text,
    "status" text not null,
    "current_period_start" integer,
    "current_period_end" integer,
    "cancel_at_period_end" integer check ("cancel_at_period_end" in (0, 1)),
    "canceled_at" integer,
    "ended_at" integer,
    "metadata" text,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "deleted_at" integer,
    constraint "stripe_subscription_pkey" primary key ("id"),
    constraint "stripe_subscription_stripe_subscription_id_unique" unique ("stripe_subscription_id")
) strict;

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
    "period_start" integer,
    "period_end" integer,
    "paid_at" integer,
    "metadata" text,
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    "flux_credited" integer not null default 0 check ("flux_credited" in (0, 1)),
    "deleted_at" integer,
    constraint "stripe_invoice_pkey" primary key ("id"),
    constraint "stripe_invoice_stripe_invoice_id_unique" unique ("stripe_invoice_id")
) strict;

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
