//! Calls that are repeated: the same `ClientToken` with the same parameters is the same call.

use serde::Serialize;
use smc::model;

/// Returns the SHA-256 of everything in a request but its `ClientToken`.
pub fn digest(request: &impl Serialize) -> Vec<u8> {
    let mut asked = model::pairs(request);
    asked.retain(|(name, _)| name != "ClientToken");
    let text = smc::pairs::canonical(&asked);
    ring::digest::digest(&ring::digest::SHA256, text.as_bytes())
        .as_ref()
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;
    use crate::operation::Operation;

    fn digest_of(pairs: &[(&str, &str)]) -> Vec<u8> {
        let operation = Operation::named("CreateReplicationJob").expect("an operation");
        let pairs = pairs.iter();
        let pairs = pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let arguments =
            Arguments::parse(&operation.parameters, &pairs).expect("they keep the rules");
        digest(&arguments.into_request::<model::CreateReplicationJob>())
    }

    #[test]
    fn the_digest_tells_calls_apart_but_not_by_token_order_or_noise() {
        let one = digest_of(&[
            ("SourceId", "s-1"),
            ("SystemDiskSize", "40"),
            ("Name", "web"),
        ]);
        let same = [
            ("Name", "web"),
            ("OwnerId", "7"),
            ("ClientToken", "again"),
            ("SystemDiskSize", "40"),
            ("SourceId", "s-1"),
        ];
        assert_eq!(one, digest_of(&same));
        let other = [
            ("SourceId", "s-1"),
            ("SystemDiskSize", "41"),
            ("Name", "web"),
        ];
        assert_ne!(one, digest_of(&other));
    }
}
