-- Jobs that deliver again and again, and the runs of every job.

alter table job
    -- Hours from one start to the next, and how many images are kept. Null for a job that delivers once.
    add column frequency_hours integer check (frequency_hours between 1 and 168),
    add column images_to_keep  integer check (images_to_keep between 1 and 10),
    -- The next image is the last: written only in Waiting, with the start of the last run.
    add column cut_over        boolean not null default false,
    add constraint job_increments check ((frequency_hours is null) = (images_to_keep is null)),
    add constraint job_cut_over check (frequency_hours is not null or not cut_over);

alter table timer drop constraint timer_kind_check;
alter table timer add constraint timer_kind_check check (kind in ('start', 'expire', 'purge', 'run'));

create table job_run (
    job_id     text        not null references job (id) on delete cascade,
    run        integer     not null,
    kind       text        not null check (kind in ('manual', 'schedule')),
    started_at timestamptz not null default now(),
    ended_at   timestamptz,
    primary key (job_id, run)
);
comment on table job_run is 'Written with the transitions that start and end a run. Its image is the one of the same job and run.';
