-- The second wall between tenants. The first is the tenant in every statement of a call.
--
-- Calls of the API run as the role wherry_tenant, with wherry.tenant set to whose call it is: to them, rows of others are not there. The
-- services themselves connect as the owner of the tables, for whom policies do not count: leases and timers are everybody's. A table that
-- is not named here can't be read by calls at all; tests/tenants.rs holds that against the schema.

do $$
begin
    create role wherry_tenant nologin;
exception
    -- Roles belong to the server: another database of it may have made this one, just now even.
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception 'this database user may not create the role wherry_tenant'
            using hint = 'As an administrator: create role wherry_tenant nologin; grant wherry_tenant to <this user>. Then migrate again.';
end
$$;

do $$
begin
    if not pg_has_role(current_user, 'wherry_tenant', 'set') then
        execute format('grant wherry_tenant to %I', current_user);
    end if;
end
$$;

do $$
declare
    name text;
begin
    execute format('grant usage on schema %I to wherry_tenant', current_schema());
    foreach name in array array[
        'source', 'job', 'job_event', 'image', 'access_token', 'client_token', 'tag', 'workgroup', 'region', 'vpc',
        'vswitch'
    ] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_tenant on %I to wherry_tenant using (tenant = current_setting(''wherry.tenant''))', name);
        execute format('grant select, insert, update, delete on %I to wherry_tenant', name);
    end loop;
    foreach name in array array['job_disk', 'job_run', 'timer', 'job_lease'] loop
        execute format('alter table %I enable row level security', name);
        -- The rows of job that it sees are the tenant's.
        execute format('create policy of_tenant on %I to wherry_tenant using (exists (select from job where job.id = job_id))', name);
        execute format('grant select, insert, update, delete on %I to wherry_tenant', name);
    end loop;
end
$$;

alter table source_disk enable row level security;
create policy of_tenant on source_disk to wherry_tenant using (exists (select from source where source.id = source_id));
grant select on source_disk to wherry_tenant;

-- A create locks its tenant's row, and a lock needs the right to change something.
alter table tenant enable row level security;
create policy of_tenant on tenant to wherry_tenant using (id = current_setting('wherry.tenant'));
grant select, update (created_at) on tenant to wherry_tenant;

-- Messages are written by calls, and read by the relay.
grant insert on outbox to wherry_tenant;
