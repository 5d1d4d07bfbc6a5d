//! A state directory that was cloned with its server: one of the two agents is the source, and the owner learns of the
//! other.

use std::path::PathBuf;

use store::Page;
use store::source::{Source, SourceFilter};

use crate::deployment::Deployment;

const CLONED: &str = "select id from source where cloned_at is not null";
const HOLDER: &str = "select agent_instance from source where agent_instance is not null";

impl Deployment {
    /// Returns a copy of the state directory, as a clone of the server has it.
    fn cloned_state(&self) -> PathBuf {
        let clone = self.directory.path().join("clone");
        std::fs::create_dir(&clone).unwrap();
        for file in ["key.pem", "registration.json"] {
            std::fs::copy(self.state_dir().join(file), clone.join(file)).unwrap();
        }
        clone
    }

    async fn source(&self) -> Source {
        let page = Page {
            number: 1,
            size: 10,
        };
        let filter = SourceFilter::default();
        let sources = self.store.sources(&self.tenant, &filter, page).await;
        sources.unwrap().rows.remove(0)
    }
}

#[tokio::test]
async fn a_clone_is_told_of_and_the_first_is_listened_to_also_after_its_restart() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let (first, source) = deployment.registered_agent(&disk, &[]).await;
    let holder = deployment.look("the agent says who it is", HOLDER).await;
    assert_eq!(deployment.source().await.warning, None);

    let clone = deployment.cloned_state().display().to_string();
    let disk = disk.display().to_string();
    let second = deployment.agent(&["--disk", &disk, "--state-dir", &clone]);
    assert_eq!(deployment.look("both are heard", CLONED).await, source);
    assert_eq!(deployment.look("the first stays", HOLDER).await, holder);
    let warning = deployment
        .source()
        .await
        .warning
        .expect("the owner is told");
    assert!(
        warning.contains("Two servers call with the same key"),
        "{warning}"
    );

    first.stop().await;
    let again = deployment.agent(&["--disk", &disk]);
    let restarted = "select agent_instance from source where agent_instance <> $1";
    let taken = testkit::wait::some(
        crate::deployment::SOON,
        "it is listened to again",
        async || {
            let row = sqlx::query_scalar::<_, String>(restarted).bind(&holder);
            Ok(row.fetch_optional(&deployment.pool).await?)
        },
    );
    taken.await.unwrap();
    assert!(
        deployment.source().await.warning.is_some(),
        "a restart of the first makes no clone disappear"
    );
    second.stop().await;
    again.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_from_elsewhere_after_a_silence_is_no_clone() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let (first, source) = deployment.registered_agent(&disk, &[]).await;
    deployment.look("the agent says who it is", HOLDER).await;
    first.stop().await;
    sqlx::query("update source set last_seen_at = now() - interval '5 minutes'")
        .execute(&deployment.pool)
        .await
        .unwrap();
    let clone = deployment.cloned_state().display().to_string();
    let disk = disk.display().to_string();
    let moved = deployment.agent(&["--disk", &disk, "--state-dir", &clone]);
    let seen = "select id from source where last_seen_at > now() - interval '1 minute'";
    assert_eq!(deployment.look("it is the source", seen).await, source);
    assert_eq!(deployment.source().await.warning, None);
    moved.stop().await;
}
