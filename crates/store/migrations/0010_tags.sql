-- Tags of sources and jobs. Ids of different kinds begin differently, so an id names its resource alone; the kind is there for lists.

create table tag (
    tenant      text not null references tenant (id) on delete cascade,
    kind        text not null check (kind in ('source', 'job', 'workgroup')),
    resource_id text not null,
    key         text not null,
    value       text not null default '',
    primary key (resource_id, key)
);
create index tag_list on tag (tenant, kind, resource_id, key);
comment on table tag is 'Written under a lock on the resource''s row, and gone with it: see forget_tags.';

-- No foreign key can say "one of these tables". Whatever removes a resource, a cascade too, takes its tags along.
create function forget_tags() returns trigger language plpgsql as $$
begin
    delete from tag where resource_id = old.id;
    return null;
end
$$;

create trigger source_forget_tags after delete on source for each row execute function forget_tags();
create trigger job_forget_tags after delete on job for each row execute function forget_tags();
