//! SQL of one's own, prepared once by each connection.
//!
//! [`diesel::sql_query`] has PostgreSQL parse and plan its text each time, and takes one more round trip for that: several
//! times the work of a statement that touches a few rows by their keys. What is asked often is a [`statement`]. What is asked
//! now and then, or is put together at run time, stays a `sql_query`: each text that is prepared takes memory in every
//! connection.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error;
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};

/// A statement whose values are bound with [`Statement::bind`], one for `$1`, `$2`, and so on.
///
/// A parameter may stand in the text several times. Where each stands first, they are in order: `$2` is never seen before
/// `$1`. A text for which that does not hold, or that has more or fewer parameters than are bound, fails when it is run.
#[must_use]
pub fn statement(sql: &'static str) -> Statement<()> {
    Statement { sql, values: () }
}

/// See [`statement`].
#[derive(Debug, Clone, Copy)]
pub struct Statement<Values> {
    sql: &'static str,
    values: Values,
}

impl<Values> Statement<Values> {
    /// Bind the next parameter, as SQL's type `ST`.
    pub fn bind<ST, V>(self, value: V) -> Statement<(Values, Bound<ST, V>)> {
        Statement { sql: self.sql, values: (self.values, Bound { value, sql_type: std::marker::PhantomData }) }
    }
}

/// A value of a [`Statement`].
#[derive(Debug, Clone, Copy)]
pub struct Bound<ST, V> {
    value: V,
    sql_type: std::marker::PhantomData<ST>,
}

/// What is bound to a statement.
pub trait Values {
    /// How many there are.
    const COUNT: usize;

    /// Writes `sql` up to and including the last of these parameters, and returns the rest.
    fn walk<'b>(&'b self, sql: &'static str, out: AstPass<'_, 'b, Pg>) -> QueryResult<&'static str>;
}

impl Values for () {
    const COUNT: usize = 0;

    fn walk<'b>(&'b self, sql: &'static str, _: AstPass<'_, 'b, Pg>) -> QueryResult<&'static str> {
        Ok(sql)
    }
}

impl<Before: Values, ST, V> Values for (Before, Bound<ST, V>)
where
    Pg: HasSqlType<ST>,
    V: ToSql<ST, Pg>,
{
    const COUNT: usize = Before::COUNT + 1;

    fn walk<'b>(&'b self, sql: &'static str, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<&'static str> {
        let sql = self.0.walk(sql, out.reborrow())?;
        let (before, after) = at_first(sql, Self::COUNT)?;
        out.push_sql(before);
        out.push_bind_param::<ST, V>(&self.1.value)?;
        Ok(after)
    }
}

/// What stands before and after the first `$number`.
fn at_first(sql: &'static str, number: usize) -> QueryResult<(&'static str, &'static str)> {
    let name = format!("${number}");
    let places = sql.match_indices(&name).map(|(at, _)| (&sql[..at], &sql[at + name.len()..]));
    // $1 is not the beginning of $12.
    let mut places = places.filter(|(_, after)| !after.starts_with(|next: char| next.is_ascii_digit()));
    places.next().ok_or_else(|| Error::QueryBuilderError(format!("{name} is bound, and not there in its turn").into()))
}

impl<V: Values> QueryFragment<Pg> for Statement<V> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let rest = self.values.walk(self.sql, out.reborrow())?;
        out.push_sql(rest);
        Ok(())
    }
}

/// Connections know it by its text.
impl<V> QueryId for Statement<V> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// Rows are read by the names of their columns, as those of [`diesel::sql_query`].
impl<V> Query for Statement<V> {
    type SqlType = Untyped;
}

#[cfg(test)]
mod tests {
    use diesel::QueryableByName;
    use diesel::sql_types::{Array, BigInt, Text};
    use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
    use testkit::TestDatabase;

    use super::statement;

    #[derive(QueryableByName, Debug, PartialEq)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = Text)]
        name: String,
    }

    /// A connection, and the database that is there for as long.
    async fn connection() -> (AsyncPgConnection, TestDatabase) {
        let database = testkit::database().await;
        (AsyncPgConnection::establish(&database.url).await.unwrap(), database)
    }

    #[tokio::test]
    async fn values_stand_where_their_numbers_do_and_may_stand_again() {
        let (mut conn, _database) = connection().await;
        let rows: Vec<Row> = statement(
            "SELECT id, $1::text || id || $1 AS name FROM unnest($2::bigint[]) AS one (id) WHERE $3 <> $1 ORDER BY id",
        )
        .bind::<Text, _>("|")
        .bind::<Array<BigInt>, _>(vec![7, 12])
        .bind::<Text, _>("other")
        .load(&mut conn)
        .await
        .unwrap();
        let row = |id: i64| Row { id, name: format!("|{id}|") };
        assert_eq!(rows, [row(7), row(12)]);
    }

    #[tokio::test]
    async fn a_tenth_parameter_is_not_taken_for_the_first() {
        let (mut conn, _database) = connection().await;
        let row: Row =
            statement("SELECT ($1 + $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 + $10 - $1)::bigint AS id, 'sum' AS name")
                .bind::<BigInt, _>(1)
                .bind::<BigInt, _>(2)
                .bind::<BigInt, _>(3)
                .bind::<BigInt, _>(4)
                .bind::<BigInt, _>(5)
                .bind::<BigInt, _>(6)
                .bind::<BigInt, _>(7)
                .bind::<BigInt, _>(8)
                .bind::<BigInt, _>(9)
                .bind::<BigInt, _>(10)
                .get_result(&mut conn)
                .await
                .unwrap();
        assert_eq!(row.id, 54);
    }

    #[tokio::test]
    async fn a_connection_prepares_a_text_once() {
        let (mut conn, _database) = connection().await;
        for id in 0..3 {
            let row: Row =
                statement("SELECT $1 AS id, 'once' AS name").bind::<BigInt, _>(id).get_result(&mut conn).await.unwrap();
            assert_eq!(row.id, id);
        }
        let prepared: Row = statement("SELECT count(*) AS id, min(statement) AS name FROM pg_prepared_statements WHERE statement LIKE '%''once''%' AND statement NOT LIKE '%pg_prepared%'")
            .get_result(&mut conn)
            .await
            .unwrap();
        assert_eq!(prepared.id, 1, "{}", prepared.name);
    }

    #[tokio::test]
    async fn parameters_out_of_their_order_are_an_error() {
        let (mut conn, _database) = connection().await;
        for text in ["SELECT $2 + $1", "SELECT $1", "SELECT $1 + $2 + $3"] {
            statement(text).bind::<BigInt, _>(1).bind::<BigInt, _>(2).execute(&mut conn).await.unwrap_err();
        }
    }
}
