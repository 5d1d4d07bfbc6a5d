-- A table of its own and no column of job_event: calls of tenants read that one, and are not given this one.
create table failure_cause (
    seq   bigint primary key references job_event (seq) on delete cascade,
    cause text   not null
);
comment on table failure_cause is 'What the operator alone reads of a failure: paths of hosts, lines of logs, output of programs.';
