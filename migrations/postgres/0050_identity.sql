-- Addresses of deleted accounts, as keyed hashes: one opening grant per address (ledger.md section 4, D-4).

create table "airi_erased_address" (
    "mark" text not null,
    "erased_at" timestamp not null,
    constraint "airi_erased_address_pkey" primary key ("mark")
);

create index "airi_verification_expires" on "verification" (expires_at);
