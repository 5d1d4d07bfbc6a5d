//! The directory that makes the agent the same source after a restart: its private key, and the results of its
//! registration.
//!
//! The key is on disk before the gateway receives it. If the agent is killed before the gateway's answer is on disk, it
//! registers the same key again and receives the same source.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use domain::SourceId;
use pki::KeyPair;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::Error;

const KEY: &str = "key.pem";
const REGISTRATION: &str = "registration.json";
const LOCK: &str = "lock";

/// The results of a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    /// The source that this server is.
    pub source_id: SourceId,
    /// The client certificate over the agent's key.
    pub certificate_pem: String,
    /// The deployment's authority, which signs the gateway's certificate.
    pub authority_pem: String,
}

/// The state directory, held by this process alone.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Creates the directory if necessary, and locks it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("create", path))?;
        // An existing directory may be open to other accounts; they must not read the key.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(failed("close to others", path))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::StateInUse {
                path: path.to_owned(),
            }),
            Err(error) => Err(failed("lock", &lock_path)(error.into())),
        }
    }

    /// Returns the agent's key: the stored one, or a new one that is stored from now on.
    pub fn key(&self) -> Result<KeyPair, Error> {
        if let Some(pem) = self.read(KEY)? {
            return KeyPair::from_pem(&pem).map_err(|source| self.damaged(KEY, source));
        }
        let key = KeyPair::generate().map_err(Error::Key)?;
        self.write(KEY, &key.to_pem())?;
        Ok(key)
    }

    /// Returns the results of the agent's registration, if it has registered.
    pub fn registration(&self) -> Result<Option<Registration>, Error> {
        self.read(REGISTRATION)?
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|source| self.damaged(REGISTRATION, source))
    }

    /// Stores the results of a registration.
    pub fn keep(&self, registration: &Registration) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(registration)
            .map_err(|source| self.damaged(REGISTRATION, source))?;
        self.write(REGISTRATION, &text)
    }

    fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Writes a file that is complete or absent, whatever happens, and is on disk when this returns.
    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        let partial = self.path.join(format!("{name}.partial"));
        let written = (|| {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(failed("write", &path))
    }

    fn damaged<E>(&self, name: &str, source: E) -> Error
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Error::StateDamaged {
            path: self.path.join(name),
            source: source.into(),
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::State {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let key = StateDir::open(&path)
            .unwrap()
            .key()
            .unwrap()
            .public_key_der();
        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.key().unwrap().public_key_der(), key);
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(KEY)), 0o600);
    }

    #[test]
    fn two_agents_can_not_be_one_source() {
        let directory = tempfile::tempdir().unwrap();
        let _held = StateDir::open(directory.path()).unwrap();
        assert!(matches!(
            StateDir::open(directory.path()),
            Err(Error::StateInUse { .. })
        ));
    }

    #[test]
    fn what_registration_gave_is_kept_whole() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        assert_eq!(state.registration().unwrap(), None);
        let registration = Registration {
            source_id: SourceId::generate(),
            certificate_pem: "certificate".to_owned(),
            authority_pem: "authority".to_owned(),
        };
        state.keep(&registration).unwrap();
        assert_eq!(state.registration().unwrap(), Some(registration));
        fs::write(directory.path().join(REGISTRATION), "{").unwrap();
        assert!(matches!(
            state.registration(),
            Err(Error::StateDamaged { .. })
        ));
    }
}
