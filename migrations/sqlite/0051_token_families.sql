-- Twin of the PostgreSQL file: which tokens grew out of one code (auth.md F-10).

alter table "oauth_refresh_token" add column "family_id" text;
alter table "oauth_access_token" add column "family_id" text;
create index "airi_oauth_refresh_token_family" on "oauth_refresh_token" (family_id) where family_id is not null;
create index "airi_oauth_access_token_family" on "oauth_access_token" (family_id) where family_id is not null;
