-- Twin of the PostgreSQL file.

alter table "user_flux" add column "held" integer not null default 0 check ("held" >= 0);

create table "flux_hold" (
    "user_id" text not null,
    "request_id" text not null,
    "amount" integer not null,
    "expires_at" integer not null,
    "created_at" integer not null,
    constraint "airi_flux_hold_pkey" primary key ("user_id", "request_id"),
    constraint "airi_flux_hold_amount_positive" check ("amount" > 0)
) strict;

create index "airi_flux_hold_lapse" on "flux_hold" ("expires_at");

create table "airi_idempotency" (
    "user_id" text not null,
    "key" text not null,
    "body_hash" blob not null,
    "request_id" text not null,
    "status" text not null,
    "answer" blob,
    "created_at" integer not null,
    constraint "airi_idempotency_pkey" primary key ("user_id", "key")
) strict;

create index "airi_idempotency_age" on "airi_idempotency" ("created_at");
