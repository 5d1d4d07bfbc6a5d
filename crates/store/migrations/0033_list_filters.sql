-- Lists with filters, at a hundred thousand rows of one tenant, without their tables.

-- Narrowed by region, status and source, counts too, from the index alone. Nothing of these but the state changes, and whatever moves a job
-- has other indexes to write already.
drop index job_tenant;
create index job_tenant on job (tenant, created_at desc, id desc) include (region_id, state, source_id);

-- By name, jobs that are being deleted as well: job_name leaves those out.
create index job_by_name on job (tenant, name);

-- Positions in the queue, one after the other.
drop index job_queue;
create index job_queue on job (tenant, priority desc, queued_at, id) where state = 'preparing' and admitted_at is null;

-- What has a tag; tag_list is for what tags a resource has.
create index tag_value on tag (tenant, kind, key, value, resource_id);

-- What the reconciler looks for every few seconds, among all jobs that there ever were.
create index job_deleting on job (state_since) where state = 'deleting';
