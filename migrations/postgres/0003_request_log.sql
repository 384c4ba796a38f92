-- What operators ask about a generation (gateway.md section 13). Nullable: the reference writes rows without them.

alter table "llm_request_log"
    add column "request_id" text,
    add column "ttfb_ms" bigint,
    add column "kind" text,
    add column "upstream" text,
    add column "key_id" text,
    add column "fallback_depth" integer,
    add column "error_code" text,
    add column "stream" boolean;
