//! Networks that the operator has configured, as jobs take them up.

use store::network::{CreateNetwork, Network, RemoveNetwork, VSwitch};

use crate::fixture::{Fixture, GIB, Tenant};

async fn configure(fixture: &Fixture, tenant: &Tenant) {
    let vswitch = |id: &str, vpc: &str| {
        Network::VSwitch(VSwitch {
            id: id.to_owned(),
            vpc: vpc.to_owned(),
            region_id: String::new(),
            receiver_host: Some("10.0.0.7".to_owned()),
        })
    };
    let vpc = |id: &str, region_id: &str| Network::Vpc {
        id: id.to_owned(),
        region_id: region_id.to_owned(),
    };
    let region = Network::Region {
        id: "north".to_owned(),
    };
    for network in [
        region,
        vpc("vpc-1", "local"),
        vpc("vpc-2", "north"),
        vswitch("vsw-1", "vpc-1"),
        vswitch("vsw-2", "vpc-2"),
    ] {
        let made = fixture.store.create_network(&tenant.id, &network).await;
        assert_eq!(made.expect("answered"), CreateNetwork::Created);
    }
}

#[tokio::test]
async fn a_job_takes_its_network_and_is_refused_one_that_does_not_fit() {
    let fixture = Fixture::start().await;
    let (one, two) = (fixture.tenant("one").await, fixture.tenant("two").await);
    configure(&fixture, &one).await;
    let source = fixture.source(&one, "web", &[GIB]).await;
    let foreign = fixture.source(&two, "web", &[GIB]).await;
    let with = |source: &str, region: &str, more: &[(&str, &str)]| -> Vec<(String, String)> {
        let base = [
            ("SourceId", source),
            ("SystemDiskSize", "20"),
            ("RegionId", region),
        ];
        let all = base.iter().chain(more);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let code = async |tenant: &Tenant, parameters: Vec<(String, String)>| {
        let answer = tenant
            .client
            .call_by_name("CreateReplicationJob", &parameters)
            .await;
        let error = answer.expect_err("it is refused");
        error.refusal().expect("a refusal").code.clone()
    };
    for (region, more, wanted) in [
        ("south", &[][..], "InvalidRegionId.NotFound"),
        ("local", &[("NetMode", "2")], "MissingVSwitchId"),
        ("local", &[("VpcId", "vpc-9")], "InvalidVpcId.NotFound"),
        ("local", &[("VpcId", "vpc-2")], "InvalidVpcId.NotFound"),
        (
            "local",
            &[("NetMode", "2"), ("VpcId", "vpc-1")],
            "MissingVSwitchId",
        ),
        ("local", &[("NetMode", "1")], "InvalidNetMode"),
        (
            "local",
            &[("VSwitchId", "vsw-9")],
            "InvalidVSwitchId.NotFound",
        ),
        (
            "local",
            &[("VSwitchId", "vsw-2")],
            "InvalidVSwitchId.NotFound",
        ),
        (
            "local",
            &[("VSwitchId", "vsw-1"), ("VpcId", "vpc-2")],
            "VSwitchIdVpcId.Mismatch",
        ),
    ] {
        let refused = code(&one, with(source.as_str(), region, more)).await;
        assert_eq!(refused, wanted, "{region} {more:?}");
    }
    // No other account can use the networks of this account.
    let taken = [("NetMode", "2"), ("VSwitchId", "vsw-1")];
    let refused = code(&two, with(foreign.as_str(), "local", &taken)).await;
    assert_eq!(refused, "InvalidVSwitchId.NotFound");
    let refused = code(&two, with(foreign.as_str(), "north", &[])).await;
    assert_eq!(refused, "InvalidRegionId.NotFound");

    let more = [("NetMode", "2"), ("VSwitchId", "vsw-2")];
    let parameters = with(source.as_str(), "north", &more);
    let made = one
        .client
        .call_by_name("CreateReplicationJob", &parameters)
        .await;
    let made = made.expect("a job");
    let job = made["JobId"].as_str().expect("an id").to_owned();
    let filters = [("JobId.1", job.as_str()), ("RegionId", "north")];
    let shown = one.call("DescribeReplicationJobs", &filters).await;
    let shown = &shown["ReplicationJobs"]["ReplicationJob"][0];
    assert_eq!(
        (&shown["NetMode"], &shown["VSwitchId"], &shown["VpcId"]),
        (&2.into(), &"vsw-2".into(), &"vpc-2".into())
    );
    let host = async || {
        let id = job.parse().expect("a job's id");
        fixture.store.receiver_host_of(&id).await.expect("answered")
    };
    assert_eq!(host().await.as_deref(), Some("10.0.0.7"));

    for network in ["north", "vpc-2", "vsw-2"] {
        let removed = fixture.store.remove_network(&one.id, network).await;
        assert!(
            matches!(removed, Ok(RemoveNetwork::InUse(_))),
            "{network}: {removed:?}"
        );
    }
    // The job is in the region north, and so are the vSwitches it may be given.
    for (more, wanted) in [
        (&[("VSwitchId", "vsw-1")][..], "InvalidVSwitchId.NotFound"),
        (
            &[("VSwitchId", "vsw-2"), ("VpcId", "vpc-1")],
            "VSwitchIdVpcId.Mismatch",
        ),
    ] {
        let change = [&[("JobId", job.as_str())], more].concat();
        let refused = one.code("ModifyReplicationJobAttribute", &change).await;
        assert_eq!(refused, wanted, "{more:?}");
    }
    let id: domain::JobId = job.parse().expect("a job's id");
    fixture.set_state(&id, domain::job::State::Deleting).await;
    let removed = fixture.store.remove_network(&one.id, "vsw-2").await;
    assert_eq!(removed.expect("answered"), RemoveNetwork::Removed);
    let removed = fixture.store.remove_network(&two.id, "vsw-1").await;
    assert_eq!(removed.expect("answered"), RemoveNetwork::NotFound);
    fixture.stop().await;
}

/// A change leaves the fields that it does not name, and its own fields must fit these.
#[tokio::test]
async fn a_job_keeps_of_its_network_what_a_change_does_not_name() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    configure(&fixture, &tenant).await;
    let another = Network::VSwitch(VSwitch {
        id: "vsw-3".to_owned(),
        vpc: "vpc-1".to_owned(),
        region_id: String::new(),
        receiver_host: None,
    });
    let made = fixture.store.create_network(&tenant.id, &another).await;
    assert_eq!(made.expect("answered"), CreateNetwork::Created);
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    // Each change, and the network that is shown after it.
    for (change, wanted) in [
        (&[("NetMode", "2")][..], Err("MissingVSwitchId")),
        (&[("VpcId", "vpc-9")], Err("InvalidVpcId.NotFound")),
        (&[("VpcId", "vpc-1")], Ok((0, "", "vpc-1"))),
        (&[("VSwitchId", "vsw-1")], Ok((0, "vsw-1", "vpc-1"))),
        (&[("NetMode", "2")], Ok((2, "vsw-1", "vpc-1"))),
        (&[("VSwitchId", "vsw-3")], Ok((2, "vsw-3", "vpc-1"))),
        (&[("VpcId", "vpc-1")], Ok((2, "vsw-3", "vpc-1"))),
        (&[("VpcId", "vpc-2")], Err("VSwitchIdVpcId.Mismatch")),
        (&[("Name", "moved")], Ok((2, "vsw-3", "vpc-1"))),
        (&[("NetMode", "0")], Ok((0, "vsw-3", "vpc-1"))),
        (&[("NetMode", "2")], Ok((2, "vsw-3", "vpc-1"))),
    ] {
        let named = [&[("JobId", job.as_str())], change].concat();
        let changed = match tenant
            .client
            .call_by_name("ModifyReplicationJobAttribute", &named)
            .await
        {
            Ok(_) => Ok(tenant.describe(&job).await),
            Err(error) => Err(error.code().unwrap_or("no answer").to_owned()),
        };
        let shown = changed.as_ref().map(|shown| {
            let text = |name: &str| shown[name].as_str().unwrap_or_default();
            let mode = shown["NetMode"].as_i64().expect("a number");
            (mode, text("VSwitchId"), text("VpcId"))
        });
        assert_eq!(shown.map_err(String::as_str), wanted, "{change:?}");
    }
    // A VPC with jobs stays, even without a vSwitch.
    let other = fixture.source(&tenant, "db", &[GIB]).await;
    let parameters = [
        ("SourceId", other.as_str()),
        ("SystemDiskSize", "20"),
        ("RegionId", "north"),
        ("VpcId", "vpc-2"),
    ];
    tenant.call("CreateReplicationJob", &parameters).await;
    for network in ["vsw-2", "vpc-2", "vpc-1"] {
        let removed = fixture.store.remove_network(&tenant.id, network).await;
        let is_free = network == "vsw-2";
        assert_eq!(
            matches!(removed, Ok(RemoveNetwork::Removed)),
            is_free,
            "{network}: {removed:?}"
        );
    }
    fixture.stop().await;
}
