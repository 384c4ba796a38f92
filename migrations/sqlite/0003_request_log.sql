-- Twin of the PostgreSQL file: what operators ask about a generation (gateway.md section 13).

alter table "llm_request_log" add column "request_id" text;
alter table "llm_request_log" add column "ttfb_ms" integer;
alter table "llm_request_log" add column "kind" text;
alter table "llm_request_log" add column "upstream" text;
alter table "llm_request_log" add column "key_id" text;
alter table "llm_request_log" add column "fallback_depth" integer;
alter table "llm_request_log" add column "error_code" text;
alter table "llm_request_log" add column "stream" integer check ("stream" in (0, 1));
