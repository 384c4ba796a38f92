-- What the ledger needs beyond the reference: a version that grows with every entry of a user, the invariants as
-- checks, and sub-flux units in the database (audio.md AU-D25). The checks bind new rows at once; whether old rows
-- keep them is found out at every start, reported, and never repaired.

alter table "user_flux"
    add column "version" bigint not null default 0,
    add constraint "airi_user_flux_flux_not_negative" check ("flux" >= 0) not valid;

alter table "flux_transaction"
    add constraint "airi_flux_transaction_amount_not_negative" check ("amount" >= 0) not valid;

create table "flux_meter_debt" (
    "user_id" text not null,
    "meter" text not null,
    "units" bigint not null,
    "updated_at" timestamp not null,
    constraint "airi_flux_meter_debt_pkey" primary key ("user_id", "meter"),
    constraint "airi_flux_meter_debt_units_not_negative" check ("units" >= 0)
);

create table "flux_meter_usage" (
    "user_id" text not null,
    "request_id" text not null,
    "meter" text not null,
    "units" bigint not null,
    "flux_charged" bigint not null,
    "flux_unbilled" bigint not null default 0,
    "debt_after" bigint not null default 0,
    "created_at" timestamp not null,
    constraint "airi_flux_meter_usage_pkey" primary key ("user_id", "request_id"),
    constraint "airi_flux_meter_usage_units_not_negative" check ("units" >= 0),
    constraint "airi_flux_meter_usage_flux_charged_not_negative" check ("flux_charged" >= 0)
);
