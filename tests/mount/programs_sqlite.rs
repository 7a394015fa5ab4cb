//! SQLite, with its rollback journal and with a write-ahead log in shared memory.

use crate::common::{Mount, TestServer, has_program};

/// Makes a database, changes it, rolls a change back, deletes and checks.
const WORK: &str = r#"
create table t(id integer primary key, body blob);
begin; with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)
insert into t select i, randomblob(500) from n; commit;
create index by_body on t(body);
begin; delete from t; rollback;
update t set body = zeroblob(700) where id % 3 = 0;
delete from t where id % 5 = 0;
vacuum;
pragma integrity_check;
select count(*) from t;
"#;

#[test]
fn sqlite_keeps_a_database_with_a_rollback_journal() {
    work_in_mode("delete");
}

#[test]
fn sqlite_keeps_a_database_with_a_persistent_journal() {
    work_in_mode("persist");
}

#[test]
fn sqlite_keeps_a_database_with_a_write_ahead_log() {
    work_in_mode("wal");
}

fn work_in_mode(journal: &str) {
    if !has_program("sqlite3") {
        return;
    }
    let server = TestServer::start();
    let mut mount = server.mount();
    let said = sqlite(&mount, &format!("pragma journal_mode={journal}; {WORK}"));
    assert_eq!(said, format!("{journal}\nok\n1600"));
    mount.remount();
    assert_eq!(sqlite(&mount, "pragma integrity_check; select count(*), sum(id) from t;"), "ok\n1600|1600000");
    sqlite(&mount, "insert into t values(100000, 'last');");
    mount.unmount();
    // The object, taken by another S3 client, is the database.
    let copy = mount.local().join("copy.db");
    std::fs::write(&copy, server.objects().get("data.db").expect("the database's object")).expect("a local copy");
    mount.mount_again();
    let said = mount.sh("sqlite3 $LOCAL/copy.db 'pragma integrity_check; select count(*) from t;'");
    assert_eq!(said, "ok\n1601");
}

#[test]
fn two_processes_share_one_database() {
    if !has_program("sqlite3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    sqlite(&mount, "create table t(n integer);");
    mount.sh(
        "for p in 1 2; do (for i in $(seq 15); do sqlite3 -cmd '.timeout 60000' data.db \"insert into t values($i);\"; \
         done) & done; wait",
    );
    assert_eq!(sqlite(&mount, "pragma integrity_check; select count(*), sum(n) from t;"), "ok\n30|240");
}

#[track_caller]
fn sqlite(mount: &Mount, statements: &str) -> String {
    std::fs::write(mount.local().join("sql"), statements).expect("a file of statements");
    mount.sh("sqlite3 -bail data.db < $LOCAL/sql")
}
