-- What payments need beyond the reference: a journal of the provider's events, the age of each copy so that late events
-- cannot undo newer ones, what was credited, what was taken back, and what is owed.

alter table "stripe_customer"
    add column "last_event_rank" smallint not null default 0,
    add column "last_event_at" timestamp not null default 'epoch';

alter table "stripe_checkout_session"
    add column "last_event_rank" smallint not null default 0,
    add column "last_event_at" timestamp not null default 'epoch',
    add column "credited_flux" bigint,
    add column "credited_paid" bigint;

alter table "stripe_subscription"
    add column "last_event_rank" smallint not null default 0,
    add column "last_event_at" timestamp not null default 'epoch';

alter table "stripe_invoice"
    add column "last_event_rank" smallint not null default 0,
    add column "last_event_at" timestamp not null default 'epoch',
    add column "stripe_payment_intent_id" text,
    add column "credited_flux" bigint,
    add column "credited_paid" bigint;

-- Copies the reference made are as settled as they say.
update "stripe_checkout_session" set "last_event_rank" = 5 where "payment_status" in ('paid', 'no_payment_required');
update "stripe_subscription" set "last_event_rank" = 3 where "status" in ('canceled', 'incomplete_expired');
update "stripe_invoice" set "last_event_rank" = 5 where "status" = 'paid';

create index "airi_stripe_checkout_session_payment" on "stripe_checkout_session" ("stripe_payment_intent_id");
create index "airi_stripe_invoice_payment" on "stripe_invoice" ("stripe_payment_intent_id");

create table "stripe_event" (
    "id" text not null,
    "type" text not null,
    "created" timestamp not null,
    "livemode" boolean not null,
    "amount" bigint,
    "received_at" timestamp not null,
    "processed_at" timestamp,
    "outcome" text,
    "error" text,
    constraint "airi_stripe_event_pkey" primary key ("id")
);

create index "airi_stripe_event_received" on "stripe_event" ("received_at" desc);

create table "stripe_clawback" (
    "request_id" text not null,
    "reason" text not null,
    "stripe_payment_intent_id" text not null,
    "amount" bigint not null,
    "amount_of" bigint,
    "entry_id" text not null,
    "description" text not null,
    "metadata" text not null,
    "user_id" text,
    "claim" text,
    "asked" bigint,
    "taken" bigint,
    "restored" boolean not null default false,
    "created_at" timestamp not null default (clock_timestamp() at time zone 'UTC'),
    constraint "airi_stripe_clawback_pkey" primary key ("request_id"),
    constraint "airi_stripe_clawback_taken_of_asked" check ("taken" >= 0 and "taken" <= "asked")
);

create index "airi_stripe_clawback_payment" on "stripe_clawback" ("stripe_payment_intent_id");
create index "airi_stripe_clawback_claim" on "stripe_clawback" ("claim");

create table "flux_owed" (
    "user_id" text not null,
    "owed" bigint not null,
    "updated_at" timestamp not null,
    constraint "airi_flux_owed_pkey" primary key ("user_id"),
    constraint "airi_flux_owed_not_negative" check ("owed" >= 0)
);
