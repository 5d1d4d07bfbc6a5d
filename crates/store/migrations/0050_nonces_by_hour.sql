-- Nonces in a partition for each hour, which is dropped whole: nothing is deleted row by row, however many calls there
-- are.
--
-- The hour is that of the time in the signed call, not of its arrival. Copies of one call have one signature and so one
-- time: they meet in one partition, whose primary key lets one of them pass, also when they arrive on either side of a
-- full hour.

alter table signature_nonce rename to signature_nonce_before;
alter index signature_nonce_pkey rename to signature_nonce_before_pkey;

create table signature_nonce (
    -- Hours since 1970. The default is for gateways of the version before, while they are replaced one by one.
    hour       bigint not null default (extract(epoch from now())::bigint / 3600),
    access_key text   not null,
    nonce      text   not null,
    primary key (hour, access_key, nonce)
) partition by list (hour);
comment on table signature_nonce is 'Nonces of verified calls. The primary key is the atomic test-and-set between gateways.';

-- Makes the partition of an hour, if it is not there. Any number of callers at once: the first makes it, the others
-- wait. Attaching takes a lock that calls do not wait for, unlike `create table … partition of`.
create function make_nonce_partition(of_hour bigint) returns void language plpgsql as $$
declare
    partition text := 'signature_nonce_' || of_hour;
begin
    perform pg_advisory_xact_lock(hashtextextended('signature_nonce', 0));
    if to_regclass(partition) is null then
        execute format('create table %I (like signature_nonce including all)', partition);
        execute format('alter table signature_nonce attach partition %I for values in (%s)', partition, of_hour);
    end if;
end
$$;

-- Drops the partitions of all hours before this one, and says how many. Dropping locks the whole table for a moment:
-- where calls hold it for long, this gives up, and is tried again later.
create function drop_nonce_partitions(before bigint) returns bigint language plpgsql as $$
declare
    partition text;
    dropped bigint := 0;
begin
    perform set_config('lock_timeout', '500ms', true);
    perform pg_advisory_xact_lock(hashtextextended('signature_nonce', 0));
    for partition in
        select relname from pg_inherits join pg_class on pg_class.oid = inhrelid
        where inhparent = 'signature_nonce'::regclass and substring(relname from '\d+$')::bigint < before
    loop
        execute format('drop table %I', partition);
        dropped := dropped + 1;
    end loop;
    return dropped;
end
$$;

select make_nonce_partition(extract(epoch from now())::bigint / 3600 + ahead) from generate_series(-1, 2) as ahead;

-- What was used up stays so. The time in these calls is not known, but lies within a quarter of an hour of their
-- arrival.
insert into signature_nonce (hour, access_key, nonce)
select distinct (extract(epoch from seen_at)::bigint + off) / 3600, access_key, nonce
from signature_nonce_before, unnest(array[-900, 900]) as off
where seen_at > now() - interval '31 minutes';

drop table signature_nonce_before;

-- One row of the audit may stand for many calls that were refused alike.
alter table audit add column calls bigint not null default 1;
