//! ExplainReplicationJob, Wherry's own: the reason for a job's state, its next step, and its history.

use domain::JobId;
use domain::job::explain::explain;
use smc::model::{ExplainReplicationJob, ExplainReplicationJobAnswer, JobEvent};
use store::job::explain as history;

use super::{id, run_job};
use crate::Refusal;
use crate::operation::{Call, Effect, Handle, Terms};

impl Handle for ExplainReplicationJob {
    const TERMS: Terms = Terms {
        effect: Effect::Reads,
        resources: run_job::THE_JOB,
        refusals: &["InvalidJobId.NotFound"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<ExplainReplicationJobAnswer, Refusal> {
        let id = id::<JobId>(&self.job_id, "JobId")?;
        let store = &call.gateway.store;
        let Some(facts) = store.job_facts(&call.tenant, &id).await? else {
            return Err(Refusal::not_found("JobId"));
        };
        let history = store.job_history(&call.tenant, &id).await?;
        let explanation = explain(&facts);
        let business_status = facts.state.business_status();
        Ok(ExplainReplicationJobAnswer {
            job_id: id.to_string(),
            status: facts.state.status().to_string(),
            business_status: business_status.map(|status| status.to_string()),
            now: explanation.now,
            next: explanation.next,
            reasons: explanation.reasons.into_iter().collect(),
            events: history.into_iter().map(show).collect(),
        })
    }
}

fn show(event: history::JobEvent) -> JobEvent {
    JobEvent {
        time: event.at.to_string(),
        event: event.event.as_str().to_owned(),
        from: event.from.as_str().to_owned(),
        to: event.to.as_str().to_owned(),
        run: event.run.0,
        epoch: event.epoch.0,
        actor: event.actor,
        detail: event.detail,
    }
}
