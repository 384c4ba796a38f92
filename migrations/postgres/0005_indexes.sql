-- Indexes for the queries that would scan whole tables (schema.md section 5), and for our own tables.
-- One statement at a time, outside a transaction, so that writers go on while they are built. A unique index that
-- the data forbids is built plain: nothing may depend on it.

create unique index concurrently if not exists "airi_messages_chat_seq" on "messages" (chat_id, seq) where seq is not null;
create index concurrently if not exists "airi_chat_members_user" on "chat_members" (user_id) where member_type = 'user';
create index concurrently if not exists "airi_chat_members_chat" on "chat_members" (chat_id);
create index concurrently if not exists "airi_characters_owner" on "characters" (owner_id) where deleted_at is null;
create index concurrently if not exists "airi_characters_newest" on "characters" (created_at desc, id desc) where deleted_at is null;
create index concurrently if not exists "airi_characters_creator" on "characters" (creator_id);
create index concurrently if not exists "airi_character_covers_character" on "character_covers" (character_id);
create index concurrently if not exists "airi_avatar_model_character" on "avatar_model" (character_id);
create index concurrently if not exists "airi_character_capabilities_character" on "character_capabilities" (character_id);
create index concurrently if not exists "airi_character_i18n_character" on "character_i18n" (character_id);
create index concurrently if not exists "airi_character_prompts_character" on "character_prompts" (character_id);
create index concurrently if not exists "airi_user_character_likes_character" on "user_character_likes" (character_id);
create index concurrently if not exists "airi_user_character_bookmarks_character" on "user_character_bookmarks" (character_id);
create index concurrently if not exists "airi_user_provider_configs_owner" on "user_provider_configs" (owner_id) where deleted_at is null;
create index concurrently if not exists "airi_flux_transaction_history" on "flux_transaction" (user_id, created_at desc, id desc);
create index concurrently if not exists "airi_flux_transaction_capacity" on "flux_transaction" (user_id, created_at desc) where type in ('credit', 'initial', 'promo');
create index concurrently if not exists "airi_stripe_customer_user" on "stripe_customer" (user_id, created_at desc);
create index concurrently if not exists "airi_stripe_checkout_session_user" on "stripe_checkout_session" (user_id, created_at desc);
create index concurrently if not exists "airi_stripe_subscription_user" on "stripe_subscription" (user_id, created_at desc);
create index concurrently if not exists "airi_stripe_invoice_user" on "stripe_invoice" (user_id, created_at desc);
create index concurrently if not exists "airi_stripe_subscription_customer" on "stripe_subscription" (stripe_customer_id);
create index concurrently if not exists "airi_session_expires" on "session" (expires_at);
create unique index concurrently if not exists "airi_account_provider_account" on "account" (provider_id, account_id);
create unique index concurrently if not exists "airi_oauth_refresh_token_token" on "oauth_refresh_token" (token);
create index concurrently if not exists "airi_oauth_refresh_token_session" on "oauth_refresh_token" (session_id);
create index concurrently if not exists "airi_oauth_refresh_token_user" on "oauth_refresh_token" (user_id);
create index concurrently if not exists "airi_oauth_refresh_token_client" on "oauth_refresh_token" (client_id);
create index concurrently if not exists "airi_oauth_access_token_session" on "oauth_access_token" (session_id);
create index concurrently if not exists "airi_oauth_access_token_user" on "oauth_access_token" (user_id);
create index concurrently if not exists "airi_oauth_access_token_client" on "oauth_access_token" (client_id);
create index concurrently if not exists "airi_oauth_access_token_refresh" on "oauth_access_token" (refresh_id);
create index concurrently if not exists "airi_oauth_access_token_expires" on "oauth_access_token" (expires_at);
create index concurrently if not exists "airi_oauth_consent_user_client" on "oauth_consent" (user_id, client_id);
create index concurrently if not exists "airi_oauth_consent_client" on "oauth_consent" (client_id);
create index concurrently if not exists "airi_oauth_client_user" on "oauth_client" (user_id);
create index concurrently if not exists "airi_llm_request_log_created" on "llm_request_log" (created_at);
create index concurrently if not exists "airi_llm_request_log_user" on "llm_request_log" (user_id, created_at desc);
create index concurrently if not exists "airi_user_email_lower" on "user" (lower(email));
create index concurrently if not exists "airi_config_history_name" on "airi_config_history" (name, version desc);
create index concurrently if not exists "airi_audit_at" on "admin_audit_log" (at desc, id desc);
create index concurrently if not exists "airi_audit_actor" on "admin_audit_log" (actor_user_id, at desc);
