//! Ownership of a run: its holder, its takeover, and the writes that only its owner may make.

use domain::job::{Event, Intent, State};
use domain::{Epoch, FailureCode, ImageId, JobId, Run};
use store::job::{Guard, Transitioned};
use store::lease::Claim;

use super::{Bench, TTL};

#[tokio::test]
async fn of_many_workers_that_claim_at_once_one_gets_the_lease() {
    let bench = Bench::new().await;
    let names: Vec<String> = (0..6).map(|number| format!("w-{number}")).collect();
    // Many rounds: the second worker must meet the first one between its check and its grant.
    for round in 1..=20 {
        let claims = futures::future::join_all(names.iter().map(|name| bench.claim(name))).await;
        let granted = claims
            .iter()
            .filter(|claim| matches!(claim, Claim::Granted(_)))
            .count();
        assert_eq!(granted, 1, "round {round}: {claims:?}");
        assert!(
            claims
                .iter()
                .all(|claim| matches!(claim, Claim::Granted(_) | Claim::Held))
        );
        assert_eq!(bench.read("epoch").await, round.to_string());
        bench.write("delete from job_lease", &[]).await;
    }
}

#[tokio::test]
async fn a_job_that_is_not_to_run_is_not_leased() {
    let bench = Bench::new().await;
    let lease = bench.lease("w-first").await;
    bench.halt(&lease).await;
    assert_eq!(
        bench.claim("w-late").await,
        Claim::NotWanted,
        "it is stopped"
    );
    bench.send(Event::Start, Guard::Tenant(&bench.tenant)).await;
    assert_eq!(
        bench.claim("w-early").await,
        Claim::NotWanted,
        "it has no slot"
    );
    let unknown = JobId::generate();
    let claim = bench.store.claim_run(&unknown, "w", TTL).await.unwrap();
    assert_eq!(claim, Claim::NotWanted, "it is gone");
}

#[tokio::test]
async fn every_lease_of_a_job_has_a_higher_epoch_over_all_its_runs() {
    let bench = Bench::new().await;
    let first = bench.lease("w-first").await;
    assert_eq!((first.run, first.epoch), (Run(1), Epoch(1)));
    assert!(first.waited.is_some(), "how long the run waited is known");
    let second = bench.another_owner().await;
    assert_eq!((second.run, second.epoch), (Run(1), Epoch(2)));
    bench.report(&second, Event::Halted).await;
    bench
        .store
        .release_lease(&bench.job, second.epoch)
        .await
        .unwrap();
    bench.start().await;
    let third = bench.lease("w-third").await;
    assert_eq!((third.run, third.epoch), (Run(2), Epoch(3)));
}

#[tokio::test]
async fn a_dead_lease_is_left_to_the_sweeper_which_counts_it() {
    let bench = Bench::new().await;
    for lost in 1..=3 {
        let lease = bench.lease("w-dies").await;
        bench.advance(&lease, State::Syncing).await;
        bench.leases_run_out().await;
        assert_eq!(bench.claim("w-next").await, Claim::Held);
        bench
            .store
            .sweep_lease()
            .await
            .unwrap()
            .expect("a dead lease");
        assert_eq!(bench.read("leases_lost").await, lost.to_string());
    }
    assert_eq!(
        bench.read("state || ' ' || failure_code").await,
        format!("in_error {}", FailureCode::WorkerLost),
        "a run that kills its workers is not tried for ever"
    );
}

#[tokio::test]
async fn a_lease_that_has_run_out_is_not_renewed_even_if_nobody_took_it() {
    let bench = Bench::new().await;
    let lease = bench.lease("w-slow").await;
    let held = [(bench.job.clone(), lease.epoch)];
    let renewed = bench
        .store
        .renew_leases("w-slow", &held, TTL)
        .await
        .unwrap();
    assert_eq!(renewed.len(), 1);
    let other = bench.store.renew_leases("w-other", &held, TTL).await;
    assert!(other.unwrap().is_empty(), "it is not the other's lease");

    bench.leases_run_out().await;
    let renewed = bench
        .store
        .renew_leases("w-slow", &held, TTL)
        .await
        .unwrap();
    assert!(renewed.is_empty(), "the worker must claim again");
    assert_eq!(
        bench.report(&lease, Event::Prepared).await,
        Transitioned::Fenced
    );
    assert!(!bench.observe(&lease, 1, true).await);
}

#[tokio::test]
async fn a_renewal_says_that_a_stop_is_asked_for() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Syncing).await;
    let stop = bench.send(Event::Stop, Guard::Tenant(&bench.tenant)).await;
    assert_eq!(stop, Transitioned::Recorded);
    let held = [(bench.job.clone(), lease.epoch)];
    let renewed = bench.store.renew_leases("w", &held, TTL).await.unwrap();
    assert_eq!(renewed[0].intent, Intent::Stop);
    bench.report(&lease, Event::Halted).await;
    assert_eq!(bench.read("state").await, "stopped");
}

#[tokio::test]
async fn a_stop_whose_worker_is_lost_stops_at_the_sweep() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Syncing).await;
    bench.send(Event::Stop, Guard::Tenant(&bench.tenant)).await;
    bench.leases_run_out().await;
    bench.store.sweep_lease().await.unwrap();
    assert_eq!(bench.read("state").await, "stopped");
}

#[tokio::test]
async fn a_finish_beats_a_stop_that_came_before_it() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Syncing).await;
    let stop = bench.send(Event::Stop, Guard::Tenant(&bench.tenant)).await;
    assert_eq!(stop, Transitioned::Recorded);
    for event in [Event::Synced, Event::Processed] {
        bench.report(&lease, event).await;
    }
    let finished = bench.report(&lease, Event::Finish).await;
    assert!(matches!(finished, Transitioned::Moved(_)), "{finished:?}");
    assert_eq!(bench.read("state || ' ' || intent").await, "finished rest");
    assert!(matches!(
        bench.report(&lease, Event::Halted).await,
        Transitioned::Ignored { .. }
    ));
}

#[tokio::test]
async fn a_stop_after_the_finish_changes_nothing() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.advance(&lease, State::Cleaning).await;
    bench.report(&lease, Event::Finish).await;
    let stop = bench.send(Event::Stop, Guard::Tenant(&bench.tenant)).await;
    assert!(
        !matches!(stop, Transitioned::Moved(_) | Transitioned::Recorded),
        "{stop:?}"
    );
    assert_eq!(bench.read("state || ' ' || intent").await, "finished rest");
}

#[tokio::test]
async fn a_stale_epoch_writes_nothing_anywhere() {
    let bench = Bench::new().await;
    let stale = bench.lease("w-first").await;
    let (store, job) = (&bench.store, &bench.job);
    assert!(bench.observe(&stale, 100, true).await);
    let instance = store
        .take_instance(&bench.instance(&stale))
        .await
        .unwrap()
        .unwrap();
    let owner = bench.another_owner().await;
    let taken = store
        .take_instance(&bench.instance(&owner))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        taken.id, instance.id,
        "the next owner takes the instance over"
    );
    assert_eq!(taken.epoch, owner.epoch);
    assert_eq!(taken.authority, instance.authority, "and its authority");
    assert!(
        store
            .put_assignment(job, owner.epoch, b"new")
            .await
            .unwrap()
    );
    let image = store
        .begin_image(job, owner.epoch, &ImageId::generate())
        .await
        .unwrap()
        .unwrap()
        .id;

    assert!(!bench.observe(&stale, 900, false).await);
    assert_eq!(bench.read("bytes_durable").await, "100");
    assert_eq!(
        store.take_instance(&bench.instance(&stale)).await.unwrap(),
        None
    );
    store
        .remove_instance(&instance.id, stale.epoch)
        .await
        .unwrap();
    assert_eq!(store.instance_of(job).await.unwrap(), Some(instance.id));
    assert!(
        !store
            .put_assignment(job, stale.epoch, b"old")
            .await
            .unwrap()
    );
    store.remove_assignment(job, stale.epoch).await.unwrap();
    assert!(
        store
            .agent_report(job, owner.epoch)
            .await
            .unwrap()
            .is_some()
    );
    let begun = store
        .begin_image(job, stale.epoch, &ImageId::generate())
        .await
        .unwrap();
    assert_eq!(begun, None);
    let nothing = serde_json::json!({});
    assert!(
        !store
            .finish_image(&image, stale.epoch, "/old", &nothing, 0)
            .await
            .unwrap()
    );
    for event in [Event::Prepared, Event::Halted, Event::Fail] {
        assert_eq!(
            bench.report(&stale, event).await,
            Transitioned::Fenced,
            "{event}"
        );
    }
    store.release_lease(job, stale.epoch).await.unwrap();
    let held = [(job.clone(), owner.epoch)];
    let renewed = store.renew_leases("w-second", &held, TTL).await.unwrap();
    assert_eq!(renewed.len(), 1, "the owner still holds its lease");
}

#[tokio::test]
async fn a_stale_finish_is_refused_and_the_owners_counts() {
    let bench = Bench::new().await;
    let stale = bench.lease("w-first").await;
    bench.advance(&stale, State::Cleaning).await;
    let owner = bench.another_owner().await;
    bench.advance(&owner, State::Cleaning).await;
    assert_eq!(
        bench.report(&stale, Event::Finish).await,
        Transitioned::Fenced
    );
    assert_eq!(bench.read("state").await, "cleaning");
    bench.report(&owner, Event::Finish).await;
    assert_eq!(bench.read("state").await, "finished");
}

#[tokio::test]
async fn a_drain_hands_the_run_over_at_once_and_counts_no_loss() {
    let bench = Bench::new().await;
    let lease = bench.lease("w-drains").await;
    bench.advance(&lease, State::Syncing).await;
    bench
        .store
        .hand_over(&bench.job, lease.epoch, "w-drains")
        .await
        .unwrap();
    assert_eq!(
        bench.read("state || ' ' || leases_lost").await,
        "preparing 0"
    );
    let asked: i64 = sqlx::query_scalar(
        "select count(*) from outbox where message::text ilike '%start_run%' or message::text ilike '%startrun%'",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap();
    assert_eq!(asked, 2, "once by the admission, once by the drain");
    let next = bench.lease("w-next").await;
    assert_eq!(next.run, lease.run, "it is the same run");
    bench
        .store
        .hand_over(&bench.job, lease.epoch, "w-drains")
        .await
        .unwrap();
    let prepared = bench.report(&next, Event::Prepared).await;
    assert!(
        matches!(prepared, Transitioned::Moved(_)),
        "a late hand-over takes nothing from the next owner: {prepared:?}"
    );
}

#[tokio::test]
async fn progress_forgives_lost_leases_and_never_goes_back_within_a_lease() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    bench.observe(&lease, 500, true).await;
    let lease = bench.another_owner().await;
    assert_eq!(bench.read("leases_lost").await, "1");
    bench.observe(&lease, 400, true).await;
    assert_eq!(
        bench.read("bytes_durable || ' ' || leases_lost").await,
        "400 1",
        "the first look says what is really there, and is no progress"
    );
    bench.observe(&lease, 300, false).await;
    bench.observe(&lease, 450, false).await;
    assert_eq!(
        bench.read("bytes_durable || ' ' || leases_lost").await,
        "450 0"
    );
}

#[tokio::test]
async fn leases_lost_on_different_days_are_not_counted_together() {
    let bench = Bench::new().await;
    let lose = async |worker: &str| {
        bench.lease(worker).await;
        bench.leases_run_out().await;
        bench.store.sweep_lease().await.unwrap();
        bench.read("state || ' ' || leases_lost").await
    };
    assert_eq!(lose("w-1").await, "preparing 1");
    assert_eq!(lose("w-2").await, "preparing 2");
    bench
        .write(
            "update job set leases_lost_since = now() - interval '25 hours'",
            &[],
        )
        .await;
    assert_eq!(lose("w-3").await, "preparing 1");
    assert_eq!(lose("w-4").await, "preparing 2");
    assert_eq!(lose("w-5").await, "in_error 3");
}

#[tokio::test]
async fn a_disk_that_the_source_has_lost_is_still_one_of_the_runs() {
    let bench = Bench::new().await;
    let source = bench.source.as_str();
    for statement in [
        "insert into source_disk (source_id, index, path, size_bytes) values ($1, 0, '/dev/vda', 1000), ($1, 1, '/dev/vdb', 2000)",
        "insert into job_disk (job_id, index, size_gib, path, source_bytes)
         select job.id, disk.index, 20, disk.path, disk.size_bytes
         from job join source_disk as disk using (source_id) where source_id = $1",
        // The next heartbeat: one disk was detached, the other grew.
        "delete from source_disk where source_id = $1 and index = 1",
        "update source_disk set size_bytes = 1500 where source_id = $1",
    ] {
        bench.write(statement, &[source]).await;
    }
    let facts = bench.store.run_facts(&bench.job).await.unwrap().unwrap();
    let [grown, lost] = facts.disks.as_slice() else {
        panic!("the job is of two disks: {:?}", facts.disks)
    };
    assert_eq!((grown.source_bytes, lost.source_bytes), (1000, 2000));
    assert_eq!(grown.found.as_ref().unwrap().size_bytes, 1500);
    assert_eq!((lost.path.as_str(), &lost.found), ("/dev/vdb", &None));
}

#[tokio::test]
async fn a_disk_of_another_name_and_place_is_found_by_what_it_is() {
    let bench = Bench::new().await;
    let source = bench.source.as_str();
    for statement in [
        r#"insert into source_disk (source_id, index, path, size_bytes, identity) values
            ($1, 0, '/dev/sda', 1000, '{"serial": "A"}'), ($1, 1, '/dev/sdb', 1000, '{"serial": "B"}')"#,
        "insert into job_disk (job_id, index, size_gib, path, source_bytes, identity)
         select job.id, disk.index, 20, disk.path, disk.size_bytes, disk.identity
         from job join source_disk as disk using (source_id) where source_id = $1",
        // After a reboot of the machine, the disks have swapped names.
        r#"update source_disk set identity = case index when 0 then '{"serial": "B"}'::jsonb else '{"serial": "A"}' end
           where source_id = $1"#,
    ] {
        bench.write(statement, &[source]).await;
    }
    let facts = bench.store.run_facts(&bench.job).await.unwrap().unwrap();
    let found: Vec<&str> = facts
        .disks
        .iter()
        .map(|disk| disk.found.as_ref().unwrap().path.as_str())
        .collect();
    assert_eq!(found, ["/dev/sdb", "/dev/sda"]);

    // Another disk takes the place of one.
    let other =
        r#"update source_disk set identity = '{"serial": "C"}' where source_id = $1 and index = 1"#;
    bench.write(other, &[source]).await;
    let facts = bench.store.run_facts(&bench.job).await.unwrap().unwrap();
    let check = |disk: &store::run::RunDisk| {
        let now = disk.found.as_ref().map(domain::disk::DiskRecord::from);
        disk.as_created().check(now.as_ref())
    };
    assert!(
        check(&facts.disks[0]).is_err(),
        "{:?}",
        facts.disks[0].found
    );
    assert_eq!(facts.disks[1].found.as_ref().unwrap().path, "/dev/sda");
    assert_eq!(check(&facts.disks[1]), Ok(()));
}
