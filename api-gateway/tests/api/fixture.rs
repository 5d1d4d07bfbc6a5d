//! A gateway with its own database, and its callers.

use std::net::SocketAddr;
use std::time::Duration;

use api_gateway::{Config, Server};
use clap::Parser as _;
use domain::{JobId, SourceId, TenantId};
use serde_json::Value;
use service::Shutdown;
use smc::{CallError, Client, Credentials, Pairs, Refusal, SignatureVersion, v1, v3};
use sqlx::PgPool;
use store::key::AccessKey;
use store::{ConnectConfig, SealKey, Store};
use tempfile::TempDir;
use testkit::Database;

pub const REGION: &str = "local";
pub const GIB: i64 = 1 << 30;
/// Bound of waits for quick events. Only something that hangs reaches it, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

/// Returns settings of a gateway on free ports, with these flags.
pub fn config(flags: &[&str]) -> Config {
    // The first test of the process installs it; later ones find it there.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let defaults = [
        "--api=127.0.0.1:0",
        "--agents=127.0.0.1:0",
        "--nats-url=nats://127.0.0.1:1",
        "--drain-secs=5",
        "--region=local",
        // A machine that runs many tests at once must not make a call time out.
        "--api-timeout-ms=60000",
    ];
    let name = |flag: &str| flag.split('=').next().map(str::to_owned);
    let defaults = defaults
        .into_iter()
        .filter(|default| !flags.iter().any(|flag| name(flag) == name(default)));
    let all = ["gateway"].into_iter().chain(defaults);
    Arguments::parse_from(all.chain(flags.iter().copied())).config
}

/// A running gateway.
pub struct Fixture {
    pub store: Store,
    pub pool: PgPool,
    pub address: SocketAddr,
    pub tls_address: Option<SocketAddr>,
    pub agents_address: SocketAddr,
    pub health: SocketAddr,
    pub image_store: TempDir,
    flags: Vec<String>,
    shutdown: Shutdown,
    served: tokio::task::JoinHandle<()>,
    // Dropped last: the gateway still uses it while it drains.
    pub database: Database,
}

/// Another gateway over the same database.
pub struct Second {
    pub address: SocketAddr,
    shutdown: Shutdown,
    served: tokio::task::JoinHandle<()>,
}

/// An account with a key.
pub struct Tenant {
    pub id: TenantId,
    pub key: AccessKey,
    pub client: Client,
}

impl Fixture {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a gateway with more flags.
    pub async fn start_with(flags: &[&str]) -> Self {
        let database = testkit::postgres().await;
        let image_store = tempfile::tempdir().expect("a temporary directory");
        let seal = SealKey::generate_hex();
        let needed = [
            format!("--database-url={}", database.url()),
            format!("--seal-key={seal}"),
            format!("--image-store={}", image_store.path().display()),
            "--health=127.0.0.1:0".to_owned(),
        ];
        let all: Vec<&str> = needed
            .iter()
            .map(String::as_str)
            .chain(flags.iter().copied())
            .collect();
        let flags: Vec<String> = all.iter().map(|flag| (*flag).to_owned()).collect();
        let config = config(&all);
        let seal = SealKey::from_hex(&seal).expect("a generated key");
        let store = Store::connect(&ConnectConfig::new(database.url(), "test"), seal)
            .await
            .expect("the test's database");
        let server = Server::bind(config)
            .await
            .expect("a gateway that can start");
        let address = server.api_address();
        let tls_address = server.api_tls_address();
        let agents_address = server.agents_address();
        let health = server.health_address().expect("it was asked for");
        let shutdown = Shutdown::new();
        let serving = server.serve(shutdown.clone());
        let served =
            tokio::spawn(async move { serving.await.expect("a gateway that drains in time") });
        Self {
            pool: database.pool().await,
            store,
            address,
            tls_address,
            agents_address,
            health,
            image_store,
            flags,
            shutdown,
            served,
            database,
        }
    }

    /// Ends the gateway and checks that it drains.
    pub async fn stop(self) {
        drained(&self.shutdown, self.served).await;
    }

    /// Starts another gateway over the same database.
    pub async fn second(&self) -> Second {
        self.second_without("no flag").await
    }

    /// Starts another gateway without one of the flags of the first.
    pub async fn second_without(&self, flag: &str) -> Second {
        let flags = self.flags.iter().map(String::as_str);
        let flags: Vec<&str> = flags.filter(|given| !given.starts_with(flag)).collect();
        let server = Server::bind(config(&flags))
            .await
            .expect("a gateway that can start");
        let address = server.api_address();
        let shutdown = Shutdown::new();
        let serving = server.serve(shutdown.clone());
        let served =
            tokio::spawn(async move { serving.await.expect("a gateway that drains in time") });
        Second {
            address,
            shutdown,
            served,
        }
    }

    pub async fn tenant(&self, name: &str) -> Tenant {
        let id = TenantId::generate();
        sqlx::query("insert into tenant (id, name) values ($1, $2)")
            .bind(id.as_str())
            .bind(name)
            .execute(&self.pool)
            .await
            .expect("a tenant");
        let key = self.store.create_access_key(&id).await.expect("a key");
        Tenant {
            client: self.client(&key.id, &key.secret),
            id,
            key,
        }
    }

    pub fn client(&self, access_key_id: &str, access_key_secret: &str) -> Client {
        let credentials = Credentials::new(access_key_id.to_owned(), access_key_secret.to_owned());
        Client::new(&self.address.to_string(), credentials, REGION).expect("an endpoint")
    }

    /// Makes a source whose agent reported just now, with disks of these sizes in bytes; the first is the system disk.
    pub async fn source(&self, tenant: &Tenant, name: &str, disks: &[i64]) -> SourceId {
        let id = SourceId::generate();
        sqlx::query(
            "insert into source (id, tenant, name, description, public_key, agent_version, architecture, platform, system_info)
             values ($1, $2, $3, 'A server', $4, '0.1.0', 'x86_64', 'Debian', '{\"cores\":\"2\",\"hostname\":\"web\"}')",
        )
        .bind(id.as_str())
        .bind(tenant.id.as_str())
        .bind(name)
        .bind(id.as_str().as_bytes())
        .execute(&self.pool)
        .await
        .expect("a source");
        for (index, size) in disks.iter().enumerate() {
            sqlx::query("insert into source_disk (source_id, index, path, size_bytes) values ($1, $2, $3, $4)")
                .bind(id.as_str())
                .bind(i16::try_from(index).expect("few disks"))
                .bind(format!("/dev/vd{index}"))
                .bind(size)
                .execute(&self.pool)
                .await
                .expect("a disk");
        }
        id
    }

    /// Runs a statement with one text, in the place of other parts of Wherry.
    pub async fn execute(&self, statement: &'static str, id: &str) {
        sqlx::query(statement)
            .bind(id)
            .execute(&self.pool)
            .await
            .expect("a valid statement");
    }

    /// Puts a job into a state as if its events had led there.
    pub async fn set_state(&self, job: &JobId, state: domain::job::State) {
        sqlx::query("update job set state = $2 where id = $1")
            .bind(job.as_str())
            .bind(state.as_str())
            .execute(&self.pool)
            .await
            .expect("a state");
    }

    /// Sends a request as it is.
    pub async fn raw(
        &self,
        method: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Raw {
        self.raw_at("/", method, query, headers, body).await
    }

    /// Sends a request as it is to this path.
    pub async fn raw_at(
        &self,
        path: &str,
        method: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Raw {
        let method = method.parse().expect("a method");
        let url = format!("http://{}{path}?{query}", self.address);
        let mut request = reqwest::Client::new().request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body).send().await.expect("an answer");
        Raw {
            status: response.status().as_u16(),
            content_type: header(&response, "content-type"),
            request_id: header(&response, "x-acs-request-id"),
            text: response.text().await.expect("a text"),
        }
    }
}

async fn drained(shutdown: &Shutdown, served: tokio::task::JoinHandle<()>) {
    shutdown.drain();
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("the gateway drains in time")
        .expect("the gateway does not panic");
}

impl Second {
    /// Returns a client of the tenant for this gateway.
    pub fn client(&self, tenant: &Tenant) -> Client {
        let credentials = Credentials::new(&tenant.key.id, &tenant.key.secret);
        Client::new(&self.address.to_string(), credentials, REGION).expect("an endpoint")
    }

    /// Ends the gateway and checks that it drains.
    pub async fn stop(self) {
        drained(&self.shutdown, self.served).await;
    }
}

fn header(response: &reqwest::Response, name: &str) -> String {
    let value = response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// An answer as it was received.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub content_type: String,
    pub request_id: String,
    pub text: String,
}

impl Raw {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["Code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Tenant {
    pub async fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Value {
        match self.client.call_by_name(action, parameters).await {
            Ok(answer) => answer,
            Err(error) => panic!("{action} {parameters:?}: {error}"),
        }
    }

    pub async fn refusal(&self, action: &str, parameters: &[(&str, &str)]) -> Refusal {
        match self.client.call_by_name(action, parameters).await {
            Err(CallError::Refused(refusal)) => refusal,
            other => panic!("{action} {parameters:?} should be refused: {other:?}"),
        }
    }

    /// Returns the code of the refusal.
    pub async fn code(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        self.refusal(action, parameters).await.code
    }

    /// Makes a job of the source, Ready.
    pub async fn job(&self, source: &SourceId) -> JobId {
        let parameters = [("SourceId", source.as_str()), ("SystemDiskSize", "20")];
        let answer = self.call("CreateReplicationJob", &parameters).await;
        answer["JobId"]
            .as_str()
            .expect("a job")
            .parse()
            .expect("a job's id")
    }

    /// Returns the description of the job with this id.
    pub async fn describe(&self, job: &JobId) -> Value {
        let answer = self
            .call("DescribeReplicationJobs", &[("JobId.1", job.as_str())])
            .await;
        answer["ReplicationJobs"]["ReplicationJob"][0].clone()
    }

    pub fn signing(&self, version: SignatureVersion) -> Client {
        self.client.clone().signing(version)
    }

    /// Returns the parameters of a V1 call, signed; `changes` replace or add parameters before signing.
    pub fn signed(&self, method: &str, action: &str, changes: &[(&str, &str)]) -> Pairs {
        let mut pairs: Pairs = [
            ("Action", action),
            ("Version", smc::API_VERSION),
            ("AccessKeyId", &self.key.id),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", &smc::nonce()),
            ("Timestamp", &smc::timestamp()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        for (name, value) in changes {
            pairs.retain(|(known, _)| known != name);
            pairs.push(((*name).to_owned(), (*value).to_owned()));
        }
        let text = v1::string_to_sign(method, &pairs);
        pairs.push((v1::SIGNATURE.to_owned(), v1::sign(&self.key.secret, &text)));
        pairs
    }
}

/// A V3 call: its headers, and the names of those that are not signed.
pub struct V3 {
    pub headers: Vec<(String, String)>,
    /// Names of headers that are left out of the signature.
    pub unsigned: Vec<&'static str>,
}

impl V3 {
    pub fn new(host: &str, action: &str) -> Self {
        let headers = [
            ("host", host),
            ("x-acs-action", action),
            ("x-acs-version", smc::API_VERSION),
            ("x-acs-date", &smc::timestamp()),
            ("x-acs-signature-nonce", &smc::nonce()),
        ];
        Self {
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            unsigned: Vec::new(),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn unsigned(mut self, name: &'static str) -> Self {
        self.unsigned.push(name);
        self
    }

    /// Returns all headers with that of the signature over an empty body.
    pub fn signed(mut self, tenant: &Tenant) -> Vec<(String, String)> {
        let mut names: Vec<String> = self.headers.iter().map(|(name, _)| name.clone()).collect();
        names.retain(|name| !self.unsigned.contains(&name.as_str()));
        names.sort();
        names.dedup();
        let canonical = v3::canonical_request(&v3::Request {
            method: "POST",
            path: "/",
            query: &[],
            headers: &self.headers,
            signed_headers: &names,
            body_sha256: &v3::sha256(b""),
        });
        let authorization = v3::Authorization {
            access_key_id: tenant.key.id.clone(),
            signed_headers: names,
            signature: v3::sign(&tenant.key.secret, &v3::string_to_sign(&canonical)),
        };
        let header = ("authorization".to_owned(), authorization.to_header());
        self.headers.push(header);
        self.headers
    }
}

/// Returns the text of a query or form.
pub fn form(pairs: &Pairs) -> String {
    smc::pairs::canonical(pairs)
}
