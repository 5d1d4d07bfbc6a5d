-- What each disk was when the job was made. A disk that is another one since, or gone, ends the run instead of being left out of the image.
alter table job_disk
    add column path text,
    add column source_bytes bigint;
comment on column job_disk.source_bytes is 'Null for a job that an earlier version made of a source that had lost the disk already.';

update job_disk set path = source_disk.path, source_bytes = source_disk.size_bytes
from job join source_disk on source_disk.source_id = job.source_id
where job.id = job_disk.job_id and source_disk.index = job_disk.index;
