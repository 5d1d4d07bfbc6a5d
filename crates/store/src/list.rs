//! The rows that a list shows.
//!
//! The statement has a condition for each filter that is present and none for the others. So Postgres finds the index
//! for just these conditions, and keeps its plan for the next call with the same filters. Other statements, which never
//! change, read the contents of the rows by their ids.

use std::fmt::Display;

use domain::TenantId;
use domain::tag::TagFilter;
use sqlx::postgres::PgConnection;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Encode, Postgres, QueryBuilder, Type};

use crate::page::Start;
use crate::{Listed, StoreError};

/// The rows of a tenant that pass a filter.
pub(crate) struct Matching(QueryBuilder<Postgres>);

impl Matching {
    /// Returns the rows with all of these tags. The table has the columns `tenant`, `created_at` and `id`, and has the
    /// name of its kind of tags. Conditions have the tenant as `$1`.
    pub(crate) fn of(tenant: &TenantId, table: &'static str, tags: &[TagFilter]) -> Self {
        let mut statement = QueryBuilder::new("with matching as not materialized (select ");
        let Some((first, others)) = tags.split_first() else {
            statement
                .push(format_args!("id, created_at from {table} where tenant = "))
                .push_bind(tenant.as_str());
            return Self(statement);
        };
        // The rows come in the order of the list, and without the table unless a condition uses it.
        statement
            .push(format_args!(
                "resource_id as id, tag.created_at from tag left join {table} on {table}.id = resource_id
                where tag.kind = '{table}' and tag.tenant = "
            ))
            .push_bind(tenant.as_str());
        push_tag(&mut statement, "tag", first);
        for tag in others {
            statement.push(
                " and exists (select from tag as other where other.resource_id = tag.resource_id",
            );
            push_tag(&mut statement, "other", tag);
            statement.push(")");
        }
        Self(statement)
    }

    /// Narrows the rows to those for which a condition holds. `value` takes the place of the condition's `?`. Without a
    /// value, all rows remain.
    pub(crate) fn and<'t, T>(self, condition: &'static str, value: Option<T>) -> Self
    where
        T: Encode<'t, Postgres> + Type<Postgres>,
    {
        let Some(value) = value else { return self };
        let (before, behind) = condition
            .split_once('?')
            .expect("a condition on a value has a place for it");
        let mut narrowed = self.and_where(before);
        narrowed.0.push_bind(value).push(behind);
        narrowed
    }

    /// Narrows the rows to those with one of `values` in a column. A single value is written as such. Postgres can't
    /// know the length of a list, and would plan for each list anew.
    pub(crate) fn and_one_of(self, column: &'static str, values: Option<&[String]>) -> Self {
        match values {
            None => self,
            Some([only]) => {
                let mut narrowed = self.and_where(format_args!("{column} = "));
                narrowed.0.push_bind(only.as_str());
                narrowed
            }
            Some(several) => {
                let mut narrowed = self.and_where(format_args!("{column} = any("));
                narrowed.0.push_bind(several).push(")");
                narrowed
            }
        }
    }

    /// Narrows the rows to those for which a condition holds. The condition must not contain data from a caller.
    pub(crate) fn and_where(mut self, condition: impl Display) -> Self {
        self.0.push(" and ").push(condition);
        self
    }

    /// Returns the ids of a page, newest first, and the number of rows on all pages.
    pub(crate) async fn page(
        self,
        start: Start,
        connection: &mut PgConnection,
    ) -> Result<Listed<String>, StoreError> {
        let Self(mut statement) = self;
        let page = start.page();
        statement.push("), page as (select id, created_at from matching");
        if let Some((created_at, id)) = start.behind() {
            statement
                .push(" where (created_at, id) < (")
                .push_bind(created_at)
                .push(", ")
                .push_bind(id)
                .push(")");
        }
        statement
            .push(" order by created_at desc, id desc limit ")
            .push_bind(page.limit())
            .push(" offset ")
            .push_bind(start.offset())
            // A first page that is not full gives the number of all rows.
            .push(
                ") select coalesce(array_agg(id order by created_at desc, id desc), '{}'), min(created_at),
                case when ",
            )
            .push_bind(page.number > 1)
            .push(" or count(*) >= ")
            .push_bind(page.limit())
            .push(" then (select count(*) from matching) else count(*) end from page");
        let (ids, oldest, total): (Vec<String>, Option<DateTime<Utc>>, i64) =
            statement.build_query_as().fetch_one(connection).await?;
        start.ended(ids.len(), oldest.zip(ids.last().map(String::as_str)));
        Ok(Listed { rows: ids, total })
    }
}

/// Appends the condition that a row of tags is the requested one.
fn push_tag(statement: &mut QueryBuilder<Postgres>, row: &'static str, tag: &TagFilter) {
    statement
        .push(format_args!(" and {row}.key = "))
        .push_bind(tag.key.as_str());
    if let Some(value) = &tag.value {
        statement
            .push(format_args!(" and {row}.value = "))
            .push_bind(value.as_str());
    }
}
