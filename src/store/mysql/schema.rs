//! The table as `schema.sql` wants it: made, or widened from an older one, and left alone when it is right.
//!
//! `schema.sql` is the only description. Whatever the table lacks becomes one ALTER, worked out anew from what is there,
//! so that a change that was cut short is simply begun again. It runs on a connection of its own without read time-out
//! (a large table takes minutes), under a named lock, and waits 3 s at most for other users of the table.

use mysql::{Conn, prelude::Queryable};

use super::{
    failure::Failure,
    options::{MySqlOptions, Purpose},
};
use crate::store::{StoreError, gate::Gate};

const SCHEMA: &str = include_str!("../../../schema.sql");

/// One column or key of the table, as `schema.sql` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    name: &'static str,
    definition: &'static str,
}

/// A column as the server describes it.
struct Found {
    name: String,
    type_name: String,
    collation: String,
}

/// The statement that makes the table what it should be; `None`: it is so already. Reads only.
pub(super) fn missing(conn: &mut Conn) -> mysql::Result<Option<String>> {
    let columns = conn.exec_map(
        "SELECT column_name, column_type, COALESCE(collation_name, '') FROM information_schema.columns \
         WHERE table_schema = DATABASE() AND table_name = 'alerts'",
        (),
        |(name, type_name, collation)| Found { name, type_name, collation },
    )?;
    if columns.is_empty() {
        return Ok(Some(create_table().to_owned()));
    }
    let keys: Vec<String> = conn.exec(
        "SELECT DISTINCT index_name FROM information_schema.statistics \
         WHERE table_schema = DATABASE() AND table_name = 'alerts'",
        (),
    )?;
    Ok(alter_table(&columns, &keys))
}

/// Makes the table what it should be.
pub(super) fn migrate(options: &MySqlOptions, gate: &Gate) -> Result<(), StoreError> {
    let connecting = |err| Failure::from(err).into_store("connecting to change the table alerts");
    let mut conn = Conn::new(options.connection(Purpose::Migrate)).map_err(connecting)?;
    // The lock ends with the connection, at the end of this function at the latest.
    let locked: Option<Option<u8>> =
        conn.exec_first("SELECT GET_LOCK(LEFT(CONCAT('gopherwatch ', DATABASE()), 64), 3)", ()).map_err(connecting)?;
    if locked.flatten() != Some(1) {
        let doing = "changing the table alerts".to_owned();
        return Err(StoreError::Transient { doing, source: "another server is at it".into() });
    }
    // Asked again under the lock: another server may have done it meanwhile.
    let Some(statement) = missing(&mut conn).map_err(connecting)? else { return Ok(()) };
    gate.ask().map_err(|shut| Failure::from(shut).into_store("changing the table alerts"))?;
    let refused = |err| {
        let doing = format!("changing the table alerts; where that is refused, have this run by hand: {statement};");
        Failure::from(err).into_store(doing)
    };
    if statement.contains("MODIFY COLUMN triggered_at ") {
        // The original column could hold nothing at all, which ours cannot.
        conn.query_drop("UPDATE alerts SET triggered_at = 0 WHERE triggered_at IS NULL").map_err(refused)?;
    }
    conn.query_drop(&statement).map_err(refused)
}

fn alter_table(found: &[Found], keys: &[String]) -> Option<String> {
    let mut changes = Vec::new();
    for column in columns() {
        match found.iter().find(|found| found.name.eq_ignore_ascii_case(column.name)) {
            None => changes.push(format!("ADD COLUMN {}", column.definition)),
            Some(found) if !fits(column.definition, found) => {
                changes.push(format!("MODIFY COLUMN {}", column.definition));
            }
            Some(_) => {}
        }
    }
    for key in self::keys() {
        if !keys.iter().any(|found| found.eq_ignore_ascii_case(key.name)) {
            changes.push(format!("ADD {}", key.definition));
        }
    }
    (!changes.is_empty()).then(|| format!("ALTER TABLE alerts {}", changes.join(", ")))
}

/// Whether a column holds all that ours would. Wider ones are somebody's choice and stay.
fn fits(definition: &str, found: &Found) -> bool {
    let wanted = definition.split_once(' ').map_or("", |(_, rest)| rest).to_ascii_lowercase();
    let actual = found.type_name.to_ascii_lowercase();
    if let Some(wanted_chars) = varchar_chars(&wanted) {
        // Names that differ in case or accent are different names, and an emoji is a character.
        let exact = found.collation.starts_with("utf8mb4") && found.collation.ends_with("_bin");
        return exact && varchar_chars(&actual).is_none_or(|chars| chars >= wanted_chars);
    }
    if wanted.starts_with("bigint unsigned") {
        return actual.starts_with("bigint") && actual.contains("unsigned");
    }
    if wanted.starts_with("double") {
        return actual.starts_with("double");
    }
    if wanted.starts_with("timestamp(6)") {
        return actual.ends_with("(6)");
    }
    // The other types occur in no table but ours.
    true
}

fn varchar_chars(type_name: &str) -> Option<u32> {
    type_name.strip_prefix("varchar(")?.split_once(')')?.0.parse().ok()
}

fn create_table() -> &'static str {
    let start = SCHEMA.find("CREATE TABLE").unwrap_or(SCHEMA.len());
    SCHEMA[start..].trim_end().trim_end_matches(';')
}

/// The lines between the parentheses.
fn parts() -> impl Iterator<Item = &'static str> {
    create_table()
        .lines()
        .skip(1)
        .map(|line| line.trim().trim_end_matches(','))
        .take_while(|line| !line.starts_with(')'))
        .filter(|line| !line.is_empty())
}

fn columns() -> impl Iterator<Item = Part> {
    parts().filter(|line| !line.contains("KEY ")).filter_map(|definition| {
        let (name, _) = definition.split_once(' ')?;
        Some(Part { name, definition })
    })
}

/// The keys but for the primary one, which every table of alerts has had.
fn keys() -> impl Iterator<Item = Part> {
    parts().filter(|line| line.contains("KEY ") && !line.starts_with("PRIMARY")).filter_map(|definition| {
        let (_, rest) = definition.split_once("KEY ")?;
        let (name, _) = rest.split_once(' ')?;
        Some(Part { name, definition })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, type_name: &str, collation: &str) -> Found {
        Found { name: name.to_owned(), type_name: type_name.to_owned(), collation: collation.to_owned() }
    }

    fn ours() -> Vec<Found> {
        columns()
            .map(|part| {
                let type_name = part.definition.split_whitespace().nth(1).expect("a type");
                let unsigned = if part.definition.contains("UNSIGNED") { " unsigned" } else { "" };
                found(part.name, &format!("{type_name}{unsigned}"), "utf8mb4_bin")
            })
            .collect()
    }

    fn our_keys() -> Vec<String> {
        keys().map(|key| key.name.to_owned()).collect()
    }

    #[test]
    fn the_schema_file_reads_as_columns_and_keys() {
        let names: Vec<_> = columns().map(|part| part.name).collect();
        assert_eq!(names[..5], ["id", "service_name", "metric", "metric_value", "triggered_at"]);
        assert_eq!((names.len(), names.last()), (24, Some(&"firing")));
        assert_eq!(our_keys()[..4], ["alert_id", "idx_service_time", "idx_time", "idx_open"]);
        assert!(create_table().ends_with("COLLATE utf8mb4_bin"));
    }

    #[test]
    fn a_table_that_is_right_or_wider_needs_nothing() {
        assert_eq!(alter_table(&ours(), &our_keys()), None);
        let mut wider = ours();
        wider[2].type_name = "varchar(500)".to_owned();
        wider[0].type_name = "bigint(20) unsigned".to_owned();
        wider.push(found("remark", "text", ""));
        assert_eq!(alter_table(&wider, &our_keys()), None);
    }

    #[test]
    fn what_is_missing_or_too_narrow_is_named_in_one_alter() {
        let mut columns = ours();
        columns.retain(|column| column.name != "version");
        columns[3].type_name = "float".to_owned();
        columns[1].collation = "utf8mb4_general_ci".to_owned();
        let statement = alter_table(&columns, &["alert_id".to_owned()]).expect("a change");
        assert!(statement.starts_with("ALTER TABLE alerts MODIFY COLUMN service_name VARCHAR(255)"), "{statement}");
        assert!(statement.contains("MODIFY COLUMN metric_value DOUBLE NOT NULL"), "{statement}");
        assert!(statement.contains("ADD COLUMN version INT UNSIGNED NOT NULL DEFAULT 0"), "{statement}");
        assert!(statement.contains("ADD KEY idx_open (resolved_at)"), "{statement}");
        assert!(!statement.contains("ADD UNIQUE"), "{statement}");
    }
}
