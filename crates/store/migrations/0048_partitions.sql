-- Partitions of the disks of sources, as their agents see them, in the order of their table: a list of
-- {"path": text, "start_bytes": number, "size_bytes": number, "purpose": "normal" | "system" | "boot"}.

alter table source_disk add column partitions jsonb not null default '[]' check (jsonb_typeof(partitions) = 'array');
