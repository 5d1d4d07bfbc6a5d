//! Conversion of columns to domain values. A row that this version can't read is an error that names the column.

use std::str::FromStr;

use domain::parameters::ReplicationParameters;

use crate::StoreError;

/// Parses a text column.
pub(crate) fn parse<T: FromStr>(column: &'static str, value: &str) -> Result<T, StoreError> {
    value.parse().map_err(|_| StoreError::UnknownValue {
        column,
        value: value.to_owned(),
    })
}

/// Parses a text column that may be null.
pub(crate) fn parse_opt<T: FromStr>(
    column: &'static str,
    value: Option<&str>,
) -> Result<Option<T>, StoreError> {
    value.map(|value| parse(column, value)).transpose()
}

/// Converts a byte count or size, which Postgres stores as signed.
pub(crate) fn unsigned(column: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::UnknownValue {
        column,
        value: value.to_string(),
    })
}

/// Converts a byte count for Postgres. Disks are far smaller than 2^63 bytes.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Parses the `ReplicationParameters` of a job's row.
pub(crate) fn parameters(text: &str) -> Result<ReplicationParameters, StoreError> {
    ReplicationParameters::parse(text).map_err(|error| StoreError::UnknownValue {
        column: "job.replication_parameters",
        value: error.to_string(),
    })
}
