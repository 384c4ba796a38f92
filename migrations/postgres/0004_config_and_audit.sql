-- Configuration for installations without Redis, with one version and the previous values (gateway.md section 12,
-- admin.md section 6.1), and the record of what operators did (admin.md section 5).

create table "airi_config_entry" (
    "name" text not null,
    "value" text not null,
    "updated_at" timestamp not null default now(),
    constraint "airi_config_entry_pkey" primary key ("name")
);

create table "airi_config_version" (
    "id" integer not null default 1,
    "version" bigint not null,
    constraint "airi_config_version_pkey" primary key ("id"),
    constraint "airi_config_version_single_row" check ("id" = 1)
);

insert into "airi_config_version" ("version") values (0);

-- The value an entry had until this version was written; null when it was at its default.
create table "airi_config_history" (
    "version" bigint not null,
    "name" text not null,
    "previous_value" text,
    "replaced_at" timestamp not null default now(),
    constraint "airi_config_history_pkey" primary key ("version", "name")
);

create table "admin_audit_log" (
    "id" text not null,
    "at" timestamp not null,
    "actor_user_id" text not null,
    "actor_email" text,
    "action" text not null,
    "target" text,
    "request_id" text,
    "ip" text,
    "user_agent" text,
    "dry_run" boolean not null default false,
    "outcome" text not null,
    "status" integer not null,
    "summary" jsonb,
    constraint "airi_admin_audit_log_pkey" primary key ("id")
);
