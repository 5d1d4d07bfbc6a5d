//! Cleaning: the instance is destroyed, then its row is deleted, then the run is finished.
//!
//! It also takes place between two runs of a job that delivers again. The image may be hard links to the instance's
//! disks, so these must stay unchanged.

use domain::job::Event;

use super::{Ended, Run, internal, persist};

impl Run {
    pub(super) async fn clean(&mut self) -> Result<(), Ended> {
        let (job_id, epoch) = (self.lease.job_id.clone(), self.lease.epoch);
        self.observe("releasing the intermediate instance").await?;
        let taken_back = persist(|| self.context.store.remove_assignment(&job_id, epoch)).await;
        taken_back.map_err(|error| internal(&error))?;
        let _heard = self.context.bus.nudge(&self.facts.source_id).await;
        let instance = persist(|| self.context.store.instance_of(&job_id)).await;
        if let Some(id) = instance.map_err(|error| internal(&error))? {
            let destroyed = self.context.provider.destroy(&id, epoch).await;
            destroyed.map_err(|error| Ended::by_provider("released", &error, &id))?;
            let removed = persist(|| self.context.store.remove_instance(&id, epoch)).await;
            removed.map_err(|error| internal(&error))?;
        }
        self.progress.client = None;
        self.progress.instance_id = None;
        self.observe("").await?;
        let end = if self.facts.rests {
            Event::Rest
        } else {
            Event::Finish
        };
        self.event(end, None).await
    }
}
