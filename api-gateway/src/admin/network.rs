//! Regions, VPCs and vSwitches of tenants.

use proto::admin as wire;
use proto::admin::network::Kind;
use store::Store;
use store::network::{CreateNetwork, Network, RemoveNetwork, VSwitch};
use tonic::Status;

use super::tenant::named;
use super::{Changed, failed};

/// Characters of a generated id after its prefix.
const RANDOM_DIGITS: usize = 18;

/// Longest id, and longest host name.
const ID_LENGTH: usize = 64;
const HOST_LENGTH: usize = 253;

pub(super) async fn create(
    store: &Store,
    own_region: &str,
    request: wire::CreateNetworkRequest,
) -> Result<Changed<wire::Network>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let asked = request.network.unwrap_or_default();
    let network = match asked.kind() {
        Kind::Region if asked.id == own_region => {
            return Err(Status::already_exists(format!(
                "{own_region} is the region of this service, and every tenant's: nothing is to be done"
            )));
        }
        Kind::Region => Network::Region {
            id: id(&asked.id, "")?,
        },
        Kind::Vpc => Network::Vpc {
            id: id(&asked.id, "vpc-")?,
            region_id: region(store, &tenant.id, own_region, &asked.region_id).await?,
        },
        Kind::Vswitch => Network::VSwitch(VSwitch {
            id: id(&asked.id, "vsw-")?,
            vpc: asked.vpc_id.clone(),
            region_id: String::new(),
            receiver_host: host(&asked.receiver_host)?,
        }),
        Kind::Unspecified => {
            return Err(Status::invalid_argument(
                "say whether it is a region, a VPC or a vSwitch",
            ));
        }
    };
    match store
        .create_network(&tenant.id, &network)
        .await
        .map_err(failed)?
    {
        CreateNetwork::Created => {
            let message = described(network);
            let id = message.id.clone();
            Ok(Changed::new(tenant.id, message).with(id))
        }
        CreateNetwork::Taken => Err(Status::already_exists(format!(
            "the id {} is taken: choose another",
            described(network).id
        ))),
        CreateNetwork::NoVpc => Err(Status::not_found(format!(
            "tenant {} has no VPC {}: `wherry admin network list {}` shows all",
            tenant.name, asked.vpc_id, tenant.name
        ))),
    }
}

pub(super) async fn list(
    store: &Store,
    request: wire::ListNetworksRequest,
) -> Result<wire::ListNetworksResponse, Status> {
    let tenant = named(store, &request.tenant).await?;
    let networks = store.networks(&tenant.id).await.map_err(failed)?;
    Ok(wire::ListNetworksResponse {
        networks: networks.into_iter().map(described).collect(),
    })
}

pub(super) async fn update(
    store: &Store,
    request: wire::UpdateNetworkRequest,
) -> Result<Changed<wire::UpdateNetworkResponse>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let host = host(&request.receiver_host)?;
    let is_set = store
        .set_receiver_host(&tenant.id, &request.id, host.as_deref())
        .await
        .map_err(failed)?;
    if !is_set {
        return Err(Status::not_found(format!(
            "tenant {} has no vSwitch {}: `wherry admin network list {}` shows all",
            tenant.name, request.id, tenant.name
        )));
    }
    Ok(Changed::new(tenant.id, wire::UpdateNetworkResponse {}))
}

pub(super) async fn delete(
    store: &Store,
    request: wire::DeleteNetworkRequest,
) -> Result<Changed<wire::DeleteNetworkResponse>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let removed = store.remove_network(&tenant.id, &request.id).await;
    match removed.map_err(failed)? {
        RemoveNetwork::Removed => Ok(Changed::new(tenant.id, wire::DeleteNetworkResponse {})),
        RemoveNetwork::InUse(uses) => Err(Status::failed_precondition(format!(
            "{} is in use by {uses} jobs and networks: delete these first",
            request.id
        ))),
        RemoveNetwork::NotFound => Err(Status::not_found(format!(
            "tenant {} has no network {}: `wherry admin network list {}` shows all",
            tenant.name, request.id, tenant.name
        ))),
    }
}

/// Returns the region of a VPC: the gateway's own unless another is named, which the tenant must have.
async fn region(
    store: &Store,
    tenant: &domain::TenantId,
    own_region: &str,
    asked: &str,
) -> Result<String, Status> {
    let is_own = asked.is_empty() || asked == own_region;
    if is_own {
        return Ok(own_region.to_owned());
    }
    if store.has_region(tenant, asked).await.map_err(failed)? {
        return Ok(asked.to_owned());
    }
    Err(Status::not_found(format!(
        "the tenant has no region {asked}: give it one first, with network create --region"
    )))
}

/// Returns the id that was given, or a new one.
fn id(given: &str, prefix: &str) -> Result<String, Status> {
    if given.is_empty() && !prefix.is_empty() {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let digits = (0..RANDOM_DIGITS)
            .map(|_| char::from(DIGITS[usize::from(rand::random::<u8>()) % DIGITS.len()]));
        return Ok(prefix.chars().chain(digits).collect());
    }
    let is_plain = given
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if given.is_empty() || given.len() > ID_LENGTH || !is_plain || !given.starts_with(prefix) {
        return Err(Status::invalid_argument(format!(
            "{given:?} is no id: it begins with {prefix:?} and has at most {ID_LENGTH} small letters, digits and dashes"
        )));
    }
    Ok(given.to_owned())
}

/// Checks a host name or address without a port.
fn host(given: &str) -> Result<Option<String>, Status> {
    let is_plain = given
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte));
    let is_name_with_port = given.contains(':') && given.parse::<std::net::Ipv6Addr>().is_err();
    if given.len() > HOST_LENGTH || !is_plain || is_name_with_port {
        return Err(Status::invalid_argument(format!(
            "{given:?} is no host name or address; it has no port, since each run has its own"
        )));
    }
    Ok(Some(given.to_owned()).filter(|host| !host.is_empty()))
}

fn described(network: Network) -> wire::Network {
    match network {
        Network::Region { id } => wire::Network {
            kind: Kind::Region.into(),
            region_id: id.clone(),
            id,
            ..wire::Network::default()
        },
        Network::Vpc { id, region_id } => wire::Network {
            kind: Kind::Vpc.into(),
            vpc_id: id.clone(),
            id,
            region_id,
            ..wire::Network::default()
        },
        Network::VSwitch(vswitch) => wire::Network {
            kind: Kind::Vswitch.into(),
            id: vswitch.id,
            region_id: vswitch.region_id,
            vpc_id: vswitch.vpc,
            receiver_host: vswitch.receiver_host.unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_up_or_plain_and_hosts_have_no_port() {
        assert!(id("", "vpc-").is_ok_and(|id| id.starts_with("vpc-") && id.len() == 22));
        assert!(id("vpc-a", "vpc-").is_ok_and(|id| id == "vpc-a"));
        for (given, prefix) in [("", ""), ("vsw-a", "vpc-"), ("Vpc-a", ""), ("a b", "")] {
            assert!(id(given, prefix).is_err(), "{given:?}");
        }
        for given in ["10.0.0.7", "inside.example", "fd00::7"] {
            assert_eq!(host(given).ok().flatten().as_deref(), Some(given));
        }
        assert!(host("").is_ok_and(|host| host.is_none()));
        for given in ["inside.example:7", "10.0.0.7:80", "in side", "a/b"] {
            assert!(host(given).is_err(), "{given}");
        }
    }
}
