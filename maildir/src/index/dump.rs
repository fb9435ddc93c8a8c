//! A database as SQL: what a fixture of a stored format is. Only tests read it, of the index here and of the client's archive.

use rusqlite::Connection;

/// Everything in a database, in a form that SQLite reads back.
pub(crate) fn dump(db: &Connection) -> rusqlite::Result<String> {
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let mut text = format!("PRAGMA user_version = {version};\n");
    let sql =
        "SELECT name, type, sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%'";
    let mut objects = db.prepare(sql)?;
    let mut objects = objects.query([])?;
    while let Some(object) = objects.next()? {
        let (name, kind, sql): (String, String, String) =
            (object.get(0)?, object.get(1)?, object.get(2)?);
        text.push_str(&format!("{sql};\n"));
        if kind == "table" {
            text.push_str(&rows(db, &name)?);
        }
    }
    Ok(text)
}

fn rows(db: &Connection, table: &str) -> rusqlite::Result<String> {
    let sql =
        "SELECT group_concat('quote(' || name || ')', ' || '', '' || ') FROM pragma_table_info(?1)";
    let columns: String = db.query_row(sql, [table], |row| row.get(0))?;
    let sql = format!(
        "SELECT 'INSERT INTO {table} VALUES (' || {columns} || ');' FROM {table} ORDER BY 1"
    );
    let mut lines = db.prepare(&sql)?;
    let lines = lines.query_map([], |row| row.get::<_, String>(0))?;
    lines.map(|line| Ok(line? + "\n")).collect()
}
