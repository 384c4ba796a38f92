-- The reference's record of its twelve migrations, written with its tables so that it can be started on ours: it
-- applies what is newer than the greatest stamp and never compares hashes (schema.md section 2).

create schema if not exists "drizzle";

create table if not exists "drizzle"."__drizzle_migrations" (
    "id" bigserial primary key,
    "hash" text not null,
    "created_at" bigint not null
);

insert into "drizzle"."__drizzle_migrations" ("hash", "created_at") values
    ('142a2fab268a0625a701bde445f7fb40564c0c073e3726be1df3dab14e3f64cf', 1772532674887),
    ('6f2a8b3e08d61e03611c42f42d1cf99faa2421ac335841ea8e5b8562f456bdf9', 1772532802115),
    ('d6d2ad891b56063f90629bf8a3df84ac60cd8844f57b2e1f254fa87090e7eded', 1772634952890),
    ('bf3548c4d7a5efcacac832d31fd720769095a3f2e77637e2f78a2fad6e3c30f3', 1773229668722),
    ('be712b6dc177c0f97c6394612f3a69ad7ea960c5768f578858d3f8a06e533073', 1773421458174),
    ('e724de13551ca34fc82dabee706d2d3eb457d241a9d11d00ac44488718002635', 1774582846222),
    ('d86ff27c570fc9f2df7835fd8f3848a62e9ccc5c5d95fbcbc6e5ed15463fcefb', 1774584037626),
    ('fc292e7e8e51b95fca618ea428eed8b426d20dc2e7243bc5996290e2f8d0d5bd', 1774632446757),
    ('f74aff1bd07508ba9a3c34f192974d438789d637a84af09e9b577cdabcff72ec', 1775032828818),
    ('735f879c370cb761ab97da073cd6749729e9d7e168111055e386420bdcd749c0', 1777370103031),
    ('cf6492696feb8b8a366699ce9e8caf5f34867a22029a8de40f554bcc60439147', 1778223289077),
    ('999b706fb394b72e39b0b7da68de780ae9f9b72a5d02e8c59883ee80362c924e', 1779100599148);
