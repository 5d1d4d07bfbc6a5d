//! Secrets at rest: AES-256-GCM under a key that only the processes have.
//!
//! A column of sealed secrets has `sealed` in its name. By that a test finds those that `seal_rotation` has forgotten.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::StoreError;

/// The key that seals secrets, and older keys that still open their own secrets. Does not print.
#[derive(Clone)]
pub struct SealKey {
    key: LessSafeKey,
    older: Vec<LessSafeKey>,
}

/// The text is not a seal key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a seal key must be 64 hexadecimal digits (32 random bytes), older keys behind commas: `openssl rand -hex 32` makes one"
)]
pub struct InvalidSealKey;

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    /// Parses a key of 64 hexadecimal digits. Older keys, which only open secrets, follow after commas.
    pub fn from_hex(text: &str) -> Result<Self, InvalidSealKey> {
        let mut keys = text.split(',').map(|text| {
            let bytes = hex::decode(text.trim()).map_err(|_| InvalidSealKey)?;
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidSealKey)?;
            Ok(LessSafeKey::new(key))
        });
        Ok(Self {
            key: keys.next().ok_or(InvalidSealKey)??,
            older: keys.collect::<Result<_, _>>()?,
        })
    }

    /// Generates a new key, as the hexadecimal text to keep.
    pub fn generate_hex() -> String {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .expect("the operating system gives randomness");
        hex::encode(bytes)
    }

    /// Seals `plain`. The same `purpose` is required to open it, so that a sealed text can't be moved to another row.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .expect("the operating system gives randomness");
        let mut sealed = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut sealed,
            )
            .expect("a secret is shorter than the cipher's limit");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens a result of [`SealKey::seal`] with the same purpose, with this key or an older one.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        [&self.key]
            .into_iter()
            .chain(&self.older)
            .find_map(|key| opened(key, purpose, sealed))
            .ok_or(StoreError::Unseal)
    }

    /// Reseals a secret that an older key has sealed; `None` if this key has sealed it.
    pub(crate) fn reseal(
        &self,
        purpose: &str,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if opened(&self.key, purpose, sealed).is_some() {
            return Ok(None);
        }
        let plain = self.open(purpose, sealed)?;
        Ok(Some(self.seal(purpose, &plain)))
    }
}

fn opened(key: &LessSafeKey, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut body);
    plain.ok().map(|plain| plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_key_opens_and_the_first_one_seals() {
        let (old, new) = (SealKey::generate_hex(), SealKey::generate_hex());
        let [before, after] = [&old, &new].map(|key| SealKey::from_hex(key).unwrap());
        let both = SealKey::from_hex(&format!("{new}, {old}\n")).unwrap();
        let sealed = before.seal("a", b"secret");
        assert_eq!(both.open("a", &sealed).unwrap(), b"secret");
        assert!(after.reseal("a", &sealed).is_err());
        let anew = both.reseal("a", &sealed).unwrap().unwrap();
        assert_eq!(after.open("a", &anew).unwrap(), b"secret");
        assert!(before.open("a", &anew).is_err());
        assert_eq!(both.reseal("a", &anew).unwrap(), None);
        for bad in ["", ",", &format!("{new},"), &format!("{new},{}", &old[1..])] {
            assert!(SealKey::from_hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sealed_secret_opens_with_its_own_key_and_purpose_only() {
        let key = SealKey::from_hex(&SealKey::generate_hex()).unwrap();
        let sealed = key.seal("access_key/a", b"secret");
        assert_eq!(key.open("access_key/a", &sealed).unwrap(), b"secret");
        assert!(key.open("access_key/b", &sealed).is_err());
        assert!(
            SealKey::from_hex(&SealKey::generate_hex())
                .unwrap()
                .open("access_key/a", &sealed)
                .is_err()
        );
        let mut flipped = sealed.clone();
        flipped[NONCE_LEN] ^= 1;
        assert!(key.open("access_key/a", &flipped).is_err());
        assert!(key.open("access_key/a", b"short").is_err());
    }
}
