-- Bytes that copies and images take in the stores, and the most that a tenant's may take together.

alter table tenant add column max_bytes bigint check (max_bytes >= 0);
comment on column tenant.max_bytes is 'Most bytes of bytes_of_tenant(id); null for no bound.';

alter table instance add column bytes_stored bigint not null default 0;
alter table image add column bytes_stored bigint not null default 0;
comment on column instance.bytes_stored is 'Bytes that the copy takes in the store, and what is made of its image so far, as its receiver last reported.';

create index instance_tenant on instance (tenant);

create function bytes_of_tenant(of_tenant text) returns bigint language sql stable
return (select coalesce(sum(bytes_stored), 0) from instance where tenant = of_tenant)::bigint
    + (select coalesce(sum(bytes_stored), 0) from image where tenant = of_tenant)::bigint;

alter table instance enable row level security;
create policy of_tenant on instance to wherry_tenant using (tenant = current_setting('wherry.tenant'));
grant select (tenant, job_id, bytes_stored) on instance to wherry_tenant;

-- What readiness writes: emptied and filled again, so that a file must grow each time.
create table write_probe (filler text not null);
comment on table write_probe is 'Written by Store::takes_writes of every process; never read.';
