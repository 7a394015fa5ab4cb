//! Small files that come with their lookup: who gets that, what it costs, and that nobody is shown what he would not be shown
//! without it.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::error::Error;
use crate::fs::RenameMode;
use crate::inode::Kind;
use crate::store::Attributes;
use crate::transfer::tests::fake::{Call, Fault};

/// Bytes of each file.
const SIZE: usize = 4096;

fn body(number: usize) -> Vec<u8> {
    vec![number as u8; SIZE]
}

/// `count` files in the directory `d`, which is looked up, and too large to be listed for that; its number and the files' names, in
/// an order that has nothing to do with that of a listing.
async fn unlisted(rig: &Rig, count: usize) -> (Ino, Vec<String>) {
    for number in 0..count {
        rig.store.set(&format!("p/d/{number:04}"), body(number));
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let pin = rig.fs.table.get(dir).expect("it is known");
    pin.inode().lock().dir().expect("a directory").names.note_large(Instant::now(), true);
    rig.store.take_calls();
    (dir, (0..count).map(|step| format!("{:04}", step * 37 % count)).collect())
}

/// As above, and the directory has been listed without attributes.
async fn listed(rig: &Rig, count: usize) -> (Ino, Vec<String>) {
    let (dir, names) = unlisted(rig, count).await;
    assert_eq!(rig.names(dir).await.len(), count);
    rig.store.take_calls();
    (dir, names)
}

/// Looks a file up, opens it, reads it to its end, closes it.
async fn cat(rig: &Rig, dir: Ino, name: &str) {
    let ino = rig.ino(dir, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    let bytes = rig.read(ino).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(bytes, body(name.parse().expect("a number")), "{name}");
}

/// Reads files until the next ones are fetched when they are looked up; gives the rest.
async fn begin<'a>(rig: &Rig, dir: Ino, names: &'a [String]) -> &'a [String] {
    for name in &names[..3] {
        cat(rig, dir, name).await;
    }
    assert!(rig.store.count(Call::Head) <= 2, "the third is fetched");
    rig.store.take_calls();
    &names[3..]
}

async fn open_to_write(rig: &Rig, dir: Ino, name: &str) {
    let ino = rig.ino(dir, name).await.expect("a file");
    let fh = rig.open(ino, OpenIntent { access: Access::Write, ..READ }).await;
    rig.close(fh).await.expect("a close");
}

async fn until_given_up(rig: &Rig) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while rig.fs.ahead.len() > 0 {
        assert!(Instant::now() < deadline, "what was fetched stays for ever");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn counts(rig: &Rig) -> [usize; 3] {
    [Call::Get, Call::Head, Call::List].map(|call| rig.store.count(call))
}

#[tokio::test]
async fn listed_files_read_in_no_order_cost_one_request_each() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 60).await;
    for name in &names {
        cat(&rig, dir, name).await;
    }
    // On a machine that stands still for a second one comes too late.
    let [gets, heads, lists] = counts(&rig);
    assert!((60..=62).contains(&gets) && heads <= 6 && lists == 0, "{gets} GETs, {heads} HEADs, {lists} LISTs");
    assert_eq!((rig.fs.ahead.len(), rig.store.take_calls().len()), (0, gets + heads));
}

#[tokio::test]
async fn unknown_files_read_in_no_order_cost_one_round_trip_each() {
    let rig = Rig::new().await;
    let (dir, names) = unlisted(&rig, 60).await;
    for name in &names {
        cat(&rig, dir, name).await;
    }
    let [gets, heads, lists] = counts(&rig);
    assert!((60..=62).contains(&gets) && heads <= 6 && lists <= 62, "{gets} GETs, {heads} HEADs, {lists} LISTs");
}

#[tokio::test]
async fn files_that_are_only_looked_at_are_not_fetched() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 60).await;
    for name in &names {
        rig.ino(dir, name).await.expect("a file");
    }
    assert_eq!(rig.store.take_calls(), [Call::Head; 60]);
}

#[tokio::test]
async fn two_are_fetched_in_vain_when_files_are_only_looked_at_after_others_were_read() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 60).await;
    let rest = begin(&rig, dir, &names).await;
    for name in rest {
        rig.ino(dir, name).await.expect("a file");
    }
    assert_eq!(counts(&rig), [2, 55, 0]);
    until_given_up(&rig).await;
    assert_eq!(rig.fs.transfer.budget().used(), 0);
}

#[tokio::test]
async fn who_opens_for_writing_gets_what_is_there_at_the_open() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 40).await;
    let rest = begin(&rig, dir, &names).await;
    for (name, intent) in rest[..20].iter().zip([WRITE, TRUNCATE].into_iter().cycle()) {
        let ino = rig.ino(dir, name).await.expect("a file");
        let other = vec![b'o'; SIZE];
        rig.store.set(&format!("p/d/{name}"), other.clone());
        let opened = rig.fs.open(ino, intent).await;
        assert_eq!(rig.fs.ahead.len(), 0, "the writer leaves it there");
        let ino = rig.ino(dir, name).await.expect("a file");
        // The kernel opens again what it did not know the size of.
        let fh = match opened {
            Ok(opened) => opened.fh,
            Err(_) => rig.open(ino, intent).await,
        };
        rig.fs.write(fh, 0, b"mine").await.expect("a write");
        rig.close(fh).await.unwrap_or_else(|error| panic!("{name}, {intent:?}: {error}"));
        let expected = if intent.truncate { b"mine".to_vec() } else { [b"mine", &other[4..]].concat() };
        assert_eq!(rig.object(&format!("p/d/{name}")), Some(expected), "{intent:?}");
    }
}

#[tokio::test]
async fn writers_make_two_fetches_in_vain_and_then_none() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 40).await;
    let rest = begin(&rig, dir, &names).await;
    for name in rest {
        let ino = rig.ino(dir, name).await.expect("a file");
        let fh = rig.open(ino, TRUNCATE).await;
        rig.fs.write(fh, 0, b"new").await.expect("a write");
        rig.close(fh).await.expect("a close");
    }
    assert_eq!(rig.store.count(Call::Get), 2);
}

#[tokio::test]
async fn readers_among_whom_every_third_writes_go_on_to_get_theirs() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 40).await;
    let rest = begin(&rig, dir, &names).await;
    for (step, name) in rest[..15].iter().enumerate() {
        if step % 3 == 2 {
            open_to_write(&rig, dir, name).await;
        } else {
            cat(&rig, dir, name).await;
        }
    }
    // Each lookup is one GET, each open for writing one HEAD.
    assert_eq!(counts(&rig), [15, 5, 0]);
}

#[tokio::test]
async fn readers_after_writers_earn_it_again_at_once() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 40).await;
    let rest = begin(&rig, dir, &names).await;
    for name in &rest[..2] {
        open_to_write(&rig, dir, name).await;
    }
    for name in &rest[2..5] {
        cat(&rig, dir, name).await;
    }
    assert_eq!(counts(&rig), [5, 4, 0], "the last one comes with its lookup");
}

#[tokio::test]
async fn what_is_read_pays_for_what_comes_in_vain() {
    let rig = Rig::new().await;
    let large = Bytes::from(vec![1; 1 << 20]);
    (0..56).for_each(|number| _ = rig.store.set(&format!("p/d/{number:04}"), large.clone()));
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    rig.names(dir).await;
    rig.store.take_calls();
    for step in 0..56 {
        let name = format!("{:04}", step * 37 % 56);
        if step % 14 < 12 {
            let ino = rig.ino(dir, &name).await.expect("a file");
            assert!(rig.read(ino).await.expect("a read") == large, "{name}");
        } else {
            open_to_write(&rig, dir, &name).await;
        }
    }
    // In each of four rounds the first two are asked about, and the two that are opened for writing.
    assert_eq!(rig.store.count(Call::Head), 16);
}

#[tokio::test]
async fn large_empty_and_archived_files_that_were_listed_are_asked_about_only() {
    let rig = Rig::new().await;
    let archived = Attributes { storage_class: Some("DEEP_ARCHIVE".into()), ..Attributes::default() };
    rig.store.set("p/d/large", vec![0; (1 << 20) + 1]);
    rig.store.set("p/d/empty", "");
    rig.store.set_with("p/d/archived", Bytes::from(body(5)), &archived, std::time::SystemTime::now());
    let (dir, names) = unlisted(&rig, 40).await;
    rig.names(dir).await;
    begin(&rig, dir, &names).await;
    for name in ["large", "empty", "archived"] {
        rig.ino(dir, name).await.expect("a file");
        assert_eq!(rig.store.take_calls(), [Call::Head], "{name}");
    }
}

#[tokio::test]
async fn of_a_large_file_that_nobody_knew_of_no_bytes_are_kept() {
    let rig = Rig::new().await;
    rig.store.set("p/d/large", vec![7; 3 << 19]);
    let (dir, names) = unlisted(&rig, 40).await;
    begin(&rig, dir, &names).await;
    let ino = rig.ino(dir, "large").await.expect("a file");
    assert_eq!(counts(&rig), [1, 0, 1]);
    let kept = rig.fs.transfer.budget().used();
    assert!(kept <= 256 << 10, "{kept} bytes of memory");
    assert_eq!(rig.read(ino).await.expect("a read"), vec![7; 1 << 20]);
    // Its siblings are large now.
    rig.store.set("p/d/large2", vec![8; 3 << 19]);
    rig.store.take_calls();
    rig.ino(dir, "large2").await.expect("a file");
    assert_eq!(counts(&rig), [0, 1, 1]);
}

#[tokio::test]
async fn a_lookup_tells_the_attributes_that_came_with_the_bytes() {
    for is_listed in [true, false] {
        let rig = Rig::new().await;
        let pairs =
            [("file-permissions", "0100601"), ("file-owner", "77"), ("file-group", "78"), ("file-mtime", "5000")];
        let metadata: BTreeMap<_, _> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let attributes = Attributes { metadata: metadata.into_iter().collect(), ..Attributes::default() };
        rig.store.set_with("p/d/9999", Bytes::from(body(9999)), &attributes, std::time::SystemTime::now());
        let (dir, names) = unlisted(&rig, 40).await;
        if is_listed {
            rig.names(dir).await;
        }
        rig.store.take_calls();
        begin(&rig, dir, &names).await;
        let attr = rig.fs.lookup(dir, b"9999").await.expect("a file").attr;
        assert_eq!(counts(&rig)[..2], [1, 0]);
        let owned = attr.ownership;
        assert_eq!((owned.mode & 0o777, owned.uid, owned.gid, attr.size), (0o601, 77, 78, SIZE as u64));
        let mtime = owned.mtime.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        assert!([5, 5000].contains(&mtime.as_secs()), "{mtime:?}");
        assert_eq!(rig.fs.getattr(attr.ino).await.expect("attributes"), attr);
        assert_eq!(rig.read(attr.ino).await.expect("a read"), body(9999));
        assert_eq!(counts(&rig)[..2], [1, 0]);
    }
}

#[tokio::test]
async fn a_directory_wins_over_a_file_that_was_fetched_for_all_who_ask() {
    let rig = Rig::new().await;
    rig.store.set("p/d/both", "bytes");
    rig.store.set("p/d/both/below", "bytes");
    let (dir, names) = unlisted(&rig, 40).await;
    begin(&rig, dir, &names).await;
    let word = Arc::new(tokio::sync::Notify::new());
    rig.store.next(Call::List, Fault::Late(word.clone()));
    let kind = || async { rig.fs.lookup(dir, b"both").await.expect("an entry").attr.kind };
    let second = async {
        // The first one has its bytes, and waits for the listing.
        let deadline = Instant::now() + Duration::from_secs(10);
        while rig.store.count(Call::Get) == 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let second = kind().await;
        word.notify_one();
        second
    };
    let (first, second) = tokio::join!(kind(), second);
    assert_eq!((first, second), (Kind::Dir, Kind::Dir));
    assert_eq!(rig.store.count(Call::Get), 1);
}

#[tokio::test]
async fn names_that_are_not_there_cost_what_they_cost_before() {
    let rig = Rig::new().await;
    let (dir, names) = unlisted(&rig, 40).await;
    begin(&rig, dir, &names).await;
    assert!(matches!(rig.ino(dir, "absent").await, Err(Error::NotFound)));
    assert_eq!(counts(&rig), [1, 0, 1]);
    cat(&rig, dir, &names[3]).await;
    assert_eq!(counts(&rig), [2, 0, 2], "a name that is not there says nothing of those that are");
}

#[tokio::test]
async fn a_listed_file_that_went_is_not_there() {
    let rig = Rig::new().await;
    let (dir, names) = listed(&rig, 40).await;
    let rest = begin(&rig, dir, &names).await;
    rig.store.remove(&format!("p/d/{}", rest[0]));
    assert!(matches!(rig.ino(dir, &rest[0]).await, Err(Error::NotFound)));
    cat(&rig, dir, &rest[1]).await;
}

#[tokio::test]
async fn an_answer_that_fails_is_no_error_of_the_lookup() {
    for is_listed in [true, false] {
        let rig = Rig::new().await;
        let (dir, names) = unlisted(&rig, 40).await;
        if is_listed {
            rig.names(dir).await;
        }
        rig.store.take_calls();
        let rest = begin(&rig, dir, &names).await;
        rig.store.next(Call::Get, Fault::Fail(Error::AccessDenied("once".into())));
        let ino = rig.ino(dir, &rest[0]).await.expect("a file");
        assert_eq!(counts(&rig)[..2], [1, 1]);
        rig.store.take_calls();
        rig.ino(dir, &rest[1]).await.expect("a file");
        assert_eq!(counts(&rig)[..2], [0, 1], "it is not tried again at once");
        assert_eq!(rig.read(ino).await.expect("a read"), body(rest[0].parse().expect("a number")));
    }
}

/// A lookup that brought the bytes of a file; gives the directory, the file's name and its number.
async fn fetched(rig: &Rig) -> (Ino, String, Ino) {
    let (dir, names) = listed(rig, 40).await;
    let name = begin(rig, dir, &names).await[0].clone();
    let ino = rig.ino(dir, &name).await.expect("a file");
    assert_eq!((counts(rig), rig.fs.ahead.len()), ([1, 0, 0], 1));
    (dir, name, ino)
}

#[tokio::test]
async fn a_file_replaced_after_its_lookup_is_read_as_one_version_and_as_the_new_one_once_the_second_is_over() {
    let rig = Rig::new().await;
    let (dir, name, ino) = fetched(&rig).await;
    rig.store.set(&format!("p/d/{name}"), "new");
    assert_eq!(rig.read(ino).await.expect("a read"), body(name.parse().expect("a number")));
    assert_eq!(counts(&rig), [1, 0, 0]);

    let rig = Rig::new().await;
    let (_, other, ino) = fetched(&rig).await;
    assert_eq!(other, name);
    rig.store.set(&format!("p/d/{name}"), vec![b'n'; SIZE]);
    until_given_up(&rig).await;
    let bytes = match rig.read(ino).await {
        // The kernel looks the name up again when it does not know of the version.
        Err(Error::Stale) => {
            let ino = rig.ino(dir, &name).await.expect("a file");
            rig.read(ino).await
        }
        done => done,
    };
    assert_eq!(bytes.expect("a read"), vec![b'n'; SIZE]);
}

#[tokio::test]
async fn a_file_deleted_after_its_lookup_is_stale_once_the_second_is_over() {
    let rig = Rig::new().await;
    let (_, name, ino) = fetched(&rig).await;
    rig.store.remove(&format!("p/d/{name}"));
    until_given_up(&rig).await;
    assert!(matches!(rig.read(ino).await, Err(Error::Stale)));
}

#[tokio::test]
async fn what_was_fetched_is_not_shown_after_a_change_made_here() {
    let rig = Rig::new().await;
    let (dir, name, _) = fetched(&rig).await;
    rig.put(dir, "other", b"moved").await;
    rig.fs.rename(dir, b"other", dir, name.as_bytes(), RenameMode::Replace).await.expect("a rename");
    let ino = rig.ino(dir, &name).await.expect("a file");
    assert_eq!(rig.read(ino).await.expect("a read"), b"moved");

    let rig = Rig::new().await;
    let (dir, name, ino) = fetched(&rig).await;
    rig.fs.rename(dir, name.as_bytes(), dir, b"moved", RenameMode::Replace).await.expect("a rename");
    rig.store.set("p/d/moved", "another client's");
    until_given_up(&rig).await;
    assert!(matches!(rig.ino(dir, &name).await, Err(Error::NotFound)));
    let bytes = match rig.read(ino).await {
        Err(Error::Stale) => rig.read(rig.ino(dir, "moved").await.expect("a file")).await,
        done => done,
    };
    assert_eq!(bytes.expect("a read"), b"another client's");

    let rig = Rig::new().await;
    let (dir, name, _) = fetched(&rig).await;
    rig.fs.unlink(dir, name.as_bytes()).await.expect("an unlink");
    assert!(matches!(rig.ino(dir, &name).await, Err(Error::NotFound)));
}

#[tokio::test]
async fn what_comes_with_a_lookup_stays_within_the_memory() {
    let limit = 64 << 10;
    let transfer = TransferSettings { memory_limit: limit, ..TransferSettings::default() };
    let rig = Rig::with(FsSettings { transfer, ..settings() }).await;
    let (dir, names) = unlisted(&rig, 60).await;
    for name in &names {
        cat(&rig, dir, name).await;
        assert!(rig.fs.transfer.budget().used() <= limit);
    }
    assert_eq!(rig.store.count(Call::Get), 60);
}

#[tokio::test]
async fn nothing_comes_with_a_lookup_where_nothing_is_read_ahead() {
    let transfer = TransferSettings { read_ahead: 0, ..TransferSettings::default() };
    for settings in [no_cache(), FsSettings { transfer, ..settings() }] {
        let rig = Rig::with(settings).await;
        let (dir, names) = unlisted(&rig, 20).await;
        for name in &names {
            cat(&rig, dir, name).await;
        }
        let [gets, heads, _] = counts(&rig);
        assert!(gets == 20 && heads >= 20, "{gets} GETs, {heads} HEADs");
    }
}

#[tokio::test]
async fn threads_that_read_unknown_files_at_once_get_them_with_few_heads() {
    let rig = Rig::new().await;
    let (dir, names) = unlisted(&rig, 200).await;
    for eight in names.chunks(8) {
        futures_util::future::join_all(eight.iter().map(|name| cat(&rig, dir, name))).await;
    }
    let [gets, heads, _] = counts(&rig);
    assert!((200..=204).contains(&gets) && heads <= 50, "{gets} GETs, {heads} HEADs");
}
