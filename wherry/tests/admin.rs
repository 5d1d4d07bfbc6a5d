//! `wherry admin` over the socket of a real `wherry up`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::cluster::Process;
use testkit::{program, wait};

const WHERRY: &str = env!("CARGO_BIN_EXE_wherry");
const PATIENCE: Duration = Duration::from_secs(60);

struct Operator {
    data: PathBuf,
}

impl Operator {
    fn run(&self, line: &str) -> anyhow::Result<Output> {
        let mut command = program::command(Path::new(WHERRY));
        let at = ["--data-dir".as_ref(), self.data.as_os_str()];
        Ok(command.args(line.split(' ')).args(at).output()?)
    }

    fn says(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "wherry {line}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn json(&self, line: &str) -> anyhow::Result<Value> {
        let said = self.says(&format!("{line} --output json"))?;
        Ok(serde_json::from_str(&said)?)
    }

    /// A call of the API with this key: it is done, or refused in a sentence that has these parts.
    fn calls(
        &self,
        id: &str,
        secret: &str,
        token: Option<&str>,
        line: &str,
        refused: &[&str],
    ) -> anyhow::Result<()> {
        let bootstrap = std::fs::read_to_string(self.data.join("bootstrap.json"))?;
        let bootstrap: Value = serde_json::from_str(&bootstrap)?;
        let mut command = program::command(Path::new(WHERRY));
        command
            .args(line.split(' '))
            .env("WHERRY_ENDPOINT", field(&bootstrap, "endpoint")?)
            .env("WHERRY_REGION_ID", field(&bootstrap, "region_id")?)
            .env("WHERRY_ACCESS_KEY_ID", id)
            .env("WHERRY_ACCESS_KEY_SECRET", secret)
            .env_remove("WHERRY_SECURITY_TOKEN");
        if let Some(token) = token {
            command.env("WHERRY_SECURITY_TOKEN", token);
        }
        let output = command.output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.success() == refused.is_empty(),
            "{line}: {said}"
        );
        has(&said, refused)
    }

    /// A command that is refused, in one sentence that has these parts.
    fn refused(&self, line: &str, parts: &[&str]) -> anyhow::Result<()> {
        let output = self.run(line)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1), "wherry {line}: {said}");
        ensure!(said.lines().count() == 1, "one sentence: {said}");
        has(&said, parts)
    }
}

fn has(text: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    Ok(())
}

fn field<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    value[name]
        .as_str()
        .with_context(|| format!("no {name} in {value}"))
}

async fn start(folder: &Path) -> anyhow::Result<(Process, Operator)> {
    let data = folder.join("data");
    let mut arguments = vec!["up".to_owned(), "--data-dir".to_owned()];
    arguments.push(data.display().to_string());
    for listener in ["--api", "--agents", "--health"] {
        arguments.extend([listener.to_owned(), "127.0.0.1:0".to_owned()]);
    }
    let mut up = Process::start(Path::new(WHERRY), folder, "up", &arguments, &[])?;
    wait::until(PATIENCE, "wherry up is ready", async || {
        ensure!(up.is_running(), "it ended: {}", up.log());
        Ok(up.log().contains("wherry is ready: "))
    })
    .await?;
    Ok((up, Operator { data }))
}

#[tokio::test]
async fn an_operator_makes_changes_and_removes_what_tenants_have() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("wherry-admin-").tempdir()?;
    let (mut up, operator) = start(folder.path()).await?;
    let socket = operator.data.join("admin.sock");
    let mode = std::fs::metadata(&socket)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the socket has mode {mode:o}");
    let settings = std::fs::read_to_string(operator.data.join("operator.json"))?;
    let settings: Value = serde_json::from_str(&settings)?;
    let named = Path::new(field(&settings, "admin_socket")?);
    ensure!(named == socket.canonicalize()?, "operator.json names it");

    tenants_and_quotas(&operator)?;
    let secret = keys(&operator)?;
    users_and_policies(&operator)?;
    let code = tokens(&operator)?;
    networks(&operator)?;
    audit(&operator, &[&secret, &code])?;

    operator.says("admin tenant delete acme")?;
    operator.refused(
        "admin tenant show acme",
        &["no tenant \"acme\"", "tenant list"],
    )?;
    up.stop().await?;
    ensure!(!socket.exists(), "the socket goes with the gateway");
    let output = operator.run("admin tenant list")?;
    ensure!(
        output.status.code() == Some(4),
        "nobody is there: {output:?}"
    );
    has(
        &String::from_utf8(output.stderr)?,
        &["no socket", "--admin"],
    )
}

fn tenants_and_quotas(operator: &Operator) -> anyhow::Result<()> {
    let made = operator.json("admin tenant create first --max-running 5")?;
    ensure!(made["MaxRunning"] == 5 && made["MaxJobs"] == 1000, "{made}");
    field(&made, "AccessKeySecret")?;
    operator.refused(
        "admin tenant create first",
        &["there is a tenant first already"],
    )?;
    operator.refused("admin tenant create 1", &["a name must have 2 to 128"])?;
    operator.says("admin tenant update first --rename acme")?;
    has(
        &operator.says("admin tenant list")?,
        &["TenantId", "acme", "default"],
    )?;
    let line =
        "admin quota update acme --max-jobs 7 --calls-per-second 9 --operation-calls-per-second 3";
    let changed = operator.json(line)?;
    let shown = operator.json("admin quota show acme")?;
    ensure!(changed == shown, "{changed} {shown}");
    for (quota, wanted) in [
        ("MaxJobs", 7),
        ("MaxRunning", 5),
        ("CallsPerSecond", 9),
        ("OperationCallsPerSecond", 3),
    ] {
        ensure!(shown[quota] == wanted, "{quota}: {shown}");
    }
    has(&operator.says("admin quota list")?, &["MaxJobs", "acme"])
}

fn keys(operator: &Operator) -> anyhow::Result<String> {
    let made = operator.json("admin key create acme")?;
    let (id, secret) = (
        field(&made, "AccessKeyId")?,
        field(&made, "AccessKeySecret")?,
    );
    let listed = operator.json("admin key list acme")?;
    ensure!(listed.as_array().map(Vec::len) == Some(2), "{listed}");
    for (switch, is_active) in [("off", false), ("on", true)] {
        operator.says(&format!("admin key update acme {id} --active {switch}"))?;
        let shown = operator.json(&format!("admin key show acme {id}"))?;
        ensure!(shown["Active"] == is_active, "{switch}: {shown}");
        ensure!(!shown.to_string().contains(secret), "{shown}");
    }
    // Another tenant's key is none of this one's.
    operator.refused(
        &format!("admin key delete default {id}"),
        &["has no key", id],
    )?;
    operator.says(&format!("admin key delete acme {id}"))?;
    operator.refused(
        &format!("admin key show acme {id}"),
        &["has no key", "key list acme"],
    )?;
    Ok(secret.to_owned())
}

/// Calls signed with a user's keys may do exactly what the user may do.
fn users_and_policies(operator: &Operator) -> anyhow::Result<()> {
    let file = operator.data.join("reads.json");
    let reads = r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"smc:Describe*","Resource":"*"}]}"#;
    std::fs::write(&file, reads)?;
    let file = file.display();
    operator.says("admin user create acme ann")?;
    operator.refused("admin user create acme ann", &["has a user ann already"])?;
    operator.refused("admin user update acme ann --attach reads", &["no policy"])?;
    operator.says(&format!("admin policy create acme reads {file}"))?;
    let wrong = operator.data.join("wrong.json");
    std::fs::write(
        &wrong,
        r#"{"Version":"1","Statement":[{"Effect":"Perhaps"}]}"#,
    )?;
    operator.refused(
        &format!("admin policy update acme reads {}", wrong.display()),
        &["the policy can't be used", "Effect"],
    )?;
    let shown = operator.json("admin user update acme ann --attach reads")?;
    ensure!(shown["Policies"] == "reads", "{shown}");
    let made = operator.json("admin key create acme --user ann")?;
    let (id, secret) = (
        field(&made, "AccessKeyId")?,
        field(&made, "AccessKeySecret")?,
    );
    let listed = operator.json(&format!("admin key show acme {id}"))?;
    ensure!(listed["User"] == "ann", "{listed}");
    operator.calls(id, secret, None, "source list", &[])?;
    operator.calls(
        id,
        secret,
        None,
        "source activation-code",
        &["NoPermission"],
    )?;

    operator.refused(
        "admin key create acme --temporary 60",
        &["900 to 43200 seconds"],
    )?;
    let line = format!("admin key create acme --temporary 900 --session-policy {file}");
    let made = operator.json(&line)?;
    let (temporary, secret) = (
        field(&made, "AccessKeyId")?,
        field(&made, "AccessKeySecret")?,
    );
    let token = Some(field(&made, "SecurityToken")?);
    operator.calls(temporary, secret, token, "job list", &[])?;
    operator.calls(
        temporary,
        secret,
        None,
        "job list",
        &["MissingSecurityToken"],
    )?;
    operator.calls(
        temporary,
        secret,
        token,
        "source activation-code",
        &["NoPermission"],
    )?;

    operator.refused("admin policy delete acme reads", &["attached to ann"])?;
    operator.refused("admin user delete acme ann", &["delete", id])?;
    operator.says("admin user update acme ann --rename anna --detach reads")?;
    has(&operator.says("admin user list acme")?, &["anna"])?;
    has(&operator.says("admin policy list acme")?, &["reads"])?;
    operator.says(&format!("admin key delete acme {id}"))?;
    operator.says("admin user delete acme anna")?;
    operator.says("admin policy delete acme reads")?;
    operator.refused(
        "admin policy show acme reads",
        &["no policy", "policy list"],
    )
}

fn tokens(operator: &Operator) -> anyhow::Result<String> {
    let made = operator.json("admin token create acme --name hall-1 --count 3 --days 7")?;
    let (id, code) = (
        field(&made, "AccessTokenId")?,
        field(&made, "AccessTokenCode")?,
    );
    has(
        &operator.says("admin token list acme")?,
        &["hall-1", "activated", id],
    )?;
    let line = format!("admin token update acme {id} --status unactivated");
    ensure!(operator.json(&line)?["Status"] == "unactivated", "disabled");
    operator.refused(
        &format!("admin token show default {id}"),
        &["no activation code"],
    )?;
    operator.says(&format!("admin token delete acme {id}"))?;
    operator.refused(
        &format!("admin token delete acme {id}"),
        &["no activation code", id],
    )?;
    let secret = code.split('.').next().unwrap_or_default();
    Ok(secret.to_owned())
}

fn networks(operator: &Operator) -> anyhow::Result<()> {
    operator.says("admin network create --tenant acme --region north")?;
    operator.refused(
        "admin network create --tenant acme --region local",
        &["every tenant's"],
    )?;
    let vpc = operator.json("admin network create --tenant acme --region north --vpc")?;
    let vpc = field(&vpc, "Id")?;
    let line = format!(
        "admin network create --tenant acme --vpc {vpc} --vswitch vsw-1 --receiver-host 10.0.0.7"
    );
    ensure!(
        operator.json(&line)?["ReceiverHost"] == "10.0.0.7",
        "as given"
    );
    operator.refused(&line, &["vsw-1 is taken"])?;
    has(
        &operator.says("admin network list acme")?,
        &["region", "north", vpc, "vsw-1"],
    )?;
    operator.says("admin network update acme vsw-1 --receiver-host inside.example")?;
    let shown = operator.json("admin network show acme vsw-1")?;
    ensure!(
        shown["ReceiverHost"] == "inside.example" && shown["RegionId"] == "north",
        "{shown}"
    );
    operator.refused(
        "admin network update acme vsw-1 --receiver-host h:1",
        &["no port"],
    )?;
    operator.refused(&format!("admin network delete acme {vpc}"), &["in use"])?;
    operator.says("admin network delete acme vsw-1")?;
    operator.refused("admin network show acme vsw-1", &["no network vsw-1"])
}

fn audit(operator: &Operator, secrets: &[&str]) -> anyhow::Result<()> {
    let all = operator.json("admin audit list")?;
    for secret in secrets {
        ensure!(!all.to_string().contains(secret), "a secret: {all}");
    }
    let seqs: Vec<i64> = all
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["Seq"].as_i64())
        .collect();
    ensure!(
        seqs.len() > 10 && seqs.is_sorted(),
        "the newest last: {all}"
    );
    // The first tenant's code was made through the API by `wherry up` itself.
    let by_tenant =
        operator.json("admin audit list --operation CreateAccessToken --tenant default")?;
    ensure!(by_tenant[0]["Actor"] == "tenant", "{by_tenant}");
    ensure!(by_tenant[0]["Origin"] == "127.0.0.1", "{by_tenant}");
    let refused = operator.json(
        "admin audit list --principal operator --operation CreateTenant --outcome AlreadyExists",
    )?;
    ensure!(refused.as_array().map(Vec::len) == Some(1), "{refused}");
    ensure!(refused[0]["Operation"] == "CreateTenant", "{refused}");
    let uid = format!("uid:{}", rustix::process::getuid().as_raw());
    ensure!(refused[0]["Origin"] == uid, "{refused}");
    let none = operator.json("admin audit list --since 2099-01-01T00:00:00Z")?;
    ensure!(none == Value::Array(Vec::new()), "{none}");
    operator.refused(
        "admin audit list --since yesterday",
        &["yesterday is no time"],
    )?;
    has(
        &operator.says("admin audit list --tenant acme --operation UpdateKey")?,
        &["Principal", "operator", "UpdateKey", "OK", &uid],
    )
}
