-- Flux set aside for answers on their way. "flux" stays the settled balance, so that a reference server on the same
-- tables stays right; what can be spent is "flux" - "held". "held" is the sum of the user's rows in "flux_hold", kept
-- beside the balance so that whoever locks the row knows it without a second look.

alter table "user_flux" add column "held" bigint not null default 0;

alter table "user_flux" add constraint "airi_user_flux_held_not_negative" check ("held" >= 0);

create table "flux_hold" (
    "user_id" text not null,
    "request_id" text not null,
    "amount" bigint not null,
    "expires_at" timestamp not null,
    "created_at" timestamp not null,
    constraint "airi_flux_hold_pkey" primary key ("user_id", "request_id"),
    constraint "airi_flux_hold_amount_positive" check ("amount" > 0)
);

create index "airi_flux_hold_lapse" on "flux_hold" ("expires_at");

-- Calls named by their caller: whoever repeats one hears the first answer again (gateway.md §7.2).
create table "airi_idempotency" (
    "user_id" text not null,
    "key" text not null,
    "body_hash" bytea not null,
    "request_id" text not null,
    "status" text not null,
    "answer" bytea,
    "created_at" timestamp not null,
    constraint "airi_idempotency_pkey" primary key ("user_id", "key")
);

create index "airi_idempotency_age" on "airi_idempotency" ("created_at");
