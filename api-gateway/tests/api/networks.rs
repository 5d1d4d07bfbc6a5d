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
            .call("CreateReplicationJob", &parameters)
            .await;
        let error = answer.expect_err("it is refused");
        error.refusal().expect("a refusal").code.clone()
    };
    for (region, more, wanted) in [
        ("south", &[][..], "InvalidRegionId.NotFound"),
        ("local", &[("NetMode", "2")], "MissingVSwitchId"),
        ("local", &[("VpcId", "vpc-1")], "MissingVSwitchId"),
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
    // What is one's own is nobody else's.
    let taken = [("NetMode", "2"), ("VSwitchId", "vsw-1")];
    let refused = code(&two, with(foreign.as_str(), "local", &taken)).await;
    assert_eq!(refused, "InvalidVSwitchId.NotFound");
    let refused = code(&two, with(foreign.as_str(), "north", &[])).await;
    assert_eq!(refused, "InvalidRegionId.NotFound");

    let more = [("NetMode", "2"), ("VSwitchId", "vsw-2")];
    let parameters = with(source.as_str(), "north", &more);
    let made = one.client.call("CreateReplicationJob", &parameters).await;
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
    // The job lies in the region north, and so do the vSwitches it may be given.
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
    one.call(
        "ModifyReplicationJobAttribute",
        &[("JobId", job.as_str()), ("NetMode", "0")],
    )
    .await;
    assert_eq!(host().await, None);
    let removed = fixture.store.remove_network(&one.id, "vsw-2").await;
    assert_eq!(removed.expect("answered"), RemoveNetwork::Removed);
    let removed = fixture.store.remove_network(&two.id, "vsw-1").await;
    assert_eq!(removed.expect("answered"), RemoveNetwork::NotFound);
    fixture.stop().await;
}
