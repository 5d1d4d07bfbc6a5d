//! The accepted agent of a source, as the source's row has it: see [`domain::seat`].

use std::time::Duration;

use domain::SourceId;
use domain::seat::{self, Seating};

use crate::source::offline_after_secs;
use crate::{Store, StoreError, Transaction};

/// Identity that an agent reports, determined anew at every start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Random value for each start of an agent.
    pub instance: String,
    /// Value that is the same for every start on one machine with one state directory.
    pub place: String,
    /// Name of the agent's host, for people.
    pub host: String,
}

/// The agent that is accepted in place of one that called with the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Name of its host.
    pub host: String,
    /// Time since its last call.
    pub silent: Duration,
    /// True if two servers are known to have one key.
    pub is_clone: bool,
}

/// Decision about an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seated {
    /// The agent is accepted.
    Listened {
        /// True if the source was offline before.
        was_offline: bool,
        /// True if the agent is another process than the last accepted one.
        is_new: bool,
    },
    /// Another agent is accepted.
    Other(Holder),
    /// The source is gone or is being deleted.
    Gone,
}

impl Store {
    /// Decides if the agent is accepted, and records the call of an agent that is not.
    ///
    /// # Errors
    /// The database fails.
    pub async fn seat_agent(
        &self,
        source_id: &SourceId,
        caller: Option<&Caller>,
    ) -> Result<Seated, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let seated = take(&mut transaction, source_id, caller).await?;
        transaction.commit().await?;
        Ok(seated)
    }
}

/// Performs [`Store::seat_agent`] as part of a larger transaction. Holds the source's row.
pub(super) async fn take(
    transaction: &mut Transaction<'_>,
    source_id: &SourceId,
    caller: Option<&Caller>,
) -> Result<Seated, StoreError> {
    let row = sqlx::query!(
        r#"
        select agent_instance, agent_place, agent_host, rival_instance, cloned_at is not null as "is_cloned!",
            extract(epoch from now() - last_seen_at)::float8 as "silent_secs!",
            last_seen_at <= now() - make_interval(secs => $2) as "was_offline!",
            extract(epoch from now() - rival_since)::float8 as rival_secs,
            rival_seen_at > last_seen_at as rival_spoke_last,
            exists (select 1 from job where job.source_id = source.id and job.state in
                ('preparing', 'syncing', 'parked', 'processing', 'cleaning')) as "has_run!"
        from source where id = $1 and not deleting for no key update
        "#,
        source_id.as_str(),
        offline_after_secs(),
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else {
        return Ok(Seated::Gone);
    };
    let listened = |is_new| Seated::Listened {
        was_offline: row.was_offline,
        is_new,
    };
    // Agents of earlier versions do not report their identity.
    let Some(caller) = caller else {
        return Ok(listened(false));
    };
    let secs = |secs: f64| Duration::try_from_secs_f64(secs).unwrap_or_default();
    let silent = secs(row.silent_secs);
    let seat = seat::Seat {
        instance: row.agent_instance.as_deref(),
        place: row.agent_place.as_deref(),
        silent,
        rival: row.rival_instance.as_deref().zip(row.rival_secs.map(secs)),
        is_cloned: row.is_cloned,
        has_run: row.has_run,
    };
    match seat::seating(&seat, &caller.instance, &caller.place) {
        Seating::Holds => {
            if row.rival_spoke_last == Some(true) && !row.is_cloned {
                prove_clone(transaction, source_id).await?;
            }
            Ok(listened(false))
        }
        Seating::TakesOver { is_restart } => {
            record_holder(transaction, source_id, caller, is_restart).await?;
            Ok(listened(true))
        }
        seating @ (Seating::Waits | Seating::IsClone) => {
            record_rival(transaction, source_id, caller).await?;
            Ok(Seated::Other(Holder {
                host: row.agent_host.clone().unwrap_or_default(),
                silent,
                is_clone: seating == Seating::IsClone,
            }))
        }
    }
}

/// Records that both agents live: the accepted agent has called after another agent.
async fn prove_clone(
    transaction: &mut Transaction<'_>,
    source_id: &SourceId,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update source set cloned_at = now() where id = $1",
        source_id.as_str()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn record_holder(
    transaction: &mut Transaction<'_>,
    source_id: &SourceId,
    caller: &Caller,
    is_restart: bool,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update source set agent_instance = $2, agent_place = $3, agent_host = $4,
            rival_instance = case when $5 then rival_instance end, rival_host = case when $5 then rival_host end,
            rival_since = case when $5 then rival_since end, rival_seen_at = case when $5 then rival_seen_at end,
            cloned_at = case when $5 then cloned_at end
         where id = $1",
        source_id.as_str(),
        caller.instance,
        caller.place,
        caller.host,
        is_restart,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn record_rival(
    transaction: &mut Transaction<'_>,
    source_id: &SourceId,
    caller: &Caller,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update source set
            rival_since = case when rival_instance = $2 then rival_since else now() end,
            rival_instance = $2, rival_host = $3, rival_seen_at = now()
         where id = $1",
        source_id.as_str(),
        caller.instance,
        caller.host,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
