//! Small files fetched ahead: what it costs, who gets it, and that what it brings is never older than an open may believe.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::*;
use crate::error::Error;
use crate::fs::RenameMode;
use crate::store::Attributes;
use crate::transfer::tests::fake::{Call, Fault};

/// Bytes of each file.
const SIZE: usize = 4096;

fn body(number: usize) -> Vec<u8> {
    vec![number as u8; SIZE]
}

/// `count` files in the directory `d`, which has been listed; its number and the files' names.
async fn listed(rig: &Rig, count: usize) -> (Ino, Vec<String>) {
    for number in 0..count {
        rig.store.set(&format!("p/d/{number:04}"), body(number));
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let names = rig.names(dir).await;
    assert_eq!(names.len(), count);
    rig.store.take_calls();
    (dir, names)
}

/// Looks a file up, opens it, reads it to its end, closes it: what every program does.
async fn cat(rig: &Rig, dir: Ino, name: &str) -> Vec<u8> {
    let ino = rig.ino(dir, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    rig.read(ino).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Opens files in order until the two after them have been fetched ahead; gives the number of the next one.
async fn begin(rig: &Rig, dir: Ino, names: &[String]) -> usize {
    for (number, name) in names.iter().enumerate().take(20) {
        assert_eq!(cat(rig, dir, name).await, body(number));
        let mut looks = 0;
        while number >= 3 && looks < 20 {
            if rig.store.gets().len() >= number + 3 {
                return number + 1;
            }
            looks += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    panic!("nothing is fetched ahead");
}

#[tokio::test]
async fn files_opened_in_listing_order_cost_one_request_each_many_at_once() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 300).await;
    for (number, name) in names.iter().enumerate() {
        assert_eq!(cat(&rig, dir, name).await, body(number), "{name}");
    }
    // On a machine that stands still for a second some come too late.
    let gets = rig.store.count(Call::Get);
    assert!((300..=330).contains(&gets), "{gets} GETs for 300 files");
    let others = rig.store.take_calls().iter().filter(|call| **call != Call::Get).count();
    assert!(others <= 3, "{others} requests beside the GETs");
    let at_once = rig.store.most_gets_at_once.load(Ordering::Relaxed);
    assert!(at_once >= 16, "at most {at_once} requests at once");
    assert_eq!(rig.fs.ahead.len(), 0);
}

#[tokio::test]
async fn what_was_fetched_ahead_goes_with_all_that_is_kept() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 100).await;
    let next = begin(&rig, dir, &names).await;
    let name = names.get(next).expect("there are more");
    rig.store.set(&format!("p/d/{name}"), body(200));
    rig.fs.drop_caches();
    assert_eq!(rig.fs.ahead.len(), 0);
    assert_eq!(cat(&rig, dir, name).await, body(200), "what was fetched before it was dropped");
}

#[tokio::test]
async fn files_opened_by_inode_number_are_fetched_ahead_too() {
    let rig = Rig::new().await;
    let (dir, mut names) = listed(&rig, 300).await;
    // As cp(1) does.
    let number =
        |name: &String| rig.fs.table.number_of(dir, &crate::types::Name::parse(name.as_bytes()).expect("a name"));
    names.sort_by_key(number);
    for name in &names {
        assert_eq!(cat(&rig, dir, name).await, body(name.parse().expect("a number")), "{name}");
    }
    let gets = rig.store.count(Call::Get);
    assert!(gets <= 340, "{gets}");
    assert!(rig.store.most_gets_at_once.load(Ordering::Relaxed) >= 16);
}

#[tokio::test]
async fn a_directory_after_one_read_in_order_is_trusted_from_its_first_file() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 100).await;
    for name in &names {
        cat(&rig, dir, name).await;
    }
    (0..6).for_each(|number| _ = rig.store.set(&format!("p/e/{number:04}"), body(number)));
    let next = rig.ino(Ino::ROOT, "e").await.expect("a directory");
    let names = rig.names(next).await;
    rig.store.take_calls();
    for name in &names {
        cat(&rig, next, name).await;
    }
    let calls = rig.store.take_calls();
    let heads = calls.iter().filter(|call| **call == Call::Head).count();
    assert_eq!((calls.len(), heads), (7, 1), "{calls:?}");
}

#[tokio::test]
async fn files_opened_in_no_order_cost_no_more_than_the_share() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 200).await;
    for step in 0..200 {
        let number = step * 77 % 200;
        assert_eq!(cat(&rig, dir, &names[number]).await, body(number));
    }
    // Now and then two are in order by chance.
    let gets = rig.store.count(Call::Get);
    assert!(gets <= 216, "{gets} GETs for 200 files");
}

#[tokio::test]
async fn a_listing_whose_every_guess_is_wrong_costs_no_more_than_the_allowance() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 1000).await;
    // Two in order, then far away: each pair is a wrong hint.
    for step in 0..240 {
        let number = step * 37 % 990;
        cat(&rig, dir, &names[number]).await;
        cat(&rig, dir, &names[number + 1]).await;
    }
    until("the guesses are given up", || rig.fs.ahead.len() == 0).await;
    let (gets, opens) = (rig.store.count(Call::Get), 480);
    assert!(gets <= opens + opens / 4 + 64, "{gets} GETs for {opens} files");
}

#[tokio::test]
async fn writers_get_nothing_fetched_ahead() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 20).await;
    for name in &names {
        let ino = rig.ino(dir, name).await.expect("a file");
        let fh = rig.open(ino, WRITE).await;
        assert_eq!(rig.fs.ahead.len(), 0);
        rig.close(fh).await.expect("a close");
    }
    assert_eq!(rig.store.most_gets_at_once.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn nothing_is_fetched_ahead_when_nothing_may_be_believed() {
    let rig = Rig::with(no_cache()).await;
    let (dir, names) = listed(&rig, 20).await;
    for (number, name) in names.iter().enumerate() {
        assert_eq!(cat(&rig, dir, name).await, body(number));
    }
    assert_eq!(rig.store.count(Call::Get), 20);
    assert_eq!(rig.store.most_gets_at_once.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn large_and_archived_files_are_never_fetched_ahead() {
    let rig = Rig::new().await;
    let archived = Attributes { storage_class: Some("GLACIER".into()), ..Attributes::default() };
    let now = std::time::SystemTime::now();
    rig.store.set("p/d/0004-large", vec![0; (1 << 20) + 1]);
    rig.store.set_with("p/d/0005-archived", Bytes::from(body(5)), &archived, now);
    let dir = rig.ino(Ino::ROOT, "d").await;
    assert!(dir.is_ok());
    (0..8).for_each(|number| _ = rig.store.set(&format!("p/d/{number:04}"), body(number)));
    let dir = dir.expect("a directory");
    let names: Vec<String> = rig.names(dir).await.into_iter().filter(|name| name.len() == 4).collect();
    for (number, name) in names.iter().enumerate() {
        assert_eq!(cat(&rig, dir, name).await, body(number));
    }
    let gets = rig.store.gets();
    assert!(gets.len() == 8 && gets.iter().all(|get| get.len() == SIZE as u64), "{gets:?}");
}

#[tokio::test]
async fn a_file_replaced_by_another_client_is_not_read_old_once_the_second_is_over() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 40).await;
    let next = begin(&rig, dir, &names).await;
    for number in next..40 {
        rig.store.set(&format!("p/d/{number:04}"), "new");
    }
    until("what was fetched is given up", || rig.fs.ahead.len() == 0).await;
    for name in &names[next..] {
        assert_eq!(cat(&rig, dir, name).await, b"new", "{name}");
    }
}

#[tokio::test]
async fn a_file_that_went_after_it_was_fetched_is_gone_once_the_second_is_over() {
    let short = Freshness { dir_min: Duration::ZERO, ..Freshness::default() };
    let rig = Rig::with(FsSettings { freshness: short, ..settings() }).await;
    let (dir, names) = listed(&rig, 40).await;
    let next = begin(&rig, dir, &names).await;
    rig.store.remove(&format!("p/d/{}", names[next]));
    until("what was fetched is given up", || rig.fs.ahead.len() == 0).await;
    assert!(matches!(rig.ino(dir, &names[next]).await, Err(Error::NotFound)));
}

/// A mount that believes no listing: what was fetched ahead is then all that there is. Gives the names of two such files.
async fn begun_without_listings() -> (Rig, Ino, [String; 2]) {
    let believing = Freshness { dir_min: Duration::ZERO, negative: Duration::ZERO, ..Freshness::default() };
    let rig = Rig::with(FsSettings { freshness: believing, ..settings() }).await;
    let (dir, names) = listed(&rig, 40).await;
    let next = begin(&rig, dir, &names).await;
    (rig, dir, [names[next].clone(), names[next + 1].clone()])
}

#[tokio::test]
async fn what_was_fetched_is_not_used_after_a_change_made_here() {
    let (rig, dir, [first, second]) = begun_without_listings().await;
    rig.put(dir, "other", b"moved").await;
    rig.fs.rename(dir, b"other", dir, first.as_bytes(), RenameMode::Replace).await.expect("a rename");
    assert_eq!(cat(&rig, dir, &first).await, b"moved");
    let ino = rig.ino(dir, &second).await.expect("a file");
    let fh = rig.open(ino, TRUNCATE).await;
    rig.fs.write(fh, 0, b"changed").await.expect("a write");
    assert_eq!(rig.read(ino).await.expect("a read"), b"changed");
    rig.close(fh).await.expect("a close");
    assert_eq!(cat(&rig, dir, &second).await, b"changed");
}

#[tokio::test]
async fn what_was_fetched_does_not_bring_a_removed_name_back() {
    let (rig, dir, [first, second]) = begun_without_listings().await;
    let bytes = rig.object(&format!("p/d/{second}"));
    rig.fs.unlink(dir, first.as_bytes()).await.expect("an unlink");
    rig.fs.rename(dir, second.as_bytes(), dir, b"moved", RenameMode::Replace).await.expect("a rename");
    for name in [first, second] {
        assert!(matches!(rig.ino(dir, &name).await, Err(Error::NotFound)), "{name} is back");
    }
    assert_eq!(Some(cat(&rig, dir, "moved").await), bytes);
}

#[tokio::test]
async fn a_directory_renamed_after_its_files_were_fetched_is_read_where_it_is() {
    let (rig, dir, [first, _]) = begun_without_listings().await;
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("a rename");
    rig.store.set(&format!("p/e/{first}"), "new");
    assert_eq!(cat(&rig, dir, &first).await, b"new");
}

#[tokio::test]
async fn a_guess_that_fails_is_no_error_of_the_open() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 40).await;
    // The first open's own GET is answered; those of the guesses that the second begins are not.
    assert_eq!(cat(&rig, dir, &names[0]).await, body(0));
    let ino = rig.ino(dir, &names[1]).await.expect("a file");
    (0..2).for_each(|_| rig.store.next(Call::Get, Fault::Fail(Error::AccessDenied("once".into()))));
    let fh = rig.open(ino, READ).await;
    until("the guesses have failed", || rig.store.count(Call::Get) == 3 && rig.fs.ahead.len() == 0).await;
    assert_eq!(rig.fs.read(fh, 0, 1 << 20).await.expect("a read"), body(1));
    rig.close(fh).await.expect("a close");
    for (number, name) in names.iter().enumerate().skip(2) {
        assert_eq!(cat(&rig, dir, name).await, body(number));
    }
}

#[tokio::test]
async fn guesses_leave_memory_to_those_who_wait() {
    let transfer = TransferSettings { memory_limit: 64 << 10, ..TransferSettings::default() };
    let rig = Rig::with(FsSettings { transfer, ..settings() }).await;
    let (dir, names) = listed(&rig, 60).await;
    for (number, name) in names.iter().enumerate() {
        assert_eq!(cat(&rig, dir, name).await, body(number));
        assert!(rig.fs.transfer.budget().used() <= 64 << 10);
    }
    until("the memory is given back", || rig.fs.transfer.budget().used() == 0).await;
    assert_eq!(rig.store.count(Call::Get), 60);
}

#[tokio::test]
async fn empty_files_are_asked_about_ahead() {
    let rig = Rig::new().await;
    (0..60).for_each(|number| _ = rig.store.set(&format!("p/d/{number:04}"), ""));
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let names = rig.names(dir).await;
    rig.store.take_calls();
    for name in &names {
        assert_eq!(cat(&rig, dir, name).await, b"");
    }
    assert_eq!(rig.store.take_calls(), [Call::Head; 60]);
}

#[tokio::test]
async fn files_that_the_kernel_has_already_are_not_fetched_again() {
    let short = Freshness { file_min: Duration::from_millis(20), ..Freshness::default() };
    let rig = Rig::with(FsSettings { freshness: short, ..settings() }).await;
    let (dir, names) = listed(&rig, 40).await;
    let mut inos = Vec::new();
    for name in &names {
        let ino = rig.ino(dir, name).await.expect("a file");
        rig.read(ino).await.expect("a read");
        inos.push(ino);
    }
    until("what was fetched is given up", || rig.fs.ahead.len() == 0).await;
    rig.names(dir).await;
    let before: u64 = rig.store.gets().iter().map(crate::types::ByteRange::len).sum();
    for ino in inos {
        let opened = rig.fs.open(ino, READ).await.expect("an open");
        assert!(opened.keep_cache);
        rig.fs.release(opened.fh).await.expect("a close");
    }
    let after: u64 = rig.store.gets().iter().map(crate::types::ByteRange::len).sum();
    assert_eq!(after, before, "bytes that the kernel has came again");
}
