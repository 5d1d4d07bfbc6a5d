//! The process at the other end of the socket, and the audit of its changes.

use domain::RequestId;
use store::audit::{Actor, NewEntry};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Request, Response, Status};

use super::{Admin, Changed, failed};
use crate::auditing::DONE;

/// Returns the other end as the kernel identifies it.
fn origin<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<UdsConnectInfo>();
    match peer.and_then(|peer| peer.peer_cred) {
        Some(peer) => format!("uid:{}", peer.uid()),
        None => "uid:unknown".to_owned(),
    }
}

impl Admin {
    /// Carries out a call that changes something, between the two halves of its row in the audit. `names` gives the
    /// resources in the request.
    pub(super) async fn changes<T, A, F>(
        &self,
        operation: &'static str,
        request: Request<T>,
        names: fn(&T) -> Vec<&str>,
        work: impl FnOnce(T) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<Changed<A>, Status>>,
    {
        let (origin, request) = (origin(&request), request.into_inner());
        let resources: Vec<String> = names(&request).into_iter().map(str::to_owned).collect();
        let store = &self.gateway.store;
        let entry = NewEntry {
            actor: Actor::Operator,
            tenant: None,
            access_key: "",
            user_name: "",
            origin: &origin,
            request_id: &RequestId::generate().to_string(),
            operation,
            resources: &resources,
            outcome: None,
        };
        let id = store.begin_audit(&entry).await.map_err(failed)?;
        let changed = work(request).await;
        let (outcome, tenant, made) = match &changed {
            Ok(changed) => (DONE, changed.tenant.as_ref(), changed.made.as_slice()),
            Err(status) => (name(status.code()), None, [].as_slice()),
        };
        store
            .end_audit(id, outcome, tenant, made)
            .await
            .map_err(failed)?;
        tracing::info!(operation, origin, outcome, ?resources, "an operator's call");
        changed.map(|changed| Response::new(changed.message))
    }
}

/// Names a status as the outcome in the audit.
fn name(code: Code) -> &'static str {
    match code {
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::InvalidArgument => "InvalidArgument",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Unavailable => "ServiceUnavailable",
        _ => "InternalError",
    }
}
