-- One cover for each character (schema.md section 6): the newest stays. The indexes of section 5 for characters and
-- provider rows are those of step 5. When a server beside us adds a duplicate in between, a plain index is built:
-- nothing depends on the unique one, readers take the newest cover.

delete from "character_covers" older using "character_covers" newer
where older.character_id = newer.character_id and (older.created_at, older.id) < (newer.created_at, newer.id);

create unique index concurrently if not exists "airi_character_covers_one" on "character_covers" (character_id);
