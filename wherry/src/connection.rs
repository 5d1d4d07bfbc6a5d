//! The API's address and the key for its calls: from flags, then the environment, then a bootstrap file, then a
//! profile.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::failure::UsageError;

/// The options of a call to the API.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Address of the API, such as http://127.0.0.1:8700.
    #[arg(
        long,
        env = "WHERRY_ENDPOINT",
        global = true,
        help_heading = "Connection"
    )]
    endpoint: Option<String>,
    /// Id of the access key. ALIBABA_CLOUD_ACCESS_KEY_ID is read as well.
    #[arg(
        long,
        env = "WHERRY_ACCESS_KEY_ID",
        global = true,
        help_heading = "Connection"
    )]
    access_key_id: Option<String>,
    /// Secret of the access key. ALIBABA_CLOUD_ACCESS_KEY_SECRET is read as well.
    #[arg(
        long,
        env = "WHERRY_ACCESS_KEY_SECRET",
        hide_env_values = true,
        global = true,
        help_heading = "Connection"
    )]
    access_key_secret: Option<String>,
    /// Token of a temporary access key. ALIBABA_CLOUD_SECURITY_TOKEN is read as well.
    #[arg(
        long,
        env = "WHERRY_SECURITY_TOKEN",
        hide_env_values = true,
        global = true,
        help_heading = "Connection"
    )]
    security_token: Option<String>,
    /// PEM file of the authority that an https:// endpoint's certificate comes from, if this machine does not trust it.
    #[arg(
        long,
        env = "WHERRY_CA_FILE",
        value_name = "FILE",
        global = true,
        help_heading = "Connection"
    )]
    ca_file: Option<PathBuf>,
    /// Region of the service. Without it, the one of the endpoint.
    #[arg(
        long,
        env = "WHERRY_REGION_ID",
        global = true,
        help_heading = "Connection"
    )]
    region: Option<String>,
    /// The bootstrap.json of a `wherry up`, for what is not given otherwise.
    #[arg(
        long,
        env = "WHERRY_BOOTSTRAP",
        value_name = "FILE",
        global = true,
        help_heading = "Connection"
    )]
    bootstrap: Option<PathBuf>,
    /// Section of ~/.config/wherry/profiles.toml, for what is not given otherwise.
    #[arg(
        long,
        env = "WHERRY_PROFILE",
        default_value = "default",
        global = true,
        help_heading = "Connection"
    )]
    profile: String,
    /// Format of answers.
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
}

/// Format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// As the API gave them, for scripts.
    Json,
}

/// An open connection.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) client: smc::Client,
    pub(crate) output: Output,
    /// Directory of the image store, where the bootstrap file or the profile names one of this machine.
    pub(crate) image_store: Option<PathBuf>,
}

/// A profile, or a bootstrap file.
#[derive(Debug, Clone, Default, Deserialize)]
struct Known {
    endpoint: Option<String>,
    access_key_id: Option<String>,
    access_key_secret: Option<String>,
    security_token: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(alias = "region")]
    region_id: Option<String>,
    image_store: Option<PathBuf>,
}

impl Connection {
    /// Finds every setting.
    pub(crate) fn open(&self) -> anyhow::Result<Api> {
        let known = self.known()?;
        let endpoint = setting("--endpoint", &self.endpoint, None, known.endpoint)?;
        let credentials = smc::Credentials {
            access_key_id: setting(
                "--access-key-id",
                &self.access_key_id,
                Some("ALIBABA_CLOUD_ACCESS_KEY_ID"),
                known.access_key_id,
            )?,
            access_key_secret: setting(
                "--access-key-secret",
                &self.access_key_secret,
                Some("ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
                known.access_key_secret,
            )?,
            security_token: found(
                &self.security_token,
                Some("ALIBABA_CLOUD_SECURITY_TOKEN"),
                known.security_token,
            ),
        };
        let region = found(
            &self.region,
            Some("ALIBABA_CLOUD_REGION_ID"),
            known.region_id,
        )
        .unwrap_or_default();
        let authority = match self.ca_file.as_ref().or(known.ca_file.as_ref()) {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                UsageError(format!("--ca-file: can't read {}: {error}", path.display()))
            })?),
            None => None,
        };
        let client = smc::Client::trusting(&endpoint, credentials, &region, authority.as_deref())?;
        Ok(Api {
            client,
            output: self.output,
            image_store: known.image_store,
        })
    }

    fn known(&self) -> anyhow::Result<Known> {
        if let Some(path) = &self.bootstrap {
            let text = std::fs::read_to_string(path).map_err(|error| {
                UsageError(format!(
                    "can't read {}: {error}. Does `wherry up` run there?",
                    path.display()
                ))
            })?;
            return serde_json::from_str(&text)
                .with_context(|| format!("{} is no bootstrap file", path.display()));
        }
        let Some(home) = std::env::home_dir() else {
            return Ok(Known::default());
        };
        let path = home.join(".config/wherry/profiles.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => profile(&text, &self.profile, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Known::default()),
            Err(error) => Err(UsageError(format!("can't read {}: {error}", path.display())).into()),
        }
    }
}

fn profile(text: &str, name: &str, path: &Path) -> anyhow::Result<Known> {
    let mut profiles: std::collections::BTreeMap<String, Known> = toml::from_str(text)
        .map_err(|error| UsageError(format!("{}: {}", path.display(), error.message())))?;
    match profiles.remove(name) {
        Some(known) => Ok(known),
        None if name == "default" => Ok(Known::default()),
        None => Err(UsageError(format!("{} has no profile [{name}]", path.display())).into()),
    }
}

fn setting(
    flag: &str,
    given: &Option<String>,
    other_variable: Option<&str>,
    known: Option<String>,
) -> anyhow::Result<String> {
    found(given, other_variable, known).ok_or_else(|| {
        UsageError(format!(
            "{flag} is missing: give it, or point --bootstrap (WHERRY_BOOTSTRAP) to the bootstrap.json of a `wherry up`, or write it into \
             ~/.config/wherry/profiles.toml"
        ))
        .into()
    })
}

fn found(
    given: &Option<String>,
    other_variable: Option<&str>,
    known: Option<String>,
) -> Option<String> {
    let from_environment = || {
        std::env::var(other_variable?)
            .ok()
            .filter(|value| !value.is_empty())
    };
    given.clone().or_else(from_environment).or(known)
}
