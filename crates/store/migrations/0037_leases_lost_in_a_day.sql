-- Since when the lost leases of job.leases_lost are counted: those of one day count together.
alter table job add column leases_lost_since timestamptz;
