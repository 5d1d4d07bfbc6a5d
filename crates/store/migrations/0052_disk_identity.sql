-- What disks are. A disk is found again by it when its name has changed, and another disk in its place is not taken for it.

-- {"logical_sector_bytes": number, "physical_sector_bytes": number, "partition_table": text}, each if it is known.
alter table source_disk
    add column layout   jsonb not null default '{}' check (jsonb_typeof(layout) = 'object'),
    add column identity jsonb check (jsonb_typeof(identity) = 'object');
comment on column source_disk.identity is 'Facts by their kind, see domain::disk::Fact. Null where the agent is of a version that did not ask.';

-- As source_disk.identity was when the job was made.
alter table job_disk add column identity jsonb check (jsonb_typeof(identity) = 'object');
