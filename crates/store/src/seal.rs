//! Secrets at rest: AES-256-GCM under a key that only the processes have.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::StoreError;

/// The key that seals secrets. Does not print.
#[derive(Clone)]
pub struct SealKey(LessSafeKey);

/// The text is no seal key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a seal key is 64 hexadecimal digits (32 random bytes): `openssl rand -hex 32` makes one")]
pub struct InvalidSealKey;

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    /// The key of 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, InvalidSealKey> {
        let bytes = hex::decode(text.trim()).map_err(|_| InvalidSealKey)?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| InvalidSealKey)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// A new key, as the hexadecimal text to keep.
    pub fn generate_hex() -> String {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .expect("the operating system gives randomness");
        hex::encode(bytes)
    }

    /// Seals `plain`; `purpose` must be given again to open it, so that a sealed text can't be moved to another row.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .expect("the operating system gives randomness");
        let mut sealed = plain.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut sealed,
            )
            .expect("a secret is shorter than the cipher's limit");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what [`SealKey::seal`] made with the same purpose.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (nonce, body) = sealed
            .split_at_checked(NONCE_LEN)
            .ok_or(StoreError::Unseal)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| StoreError::Unseal)?;
        let mut body = body.to_vec();
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut body);
        plain
            .map(|plain| plain.to_vec())
            .map_err(|_| StoreError::Unseal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
