//! Release of the resources of deleted jobs, deleted images and dead workers.

use std::time::Instant;

use domain::{Epoch, ImageId, JobId};
use store::lease::{Claim, Lease};

use crate::leases::Held;
use crate::run::Context;

/// An instance without an owner may be destroyed whatever epoch it has seen.
const NOBODYS: Epoch = Epoch(i64::MAX);

/// Outcome of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing is left.
    Done,
    /// Another worker does it, or has taken it over.
    Busy,
    /// It must be tried again, for this reason.
    Failed(String),
}

/// Releases all resources of a job in Deleting, and the job itself. Safe to repeat, at any point.
pub(crate) async fn remove_job(
    context: &Context,
    job_id: &JobId,
    keep: impl Fn(&Lease, Instant) -> Held,
) -> Removal {
    let since = Instant::now();
    let claimed = context
        .store
        .claim_removal(job_id, &context.worker, context.config.lease_ttl())
        .await;
    let lease = match claimed {
        Ok(Claim::Granted(lease)) => lease,
        Ok(Claim::NotWanted) => return Removal::Done,
        Ok(Claim::Held) => return Removal::Busy,
        Err(error) => return failed(job_id.as_str(), &error),
    };
    let held = keep(&lease, since);
    tokio::select! {
        () = held.lost() => Removal::Busy,
        removal = release(context, &lease) => removal,
    }
}

async fn release(context: &Context, lease: &Lease) -> Removal {
    let (job_id, epoch) = (&lease.job_id, lease.epoch);
    let instance = match context.store.instance_of(job_id).await {
        Ok(instance) => instance,
        Err(error) => return failed(job_id.as_str(), &error),
    };
    if let Some(id) = instance {
        if let Err(error) = context.provider.destroy(&id, epoch).await {
            return failed(id.as_str(), &error);
        }
        if let Err(error) = context.store.remove_instance(&id, epoch).await {
            return failed(job_id.as_str(), &error);
        }
    }
    match context
        .store
        .remove_job(job_id, epoch, &context.worker)
        .await
    {
        Ok(_) => {
            tracing::info!(%job_id, "a deleted job is gone");
            Removal::Done
        }
        Err(error) => failed(job_id.as_str(), &error),
    }
}

/// Removes a deleted image's files, then its row.
pub(crate) async fn remove_image(context: &Context, image_id: &ImageId) -> Removal {
    match context.store.image_is_to_go(image_id).await {
        Ok(true) => {}
        Ok(false) => return Removal::Done,
        Err(error) => return failed(image_id.as_str(), &error),
    }
    for name in [image_id.to_string(), format!("{image_id}.partial")] {
        let path = context.config.image_store.join(name);
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return failed(image_id.as_str(), &error);
        }
    }
    match context.store.remove_image(image_id).await {
        Ok(()) => Removal::Done,
        Err(error) => failed(image_id.as_str(), &error),
    }
}

/// Destroys instances of this machine that no row owns. Deletes rows of jobs that no longer exist, if their instances
/// don't exist either.
pub(crate) async fn sweep_orphans(context: &Context) {
    let existing = match context.provider.list().await {
        Ok(existing) => existing,
        Err(error) => {
            tracing::warn!(%error, "instances can't be listed");
            return;
        }
    };
    let orphans = match context.store.orphaned_instances(&existing).await {
        Ok(orphans) => orphans,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "orphaned instances can't be looked for"
            );
            return;
        }
    };
    for id in &orphans {
        tracing::warn!(instance_id = %id, "an instance without an owner is destroyed");
        if let Err(error) = context.provider.destroy(id, NOBODYS).await {
            tracing::warn!(instance_id = %id, %error, "it could not be destroyed");
        }
    }
    let left: Vec<_> = existing
        .into_iter()
        .filter(|id| !orphans.contains(id))
        .collect();
    telemetry::gauge(telemetry::Metric::Instances, &[]).set(left.len() as f64);
    if let Err(error) = context
        .store
        .forget_instances(&context.provider.host(), &left)
        .await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "rows of instances that are gone were not removed"
        );
    }
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Removal {
    tracing::warn!(what, error, "a removal failed and is tried again");
    Removal::Failed(format!("{what}: {error}"))
}
