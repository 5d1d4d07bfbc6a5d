//! The calls: the file that answers each, and the calls that change something.

use proto::admin as wire;
use proto::admin::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::{Admin, dead_letter, key, log, network, policy, seal, tenant, token, user};

#[tonic::async_trait]
impl AdminService for Admin {
    async fn create_tenant(
        &self,
        request: Request<wire::CreateTenantRequest>,
    ) -> Result<Response<wire::CreateTenantResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "CreateTenant",
            request,
            |request| vec![&request.name],
            |request| tenant::create(store, request),
        )
        .await
    }

    async fn list_tenants(
        &self,
        _request: Request<wire::ListTenantsRequest>,
    ) -> Result<Response<wire::ListTenantsResponse>, Status> {
        tenant::list(&self.gateway.store).await.map(Response::new)
    }

    async fn get_tenant(
        &self,
        request: Request<wire::GetTenantRequest>,
    ) -> Result<Response<wire::Tenant>, Status> {
        tenant::get(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn update_tenant(
        &self,
        request: Request<wire::UpdateTenantRequest>,
    ) -> Result<Response<wire::Tenant>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "UpdateTenant",
            request,
            |request| vec![&request.tenant],
            |request| tenant::update(store, request),
        )
        .await
    }

    async fn delete_tenant(
        &self,
        request: Request<wire::DeleteTenantRequest>,
    ) -> Result<Response<wire::DeleteTenantResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "DeleteTenant",
            request,
            |request| vec![&request.tenant],
            |request| tenant::delete(store, request),
        )
        .await
    }

    async fn create_user(
        &self,
        request: Request<wire::CreateUserRequest>,
    ) -> Result<Response<wire::User>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "CreateUser",
            request,
            |request| vec![&request.tenant, &request.name],
            |request| user::create(store, request),
        )
        .await
    }

    async fn list_users(
        &self,
        request: Request<wire::ListUsersRequest>,
    ) -> Result<Response<wire::ListUsersResponse>, Status> {
        user::list(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn update_user(
        &self,
        request: Request<wire::UpdateUserRequest>,
    ) -> Result<Response<wire::User>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "UpdateUser",
            request,
            |request| vec![&request.tenant, &request.name],
            |request| user::update(store, request),
        )
        .await
    }

    async fn delete_user(
        &self,
        request: Request<wire::DeleteUserRequest>,
    ) -> Result<Response<wire::DeleteUserResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "DeleteUser",
            request,
            |request| vec![&request.tenant, &request.name],
            |request| user::delete(store, request),
        )
        .await
    }

    async fn create_policy(
        &self,
        request: Request<wire::CreatePolicyRequest>,
    ) -> Result<Response<wire::Policy>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "CreatePolicy",
            request,
            |request| vec![&request.tenant, &request.name],
            |request| policy::create(store, request),
        )
        .await
    }

    async fn list_policies(
        &self,
        request: Request<wire::ListPoliciesRequest>,
    ) -> Result<Response<wire::ListPoliciesResponse>, Status> {
        policy::list(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn update_policy(
        &self,
        request: Request<wire::UpdatePolicyRequest>,
    ) -> Result<Response<wire::Policy>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "UpdatePolicy",
            request,
            |request| vec![&request.tenant, &request.name],
            |request| policy::update(store, request),
        )
        .await
    }

    async fn delete_policy(
        &self,
        request: Request<wire::DeletePolicyRequest>,
    ) -> Result<Response<wire::DeletePolicyResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "DeletePolicy",
            request,
            |request| vec![&request.tenant, &request.name],
            |request| policy::delete(store, request),
        )
        .await
    }

    async fn create_key(
        &self,
        request: Request<wire::CreateKeyRequest>,
    ) -> Result<Response<wire::NewKey>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "CreateKey",
            request,
            |request| vec![&request.tenant],
            |request| key::create(store, request),
        )
        .await
    }

    async fn list_keys(
        &self,
        request: Request<wire::ListKeysRequest>,
    ) -> Result<Response<wire::ListKeysResponse>, Status> {
        key::list(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn update_key(
        &self,
        request: Request<wire::UpdateKeyRequest>,
    ) -> Result<Response<wire::Key>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "UpdateKey",
            request,
            |request| vec![&request.tenant, &request.id],
            |request| key::update(store, request),
        )
        .await
    }

    async fn delete_key(
        &self,
        request: Request<wire::DeleteKeyRequest>,
    ) -> Result<Response<wire::DeleteKeyResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "DeleteKey",
            request,
            |request| vec![&request.tenant, &request.id],
            |request| key::delete(store, request),
        )
        .await
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::NewToken>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "CreateToken",
            request,
            |request| vec![&request.tenant],
            |request| token::create(store, &self.gateway.authority_fingerprint, request),
        )
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<wire::ListTokensRequest>,
    ) -> Result<Response<wire::ListTokensResponse>, Status> {
        token::list(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn disable_token(
        &self,
        request: Request<wire::DisableTokenRequest>,
    ) -> Result<Response<wire::DisableTokenResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "DisableToken",
            request,
            |request| vec![&request.tenant, &request.id],
            |request| token::disable(store, request),
        )
        .await
    }

    async fn delete_token(
        &self,
        request: Request<wire::DeleteTokenRequest>,
    ) -> Result<Response<wire::DeleteTokenResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "DeleteToken",
            request,
            |request| vec![&request.tenant, &request.id],
            |request| token::delete(store, request),
        )
        .await
    }

    async fn create_network(
        &self,
        request: Request<wire::CreateNetworkRequest>,
    ) -> Result<Response<wire::Network>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "CreateNetwork",
            request,
            |request| vec![&request.tenant],
            |request| network::create(store, &self.gateway.region_id, request),
        )
        .await
    }

    async fn list_networks(
        &self,
        request: Request<wire::ListNetworksRequest>,
    ) -> Result<Response<wire::ListNetworksResponse>, Status> {
        network::list(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn update_network(
        &self,
        request: Request<wire::UpdateNetworkRequest>,
    ) -> Result<Response<wire::UpdateNetworkResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "UpdateNetwork",
            request,
            |request| vec![&request.tenant, &request.id],
            |request| network::update(store, request),
        )
        .await
    }

    async fn delete_network(
        &self,
        request: Request<wire::DeleteNetworkRequest>,
    ) -> Result<Response<wire::DeleteNetworkResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "DeleteNetwork",
            request,
            |request| vec![&request.tenant, &request.id],
            |request| network::delete(store, request),
        )
        .await
    }

    async fn rotate_seal(
        &self,
        request: Request<wire::RotateSealRequest>,
    ) -> Result<Response<wire::RotateSealResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "RotateSeal",
            request,
            |_| Vec::new(),
            |_| seal::rotate(store),
        )
        .await
    }

    async fn list_history(
        &self,
        request: Request<wire::ListHistoryRequest>,
    ) -> Result<Response<wire::ListHistoryResponse>, Status> {
        log::history(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn list_audit(
        &self,
        request: Request<wire::ListAuditRequest>,
    ) -> Result<Response<wire::ListAuditResponse>, Status> {
        log::audit(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn list_dead_letters(
        &self,
        request: Request<wire::ListDeadLettersRequest>,
    ) -> Result<Response<wire::ListDeadLettersResponse>, Status> {
        dead_letter::list(&self.gateway.store, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn retry_dead_letter(
        &self,
        request: Request<wire::RetryDeadLetterRequest>,
    ) -> Result<Response<wire::RetryDeadLetterResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "RetryDeadLetter",
            request,
            |request| vec![&request.id],
            |request| dead_letter::retry(store, request),
        )
        .await
    }

    async fn delete_dead_letter(
        &self,
        request: Request<wire::DeleteDeadLetterRequest>,
    ) -> Result<Response<wire::DeleteDeadLetterResponse>, Status> {
        let store = &self.gateway.store;
        self.changes(
            "DeleteDeadLetter",
            request,
            |request| vec![&request.id],
            |request| dead_letter::delete(store, request),
        )
        .await
    }
}
