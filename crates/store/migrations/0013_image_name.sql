-- Whether an image of the region has a name already is asked when an image is delivered.
create index image_name on image (tenant, region_id, name);
