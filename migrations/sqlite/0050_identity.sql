-- Twin of the PostgreSQL file: addresses of deleted accounts, as keyed hashes.

create table "airi_erased_address" (
    "mark" text not null,
    "erased_at" integer not null,
    constraint "airi_erased_address_pkey" primary key ("mark")
) strict;

create index "airi_verification_expires" on "verification" (expires_at);
