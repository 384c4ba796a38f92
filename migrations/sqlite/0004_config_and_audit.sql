-- Twin of the PostgreSQL file: configuration with one version and its history, and the record of what operators did.

create table "airi_config_entry" (
    "name" text not null,
    "value" text not null,
    "updated_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "airi_config_entry_pkey" primary key ("name")
) strict;

create table "airi_config_version" (
    "id" integer not null default 1,
    "version" integer not null,
    constraint "airi_config_version_pkey" primary key ("id"),
    constraint "airi_config_version_single_row" check ("id" = 1)
) strict;

insert into "airi_config_version" ("version") values (0);

-- The value an entry had until this version was written; null when it was at its default.
create table "airi_config_history" (
    "version" integer not null,
    "name" text not null,
    "previous_value" text,
    "replaced_at" integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000) as integer) * 1000),
    constraint "airi_config_history_pkey" primary key ("version", "name")
) strict;

create table "admin_audit_log" (
    "id" text not null,
    "at" integer not null,
    "actor_user_id" text not null,
    "actor_email" text,
    "action" text not null,
    "target" text,
    "request_id" text,
    "ip" text,
    "user_agent" text,
    "dry_run" integer not null default 0 check ("dry_run" in (0, 1)),
    "outcome" text not null,
    "status" integer not null,
    "summary" text check (json_valid("summary")),
    constraint "airi_admin_audit_log_pkey" primary key ("id")
) strict;
