-- Twin of the PostgreSQL file: what payments need beyond the reference.

alter table "stripe_customer" add column "last_event_rank" integer not null default 0;
alter table "stripe_customer" add column "last_event_at" integer not null default 0;

alter table "stripe_checkout_session" add column "last_event_rank" integer not null default 0;
alter table "stripe_checkout_session" add column "last_event_at" integer not null default 0;
alter table "stripe_checkout_session" add column "credited_flux" integer;
alter table "stripe_checkout_session" add column "credited_paid" integer;

alter table "stripe_subscription" add column "last_event_rank" integer not null default 0;
alter table "stripe_subscription" add column "last_event_at" integer not null default 0;

alter table "stripe_invoice" add column "last_event_rank" integer not null default 0;
alter table "stripe_invoice" add column "last_event_at" integer not null default 0;
alter table "stripe_invoice" add column "stripe_payment_intent_id" text;
alter table "stripe_invoice" add column "credited_flux" integer;
alter table "stripe_invoice" add column "credited_paid" integer;

create index "airi_stripe_checkout_session_payment" on "stripe_checkout_session" ("stripe_payment_intent_id");
create index "airi_stripe_invoice_payment" on "stripe_invoice" ("stripe_payment_intent_id");

create table "stripe_event" (
    "id" text not null,
    "type" text not null,
    "created" integer not null,
    "livemode" integer not null check ("livemode" in (0, 1)),
    "amount" integer,
    "received_at" integer not null,
    "processed_at" integer,
    "outcome" text,
    "error" text,
    constraint "airi_stripe_event_pkey" primary key ("id")
) strict;

create index "airi_stripe_event_received" on "stripe_event" ("received_at" desc);

create table "stripe_clawback" (
    "request_id" text not null,
    "reason" text not null,
    "stripe_payment_intent_id" text not null,
    "amount" integer not null,
    "amount_of" integer,
    "entry_id" text not null,
    "description" text not null,
    "metadata" text not null,
    "user_id" text,
    "claim" text,
    "asked" integer,
    "taken" integer,
    "restored" integer not null default 0 check ("restored" in (0, 1)),
    "created_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "airi_stripe_clawback_pkey" primary key ("request_id"),
    constraint "airi_stripe_clawback_taken_of_asked" check ("taken" >= 0 and "taken" <= "asked")
) strict;

create index "airi_stripe_clawback_payment" on "stripe_clawback" ("stripe_payment_intent_id");
create index "airi_stripe_clawback_claim" on "stripe_clawback" ("claim");

create table "flux_owed" (
    "user_id" text not null,
    "owed" integer not null,
    "updated_at" integer not null,
    constraint "airi_flux_owed_pkey" primary key ("user_id"),
    constraint "airi_flux_owed_not_negative" check ("owed" >= 0)
) strict;
