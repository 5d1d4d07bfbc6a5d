-- What uses a disk of a source for writing, as its agent says; empty for nothing that it knows of.
alter table source_disk add column in_use text not null default '';
