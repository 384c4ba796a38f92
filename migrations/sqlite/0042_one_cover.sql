-- Twin of the PostgreSQL file: one cover for each character (schema.md section 6); the newest stays.

delete from "character_covers" where exists (
    select 1 from "character_covers" newer
    where newer.character_id = "character_covers".character_id
      and (newer.created_at, newer.id) > ("character_covers".created_at, "character_covers".id)
);

create unique index "airi_character_covers_one" on "character_covers" (character_id);
