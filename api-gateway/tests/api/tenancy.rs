//! No account can see or change anything of another, or distinguish it from nothing: every operation of the table,
//! across two accounts.

use std::collections::BTreeSet;

use std::sync::{Arc, Mutex};

use serde_json::Value;
use smc::CallError;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use store::network::{CreateNetwork, Network, VSwitch};

use crate::fixture::{Fixture, GIB, REGION, Tenant};

/// A way in which one account could reach a resource of another through an operation: a parameter with an id of the
/// other account. The answer for an id that nobody has is the yardstick. Other parameters that the call needs follow.
struct Reach {
    parameter: &'static str,
    theirs: String,
    nobodys: &'static str,
    others: Vec<(&'static str, String)>,
}

fn names(
    parameter: &'static str,
    theirs: &str,
    nobodys: &'static str,
    others: &[(&'static str, &str)],
) -> Reach {
    let others = others
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Reach {
        parameter,
        theirs: theirs.to_owned(),
        nobodys,
        others: others.collect(),
    }
}

/// One account's resources, each of which another account tries to reach.
struct Things {
    source: String,
    job: String,
    token: String,
    workgroup: String,
    image: &'static str,
    region: &'static str,
    vpc: &'static str,
    vswitch: &'static str,
}

impl Things {
    async fn of(fixture: &Fixture, tenant: &Tenant) -> Self {
        let source = fixture.source(tenant, "web", &[GIB]).await;
        let job = tenant.job(&source).await;
        let id = |answer: Value, name: &str| answer[name].as_str().expect("an id").to_owned();
        let token = tenant.call("CreateAccessToken", &[]).await;
        let named = [("Name", "hall")];
        let workgroup = tenant.call("CreateWorkgroup", &named).await;
        sqlx::query(
            "insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name, state)
             values ('m-1', $1, $2, $3, 1, 1, 'local', 'web', 'available')",
        )
        .bind(tenant.id.as_str())
        .bind(job.as_str())
        .bind(source.as_str())
        .execute(&fixture.pool)
        .await
        .expect("an image");
        let tags = [
            ("ResourceType", "sourceserver"),
            ("ResourceId.1", source.as_str()),
            ("Tag.1.Key", "rack"),
            ("Tag.1.Value", "7"),
        ];
        tenant.call("TagResources", &tags).await;
        let join = [
            (
                "WorkgroupId",
                workgroup["WorkgroupId"].as_str().expect("an id"),
            ),
            ("SourceId.1", source.as_str()),
        ];
        tenant.call("AssociateSourceServers", &join).await;
        let networks = [
            Network::Region {
                id: "r-theirs".to_owned(),
            },
            Network::Vpc {
                id: "vpc-theirs".to_owned(),
                region_id: REGION.to_owned(),
            },
            Network::VSwitch(VSwitch {
                id: "vsw-theirs".to_owned(),
                vpc: "vpc-theirs".to_owned(),
                region_id: String::new(),
                receiver_host: None,
            }),
        ];
        for network in networks {
            let made = fixture.store.create_network(&tenant.id, &network).await;
            assert_eq!(made.expect("answered"), CreateNetwork::Created);
        }
        Self {
            source: source.to_string(),
            job: job.to_string(),
            token: id(token, "AccessTokenId"),
            workgroup: id(workgroup, "WorkgroupId"),
            image: "m-1",
            region: "r-theirs",
            vpc: "vpc-theirs",
            vswitch: "vsw-theirs",
        }
    }

    fn all(&self) -> [&str; 5] {
        [
            &self.source,
            &self.job,
            &self.token,
            &self.workgroup,
            self.image,
        ]
    }
}

/// The caller's own resources, for the parameters beside the one that reaches.
struct Own<'a> {
    source: &'a str,
    job: &'a str,
    workgroup: &'a str,
}

/// Returns every operation with each of its ways to name a resource; some have none.
fn reaches(one: &Things, own: &Own<'_>) -> Vec<(&'static str, Vec<Reach>)> {
    let (own_source, own_workgroup) = (own.source, own.workgroup);
    // A new job of the caller's own source, and a change of its own job.
    let new_job = [("SourceId", own_source), ("SystemDiskSize", "20")];
    let own_job = [("JobId", own.job)];
    // No list has anything in a resource group: neither one of the caller's nor one of another's.
    let group = || names("ResourceGroupId", "rg-theirs", "rg-none", &[]);
    let source = |others: &[(&'static str, &str)]| names("SourceId", &one.source, "s-none", others);
    let job = |others: &[(&'static str, &str)]| names("JobId", &one.job, "j-none", others);
    let token = || names("AccessTokenId", &one.token, "at-none", &[]);
    let image = |others: &[(&'static str, &str)]| names("ImageId", one.image, "m-none", others);
    let workgroup =
        |others: &[(&'static str, &str)]| names("WorkgroupId", &one.workgroup, "w-none", others);
    let members = || {
        vec![
            workgroup(&[("SourceId.1", own_source)]),
            names(
                "SourceId.1",
                &one.source,
                "s-none",
                &[("WorkgroupId", own_workgroup)],
            ),
        ]
    };
    let tagged = |more: &[(&'static str, &str)]| -> Vec<Reach> {
        [
            ("sourceserver", one.source.as_str(), "s-none"),
            ("replicationjob", &one.job, "j-none"),
            ("workgroup", &one.workgroup, "w-none"),
        ]
        .into_iter()
        .map(|(kind, theirs, nobodys)| {
            let others = [&[("ResourceType", kind)], more].concat();
            names("ResourceId.1", theirs, nobodys, &others)
        })
        .collect()
    };
    vec![
        (
            "DescribeSourceServers",
            vec![
                names("SourceId.1", &one.source, "s-none", &[]),
                names("JobId", &one.job, "j-none", &[]),
                names("WorkgroupId", &one.workgroup, "w-none", &[]),
                names("Tag.1.Key", "rack", "none", &[]),
                group(),
            ],
        ),
        (
            "ModifySourceServerAttribute",
            vec![source(&[("Name", "mine")])],
        ),
        ("DeleteSourceServer", vec![source(&[("Force", "true")])]),
        (
            "CreateReplicationJob",
            vec![
                source(&[("SystemDiskSize", "20")]),
                names("RegionId", one.region, "r-none", &new_job),
                names("VSwitchId", one.vswitch, "vsw-none", &new_job),
                names("VpcId", one.vpc, "vpc-none", &new_job),
            ],
        ),
        (
            "DescribeReplicationJobs",
            vec![
                names("JobId.1", &one.job, "j-none", &[]),
                names("SourceId.1", &one.source, "s-none", &[]),
                names("WorkgroupId", &one.workgroup, "w-none", &[]),
                names("RegionId", one.region, "r-none", &[]),
                names("InstanceId.1", "i-theirs", "i-none", &[]),
                names("Tag.1.Key", "rack", "none", &[]),
                group(),
            ],
        ),
        (
            "ModifyReplicationJobAttribute",
            vec![
                job(&[("Name", "mine")]),
                names("VSwitchId", one.vswitch, "vsw-none", &own_job),
                names("VpcId", one.vpc, "vpc-none", &own_job),
            ],
        ),
        ("StartReplicationJob", vec![job(&[])]),
        ("StopReplicationJob", vec![job(&[])]),
        ("DeleteReplicationJob", vec![job(&[])]),
        ("CutOverReplicationJob", vec![job(&[])]),
        ("ExplainReplicationJob", vec![job(&[])]),
        ("CreateWorkgroup", Vec::new()),
        (
            "DescribeWorkgroups",
            vec![
                names("WorkgroupId.1", &one.workgroup, "w-none", &[]),
                names("Tag.1.Key", "rack", "none", &[]),
            ],
        ),
        (
            "ModifyWorkgroupAttribute",
            vec![workgroup(&[("Name", "mine")])],
        ),
        ("DeleteWorkgroup", vec![workgroup(&[])]),
        ("AssociateSourceServers", members()),
        ("DisassociateSourceServers", members()),
        (
            "TagResources",
            tagged(&[("Tag.1.Key", "k"), ("Tag.1.Value", "v")]),
        ),
        ("UntagResources", tagged(&[("All", "true")])),
        ("ListTagResources", {
            let mut reaches = tagged(&[]);
            let others = [("ResourceType", "sourceserver")];
            reaches.push(names("Tag.1.Key", "rack", "none", &others));
            reaches
        }),
        ("CreateAccessToken", Vec::new()),
        (
            "ListAccessTokens",
            vec![names("AccessTokenId.1", &one.token, "at-none", &[])],
        ),
        ("DisableAccessToken", vec![token()]),
        ("DeleteAccessToken", vec![token()]),
        (
            "DescribeImages",
            vec![
                names("ImageId.1", one.image, "m-none", &[]),
                names("JobId.1", &one.job, "j-none", &[]),
            ],
        ),
        ("DeleteImage", vec![image(&[])]),
        ("DownloadImage", vec![image(&[("File", "disk-0.raw")])]),
    ]
}

/// Returns the result of a call, without the parts that differ from call to call.
async fn outcome(tenant: &Tenant, action: &str, reach: &Reach, id: &str) -> String {
    let mut parameters = vec![(reach.parameter, id)];
    let others = reach.others.iter();
    parameters.extend(others.map(|(name, value)| (*name, value.as_str())));
    let text = match tenant.client.call_by_name(action, &parameters).await {
        Ok(mut answer) => {
            answer["RequestId"] = Value::Null;
            answer.to_string()
        }
        Err(CallError::Refused(refusal)) => format!(
            "{} {} {}",
            refusal.http_status, refusal.code, refusal.message
        ),
        Err(error) => panic!("{action}: {error}"),
    };
    text.replace(id, "ID")
}

/// The statements that this thread sends to the database, each with the number of rows that it gave and changed.
#[derive(Debug, Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl Statements {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no holder of this lock can panic"))
    }
}

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut statement = Statement(String::new());
            event.record(&mut statement);
            self.0
                .lock()
                .expect("no holder of this lock can panic")
                .push(statement.0);
        }
    }
}

struct Statement(String);

impl Visit for Statement {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if !field.name().starts_with("elapsed") {
            self.0 += &format!("{}={value:?} ", field.name());
        }
    }
}

/// Most pairs of calls that are compared before two of the calls count as different.
const PAIRS: usize = 5;

/// Asserts that a call for another account's id and one for an id that nobody has get the same answer from the same
/// statements.
///
/// A new connection of the pool, a cache that is read again and the gateway's own statements add to either call. None
/// of them recurs in each of several pairs. So only a difference that is in every pair is one of the calls.
async fn assert_alike(
    tenant: &Tenant,
    statements: &Statements,
    action: &str,
    reach: &Reach,
) -> String {
    let mut sent = Vec::new();
    for _ in 0..PAIRS {
        statements.take();
        let theirs = outcome(tenant, action, reach, &reach.theirs).await;
        let for_theirs = statements.take();
        let nobodys = outcome(tenant, action, reach, reach.nobodys).await;
        let for_nobodys = statements.take();
        assert_eq!(theirs, nobodys, "{action} with {}", reach.parameter);
        assert!(!for_theirs.is_empty(), "{action} asks the database");
        if for_theirs == for_nobodys {
            return theirs;
        }
        sent.push((for_theirs, for_nobodys));
    }
    panic!("{action} with {} can be timed: {sent:#?}", reach.parameter);
}

/// Returns everything that an account sees of its own.
async fn seen(tenant: &Tenant) -> Vec<Value> {
    let mut seen = Vec::new();
    for action in [
        "DescribeSourceServers",
        "DescribeReplicationJobs",
        "DescribeWorkgroups",
        "DescribeImages",
        "ListAccessTokens",
    ] {
        let mut answer = tenant.call(action, &[]).await;
        answer["RequestId"] = Value::Null;
        seen.push(answer);
    }
    seen
}

#[tokio::test]
async fn two_accounts_know_nothing_of_each_other() {
    let fixture = Fixture::start().await;
    let (one, two) = (fixture.tenant("one").await, fixture.tenant("two").await);
    let things = Things::of(&fixture, &one).await;
    let own_source = fixture.source(&two, "db", &[GIB]).await;
    let own_workgroup = two.call("CreateWorkgroup", &[("Name", "mine")]).await["WorkgroupId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let moved = fixture.source(&two, "moved", &[GIB]).await;
    let own_job = two.job(&moved).await;
    let own = Own {
        source: own_source.as_str(),
        job: own_job.as_str(),
        workgroup: &own_workgroup,
    };
    let reaches = reaches(&things, &own);

    let covered: BTreeSet<&str> = reaches.iter().map(|(action, _)| *action).collect();
    let known: BTreeSet<&str> = api_gateway::reference::operation_names().collect();
    assert_eq!(
        covered, known,
        "say here how each operation could reach for what is another's"
    );
    for (action, parameter) in api_gateway::reference::ids() {
        let first = parameter.replace(".N", ".1");
        let has_reach = reaches
            .iter()
            .filter(|(known, _)| *known == action)
            .flat_map(|(_, reaches)| reaches)
            .any(|reach| reach.parameter == first);
        assert!(
            has_reach,
            "say here how {action} could reach with {parameter}"
        );
    }

    let before = seen(&one).await;
    for id in things.all() {
        let shown = before.iter().filter(|answer| mentions(answer, id)).count();
        assert!(shown > 0, "{id} is there for its owner");
        for answer in seen(&two).await {
            assert!(!mentions(&answer, id), "{id} is in {answer}");
        }
    }
    // The time of a call is that of its statements: the same statements take the same time.
    let statements = Statements::default();
    let recording = tracing_subscriber::registry().with(statements.clone());
    let _recording = tracing::subscriber::set_default(recording);
    for (action, reaches) in &reaches {
        for reach in reaches {
            let theirs = assert_alike(&two, &statements, action, reach).await;
            for id in things.all() {
                assert!(!theirs.contains(id), "{action} tells of {id}: {theirs}");
            }
        }
    }
    assert_eq!(seen(&one).await, before, "nothing was changed");
    fixture.stop().await;
}

#[tokio::test]
async fn names_are_each_accounts_own() {
    let fixture = Fixture::start().await;
    let (one, two) = (fixture.tenant("one").await, fixture.tenant("two").await);
    let source = fixture.source(&one, "web", &[GIB]).await;
    let job = one.job(&source).await;
    let other = fixture.source(&two, "web", &[GIB]).await;
    let named = [
        ("SourceId", other.as_str()),
        ("SystemDiskSize", "20"),
        ("Name", "move"),
    ];
    two.call("CreateReplicationJob", &named).await;
    one.call(
        "ModifyReplicationJobAttribute",
        &[("JobId", job.as_str()), ("Name", "move")],
    )
    .await;
    fixture.stop().await;
}

fn mentions(answer: &Value, id: &str) -> bool {
    answer.to_string().contains(id)
}
