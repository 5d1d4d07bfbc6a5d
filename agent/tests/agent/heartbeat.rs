//! The gateway's knowledge of a source while the source's agent runs.

use std::io::Write as _;
use std::process::{Command, Stdio};

use testkit::{program, wait};

use crate::deployment::{Deployment, SOON};

#[tokio::test]
async fn a_disk_that_grows_goes_and_comes_back_is_reported() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let (agent, _) = deployment.registered_agent(&disk, &[]).await;

    deployment.disk("disk", &[1; 12288]);
    let grown = "select source_id from source_disk where size_bytes = 12288";
    deployment.look("the new size is known", grown).await;

    std::fs::remove_file(&disk).unwrap();
    let failed =
        "select failure_code || ' ' || failure_message from source where failure_code is not null";
    let failure = deployment.look("the failure is known", failed).await;
    assert!(
        failure.starts_with("SourceServer.DiskUnreadable"),
        "{failure}"
    );
    assert!(failure.contains(&disk.display().to_string()), "{failure}");
    let known = deployment.count("select count(*) from source_disk").await;
    assert_eq!(known, 1, "a disk that can't be read is still the source's");

    deployment.disk("disk", &[1; 4096]);
    let well = "select s.id from source s join source_disk on source_id = s.id where failure_code is null and size_bytes = 4096";
    deployment.look("the source is well again", well).await;
    agent.stop().await;
}

#[tokio::test]
async fn the_partitions_of_a_disk_are_reported_and_kept_up() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[0; 8 << 20]);
    let (agent, _) = deployment.registered_agent(&disk, &[]).await;
    let partition = |script: &'static str| {
        let mut sfdisk = Command::new("sfdisk")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .args(["--quiet", "--wipe=always"])
            .arg(&disk)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sfdisk, of the package fdisk");
        let mut input = sfdisk.stdin.take().expect("a pipe");
        input.write_all(script.as_bytes()).expect("sfdisk reads");
        drop(input);
        assert!(sfdisk.wait().expect("sfdisk ends").success());
    };
    partition("label: gpt\nsize=2MiB, type=U\nsize=3MiB, type=L\n");
    let known = "select source_id from source_disk where jsonb_path_query_array(partitions, '$[*].size_bytes') = '[2097152, 3145728]'
                 and partitions -> 0 ->> 'purpose' = 'boot' and partitions -> 1 ->> 'purpose' = 'normal'";
    deployment.look("both partitions are known", known).await;
    partition("label: dos\nsize=4MiB, type=83\n");
    let known = "select source_id from source_disk where jsonb_path_query_array(partitions, '$[*].size_bytes') = '[4194304]'";
    deployment.look("the new table is known", known).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_comes_back_by_itself_when_its_gateway_does() {
    let mut deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let (agent, source) = deployment.registered_agent(&disk, &[]).await;
    deployment.stop_gateway().await;
    sqlx::query("update source set last_seen_at = now() - interval '1 hour'")
        .execute(&deployment.pool)
        .await
        .unwrap();
    deployment.start_gateway().await;
    let seen = "select id from source where last_seen_at > now() - interval '1 minute'";
    assert_eq!(deployment.look("the agent is back", seen).await, source);
    agent.stop().await;
}

#[tokio::test]
async fn the_agent_of_a_deleted_source_says_so_and_does_not_become_another_source() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let metrics = program::free_address().unwrap();
    let (agent, _) = deployment
        .registered_agent(&disk, &["--health", &metrics])
        .await;
    let ready = format!("http://{metrics}/readyz");
    wait::until(SOON, "the agent is ready", async || {
        Ok(text_at(&ready).await.is_ok_and(|text| text == "ready\n"))
    })
    .await
    .unwrap();

    let delete = "delete from source";
    sqlx::query(delete).execute(&deployment.pool).await.unwrap();
    let not_ready = wait::some(SOON, "the agent is no longer ready", async || {
        Ok(Some(text_at(&ready).await?).filter(|text| text != "ready\n"))
    });
    assert!(not_ready.await.unwrap().contains("agent.gateway"));
    assert!(!agent.running.is_finished());
    assert_eq!(deployment.count("select count(*) from source").await, 0);
    agent.stop().await;
}

async fn text_at(url: &str) -> anyhow::Result<String> {
    Ok(reqwest::get(url).await?.text().await?)
}

#[tokio::test]
async fn sectors_table_and_identity_of_a_device_are_reported() {
    let deployment = Deployment::start().await;
    let file = deployment.disk("disk", &[0; 8 << 20]);
    let mut sfdisk = Command::new("sfdisk")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["--quiet", "--wipe=always"])
        .arg(&file)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk, of the package fdisk");
    let mut input = sfdisk.stdin.take().expect("a pipe");
    let script = b"label: dos\nlabel-id: 0x6f8e5c0a\nsize=4MiB, type=83\n";
    input.write_all(script).expect("sfdisk reads");
    drop(input);
    assert!(sfdisk.wait().expect("sfdisk ends").success());
    let device = testkit::cluster::LoopDevice::over(&file).unwrap();
    let (agent, _) = deployment.registered_agent(device.path(), &[]).await;
    let known = r#"select source_id from source_disk
        where layout = '{"logical_sector_bytes": 512, "physical_sector_bytes": 512, "partition_table": "dos"}'
          and identity ->> 'partition_table' = 'dos 0x6f8e5c0a' and identity ? 'file'"#;
    deployment.look("the facts are known", known).await;
    agent.stop().await;
}
