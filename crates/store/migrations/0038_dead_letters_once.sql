-- The same message is kept once, however often it dies, and can be sent on its way again.
alter table dead_letter
    add column times integer not null default 1,
    add column last_at timestamptz not null default now(),
    -- An operator wants it sent again; whoever sends it removes the row.
    add column retry boolean not null default false;

delete from dead_letter as older using dead_letter as newer
where older.subject = newer.subject and older.payload = newer.payload and older.id < newer.id;
create unique index dead_letter_message on dead_letter (subject, sha256(payload));
