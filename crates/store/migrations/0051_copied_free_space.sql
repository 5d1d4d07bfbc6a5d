-- Disks whose free space an agent copies although its assignment would leave it out: a list of
-- {"disk": number, "reason": text}. The worker takes it over into what it observes of the job.

alter table assignment add column copied_free_space jsonb not null default '[]' check (jsonb_typeof(copied_free_space) = 'array');
