-- What the reconciler looks for again and again: images that are not there yet, or not gone yet. Nearly all others are available.
create index image_unsettled on image (id) where state <> 'available';
