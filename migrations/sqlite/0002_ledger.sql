-- Twin of the PostgreSQL file. The checks on flux and amount stand in the first file: SQLite cannot add them later.

alter table "user_flux" add column "version" integer not null default 0;

create table "flux_meter_debt" (
    "user_id" text not null,
    "meter" text not null,
    "units" integer not null,
    "updated_at" integer not null,
    constraint "airi_flux_meter_debt_pkey" primary key ("user_id", "meter"),
    constraint "airi_flux_meter_debt_units_not_negative" check ("units" >= 0)
) strict;

create table "flux_meter_usage" (
    "user_id" text not null,
    "request_id" text not null,
    "meter" text not null,
    "units" integer not null,
    "flux_charged" integer not null,
    "flux_unbilled" integer not null default 0,
    "debt_after" integer not null default 0,
    "created_at" integer not null,
    constraint "airi_flux_meter_usage_pkey" primary key ("user_id", "request_id"),
    constraint "airi_flux_meter_usage_units_not_negative" check ("units" >= 0),
    constraint "airi_flux_meter_usage_flux_charged_not_negative" check ("flux_charged" >= 0)
) strict;
